"""The contract of a data set."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pydantic
import pytest

from confide.cohort import Cohort
from confide.datasets import KNOWN, AnySource, ByColumn, ByFraction, Data, Embedded, Opened, Source
from confide.errors import ArgumentError, TableError


def cohort(**changed):
    given = {
        "record": np.array(["a", "b", "c", "d"], dtype=object),
        "patient": np.array([1, 1, 2, 3]),
        "label": np.array([0, 1, 0, 1]),
        "task": "binary",
        "classes": ("no", "yes"),
        "groups": pd.DataFrame({"sex": ["f", None, "m", "m"]}, dtype=object),
    }
    return Cohort(**(given | changed))


def data(**changed):
    given = {
        "cohort": cohort(),
        "inputs": np.arange(8, dtype=np.float32).reshape(4, 2),
        "test": np.array([False, False, True, False]),
        "feature_names": ("x", "y"),
    }
    return Data(**(given | changed))


def test_fingerprint_is_the_same_on_every_machine():
    # Written down once: a change of it makes every audit begun before refuse to go on.
    assert (
        data().fingerprint() == "1a43c9cc9cb4368768e9199cc481cc1d27d4676bc9543b860aa933358b9127e4"
    )


def test_fingerprint_does_not_depend_on_storage_or_notes():
    same = [
        data(notes=("x",)),
        data(inputs=np.asfortranarray(data().inputs)),
        data(cohort=cohort(record=np.array(["a", "b", "c", "d"]))),
        data(cohort=cohort(label=np.array([0, 1, 0, 1], dtype=np.int32))),
        data(cohort=cohort(groups=pd.DataFrame({"sex": ["f", np.nan, "m", "m"]}))),
    ]
    assert {one.fingerprint() for one in same} == {data().fingerprint()}


CHANGES = {
    "record": {"cohort": cohort(record=np.array(["a", "b", "c", "e"]))},
    "record type": {"cohort": cohort(record=np.array([1, 2, 3, 4]))},
    "patient": {"cohort": cohort(patient=np.array([1, 1, 2, 4]))},
    "label": {"cohort": cohort(label=np.array([0, 1, 0, 0]))},
    "classes": {"cohort": cohort(classes=("no", "maybe"))},
    "group": {"cohort": cohort(groups=pd.DataFrame({"sex": ["f", "f", "m", "m"]}))},
    "group name": {"cohort": cohort(groups=pd.DataFrame({"s": ["f", None, "m", "m"]}))},
    "inputs": {"inputs": np.arange(8, dtype=np.float32).reshape(4, 2) + np.float32(1e-6)},
    "test": {"test": np.array([False, False, False, True])},
    "multilabel": {"cohort": cohort(task="multilabel", label=np.array([[0, 1]] * 4, dtype=float))},
    "unknown label": {
        "cohort": cohort(task="multilabel", label=np.array([[0, 1]] * 3 + [[0, np.nan]]))
    },
}


def test_fingerprint_changes_with_everything_that_counts():
    prints = {data(**change).fingerprint() for change in CHANGES.values()}
    assert len(prints | {data().fingerprint()}) == len(CHANGES) + 1


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"inputs": np.zeros((3, 2), np.float32)}, ArgumentError, "inputs of 4 records"),
        ({"inputs": np.zeros((4, 2))}, ArgumentError, "got float64"),
        ({"inputs": np.zeros((4, 1, 2), np.uint8)}, ArgumentError, r"\(4, 1, 2\)"),
        ({"feature_names": ("x",)}, ArgumentError, "2 feature names, got 1"),
        ({"test": np.zeros(3, bool)}, ArgumentError, "test of shape"),
        ({"test": np.zeros(4)}, ArgumentError, "type bool, got float64"),
        ({"test": np.ones(4, bool)}, TableError, "none is left to train on"),
        (
            {"test": np.array([False, True, True, False])},
            TableError,
            r"Patient 1 is on both sides of the split: record 'a' \(row 0\) in training, "
            r"record 'b' \(row 1\) in test \(1 such",
        ),
    ],
)
def test_refusals(changed, error, message):
    with pytest.raises(error, match=message):
        data(**changed)


def test_images_need_no_feature_names():
    images = data(inputs=np.zeros((4, 1, 2, 2), np.uint8), feature_names=())
    assert images.fingerprint() != data().fingerprint()


def test_signals_need_no_feature_names():
    signals = data(inputs=np.zeros((4, 2, 5), np.float32), feature_names=())
    assert signals.inputs.shape == (4, 2, 5)
    with pytest.raises(ArgumentError, match=r"\(records, leads, samples\).* got float64"):
        data(inputs=np.zeros((4, 2, 5)), feature_names=())


def opened(**changed):
    given = {
        "cohort": cohort(),
        "test": np.array([False, False, True, False]),
        "frame": None,
        "reserved": (),
        "shape": (1, 2, 2),
        "read": lambda rows: np.zeros((len(rows), 1, 2, 2), np.uint8),
        "fingerprint": lambda: "x",
    }
    return Opened(**(given | changed))


def test_opened_records_keep_the_rules_of_the_split():
    assert opened().load().inputs.shape == (4, 1, 2, 2)
    with pytest.raises(TableError, match="none is left to train on"):
        opened(test=np.ones(4, bool))
    with pytest.raises(TableError, match="Patient 1 is on both sides of the split"):
        opened(test=np.array([False, True, True, False]))


def test_one_input_does_not_stand_for_all():
    with pytest.raises(ArgumentError, match=r"returned 1 inputs for .* rows"):
        opened(read=lambda rows: np.zeros((1, 3), dtype=np.float32)).load()


def test_a_source_in_memory_is_opened_as_it_is_loaded():
    source = Embedded()
    loaded, found = source.load(), source.open(Path("/nowhere"))
    rows = np.array([5, 0, 568, 5])
    assert np.array_equal(found.read(rows), loaded.inputs[rows])
    assert found.shape == loaded.inputs.shape[1:]
    assert found.fingerprint() == loaded.fingerprint()
    assert np.array_equal(found.test, loaded.test)
    assert list(found.frame.columns) == ["radius"]
    assert found.reserved == ()
    assert found.reading == {}
    again = source.open(Path("/nowhere"), {"scale": 1.0, "channels": 1})
    assert np.array_equal(again.read(rows), loaded.inputs[rows])


FRAME = pd.DataFrame({"split": ["train", "train", "test", "val"], "fold": [1, 1, 10, 2]})


def test_split_by_column():
    assert ByColumn(column="split", value="test").mask(cohort(), FRAME).tolist() == [0, 0, 1, 0]
    assert ByColumn(column="fold", value=10).mask(cohort(), FRAME).tolist() == [0, 0, 1, 0]
    assert ByColumn(column="fold", value="10").mask(cohort(), FRAME).tolist() == [0, 0, 1, 0]
    with pytest.raises(TableError, match=r"value 'tets' in column 'split'.* test, train, val"):
        ByColumn(column="split", value="tets").mask(cohort(), FRAME)
    with pytest.raises(TableError, match=r"no column 'spilt'\. Did you mean 'split'"):
        ByColumn(column="spilt", value="test").mask(cohort(), FRAME)
    with pytest.raises(TableError, match="'split' of the split is missing in row 2"):
        ByColumn(column="split", value="train").mask(cohort(), FRAME.where(FRAME != "test"))


def test_split_by_fraction_is_that_of_the_cohort():
    for seed in range(4):
        mask = ByFraction(fraction=0.4, seed=seed).mask(cohort(), FRAME)
        assert np.array_equal(mask, cohort().split(0.4, seed)[1])


def test_sources_are_found_by_name_and_come_back_from_json():
    adapter = pydantic.TypeAdapter(AnySource)
    blocks = {
        "embedded": {},
        "phantom": {"size": [32, 48]},
        "table": {"path": "t.csv", "patient": "p", "label": ["a", "b"], "groups": {"age": [40]}},
        "images": {
            "path": "t.csv",
            "patient": "p",
            "label": "y",
            "test": {"column": "split", "value": "test"},
        },
        "ecg": {"path": "t.csv", "array": "x.npz", "patient": "p", "label": "y"},
        "chexpert": {"path": "d", "label": ["Edema"], "blank": "zeros"},
        "embed": {"path": "d", "groups": ["race"]},
        "fairvision": {"path": "d", "image": "npz"},
        "fitzpatrick17k": {"path": "d", "missing": "leave_out"},
        "mimic-cxr": {"path": "d", "labeller": "negbio"},
        "mimic-iv-ed": {"path": "d", "label": "outcome_critical"},
        "ptb-xl": {"path": "d", "label": ["MI", "CD"], "unclassified": "negative"},
    }
    assert set(blocks) == set(KNOWN)
    for name, block in blocks.items():
        source = adapter.validate_python({"name": name, **block})
        assert type(source) is KNOWN[name]
        assert issubclass(type(source), Source)
        assert 20 < len(source.description) < 80
        again = adapter.validate_python(json.loads(source.model_dump_json()))
        assert again == source
    assert isinstance(
        adapter.validate_python({"name": "images", **blocks["images"]}).test, ByColumn
    )


@pytest.mark.parametrize(
    "block",
    [
        {"test": {"fraction": 0}},
        {"test": {"fraction": 1}},
        {"test": {"fraction": 0.2, "sede": 1}},
        {"test": {"column": "a"}},
        {"path": "x"},
    ],
)
def test_settings_out_of_their_domain(block):
    with pytest.raises(pydantic.ValidationError):
        Embedded(**block)


def test_settings_are_frozen():
    with pytest.raises(pydantic.ValidationError):
        Embedded().test = ByFraction(fraction=0.5)
    assert Embedded().load(Path("/nowhere")).cohort.n_records == 569
