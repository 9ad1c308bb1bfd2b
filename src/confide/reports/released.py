"""The report of an audit of one released model: its words, one HTML file, and a terminal's text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from confide.audits.result import AuditResult
from confide.reports import figures, html, numbers, view
from confide.reports.view import SMALL_CELL, WITHHELD, part

_LABELS = {
    "detectable": "Leakage detected",
    "not_shown": "No leak shown",
    "not_established": "Not established",
}
_HEADLINES = {
    "detectable": "Who was in the training data of this model can be told better than by guessing.",
    "not_shown": "No attack was shown to tell who was in the training data of this model.",
    "not_established": "This audit cannot say what the model gives away.",
}

_ACCEPTED = {
    "blind": (
        "Members and others can be told apart without the model, so the figures do not separate "
        "its memory from the source of the records."
    ),
    "recipe": (
        "The target and its references were not trained alike, so the figures do not separate its "
        "memory from that difference."
    ),
}
"""Headlines where a guard failed and was accepted by name."""

MEANS = {
    "detectable": (
        "Somebody who holds a person's record, with its label, and reads the model's answer can "
        "tell better than by guessing whether the person was in its training data.",
        "How far one such claim can be trusted is said under “If the attack names a person”.",
    ),
    "not_shown": (
        "The attacks that were run did no better on this model than chance explains, with the "
        "members, non-members and references at hand.",
    ),
    "not_established": (
        "A check failed without which the figures do not mean what they should; see the guards.",
    ),
}

MEANS_NOT = {
    "detectable": (
        "That all persons are at the same risk: the figures are averages over persons.",
        "That a stronger attack, with more references, would not find more.",
    ),
    "not_shown": (
        "That the model is safe or its training data anonymous. A stronger attack may find what "
        "these did not.",
        "That no single person is given away: with one model, the risk of one person cannot be "
        "measured.",
    ),
    "not_established": (
        "That the model is safe. Not established is never safe.",
        "That it leaks: this is just as open.",
    ),
}

ONE_MODEL = (
    "One model was audited, the very one that was released. The risk of a single person compares "
    "models with and without that person, and there are none, so this report lists nobody.",
    "Members and non-members are said by the user to come from one source. The guard “blind” tests "
    "that as far as inputs, labels and groups tell; it cannot prove it.",
    "Intervals (95%) are for persons as the sampling units, all records of a person together. The "
    "training of the model is not repeated: they hold for this model and no other.",
)

_OF_ATTACKS = {
    "lira": "Carlini, Chien, Nasr, Song, Terzis, Tramèr. Membership inference attacks from first "
    "principles. IEEE Symposium on Security and Privacy, 2022. (LiRA)",
    "rmia": "Zarifzadeh, Liu, Shokri. Low-cost high-power membership inference attacks. ICML 2024. "
    "(RMIA)",
    "loss": "Yeom, Giacomelli, Fredrikson, Jha. Privacy risk in machine learning: analyzing the "
    "connection to overfitting. IEEE Computer Security Foundations, 2018. (loss threshold)",
}
_ALWAYS = (
    "Das, Zhang, Tramèr. Blind baselines beat membership inference attacks for foundation models. "
    "arXiv:2406.16201, 2024. (why members and non-members must come from one source)",
    "Obuchowski. Nonparametric analysis of clustered ROC curve data. Biometrics 53:567-578, 1997. "
    "(intervals where a person has several records)",
)


def render_released(result: AuditResult, *, title: str, method: Mapping[str, Any]) -> str:
    """Draw the audit of a released model as one HTML page.

    Parameters
    ----------
    result : from :func:`confide.audits.released.audit_released`, with guards and warnings
    title : heading of the page
    method : facts on how the figures were made, shown as a table; a nested dict becomes dotted
        names

    Returns
    -------
    the page, which says everything without its script (sorting and downloads of tables) and asks
    nothing of any network; it names no person
    """
    summary = result.summary
    status = status_of(summary)
    return html.page(
        "released.html.j2",
        title=title,
        method=method,
        scripts=[html.template_file("tables.js")],
        summary=summary,
        tone="none_found" if status == "not_shown" else status,
        label=_LABELS[status],
        headline=_headline(summary, status),
        text=numbers.name(part(summary, "verdict").get("text") or ""),
        means=MEANS[status],
        means_not=MEANS_NOT[status],
        one_model=ONE_MODEL,
        guards=view.guards(summary),
        warnings=view.warnings(summary),
        units=units(summary),
        one_record_each=one_record_each(summary),
        figures={name: roc(result.curves, name) for name in ("roc", "roc_patients")},
        prevalences=view.prevalences(summary),
        smallest=numbers.auc(summary.get("smallest_detectable_auc")),
        sides=sides(summary),
        utility=_utility(summary),
        references=references(summary),
    )


def references(summary: Mapping[str, Any]) -> list[str]:
    """The papers behind the attacks that were run, and behind every audit of a released model."""
    kinds = dict.fromkeys(name.removesuffix("_offline") for name in part(summary, "attacks"))
    return [*(_OF_ATTACKS[kind] for kind in kinds if kind in _OF_ATTACKS), *_ALWAYS]


def status_of(summary: Mapping[str, Any]) -> str:
    """The status of a verdict; anything unknown is "not_established"."""
    status = part(summary, "verdict").get("status")
    return status if status in _LABELS else "not_established"


def _headline(summary: Mapping[str, Any], status: str) -> str:
    accepted = [g["name"] for g in view.guards(summary) if g["status"] == "accepted"]
    known = [_ACCEPTED[name] for name in _ACCEPTED if name in accepted]
    return known[0] if known and status == "not_established" else _HEADLINES[status]


def units(summary: Mapping[str, Any]) -> list[tuple[str, str, list[view.Attack]]]:
    """Attacks over patients, then over records: (what, name of the figure, attacks).

    Where each patient has one record, both are the same, and patients stand alone.
    """
    attacks = part(summary, "attacks")
    people = {name: part(attacks, name, "by_patient") for name in attacks}
    of_patients = ("patients", "roc_patients", view.attacks({"attacks": people}))
    if one_record_each(summary):
        return [of_patients]
    return [of_patients, ("records", "roc", view.attacks(summary))]


def one_record_each(summary: Mapping[str, Any]) -> bool:
    """Whether every patient has one record."""
    n = summary.get("n_patients")
    return n is not None and n == summary.get("n_records")


def sides(summary: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(side, patients, records), small numbers withheld."""
    return [
        (
            word,
            _few(part(summary, key).get("n_patients")),
            _few(part(summary, key).get("n_records")),
        )
        for word, key in (("Members", "members"), ("Non-members", "nonmembers"))
    ]


def _utility(summary: Mapping[str, Any]) -> tuple[str, str] | None:
    """AUROC of the task on non-members, and its interval; None where it may not be shown."""
    found = part(summary, "utility", "overall")
    n = numbers.number(found.get("n_patients"))
    if n is None or n < SMALL_CELL or found.get("auroc") is None:
        return None
    bounds = numbers.interval(numbers.auc(found.get("low")), numbers.auc(found.get("high")))
    return numbers.auc(found["auroc"]), bounds


def _few(n: Any) -> str:
    known = numbers.number(n)
    return WITHHELD if known is not None and known < SMALL_CELL else numbers.count(n)


@dataclass(frozen=True, kw_only=True)
class Line:
    """One curve on a square of 100 by 100, and its band; `colour` counts from 0."""

    name: str
    colour: int
    points: str
    band: str


@dataclass(frozen=True, kw_only=True)
class Roc:
    """ROC curves on two logarithmic axes; `ticks` are (position from the left or below, text)."""

    lines: tuple[Line, ...]
    ticks: tuple[tuple[float, str], ...]


def roc(curves: pd.DataFrame, name: str) -> Roc | None:
    """One of the two figures, None if there is no point to draw."""
    found = figures.roc(curves[curves["curve"] == name].assign(curve="roc"))
    if found is None:
        return None
    floor = math.log10(found["x_floor"])

    def place(value: float) -> float:
        return 100 * (1 - max(math.log10(max(value, 1e-12)), floor) / floor)

    def path(x: Sequence[float], y: Sequence[float]) -> str:
        return " ".join(f"{place(a):.2f},{100 - place(b):.2f}" for a, b in zip(x, y, strict=True))

    return Roc(
        lines=tuple(
            Line(
                name=one["name"],
                colour=one["colour"],
                points=path(one["x"], one["y"]),
                band=path(one["band_x"] + one["band_x"][::-1], one["high"] + one["low"][::-1]),
            )
            for one in found["series"]
        ),
        ticks=tuple((place(10.0**k), numbers.rate(10.0**k)) for k in range(round(floor), 1)),
    )


def renderables(result: AuditResult) -> list[RenderableType]:
    """What to print of an audit of a released model; no person is named."""
    summary = result.summary
    status = status_of(summary)
    text = Text.assemble(
        (f"{_LABELS[status].upper()}: ", "bold"),
        numbers.name(part(summary, "verdict").get("text") or _headline(summary, status)),
    )
    if status != "detectable":
        text.append(f"\nNot to be read as: {MEANS_NOT[status][0]}")
    lines = [
        f"Guard {guard['name']} {guard['status']}: {guard['message']}"
        for guard in view.guards(summary)
        if guard["status"] not in ("passed", "failed", "accepted")
    ]
    lines += [f"Warning: {line}" for line in view.warnings(summary)]
    alerts = [f"{head} {message}" for head, message in view.alerts(summary)]
    parts: list[RenderableType] = [Text("\n".join([*alerts, ""]))] if alerts else []
    parts.append(text)
    if lines:
        parts.append(Padding(Text("\n".join(lines)), (1, 0, 0, 0)))
    for what, _, attacks in units(summary):
        if attacks:
            parts.append(Padding(_table(what, attacks), (1, 0, 0, 0)))
    return parts


def _table(what: str, attacks: list[view.Attack]) -> RenderableType:
    rates = list(dict.fromkeys(rate.fpr for attack in attacks for rate in attack.rates))
    title = f"Attacks on {what}: AUC, and members found at a false-positive rate of"
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for i, column in enumerate(["attack", "AUC (95% interval)", *rates]):
        table.add_column(Text(column), justify="right" if i else "left", no_wrap=i > 0)
    for attack in attacks:
        found = {rate.fpr: rate.tpr for rate in attack.rates}
        auc = numbers.with_interval(attack.auc, attack.interval)
        cells = [attack.name, auc, *(found.get(fpr, "") for fpr in rates)]
        table.add_row(*(Text(cell) for cell in cells))
    unmeasured = any(not rate.measurable for attack in attacks for rate in attack.rates)
    caption = [Text("n/a: too few non-members to measure so small a rate")] if unmeasured else []
    return Group(Text(title, style="bold"), table, *caption)
