"""Chest radiographs as TorchXRayVision reads them, split as its training script split them.

The library's networks were trained by its script ``scripts/train_model.py``: the views are chosen,
then patients are split 80 to 20 twice with one seed, first into training and test, then the
training part into what the weights were fitted to and what chose among the epochs.  The split
depends on nothing but the set of patient ids, so it can be drawn again.  What is drawn again may
still differ from what was: the authors did not store their splits, and the versions of the script
do not all choose the same views.  A wrong split makes members of non-members at random, which
hides a leak and makes none.

The transforms are those of ``XRayCenterCrop`` and ``XRayResizer(224)``, with the library's range
of pixels, -1024 to 1024.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field
from scipy import ndimage

from confide._tables import read_table, require_columns
from confide.cohort import Cohort
from confide.datasets.base import Nobody, Opened, Settings, fingerprint_of_files, naming
from confide.datasets.folders import inside
from confide.errors import ImageError, MissingFileError, TableError

SIZE = 224
MEMBER = "member"
"""Column of the opened frame: 1 in the training part, 0 held out, missing in the part between."""

FINDINGS = (
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Effusion",
    "Enlarged Cardiomediastinum",
    "Fracture",
    "Lung Lesion",
    "Lung Opacity",
    "Pneumonia",
    "Pneumothorax",
)
"""Findings of CheXpert's labeller that the library's networks predict, in their names."""

_IN_TABLE = {"Effusion": "Pleural Effusion"}
_PATIENT = re.compile(r"/patient(\d+)/study")


class _Xrv(Settings):
    """What the two data sets share.

    Parameters
    ----------
    path : table of the labels
    views : frontal views that the network was trained on
    seed : of the split; the library's script uses 0
    """

    path: Path
    views: tuple[Literal["PA", "AP"], ...] = Field(default=("PA", "AP"), min_length=1)
    seed: int = Field(default=0, ge=0)


class XrvCheXpert(_Xrv):
    """CheXpert as TorchXRayVision reads it.

    Parameters
    ----------
    path : ``train.csv``; images lie beside it, where its column Path says, with or without the
        name of the data set's folder in front
    """

    name: Literal["xrv-chexpert"] = "xrv-chexpert"

    def open(self, folder: Path = Path()) -> Opened:
        """The frontal images and their split; raises as :meth:`confide.datasets.Source.open`."""
        path = folder / self.path
        frame = read_table(path)
        with naming(path):
            wanted = ["Path", "Frontal/Lateral", "AP/PA", "Sex", "No Finding"]
            require_columns(frame, [*wanted, *_columns()])
            view = frame["AP/PA"].where(frame["Frontal/Lateral"] == "Frontal", "L")
            frame = frame[view.isin(self.views)].assign(view=view)
            _some(frame, self.views)
            found = frame["Path"].astype(str).str.extract(_PATIENT.pattern)[0]
            if found.isna().any():
                at = int(np.flatnonzero(found.isna().to_numpy())[0])
                raise TableError(
                    f"Column 'Path' in row {frame.index.to_numpy()[at]} is "
                    f"{frame['Path'].iloc[at]!r:.80}; expected "
                    ".../patientNNNNN/studyN/..."
                )
            frame = frame.assign(patient=found, sex=frame["Sex"], record=frame["Path"])
            root = path.parent.resolve()
            rows, names = frame.index.tolist(), frame["Path"].astype(str)
            files = [_file(root, name, row) for row, name in zip(rows, names, strict=True)]
        return _opened(self, frame.reset_index(drop=True), files)


class XrvMimic(_Xrv):
    """MIMIC-CXR-JPG as TorchXRayVision reads it, with CheXpert's labels.

    Parameters
    ----------
    path : ``mimic-cxr-2.0.0-chexpert.csv``, or .csv.gz
    metadata : ``mimic-cxr-2.0.0-metadata.csv``, or .csv.gz
    images : the folder ``files``
    """

    name: Literal["xrv-mimic-cxr"] = "xrv-mimic-cxr"
    metadata: Path
    images: Path

    def open(self, folder: Path = Path()) -> Opened:
        """The frontal images and their split; raises as :meth:`confide.datasets.Source.open`."""
        path, second = folder / self.path, folder / self.metadata
        labels, images = read_table(path), read_table(second)
        keys = ["subject_id", "study_id"]
        with naming(path):
            require_columns(labels, [*keys, "No Finding", *_columns()])
        with naming(second):
            require_columns(images, [*keys, "dicom_id", "ViewPosition"])
            images = images[["dicom_id", "ViewPosition", *keys]]
            frame = labels.merge(images, on=keys, how="inner")
            frame = frame[frame["ViewPosition"].isin(self.views)]
            _some(frame, self.views)
        frame = frame.assign(
            patient=frame["subject_id"].astype(str),
            record=frame["dicom_id"],
            view=frame["ViewPosition"],
        ).reset_index(drop=True)
        root = (folder / self.images).resolve()
        if not root.is_dir():
            raise MissingFileError(f"There is no folder of images {folder / self.images}.")
        files = [
            inside(root, f"p{p[:2]}/p{p}/s{s}/{d}.jpg", row)
            for row, (p, s, d) in enumerate(
                zip(frame["patient"], frame["study_id"], frame["dicom_id"], strict=True)
            )
        ]
        return _opened(self, frame, files)


def split(patient: Sequence[str] | NDArray[Any], seed: int = 0) -> NDArray[np.float64]:
    """The split of the library's training script.

    Parameters
    ----------
    patient : (n_records,) patient ids as text
    seed : of both draws

    Returns
    -------
    (n_records,) 1 where the weights were fitted, 0 in the test part, NaN in the part of the
    training data that chose the epoch
    """
    from sklearn.model_selection import GroupShuffleSplit

    ids = np.asarray(patient, dtype=object)
    if len(np.unique(ids.astype(str))) < 5:
        raise TableError("The split needs at least 5 patients.")
    side = np.zeros(len(ids))
    draw = GroupShuffleSplit(n_splits=1, train_size=0.8, test_size=0.2, random_state=seed)
    train, _ = next(draw.split(ids, groups=ids))
    fitted, _ = next(draw.split(train, groups=ids[train]))
    side[train] = np.nan
    side[train[fitted]] = 1.0
    return side


def prepared(image: NDArray[np.uint8], size: int = SIZE) -> NDArray[np.float32]:
    """One image as the library gives it to its networks.

    Parameters
    ----------
    image : (height, width) or (height, width, channels) uint8; of several channels the first counts
    size : height and width of the result

    Returns
    -------
    (1, size, size) float32 in [-1024, 1024]: the middle square, smoothed by a Gaussian where it
    shrinks, and resized bilinearly, as ``skimage.transform.resize`` does by default
    """
    grey = image if image.ndim == 2 else image[..., 0]
    height, width = grey.shape
    side = min(height, width)
    top, left = height // 2 - side // 2, width // 2 - side // 2
    part = grey[top : top + side, left : left + side].astype(np.float32)
    square: NDArray[np.float32] = ((2.0 * (part / 255) - 1.0) * 1024).astype(np.float32)
    if side == size:
        return square[None]
    sigma = max(0.0, (side / size - 1) / 2)
    smooth = ndimage.gaussian_filter(square, sigma, mode="constant") if sigma else square
    resized = ndimage.zoom(smooth, size / side, order=1, mode="grid-constant", grid_mode=True)
    clipped: NDArray[np.float32] = np.clip(resized, square.min(), square.max()).astype(np.float32)
    return clipped[None]


def _columns() -> list[str]:
    return [_IN_TABLE.get(name, name) for name in FINDINGS]


def _some(frame: pd.DataFrame, views: Sequence[str]) -> None:
    if not len(frame):
        raise TableError(f"No record has a view {' or '.join(views)}.")


def _labels(frame: pd.DataFrame) -> NDArray[np.float64]:
    """1, 0 or NaN: uncertain is unknown, and nothing is found where "No Finding" is."""
    values = frame[_columns()].apply(pd.to_numeric, errors="coerce").to_numpy(np.float64)
    healthy = (pd.to_numeric(frame["No Finding"], errors="coerce") == 1).to_numpy()
    values = np.where(healthy[:, None], 0.0, values)
    return np.where((values == 0) | (values == 1), values, np.nan)


def _opened(settings: _Xrv, frame: pd.DataFrame, files: list[Path]) -> Opened:
    side = split(frame["patient"].to_numpy(), settings.seed)
    groups = frame[[name for name in ("view", "sex") if name in frame]]
    cohort = Cohort(
        record=frame["record"].to_numpy(),
        patient=frame["patient"].to_numpy(),
        label=_labels(frame),
        task="multilabel",
        classes=FINDINGS,
        groups=groups,
    )
    test = Nobody().mask(cohort, frame)
    return Opened(
        cohort=cohort,
        test=test,
        frame=frame.assign(**{MEMBER: side}),
        reserved=("record", "patient"),
        shape=(1, SIZE, SIZE),
        read=_reader(files),
        notes=(
            "The split into training and held-out patients was drawn again by the rule of "
            f"TorchXRayVision's training script (views {', '.join(settings.views)}, seed "
            f"{settings.seed}). The authors did not store theirs; if it was another, leaks are "
            "understated.",
            f"{int(np.isnan(side).sum()):,} records that chose among the epochs of the training "
            "are neither members nor non-members, and were left out.",
        ),
        # The names of the files and their sizes; hundreds of gigabytes of pixels are not hashed.
        fingerprint=lambda: fingerprint_of_files(
            cohort, test, [str(name) for name in frame["record"]], [f.stat().st_size for f in files]
        ),
    )


def _reader(files: list[Path]) -> Callable[[NDArray[np.intp]], NDArray[np.float32]]:
    def read(rows: NDArray[np.intp]) -> NDArray[np.float32]:
        return np.stack([prepared(_pixels(files[row], row)) for row in rows.tolist()])

    return read


def _pixels(path: Path, row: int) -> NDArray[np.uint8]:
    from PIL import Image

    from confide.datasets.image_files import naming as naming_image

    with naming_image(row, path), Image.open(path, formats=("PNG", "JPEG")) as image:
        # Pillow only warns of an image between one and two times its limit.
        if image.width * image.height > (Image.MAX_IMAGE_PIXELS or np.inf):
            raise Image.DecompressionBombError
        if image.mode not in ("L", "RGB", "RGBA", "LA"):
            raise ImageError(f"{path} has pixels of mode {image.mode}; expected 8 bits.")
        return np.asarray(image)


def _file(root: Path, name: str, row: int) -> Path:
    """The file of a name from CheXpert's table.

    The names begin with that of the data set's folder, which is where the table lies.
    """
    first, _, rest = name.partition("/")
    return inside(root, rest if rest and first.startswith("CheXpert-v1.0") else name, row)
