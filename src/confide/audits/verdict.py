"""The verdict of an audit in plain words, and nothing that the numbers do not carry."""

from __future__ import annotations

import math
from typing import Any

from scipy.special import ndtri

CONTROL_PASSES_AT = 0.8
_NAMES = {
    "lira": "LiRA",
    "lira_offline": "offline LiRA",
    "rmia": "RMIA",
    "rmia_offline": "offline RMIA",
    "loss": "the loss threshold",
}


def verdict(summary: dict[str, Any]) -> dict[str, str]:
    """Status and text from a summary's counts.

    Statuses: "at_risk" (patients are listed), "detectable" (none is listed, but an attack tells
    members from non-members better than chance), "none_found" (neither, and the positive control
    was found), "not_established" (neither, and the audit could not have found it).
    """
    patients = summary["patients"]
    seen = [
        f"{_NAMES.get(name, name)} (AUC {m['auc']:.3f}, 95 % interval {m['auc_low']:.3f} to "
        f"{m['auc_high']:.3f})"
        for name, m in summary["attacks"].items()
        if _above_chance(m, len(summary["attacks"]))
    ]
    n, total = patients["n_at_risk"], summary["n_patients"]
    overall = _overall(seen, summary["attacks"])
    if n:
        text = (
            f"{n:,} of {total:,} patients are listed as at risk: whether they were in the training "
            f"data can be told from what models of this recipe say about their records. On "
            f"average over audits at most about {patients['fdr']:.0%} of such a list are false. "
            f"{overall}"
        )
        return {"status": "at_risk", "text": text}
    if seen:
        text = f"No single patient is listed as at risk, but membership leaks on average. {overall}"
        return {"status": "detectable", "text": f"{text} {_resolution(patients)}"}
    control = patients["control"]
    able = control["found"] >= CONTROL_PASSES_AT * control["planted"]
    if _measured(summary["attacks"]) and able and patients["smallest_detectable_auc"] is not None:
        text = f"No patient is listed as at risk. {overall} {_resolution(patients)}"
        return {"status": "none_found", "text": text}
    planted = (
        f"of {control['planted']} planted patients, each of whose records has an AUC of "
        f"{control['auc']:g}, it lists {control['found']}"
    )
    found = (
        f"it lists patients only where several leak: {planted}"
        if able
        else f"this audit could hardly have found anything: {planted}"
    )
    text = (
        f"Nothing was found, but {found}. {_resolution(patients)} More models are needed before "
        "anything can be said."
    )
    return {"status": "not_established", "text": text}


def _above_chance(measured: dict[str, Any], n_attacks: int) -> bool:
    """Whether the interval lies above .5 when it is widened for the number of attacks."""
    auc, low = measured["auc"], measured["auc_low"]
    widened = float(ndtri(1 - 0.025 / n_attacks) / ndtri(0.975)) * (auc - low)
    return bool(auc - widened > 0.5)  # False for NaN


def _overall(seen: list[str], attacks: dict[str, Any]) -> str:
    if seen:
        return (
            "Over all records, members are told from non-members better than chance by "
            f"{' and by '.join(seen)}."
        )
    if not _measured(attacks):
        return "No attack could be measured over all records."
    return (
        "Over all records, no attack that was run is shown to tell members from non-members "
        "better than chance."
    )


def _measured(attacks: dict[str, Any]) -> bool:
    """Whether any attack was; none is where every record is in or out of too few models."""
    return any(math.isfinite(m["auc"]) for m in attacks.values())


def _resolution(patients: dict[str, Any]) -> str:
    smallest = patients["smallest_detectable_auc"]
    if smallest is None:
        return (
            "With this number of models no patient alone can be listed, even one given away "
            f"completely; it takes {patients['n_perfect_needed']:,} such patients."
        )
    return (
        f"With this number of models a patient alone can be listed from an AUC of {smallest:.3f} "
        "upwards; smaller leaks of single patients stay unseen."
    )
