"""What all data sets in their publishers' layout have in common."""

import os
import sys
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from confide.datasets import ByColumn
from confide.datasets.folders import present
from confide.datasets.published import (
    AGE_BANDS,
    FINDINGS,
    ChestFindings,
    Listed,
    PublishedImages,
    age_bands,
)
from confide.datasets.published_words import renamed
from confide.errors import ArgumentError, ImageError, MismatchError, MissingFileError, TableError

sys.path.insert(0, str(Path(__file__).parent))  # tests are imported from files
import layouts
from layouts import write_image, write_text


class Eyes(PublishedImages):
    """A made-up data set: eyes.csv, and people.csv for the sex."""

    description: ClassVar[str] = "made up"
    homepage: ClassVar[str] = "https://example.org/eyes"
    labels: ClassVar[tuple[str, ...]] = ("disease", "side")
    all_groups: ClassVar[tuple[str, ...]] = ("age", "sex")

    name: Literal["eyes"] = "eyes"
    label: str | tuple[str, ...] = "disease"

    def listed(self, root):
        _, frame = self.table(root, "eyes.csv", "tables/eyes.csv", columns=["eye", "person"])
        frame = frame.rename(columns={"eye": "record", "person": "patient"})
        frame = frame.assign(file=frame["record"] + ".png", age=age_bands(frame["years"]))
        kept = frame[frame["quality"] > 0].reset_index(drop=True)
        notes = (f"{len(frame) - len(kept)} eyes of no quality are left out.",)
        if not self.wants("sex") or self.find(root, "people.csv") is None:
            return Listed(frame=kept, absent={"sex": "there is no people.csv"}, notes=notes)
        _, people = self.table(root, "people.csv")
        sex = kept["patient"].map(people.set_index("person")["sex"])
        return Listed(frame=kept.assign(sex=sex), notes=notes)


EYES = [
    "eye,person,disease,side,years,quality,part",
    "a,1,yes,1,30,1,train",
    "b,1,no,0,31,1,train",
    "c,2,no,,80,0,test",
    "d,3,no,1,,1,train",
    "sub/e,4,yes,0,7,1,test",
]


@pytest.fixture
def folder(tmp_path):
    write_text(tmp_path / "eyes.csv", EYES)
    write_text(tmp_path / "people.csv", ["person,sex", "1,F", "3,M", "4,"])
    for i, name in enumerate(("a", "b", "d", "sub/e")):
        write_image(tmp_path / f"{name}.png", i)
    return tmp_path


def eyes(folder, **changed):
    return Eyes(**({"path": folder, "size": (8, 8)} | changed))


def test_a_data_set(folder):
    data = eyes(folder).load()
    assert data.cohort.record.tolist() == ["a", "b", "d", "sub/e"]
    assert data.cohort.patient.tolist() == [1, 1, 3, 4]
    assert data.cohort.classes == ("no", "yes")
    assert data.cohort.label.tolist() == [1, 0, 0, 1]
    assert data.cohort.groups.fillna("?").to_dict("list") == {
        "age": ["20-39", "20-39", "?", "0-19"],
        "sex": ["F", "F", "M", "?"],
    }
    assert data.inputs.shape == (4, 1, 8, 8)
    assert data.notes == ("1 eyes of no quality are left out.",)
    assert eyes(folder).load().fingerprint() == data.fingerprint()


def test_labels_groups_and_split_as_asked_for(folder):
    data = eyes(
        folder, label=["side"], groups=["sex"], test=ByColumn(column="part", value="test")
    ).load()
    assert (data.cohort.task, data.cohort.classes) == ("multilabel", ("side",))
    assert list(data.cohort.groups) == ["sex"]
    assert data.test.tolist() == [False, False, False, True]
    assert list(eyes(folder, groups=[]).load().cohort.groups) == []


def test_groups_that_the_files_do_not_give(folder):
    (folder / "people.csv").unlink()
    data = eyes(folder).load()
    assert list(data.cohort.groups) == ["age"]
    assert data.notes[1] == "The group sex is left out: there is no people.csv."
    with pytest.raises(TableError, match="group 'sex' cannot be made: there is no"):
        eyes(folder, groups=["sex"]).load()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"label": "diseas"}, "eyes has no 'diseas' for `label`, only disease, side"),
        ({"label": ["side", "x"]}, "eyes has no 'x' for `label`"),
        ({"groups": ["race"]}, "eyes has no 'race' for `groups`, only age, sex"),
        ({"size": (0, 8)}, "greater than or equal to 1"),
        ({"colour": True}, "Extra inputs"),
    ],
)
def test_settings_that_are_refused(folder, changed, message):
    with pytest.raises(ValidationError, match=message):
        eyes(folder, **changed)


def test_tables_by_several_names(folder):
    plain = eyes(folder).load().fingerprint()
    text = (folder / "eyes.csv").read_text().splitlines()
    (folder / "eyes.csv").unlink()
    for name in ("eyes.csv.gz", "tables/eyes.csv", "tables/eyes.csv.gz"):
        path = write_text(folder / name, text)
        assert eyes(folder).load().fingerprint() == plain
        path.unlink()
    with pytest.raises(
        MissingFileError,
        match=r"no eyes.csv or tables/eyes.csv in .*eyes is to be had from https://example.org",
    ):
        eyes(folder).load()
    (folder / "eyes.xlsx").write_bytes(b"PK")
    with pytest.raises(TableError, match=r"eyes.xlsx is a spreadsheet; save it as CSV, eyes.csv"):
        eyes(folder).load()


def test_a_table_of_another_kind(folder):
    write_text(folder / "eyes.csv", ["eye,human", "a,1"])
    with pytest.raises(
        TableError, match=r"eyes.csv: .* no column 'person'.*Is it the file of eyes"
    ):
        eyes(folder).load()
    write_text(folder / "eyes.csv", [EYES[0], EYES[3]])
    with pytest.raises(TableError, match=r"No record is left. 1 eyes of no quality are left out."):
        eyes(folder).load()


def test_no_folder(folder):
    with pytest.raises(MissingFileError, match=r"There is no folder .*x; eyes is to be had from"):
        eyes(folder / "x").load()
    with pytest.raises(MissingFileError, match="There is no folder"):
        eyes(folder / "eyes.csv").load()


def test_records_that_are_only_looked_at(folder):
    found = eyes(folder).unlabelled().open()
    assert found.cohort.label.shape == (4, 0)
    assert found.cohort.groups.empty
    assert not found.test.any()
    assert found.notes == ("1 eyes of no quality are left out.",)


def test_images_are_read_as_before(folder):
    first = eyes(folder).open()
    assert eyes(folder).open(reading=first.reading).reading == first.reading
    assert first.reserved == ("record", "patient", "file")
    with pytest.raises(MismatchError, match="channels: 3"):
        eyes(folder, channels=3).open(reading=first.reading)
    with pytest.raises(ArgumentError, match="Expected `scale` and `channels`"):
        eyes(folder).open(reading={})


def test_a_cache_changes_nothing_but_is_filled_once(folder):
    plain = eyes(folder).open()
    kept = eyes(folder.name, cache="kept").open(folder.parent)
    rows = np.array([3, 0, 2])
    assert np.array_equal(kept.read(rows), plain.read(rows))
    assert kept.fingerprint() == plain.fingerprint()
    assert any((folder.parent / "kept").iterdir())
    assert "cache" not in eyes(folder, cache="kept").model_dump()


def test_colour(folder):
    write_image(folder / "a.png", 0, (20, 24, 3))
    assert eyes(folder).open().shape == (3, 8, 8)
    assert eyes(folder, channels=1).open().shape == (1, 8, 8)


@pytest.mark.parametrize("name", ["../away", "sub/../../away", "/etc/passwd"])
def test_an_image_outside(folder, name):
    write_image(folder.parent / "away.png", 0)
    write_text(folder / "eyes.csv", [*EYES, f"{name},9,yes,0,7,1,test"])
    with pytest.raises(ImageError, match=r"Row 4: the file .* is outside the folder"):
        eyes(folder).open()


def test_files_that_are_there(tmp_path):
    names = ["a.png", "x/b.png", "x/y/c.png", "x/d.png"]
    for name in names:
        write_image(tmp_path / name, 0)
    assert present(tmp_path, names) == [tmp_path / name for name in names]
    assert present(tmp_path, ["x/../a.png", "./x//b.png"]) == [
        tmp_path / "x/../a.png",
        tmp_path / "x/b.png",
    ]
    (tmp_path / "z").symlink_to(tmp_path / "x")
    assert present(tmp_path, ["z/b.png"]) == [tmp_path / "z/b.png"]
    (tmp_path / "link.png").symlink_to("a.png")
    assert present(tmp_path, ["link.png"]) == [tmp_path / "link.png"]


def test_every_folder_is_listed_once(tmp_path, monkeypatch):
    for i in range(20):
        write_image(tmp_path / f"{i % 2}/{i}.png", 0)
    asked, scan = [], os.scandir
    monkeypatch.setattr(os, "scandir", lambda place: asked.append(place) or scan(place))
    monkeypatch.setattr(Path, "is_file", lambda _: pytest.fail("asked for a file"))
    present(tmp_path, [f"{i % 2}/{i}.png" for i in range(20)])
    assert sorted(asked) == [tmp_path / "0", tmp_path / "1"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("b.png", r"Row 1: There is no image .*b.png \(1 of 2 images are not there"),
        ("no/b.png", "There is no image"),
        ("a.png/b.png", "There is no image"),
        ("x" * 300, "There is no image"),
        ("y" * 300 + "/a.png", "There is no image"),
        ("sub", "There is no image"),
        ("", "There is no image"),
        ("loop/a.png", "outside the folder|There is no image"),
        ("out/a.png", "outside the folder"),
        ("gone.png", "outside the folder"),
        ("/a.png", "outside the folder"),  # although the folder has an a.png
        ("a\0.png", "for a file name; give each image its file"),
        (None, "for a file name; give each image its file"),
        (7, "for a file name; give each image its file"),
    ],
)
def test_files_that_are_not(tmp_path, name, message):
    root = tmp_path / "root"
    write_image(root / "a.png", 0)
    write_image(tmp_path / "away" / "a.png", 0)
    (root / "sub").mkdir()
    (root / "loop").symlink_to("loop")
    (root / "out").symlink_to(tmp_path / "away")
    (root / "gone.png").symlink_to(tmp_path / "away" / "a.png")
    with pytest.raises(ImageError, match=message):
        present(root, ["a.png", name])


def test_age_bands():
    years = [0, 19, 19.99, 20, 39, 40, 59, 60, 79, 80, 120, None]
    bands = age_bands(pd.Series(years, index=range(5, 17), name="Age"))
    low, twenty, forty, sixty, old = AGE_BANDS
    expected = [low, low, low, twenty, twenty, forty, forty, sixty, sixty, old, old]
    assert bands.tolist()[:-1] == expected
    assert np.isnan(bands.iloc[-1])
    assert bands.index.tolist() == list(range(5, 17))
    assert age_bands(pd.Series([None, None])).isna().all()


@pytest.mark.parametrize("age", [-1, 151, np.inf, "old"])
def test_ages_that_are_none(age):
    with pytest.raises(TableError, match=r"Column 'Age' in row 1 is .*; expected an age in years"):
        age_bands(pd.Series([30, age], name="Age"))


def test_renamed():
    column = pd.Series(["WHITE ", "white", "Klingon", None], index=[3, 4, 5, 6], name="r")
    found = renamed(column, {"White": "W"}, "Other")
    assert found.iloc[:3].tolist() == ["W", "W", "Other"]
    assert found.isna().tolist() == [False, False, False, True]
    assert found.index.tolist() == [3, 4, 5, 6]


class Chests(ChestFindings):
    """A made-up data set of chests."""

    description: ClassVar[str] = "made up"
    homepage: ClassVar[str] = "https://example.org/chests"
    all_groups: ClassVar[tuple[str, ...]] = ()

    name: Literal["chests"] = "chests"

    def listed(self, root):
        raise NotImplementedError


def test_findings():
    frame = pd.DataFrame({"Edema": [1, 0, -1, None], "Fracture": ["1.0", "", "0", "-1.0"]})
    frame["Fracture"] = frame["Fracture"].replace("", None)
    label = ("Edema", "Fracture")
    found = Chests(path="x", label=label).findings(frame.set_axis([4, 5, 6, 7]))
    assert list(found) == ["Edema", "Fracture"]
    assert found.index.tolist() == [4, 5, 6, 7]
    nan = float("nan")
    assert np.array_equal(found["Edema"], [1, 0, 1, nan], equal_nan=True)
    assert np.array_equal(found["Fracture"], [1, nan, 0, 1], equal_nan=True)
    for bad in ("2", "0.5", "yes", "-2", "inf"):
        frame.loc[1, "Fracture"] = bad
        with pytest.raises(
            TableError, match=r"Finding 'Fracture' in row 1 is .*; expected 1, 0, -"
        ):
            Chests(path="x", label=label).findings(frame)


def test_the_fourteen_findings_are_those_of_the_layout():
    assert ",".join(FINDINGS) == layouts.FINDINGS
