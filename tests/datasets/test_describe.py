"""What a cohort holds."""

import json

import numpy as np
import pandas as pd

from confide.cohort import Cohort
from confide.datasets import Data, Embedded, Phantom, Table, describe


def data(**changed):
    inputs = np.zeros((5, 2), dtype=np.float32)
    inputs[:, 0] = [1, 2, 1, 3, 3]
    inputs[:, 1] = [0, 0, 0, 1, 1]
    given = {
        "record": np.array(["a", "b", "c", "d", "e"], dtype=object),
        "patient": np.array([10, 10, 20, 30, 30]),
        "label": np.array([0, 0, 1, 0, 0]),
        "task": "binary",
        "classes": ("no", "yes"),
        "groups": pd.DataFrame({"sex": ["f", "m", "m", None, None]}, dtype=object),
    }
    return Data(
        cohort=Cohort(**(given | changed)),
        inputs=inputs,
        test=np.array([False, False, True, False, False]),
        feature_names=("x", "x is missing"),
        notes=("a note",),
    )


def test_describe_by_hand():
    assert describe(data()) == {
        "records": 5,
        "patients": 3,
        "test_records": 1,
        "test_patients": 1,
        "inputs": [2],
        "records_per_patient": {"min": 1, "median": 2.0, "max": 2, "counts": {"1": 1, "2": 2}},
        "task": "binary",
        "labels": {"no": 4, "yes": 1},
        "groups": {
            "sex": {
                "values": {
                    "m": {"patients": 1, "records": 2},
                    "f": {"patients": 1, "records": 1},
                },
                "missing": {"patients": 1, "records": 2},
                "conflicting_patients": 1,
            }
        },
        "missing": {"x": 2},
        # d and e are the same too, but of one patient.
        "duplicates_across_patients": {
            "records": 2,
            "sets": 1,
            "examples": [[{"record": "a", "patient": 10}, {"record": "c", "patient": 20}]],
        },
        "near_duplicates_across_patients": None,
        "notes": ["a note"],
    }


def test_multilabel_counts():
    label = np.array([[1, 0], [np.nan, 0], [1, 1], [0, np.nan], [1, 0]])
    found = describe(data(task="multilabel", label=label))
    assert found["labels"] == {
        "no": {"positive": 3, "negative": 1, "unknown": 1},
        "yes": {"positive": 1, "negative": 3, "unknown": 1},
    }


def test_descriptions_are_plain_json(tmp_path):
    frame = pd.DataFrame({"p": range(30), "x": np.arange(30) / 7, "y": [0, 1] * 15})
    frame.to_csv(tmp_path / "t.csv", index=False)
    for source in (
        Embedded(),
        Phantom(n_patients=9, size=(8, 8)),
        Table(path="t.csv", patient="p", label="y"),
    ):
        found = describe(source.load(tmp_path))
        assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_a_copied_image_is_found():
    source = Phantom(n_patients=30, size=(16, 16)).load()
    inputs = source.inputs.copy()
    owner = source.cohort.patient_index
    other = int(np.flatnonzero(owner != owner[0])[7])
    inputs[other] = inputs[0]
    copied = Data(cohort=source.cohort, inputs=inputs, test=source.test)
    assert describe(source)["duplicates_across_patients"]["records"] == 0
    found = describe(copied)["duplicates_across_patients"]
    assert found["records"] == 2
    assert {one["record"] for one in found["examples"][0]} == {
        source.cohort.record[0],
        source.cohort.record[other],
    }
