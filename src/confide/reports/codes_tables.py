"""Tables of a training on codes: how good its models are at their own site and at all, and where.

Nothing is computed here: figures are chosen, put in order and written out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from confide.reports import numbers
from confide.reports.codes_source import ALL_SITES, MODEL_OF, ONE_SITE, OWN_SITE, Source
from confide.reports.view import part

NOT_DISTINGUISHABLE = "not distinguishable from none"

GAIN = "Gain: the model of all sites less the models of one site."
OTHER_KEYS = (
    "Models of one site know only codes of the key of that site, and cannot be expected to read "
    "codes made with other keys."
)

Heading = tuple[str, str]
_JOINT: Heading = ("Model of all sites", "mean over sites")
_OWN: Heading = ("Models of one site", "at their own site")
_EVERYWHERE: Heading = ("Models of one site", "at all sites")
_POOLED: Heading = ("Model of all sites", "all records")
_GAIN: Heading = ("Gain", "mean over sites")
_COMPARED: dict[str, Heading] = {ALL_SITES: _JOINT, OWN_SITE: _OWN, ONE_SITE: ("Difference", "")}


@dataclass(frozen=True, kw_only=True)
class Figure:
    """An AUC or a difference of two as text, with its interval and what may be said of it."""

    value: str
    interval: str = numbers.MISSING
    note: str = ""


WITHHELD_FIGURE = Figure(value="withheld")


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """A table of figures.

    Attributes
    ----------
    heading : empty where the table is the only one of its kind
    columns : headings of the figures, each (what, of which records)
    rows : names and figures, one for each of `columns`; None where nothing was measured
    """

    heading: str
    caption: str
    first: str
    columns: tuple[Heading, ...]
    rows: tuple[tuple[str, tuple[Figure | None, ...]], ...]


@dataclass(frozen=True, kw_only=True)
class Where:
    """Of one arm, which model works where.

    Attributes
    ----------
    rows : name of the model, number of its own site (None for that of all sites), and its figure
        at each site
    """

    arm: str
    rows: tuple[tuple[str, int | None, tuple[Figure | None, ...]], ...]


def sheets(found: Mapping[str, Any], *, one_site: bool) -> tuple[Sheet, ...]:
    """The main tables of what was found of one label, those with figures."""
    areas: tuple[Sheet, ...] = (_at_own_site(found), _at_all_sites(found))
    if one_site:
        areas = (_arms(found, "", "AUC and its 95% interval.", {"own_site": ("AUC", "")}),)
    compared = _compared(found)
    return (*areas, compared) if compared.rows else areas


def _at_own_site(found: Mapping[str, Any]) -> Sheet:
    return _arms(
        found,
        "At their own site",
        f"AUC within each site, as a mean over sites. {GAIN}",
        {"mean_over_sites": _JOINT, "own_site": _OWN, "gain": _GAIN},
    )


def _at_all_sites(found: Mapping[str, Any]) -> Sheet:
    return _arms(
        found,
        "At all sites",
        "The same with each model of one site tested at every site, its own included. "
        f"{OTHER_KEYS}",
        {
            "mean_over_sites": _JOINT,
            "one_for_all": _EVERYWHERE,
            "gain_for_all": _GAIN,
            "all_sites": _POOLED,
        },
    )


def _arms(
    found: Mapping[str, Any], heading: str, caption: str, columns: Mapping[str, Heading]
) -> Sheet:
    """A row for each arm; `columns` gives the keys of its figures."""
    rows = []
    for name in part(found, "arms"):
        arm = part(found, "arms", name)
        figures = (
            difference(part(arm, key)) if columns[key] == _GAIN else area(part(arm, key))
            for key in columns
        )
        rows.append((numbers.name(name), tuple(figures)))
    return Sheet(
        heading=heading,
        caption=caption,
        first="Arm",
        columns=tuple(columns.values()),
        rows=tuple(rows),
    )


def _compared(found: Mapping[str, Any]) -> Sheet:
    """A row for each pair of arms, a column for each kind of model."""
    pairs: dict[tuple[str, str], dict[str, Figure]] = {}
    for one in found.get("differences") or []:
        pair = pairs.setdefault((str(one["arm"]), str(one["against"])), {})
        pair[str(one.get("model"))] = difference(one)
    models = dict.fromkeys(model for pair in pairs.values() for model in pair)
    return Sheet(
        heading="Arms compared",
        caption="AUC of the first arm less that of the second, for the same kind of model on the "
        "same test records.",
        first="Arms",
        columns=tuple(_COMPARED.get(model, (numbers.name(model), "")) for model in models),
        rows=tuple(
            (
                f"{numbers.name(arm)} minus {numbers.name(against)}",
                tuple(pair.get(model) for model in models),
            )
            for (arm, against), pair in pairs.items()
        ),
    )


def where(label: str, arms: list[str], source: Source) -> tuple[Where, ...]:
    """Of each arm, every model at every site; nothing with one site, or where nothing is known."""
    if source.one_site:
        return ()
    models = {ALL_SITES: None} | {MODEL_OF.format(s): i for i, s in enumerate(source.sites)}
    blocks = []
    for arm in arms:
        rows = []
        for model, own in models.items():
            figures = tuple(_at(label, arm, model, site, source) for site in source.sites)
            name = MODEL_OF.format(model) if own is None else model
            rows.append((numbers.name(name), own, figures))
        if any(figure for *_, figures in rows for figure in figures):
            blocks.append(Where(arm=numbers.name(arm), rows=tuple(rows)))
    return tuple(blocks)


def _at(label: str, arm: str, model: str, site: str, source: Source) -> Figure | None:
    row = source.where.get((label, arm, model, site))
    if row is None:
        return None
    return WITHHELD_FIGURE if source.is_small(row) else area(row)


def area(found: Mapping[str, Any]) -> Figure:
    """An AUC, of the keys `auc`, `low` and `high`."""
    low, high = numbers.auc(found.get("low")), numbers.auc(found.get("high"))
    return Figure(value=numbers.auc(found.get("auc")), interval=numbers.interval(low, high))


def difference(found: Mapping[str, Any]) -> Figure:
    """A difference of two AUCs, of the keys `value`, `low` and `high`."""
    low, high = numbers.number(found.get("low")), numbers.number(found.get("high"))
    # As they are written: an interval that reads "to 0.000" holds 0.
    holds_zero = low is not None and high is not None and round(low, 3) <= 0 <= round(high, 3)
    return Figure(
        value=signed(found.get("value")),
        interval=numbers.interval(signed(low), signed(high)),
        note=NOT_DISTINGUISHABLE if holds_zero else "",
    )


def signed(value: Any) -> str:
    """A difference of two AUCs with its sign and three decimals; what rounds to 0 has no sign.

    >>> signed(0.0213), signed(-0.011), signed(-0.0001), signed(None)
    ('+0.021', '-0.011', '0.000', 'n/a')
    """
    x = numbers.number(value)
    if x is None:
        return numbers.MISSING
    return f"{x:+.3f}" if round(x, 3) else "0.000"
