"""Labels that belong to patients, and patients that dominate a class."""

import numpy as np
import pytest

from audits.studies import cohort_of
from confide.audits.prevalence import prevalence_warnings
from confide.cohort import Cohort


def test_a_label_that_belongs_to_the_patient_is_told():
    patient = np.repeat(np.arange(40), 3)
    (text,) = prevalence_warnings(cohort_of(patient, label=patient % 2))
    assert text.startswith("In 40 of 40 patients with several records, the label is the same")
    assert "(25% would be by chance)" in text


def test_labels_that_vary_within_patients_are_fine():
    patient = np.repeat(np.arange(40), 3)
    assert prevalence_warnings(cohort_of(patient)) == []
    # Single records cannot vary, and few patients prove nothing.
    assert prevalence_warnings(cohort_of(np.arange(40))) == []
    few = np.repeat(np.arange(9), 3)
    assert prevalence_warnings(cohort_of(few, label=few % 2)) == []


def test_a_rare_class_is_no_property_of_patients():
    patient = np.repeat(np.arange(100), 2)
    label = np.zeros(200, dtype=np.int64)
    label[[0, 20, 40]] = 1
    assert "property" not in " ".join(prevalence_warnings(cohort_of(patient, label=label)))


def test_a_patient_that_dominates_a_class_is_told():
    patient = np.concatenate([np.zeros(30), np.arange(1, 71)]).astype(int)
    label = np.where(patient == 0, 1, np.arange(100) % 2)
    (text,) = prevalence_warnings(cohort_of(patient, label=label))
    share = 5 * int(20 * 30 / label.sum())
    assert text.startswith(f"One patient has at least {share}% of the records of class 'yes':")
    assert "'0'" not in text  # the patient is not named


def test_findings_are_looked_at_one_by_one():
    patient = np.repeat(np.arange(40), 3)
    label = np.stack([patient % 2, np.arange(120) % 2], axis=1).astype(float)
    label[::7, 1] = np.nan
    given = {"record": np.arange(120), "patient": patient, "task": "multilabel"}
    (text,) = prevalence_warnings(Cohort(**given, label=label, classes=("a", "b")))
    assert "'a' is the same in all of them" in text
    nothing = Cohort(**given, label=np.full((120, 1), np.nan), classes=("a",))
    assert prevalence_warnings(nothing) == []


def test_the_most_affected_class_stands_for_more():
    patient = np.concatenate([np.zeros(40), np.arange(1, 161)]).astype(int)
    label = np.arange(200) % 4
    given = {"record": np.arange(200), "patient": patient, "label": label}
    names = ("a", "b", "c", "d")
    (text,) = prevalence_warnings(Cohort(**given, task="multiclass", classes=names))
    assert text.endswith("So it is with 3 more classes.")


def test_nih(real_data):
    pd = pytest.importorskip("pandas")
    path = real_data / "nih_cxr64" / "metadata.csv"
    if not path.is_file():
        pytest.skip("nih_cxr64 is not there")
    frame = pd.read_csv(path)
    found = prevalence_warnings(
        cohort_of(frame["patient_id"].to_numpy(object), label=frame["abnormal"].to_numpy())
    )
    assert any(text.startswith("One patient has at least 5% of the") for text in found)
