"""Readers of configurations, tables, arrays, images, signals and published data sets."""

import contextlib
import gzip
import importlib
import io
import json
import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from confide._tables import read_table
from confide.config import CodesConfig, Config, load_as
from confide.datasets import CheXpert, Ecg, FairVision, Images, MimicIvEd, PtbXl, Table, cache_index
from confide.datasets.image_files import decoded, look, naming
from confide.datasets.reading import each
from confide.datasets.wfdb import read_signals
from confide.errors import ConfideError
from confide.runs.model_settings import ModelConfig
from fuzzing.reader import Reader

sys.path.insert(0, str(Path(__file__).parents[1] / "datasets"))  # tests are imported from files
from dicom_files import dataset, save
from layouts import write_chexpert
from wfdb_files import LEADS, ecgs, write_record

EXAMPLES = Path(__file__).parents[2] / "examples"
RNG_SEED = 0

FULL = """\
data: {name: images, path: records.csv, images: images, patient: pid, label: view, groups: [sex],
  size: [16, 16], channels: auto, test: {column: split, value: test}, record: rid}
train:
  model: {name: wrn, width: 1}
  epochs: 3
  augment: weak
audit: {n_models: 32, fraction: 0.5, attacks: [lira, rmia], fdr: 0.1, until: se=0.05}
encode: {name: neuracrypt, patch: 8, width: 64, private_depth: 2}
attack: {knowledge: pairs, known_share: 0.5, gate: {reid: 0.05}}
performance: {device: cpu}
"""


def write_configs(folder):
    (folder / "full.yaml").write_text(FULL)
    for name in ("phantom_attack", "diabetes130_dp_patient", "dicom_samples", "embedded"):
        copy_example(name)(folder)


def copy_example(name):
    text = (EXAMPLES / f"{name}.yaml").read_text().replace("${CONFIDE_DATA}", "data")
    return lambda folder: (folder / f"{name}.yaml").write_text(text)


def settings(kind):
    return lambda path: load_as(kind, path)


def frame(n=24):
    rng = np.random.default_rng(RNG_SEED)
    number = np.arange(n)
    return pd.DataFrame(
        {
            "pid": [f"{i // 2:03d}" for i in number],
            "rid": [f"r{i}" for i in number],
            "age": rng.integers(20, 90, n),
            "weight": rng.normal(70, 9, n).round(2),
            "smoker": np.where(number % 3, "no", "yes"),
            "edema": np.where(number % 5, number % 2, np.nan),
            "sex": np.where(number // 2 % 2, "f", "m"),
            "split": np.where(number // 2 % 4, "train", "test"),
        }
    )


def write_csv(folder):
    frame().to_csv(folder / "t.csv", index=False)


def write_gzip(folder):
    text = frame().to_csv(index=False)
    (folder / "t.csv").write_bytes(gzip.compress(text.encode(), mtime=0))


def write_parquet(folder):
    frame().to_parquet(folder / "t.csv", index=False)


def read_as_table(folder):
    for label in ("smoker", ["edema"], {"age": [40, 60]}):
        with contextlib.suppress(ConfideError):  # one refuses: the others go on
            Table(path="t.csv", patient="pid", label=label, groups={"sex": [], "age": [50]},
                  record="rid", test={"column": "split", "value": "test"}).load(folder)  # fmt: skip
    Table(path="t.csv", patient="pid", label="smoker").load(folder)
    read_table(folder / "t.csv")


def pictures(shape=(12, 9), dtype=np.uint8):
    rng = np.random.default_rng(RNG_SEED)
    return rng.integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


def write_image(form, mode):
    def write(folder):
        shape = (24, 18, 3) if mode == "RGB" else (24, 18)
        image = Image.fromarray(pictures(shape, np.uint16 if mode == "I;16" else np.uint8))
        if mode in ("P", "1", "LA"):
            image = image.convert(mode)
        options = {"exif": b"Exif\0\0II*\0\x08\0\0\0\0\0"} if form == "JPEG" else {}
        image.save(folder / "image", form, **options)

    return write


def write_images(folder):
    """Every form of PNG, JPEG and TIFF that is read."""
    for i, (form, mode) in enumerate(
        [
            *(("PNG", m) for m in ("L", "RGB", "P", "1", "LA", "I;16")),
            *(("TIFF", m) for m in ("L", "RGB", "P", "I;16")),
            *(("JPEG", m) for m in ("L", "RGB")),
        ]
    ):
        (folder / f"{i}").mkdir()
        write_image(form, mode)(folder / f"{i}")
    packed = Image.fromarray(pictures((24, 18, 3)))
    for i, how in enumerate(("tiff_lzw", "packbits", "tiff_adobe_deflate"), start=20):
        (folder / f"{i}").mkdir()
        packed.save(folder / f"{i}/image", "TIFF", compression=how)
    Image.fromarray(pictures((24, 18))).save(folder / "20/more", "JPEG", progressive=True)


def write_arrays(folder):
    np.save(folder / "a.npy", pictures())
    np.save(folder / "b.npy", pictures((3, 12, 9)))
    np.save(folder / "c.npy", np.asfortranarray(pictures((12, 9), np.uint16)))
    np.savez(folder / "d.npz", image=pictures(), other=np.arange(3))
    np.savez_compressed(folder / "e.npz", image=pictures((12, 9, 3)))


def write_dicoms(folder):
    from pydicom.uid import (
        ImplicitVRLittleEndian,
        JPEG2000Lossless,
        JPEGBaseline8Bit,
        RLELossless,
    )

    grey = pictures((64, 64), np.uint16) // 16
    window = {"WindowCenter": 1000, "WindowWidth": 500, "RescaleSlope": 2, "RescaleIntercept": -3}
    save(folder / "a.dcm", dataset(grey, bits=12, **window))
    save(folder / "b.dcm", dataset(grey.astype(np.int16), syntax=ImplicitVRLittleEndian))
    save(
        folder / "c.dcm",
        dataset(pictures((24, 18, 3)), photometric="RGB", BurnedInAnnotation="YES"),
    )
    made = dataset(pictures((24, 18)))
    made.compress(RLELossless)
    save(folder / "d.dcm", made)
    made = dataset(grey, bits=12)
    made.compress(JPEG2000Lossless)
    save(folder / "e.dcm", made)
    from pydicom.encaps import encapsulate

    stream = io.BytesIO()
    Image.fromarray(pictures((24, 18))).save(stream, "JPEG")
    made = dataset(pictures((24, 18)))
    made.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    made.PixelData = encapsulate([stream.getvalue()])
    made["PixelData"].is_undefined_length = True
    save(folder / "f.dcm", made)
    lut = dataset(pictures((24, 18)), photometric="PALETTE COLOR")
    for colour in ("Red", "Green", "Blue"):
        setattr(lut, f"{colour}PaletteColorLookupTableDescriptor", [256, 0, 16])
        setattr(lut, f"{colour}PaletteColorLookupTableData", bytes(range(256)) * 2)
    save(folder / "g.dcm", lut)


def read_picture(path):
    def one(row):
        with naming(row, path):
            return look(path), decoded(path, (8, 8), "auto").shape

    list(each(one, [0]))


def write_source(folder):
    table = frame(8)
    table["image"] = [f"{i}.png" for i in range(8)]
    (folder / "images").mkdir()
    for i in range(8):
        Image.fromarray(pictures((12, 9)) + i).save(folder / f"images/{i}.png")
    table.to_csv(folder / "t.csv", index=False)


def images_of(**more):
    return Images(path="t.csv", images="images", patient="pid", label="smoker", size=(8, 8), **more)


def read_source(folder):
    images_of().load(folder)


def write_array_source(folder):
    frame(8).to_csv(folder / "t.csv", index=False)
    np.savez_compressed(folder / "all.npz", x=pictures((8, 12, 9)), y=np.arange(8))


def write_ecgs(folder):
    frame(8).to_csv(folder / "t.csv", index=False)
    np.save(folder / "all.npy", pictures((8, 20, 3)).astype(np.float32))


def read_array_source(folder):
    Images(path="t.csv", array="all.npz", array_key="x", patient="pid", label="smoker",
           size=(8, 8)).load(folder)  # fmt: skip


def write_cache(folder):
    write_source(folder)
    (folder / "kept").mkdir(mode=0o700)
    images_of(cache="kept").load(folder)


def read_cache(folder):
    images_of(cache="kept").load(folder)


def seal_cache(folder):
    """Checksums of the lines of an index that fit what they say now."""
    (path,) = (folder / "kept").glob("*.jsonl")
    lines = []
    for line in path.read_bytes().splitlines():
        said = json.loads(re.sub(rb',"check":"\w*"}$', b"}", line))
        lines.append(cache_index._line(said))
    path.write_bytes(b"".join(lines))


def write_wfdb(folder):
    steps = ecgs(np.random.default_rng(RNG_SEED), 2, n_samples=40, n_leads=3)
    write_record(folder / "a", steps[0], names=LEADS[:3])
    write_record(folder / "b", steps[1] // 2, names=LEADS[:3], form=212, gain="200(3)/uV")


def read_wfdb(path):
    read_signals(path.with_suffix(".hea"))


def published(module, write, source):
    """A published data set, written as its own tests write it."""

    def make(folder):
        write(importlib.import_module(module), folder)

    return {"make": make, "read": lambda folder: source(folder).load(), "tries": 5}


READERS = [
    Reader(name="configuration", make=write_configs, read=settings(Config), alone=True, weight=10),
    Reader(
        name="configuration of codes",
        make=copy_example("phantom_train"),
        read=settings(CodesConfig),
        alone=True,
        weight=4,
    ),
    Reader(
        name="configuration of a model",
        make=copy_example("model"),
        read=settings(ModelConfig),
        alone=True,
        weight=4,
    ),
    Reader(name="table, CSV", make=write_csv, read=read_as_table, weight=5),
    Reader(name="table, gzip", weight=4, make=write_gzip, read=read_as_table),
    Reader(name="table, Parquet", make=write_parquet, read=read_as_table, weight=6),
    Reader(name="images", make=write_images, read=read_picture, alone=True, weight=20, tries=40),
    Reader(name="arrays", make=write_arrays, read=read_picture, alone=True, weight=12, tries=40),
    Reader(name="DICOM", make=write_dicoms, read=read_picture, alone=True, weight=14, tries=40),
    Reader(name="images of a table", make=write_source, read=read_source, weight=1),
    Reader(name="array of a table", make=write_array_source, read=read_array_source, weight=1),
    Reader(
        name="cache",
        make=write_cache,
        read=read_cache,
        files=("kept/*",),
        seal=seal_cache,
        writes=True,
        weight=0.3,
        tries=10,
    ),
    Reader(name="WFDB", make=write_wfdb, read=read_wfdb, alone=True, weight=12),
    Reader(
        name="ECGs of a table",
        make=write_ecgs,
        read=lambda folder: Ecg(
            path="t.csv", array="all.npy", patient="pid", label="smoker", groups=("sex",)
        ).load(folder),
    ),
    Reader(
        name="CheXpert",
        weight=0.15,
        make=write_chexpert,
        read=lambda folder: CheXpert(path=folder, size=(8, 8)).load(),
        tries=5,
    ),
    Reader(
        name="PTB-XL",
        weight=0.2,
        **published("test_ptb_xl", lambda m, f: m.write(f), lambda f: PtbXl(path=f)),
    ),
    Reader(
        name="FairVision",
        weight=0.15,
        **published(
            "test_fairvision",
            lambda m, f: m.write(f, "AMD", copies=True),
            lambda f: FairVision(path=f, size=(16, 16)),
        ),
    ),
    Reader(
        name="MIMIC-IV-ED",
        weight=0.15,
        **published(
            "test_mimic_iv_ed",
            lambda m, f: m.master().to_csv(f / "master_dataset.csv", index=False),
            lambda f: MimicIvEd(path=f),
        ),
    ),
]
