"""The verdict of an audit in plain words, and nothing that the numbers do not carry."""

from __future__ import annotations

import math
from typing import Any

from scipy.special import ndtri

from confide.attacks import KNOWN

CONTROL_PASSES_AT = 0.8
SCREENS = frozenset(name for name, attack in KNOWN.items() if attack.reads == "trace")
"""Attacks that rank members and were not made to tell them from non-members: that such a one finds
nothing says nothing."""

_TAIL_AT = "0.8"
_NAMES = {
    "lira": "LiRA",
    "lira_offline": "offline LiRA",
    "rmia": "RMIA",
    "rmia_offline": "offline RMIA",
    "loss": "the loss threshold",
    "calibrated_loss": "the difficulty-calibrated loss",
    "quantile": "quantile regression",
    "lt_iqr": "LT-IQR",
    "stacked": "the stacked attack",
}


def verdict(summary: dict[str, Any]) -> dict[str, str]:
    """Status and text from a summary's counts.

    Statuses: "at_risk" (patients are listed), "detectable" (none is listed, but an attack tells
    members from non-members better than chance), "none_found" (neither, and the positive control
    and the canaries, where there are any, were found), "not_established" (neither, and the audit
    was not shown to be able to find it).
    """
    patients = summary["patients"]
    seen = [
        f"{_NAMES.get(name, name)} (AUC {m['auc']:.3f}, 95% interval {m['auc_low']:.3f} to "
        f"{m['auc_high']:.3f})"
        for name, m in summary["attacks"].items()
        if _above_chance(m, len(summary["attacks"]))
    ]
    n, total = patients["n_at_risk"], summary["n_patients"]
    overall, missed = _overall(seen, summary["attacks"]), _missed(patients)
    if n:
        who = "patients is" if n == 1 else "patients are"
        text = (
            f"{n:,} of {total:,} {who} listed as at risk: whether they were in the training "
            f"data can be told from what models of this recipe say about their records. On "
            f"average over audits at most about {patients['fdr']:.0%} of such a list are false."
        )
        return {"status": "at_risk", "text": _joined(text, missed, overall, _tail(patients))}
    if seen:
        text = "No single patient is listed as at risk, but membership leaks on average."
        text = _joined(text, missed, overall, _tail(patients), _resolution(patients))
        return {"status": "detectable", "text": text}
    able, hatched = _found_enough(patients["control"]), not missed
    possible = patients["smallest_detectable_auc"] is not None
    if _measured(summary["attacks"]) and able and hatched and possible:
        text = "No patient is listed as at risk."
        text = _joined(text, overall, _tail(patients), _resolution(patients))
        return {"status": "none_found", "text": text}
    text = f"Nothing was found, but {_doubt(summary, able)}."
    more = "More models are needed before anything can be said."
    if able and possible and not hatched:
        more = (
            "Either models of this recipe do not learn such patients by heart, or the audit does "
            "not see it; it cannot tell which."
        )
    return {"status": "not_established", "text": _joined(text, _resolution(patients), more)}


def _joined(*sentences: str) -> str:
    return " ".join(sentence for sentence in sentences if sentence)


def _found_enough(planted: dict[str, Any]) -> bool:
    return bool(planted["found"] >= CONTROL_PASSES_AT * planted["planted"])


def _missed(patients: dict[str, Any]) -> str:
    """What is to be said where few canaries were found; empty where enough or none were planted."""
    canaries = patients.get("canaries")
    if canaries is None or _found_enough(canaries):
        return ""
    return (
        f"Of {canaries['planted']} canaries, patients that were trained on with wrong labels, the "
        f"audit lists {canaries['found']}: others who are at risk can be missing from the list."
    )


def _doubt(summary: dict[str, Any], able: bool) -> str:
    """Why an audit that found nothing says nothing."""
    patients = summary["patients"]
    control = patients["control"]
    planted = (
        f"of {control['planted']} planted patients, each of whose records has an AUC of "
        f"{control['auc']:g}, it lists {control['found']}"
    )
    if not able:
        return f"this audit could hardly have found anything: {planted}"
    if _missed(patients):
        canaries = patients["canaries"]
        return (
            f"of {canaries['planted']} canaries, patients that were trained on with wrong labels "
            f"to be found, it lists {canaries['found']}"
        )
    if patients["smallest_detectable_auc"] is None:
        return f"it lists patients only where several leak: {planted}"
    return "no attack could be measured over all records"


def _tail(patients: dict[str, Any]) -> str:
    """How many patients are truly far above chance; empty where it was not estimated."""
    found = patients.get("tail", {}).get(_TAIL_AT, {})
    share, low, high = (found.get(key) for key in ("corrected", "low", "high"))
    if any(x is None or not math.isfinite(x) for x in (share, low, high)):
        return ""
    return (
        f"After correcting for noise about {_percent(share)} ({_percent(low)} to {_percent(high)}) "
        f"of patients have a true AUC of {_TAIL_AT} or more."
    )


def _percent(share: float) -> str:
    """Two significant digits, whole percents from 10 % on.

    >>> _percent(0.0263), _percent(0.152), _percent(0.00031), _percent(0.0), _percent(1.0)
    ('2.6%', '15%', '0.031%', '0%', '100%')
    """
    if 0 < share < 1e-5:
        return "less than 0.001%"
    return f"{100 * share:.0f}%" if share >= 0.0995 else f"{100 * share:.2g}%"


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
    return any(math.isfinite(m["auc"]) for name, m in attacks.items() if name not in SCREENS)


def _resolution(patients: dict[str, Any]) -> str:
    smallest = patients["smallest_detectable_auc"]
    if smallest is None:
        return (
            "With this number of models no patient alone can be listed, even one given away "
            f"completely; it takes {patients['n_perfect_needed']:,} such patients."
        )
    strong = patients.get("detectable_auc_80")
    true = f", and a true AUC of {strong:.3f} is in four audits of five" if strong else ""
    return (
        f"With this number of models a patient alone is listed from a measured AUC of "
        f"{smallest:.3f} upwards{true}; smaller leaks of single patients can stay unseen."
    )
