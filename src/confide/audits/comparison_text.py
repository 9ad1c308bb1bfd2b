"""What a comparison of audits says in words, and nothing that its differences do not carry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_BY = {"attack_auc": "attack AUC", "mean_auc": "mean AUC of patients"}


def pair_text(pair: Mapping[str, Any]) -> str:
    """Sentences on two audits; see :func:`confide.audits.comparison.compare`."""
    first, second = _quoted(pair["first"]), _quoted(pair["second"])
    if pair["status"] == "not_compared":
        why = pair["not_compared"] or (
            "The numbers of models differ and signals were erased, so that nothing comparable is "
            "left."
        )
        return f"{first} and {second} are not compared. {why}"
    risk = pair[pair["by"]]
    if pair["status"] == "not_told_apart":
        text = (
            f"{first} and {second} are not told apart by what they give away ({_BY[pair['by']]} "
            f"{_signed(risk)}), which does not show that they give away equally much."
        )
        return f"{text[:-1]}{_higher(pair)} ({_auroc(pair)})." if _higher(pair) else text
    less = _quoted(pair["less"])
    more = second if pair["less"] == pair["first"] else first
    text = f"{less} gives away less than {more} ({_BY[pair['by']]} {_signed(_towards(pair, risk))})"
    if pair["status"] == "less":
        return f"{text}; utility was not measured."
    cost = "that is not detectably lower"
    if _better(pair):
        cost = "that is higher"
    if pair["status"] == "less_at_a_cost":
        cost = "that is lower" if pair["utility"] in ("first", "second") else "that may be lower"
    return f"{text}, at a utility {cost} ({_auroc(pair)})."


def headline(pairs: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, str]:
    """Status and text of the whole comparison.

    Statuses: "told_apart" (at least one pair is), "not_told_apart", "not_compared".
    """
    kinds = {pair["status"] for pair in pairs}
    told = kinds & {"less", "less_at_a_cost", "less_at_no_detected_cost"}
    status = "told_apart" if told else "not_told_apart"
    if kinds == {"not_compared"}:
        status = "not_compared"
    lines = []
    for name in names:
        beaten = _less_than(pairs, name, "less_at_no_detected_cost")
        better = [pair["less"] for pair in beaten if _better(pair)]
        if better:
            lines.append(
                f"{_quoted(name)} gives away more than {_listed(better)}, and its utility is lower."
            )
        if rest := [pair["less"] for pair in beaten if not _better(pair)]:
            lines.append(
                f"{_quoted(name)} gives away more than {_listed(rest)}; that its utility is higher "
                "was not detected."
            )
        if cheaper := _less_than(pairs, name, "less_at_a_cost"):
            others = [pair["less"] for pair in cheaper]
            lines.append(
                f"{_quoted(name)} gives away more than {_listed(others)}, and its utility is, or "
                "may be, higher."
            )
        if unknown := _less_than(pairs, name, "less"):
            others = [pair["less"] for pair in unknown]
            lines.append(f"{_quoted(name)} gives away more than {_listed(others)}.")
    for kind, words in (
        ("not_told_apart", "are not told apart by what they give away"),
        ("not_compared", "are not compared"),
    ):
        alike = [p for p in pairs if p["status"] == kind]
        if len(alike) == len(pairs) and len(pairs) > 1:
            lines.append(f"The audits {words}.")
        else:
            lines += [
                f"{_quoted(p['first'])} and {_quoted(p['second'])} {words}{_higher(p)}."
                for p in alike
            ]
    return {"status": status, "text": " ".join(lines)}


def _less_than(
    pairs: Sequence[Mapping[str, Any]], name: str, status: str
) -> list[Mapping[str, Any]]:
    """The pairs of this status in which the other audit gives away less than one of this name."""
    return [
        pair
        for pair in pairs
        if pair["status"] == status
        and name in (pair["first"], pair["second"])
        and pair["less"] != name
    ]


def _better(pair: Mapping[str, Any]) -> bool:
    """Whether the audit that gives away less has the higher utility, too."""
    return pair["utility"] in ("first", "second") and pair[pair["utility"]] == pair["less"]


def _higher(pair: Mapping[str, Any]) -> str:
    if pair["utility"] not in ("first", "second"):
        return ""
    return f"; {_quoted(pair[pair['utility']])} has the higher utility"


def _quoted(name: str) -> str:
    return f"“{name}”"


def _listed(names: Sequence[str]) -> str:
    quoted = [_quoted(name) for name in names]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} and {quoted[-1]}"


def _towards(pair: Mapping[str, Any], d: Mapping[str, Any]) -> dict[str, float]:
    """A difference as seen from the audit that gives away less."""
    if pair["less"] in (None, pair["first"]):
        return {key: d[key] for key in ("value", "low", "high")}
    return {"value": -d["value"], "low": -d["high"], "high": -d["low"]}


def _auroc(pair: Mapping[str, Any]) -> str:
    d = _towards(pair, pair["auroc"])
    if pair["less"] is None and pair["utility"] == "second":
        d = {"value": -d["value"], "low": -d["high"], "high": -d["low"]}
    return f"AUROC {_signed(d)}"


def _signed(d: Mapping[str, Any]) -> str:
    value, low, high = (signed(d[key]) for key in ("value", "low", "high"))
    return f"{value}, {low} to {high}"


def signed(value: float) -> str:
    """A difference with its sign.

    >>> signed(0.0123), signed(-0.0001), signed(-0.00001)
    ('+0.012', '-0.0001', '0.000')
    """
    # Whether a bound is below 0 decides what is said, so it is not rounded away.
    if abs(value) < 0.00005:
        return "0.000"
    return f"{value:+.4f}" if abs(value) < 0.0005 else f"{value:+.3f}"
