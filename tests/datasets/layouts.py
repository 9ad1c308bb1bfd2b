"""Tiny folders in a publisher's layout, for the tests of data sets as published."""

import gzip

import numpy as np
from PIL import Image

FINDINGS = (
    "No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,Edema,"
    "Consolidation,Pneumonia,Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,"
    "Support Devices"
)


def write_text(path, lines):
    """A text file, gzipped where its name says so; folders above it are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "\n".join(lines) + "\n"
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def write_image(path, seed, shape=(20, 24)):
    """A smooth image that differs with the seed, PNG or JPEG by its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, *shape[2:]), dtype=np.uint8)
    Image.fromarray(coarse).resize(shape[1::-1], Image.Resampling.BICUBIC).save(path)
    return path


CHEXPERT_TRAIN = [
    # Path, Sex, Age, Frontal/Lateral, AP/PA, then the 14 findings as the publisher writes them
    "train/patient00001/study1/view1_frontal.jpg,Female,68,Frontal,AP,1.0,,,,,,,,,0.0,,,,1.0",
    "train/patient00002/study2/view1_frontal.jpg,Female,87,Frontal,AP,"
    ",,-1.0,1.0,,-1.0,-1.0,,-1.0,,-1.0,,1.0,",
    "train/patient00002/study1/view1_frontal.jpg,Female,83,Frontal,PA,,,,1.0,,,-1.0,,,,,,1.0,",
    "train/patient00002/study1/view2_lateral.jpg,Female,83,Lateral,,,,,1.0,,,-1.0,,,,,,1.0,",
    "train/patient00003/study1/view1_frontal.jpg,Male,41,Frontal,AP,,,,,,1.0,,,,0.0,,,,",
    "train/patient00004/study1/view1_frontal.jpg,Unknown,19,Frontal,LL,,1.0,,,,0.0,1.0,,,,,,,",
    "train/patient00005/study1/view1_frontal.jpg,Male,,Frontal,RL,,,1.0,0.0,,1.0,0.0,,,,,,,",
]
CHEXPERT_VALID = [
    "valid/patient64541/study1/view1_frontal.jpg,Male,73,Frontal,AP,"
    "0.0,1.0,1.0,1.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0",
    "valid/patient64542/study1/view1_frontal.jpg,Male,20,Frontal,PA,"
    "0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,1.0",
    "valid/patient64542/study1/view2_lateral.jpg,Male,20,Lateral,,"
    "0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,1.0",
]
CHEXPERT_DEMO = [
    "PATIENT,GENDER,AGE_AT_CXR,PRIMARY_RACE,ETHNICITY",
    'patient00001,Female,68,"White, non-Hispanic",Non-Hispanic/Non-Latino',
    "patient00002,Female,87,Black or African American,Non-Hispanic/Non-Latino",
    "patient00003,Male,41,Race and Ethnicity Unknown,Unknown",
    "patient00004,Female,19,Native Hawaiian or Other Pacific Islander,Unknown",
    'patient64541,Male,73,"Asian, non-Hispanic",Not Hispanic',
    "patient64542,Male,20,Other,Hispanic/Latino",
    "patient99999,Male,20,White,Hispanic/Latino",
]


def write_chexpert(folder, name="CheXpert-v1.0-small", demo=CHEXPERT_DEMO):
    """CheXpert in `folder`: 10 images of 7 patients; `name` stands before every path."""
    header = f"Path,Sex,Age,Frontal/Lateral,AP/PA,{FINDINGS}"
    parts = {"train": CHEXPERT_TRAIN, "valid": CHEXPERT_VALID}
    for split, lines in parts.items():
        write_text(folder / f"{split}.csv", [header, *(f"{name}/{line}" for line in lines)])
        for i, line in enumerate(lines):
            write_image(folder / line.split(",")[0], 100 * (split == "valid") + i)
    if demo:
        write_text(folder / "CHEXPERT_DEMO.csv", demo)
    return folder
