import copy
import sys
from pathlib import Path

import numpy as np
import pytest

from confide.reports.codes_view import read

sys.path.insert(0, str(Path(__file__).parent))  # tests are imported from files
from codes_inputs import make
from codes_pages import page, put, rows_below

JOINT, POOLED = "Model of all sites mean over sites", "Model of all sites all records"
OWN, EVERYWHERE = "Models of one site at their own site", "Models of one site at all sites"
GAIN = "Gain mean over sites"


def test_the_main_tables_are_the_summary():
    table, summary = make(labels=("opacity",))
    measured = summary["labels"]["opacity"]["arms"]["codes"]
    measured |= {
        "all_sites": {"auc": 0.8111, "low": 0.7, "high": 0.9},
        "mean_over_sites": {"auc": 0.8222, "low": 0.71, "high": 0.91},
        "own_site": {"auc": 0.8333, "low": 0.72, "high": 0.92},
        "gain": {"value": -0.0111, "low": -0.02, "high": -0.001},
        "one_for_all": {"auc": 0.5111, "low": 0.48, "high": 0.54},
        "gain_for_all": {"value": 0.3111, "low": 0.28, "high": 0.34},
    }
    before = copy.deepcopy(summary)
    shown = page((table, summary))
    assert summary == before
    joint, own = "0.822 0.710 to 0.910", "0.833 0.720 to 0.920"
    assert rows_below(shown, "Arm", JOINT, OWN, GAIN)[1] == [
        "codes",
        joint,
        own,
        "-0.011 -0.020 to -0.001",
    ]
    assert rows_below(shown, "Arm", JOINT, EVERYWHERE, GAIN, POOLED)[1] == [
        "codes",
        joint,
        "0.511 0.480 to 0.540",
        "+0.311 +0.280 to +0.340",
        "0.811 0.700 to 0.900",
    ]
    assert [
        "models of one site, at all sites",
        "",
        "0.511 0.480 to 0.540",
        "180",
        "540",
        "180",
    ] in (shown.rows)


def test_arms_are_compared_for_each_kind_of_model():
    table, summary = make(labels=("opacity",))
    summary["labels"]["opacity"]["differences"] = [
        {"arm": "codes", "against": "plain", "model": "all sites"} | gap(-0.01, -0.03, 0.01),
        {"arm": "codes", "against": "plain", "model": "own site"} | gap(-0.02, -0.03, -0.01),
        {"arm": "codes", "against": "linear", "model": "own site"} | gap(0.03, 0.02, 0.04),
    ]
    assert rows_below(page((table, summary)), "Arms", JOINT, OWN) == [
        [
            "codes minus plain",
            "-0.010 -0.030 to +0.010 not distinguishable from none",
            "-0.020 -0.030 to -0.010",
        ],
        ["codes minus linear", "", "+0.030 +0.020 to +0.040"],
    ]
    summary["labels"]["opacity"]["differences"][0] |= gap(None, None, None)
    assert rows_below(page((table, summary)), "Arms", JOINT, OWN)[0][1] == "n/a"


def gap(value, low, high):
    return {"value": value, "low": low, "high": high}


def test_which_model_works_where_is_the_table():
    table, summary = make(labels=("opacity",), arms=("plain", "codes"))
    values = {
        ("all sites", "a"): 0.91,
        ("all sites", "b"): 0.92,
        ("model of a", "a"): 0.83,
        ("model of a", "b"): 0.51,
        ("model of b", "a"): 0.49,
        ("model of b", "c"): 0.48,
    }
    for (model, site), auc in values.items():
        here = (table["model"] == model) & (table["tested_on"] == site) & (table["arm"] == "codes")
        put(table, here, auc=auc, low=auc - 0.01, high=auc + 0.01)
    put(table, table["tested_on"] == "c", n_patients=9)
    shown = page((table, summary))
    rows = rows_below(shown, "Model", "Tested on a", "Tested on b", "Tested on c")
    assert rows[0] == ["plain"]
    assert [row[0] for row in rows[5:]] == [
        "codes",
        "model of all sites",
        "model of a",
        "model of b",
        "model of c",
    ]
    assert rows[6] == [
        "model of all sites",
        "0.910 0.900 to 0.920",
        "0.920 0.910 to 0.930",
        "withheld",
    ]
    assert rows[7] == ["model of a", "0.830 0.820 to 0.840", "0.510 0.500 to 0.520", "withheld"]
    assert [cell.split()[0] for cell in rows[8][1:]] == ["0.490", "0.808", "withheld"]
    own = [attrs for tag, attrs in shown.tags if tag == "td" and attrs.get("class") == "num own"]
    assert len(own) == 6
    (label,) = read(table, summary).labels
    assert [own for _, own, _ in label.where[0].rows] == [None, 0, 1, 2]


def test_an_unmeasured_pair_of_model_and_site_is_empty():
    table, summary = make(labels=("opacity",), arms=("codes",))
    table = table[(table["model"] != "model of b") | (table["tested_on"] != "a")]
    rows = rows_below(page((table, summary)), "Model", "Tested on a", "Tested on b", "Tested on c")
    assert rows[3][:2] == ["model of b", ""]
    assert rows[3][2] != ""


def test_models_of_named_sites_stand_in_one_table_only():
    (label,) = read(*make(labels=("opacity",), arms=("codes",))).labels
    assert [line.name for line in label.overall[0].lines] == [
        "model of all sites, all records",
        "model of all sites, mean over sites",
        "models of one site, at their own site",
        "models of one site, at all sites",
    ]
    assert [line.name for line in label.sites[0].lines] == [
        "codes: model of all sites",
        "codes: its own model",
    ]


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (-0.01, 0.02, True),
        (0.0, 0.02, True),
        (-0.02, 0.0, True),
        (0.001, 0.02, False),
        (-0.02, -0.001, False),
        (0.0004, 0.02, True),  # written as 0.000
        (-0.02, -0.0004, True),
        (None, None, False),
        (np.nan, 0.02, False),
    ],
)
def test_a_gain_is_said_to_be_none_only_if_its_interval_holds_0(low, high, said):
    table, summary = make(labels=("opacity",), arms=("codes",))
    gain = {"value": 0.005, "low": low, "high": high}
    summary["labels"]["opacity"]["arms"]["codes"]["gain"] = gain
    (label,) = read(table, summary).labels
    assert label.sheets[0].rows[0][1][2].note == ("not distinguishable from none" if said else "")
    cell = next(row for row in page((table, summary)).rows if row[0] == "codes")[3]
    assert cell.startswith("+0.005")
    assert cell.endswith("not distinguishable from none") == said


def test_one_site_compares_arms_without_naming_models():
    shown = page(make(labels=("opacity",), sites={"a": 84}))
    assert rows_below(shown, "Arms", "Difference") == [
        ["codes minus plain", "-0.012 -0.030 to +0.004 not distinguishable from none"],
        ["codes minus linear", "-0.024 -0.030 to -0.003"],
    ]
