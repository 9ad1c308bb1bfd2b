"""The findings of an audit for a terminal: legible at 80 columns and without colour."""

from __future__ import annotations

import textwrap

from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from confide.audits.result import AuditResult
from confide.reports import epsilon_view, groups_view, numbers, privacy_view, view, wording

_MOST_CELLS = 5


def renderables(result: AuditResult) -> list[RenderableType]:
    """What to print, in order, with ``rich.console.Console.print``.

    Guards that failed, the verdict, what else speaks against it, the attacks, the risk of patients,
    the groups that differ most, the utility, what differential privacy guarantees, and the bounds
    of epsilon.  Names are shown as text
    whatever they hold, and no patient is named.
    """
    parts = [
        _alerts(result),
        _verdict(result),
        _cautions(result),
        _attacks(result),
        _patients(result),
        _tails(result),
        _groups(result),
        _utility(result),
        _guarantee(result),
        _epsilon(result),
    ]
    return [part for part in parts if part is not None]


def _table(*columns: str) -> Table:
    """A table whose first column is a name and whose other columns are figures."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for i, column in enumerate(columns):
        # Names fold onto the next line; a figure is never cut or broken.
        table.add_column(
            Text(column), justify="right" if i else "left", overflow="fold", no_wrap=i > 0
        )
    return table


def _row(table: Table, *cells: str) -> None:
    table.add_row(*(Text(cell) for cell in cells))


def _titled(title: str, table: Table, caption: str = "") -> RenderableType:
    # Lines of their own: a title of the table would be as narrow as the table.
    return Group(Text(title, style="bold"), table, *([Text(caption)] if caption else []))


def _spaced(part: RenderableType) -> RenderableType:
    return Padding(part, (1, 0, 0, 0))


def _alerts(result: AuditResult) -> RenderableType | None:
    alerts = view.alerts(result.summary)
    if not alerts:
        return None
    text = Text()
    for what, why in alerts:
        text.append(what, style="bold").append(f" {why}\n")
    return text


def _verdict(result: AuditResult) -> RenderableType:
    verdict = wording.verdict(result.summary)
    text = Text.assemble((f"{verdict.label.upper()}: ", "bold"), verdict.text or verdict.headline)
    if verdict.status != "at_risk":
        text.append(f"\nNot to be read as: {_first_lower(verdict.means_not[0])}")
    return text


def _first_lower(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:]


def _cautions(result: AuditResult) -> RenderableType | None:
    lines = [
        f"Guard {guard['name']} {guard['status']}: {guard['message']}"
        for guard in view.guards(result.summary)
        if guard["status"] not in ("passed", "failed", "accepted")  # those stand on top
    ]
    lines += [f"Warning: {line}" for line in view.warnings(result.summary)]
    return _spaced(Text("\n".join(lines))) if lines else None


def _attacks(result: AuditResult) -> RenderableType | None:
    attacks = view.attacks(result.summary)
    if not attacks:
        return None
    rates = list(dict.fromkeys(rate.fpr for attack in attacks for rate in attack.rates))
    unmeasured = any(not rate.measurable for attack in attacks for rate in attack.rates)
    table = _table("attack", "AUC (95% interval)", *rates)
    for attack in attacks:
        found = {rate.fpr: rate.tpr for rate in attack.rates}
        auc = numbers.with_interval(attack.auc, attack.interval)
        _row(table, attack.name, auc, *(found.get(fpr, "") for fpr in rates))
    screens = view.screens(result.summary)
    notes = [_spaced(Text(f"{screen.name}: {screen.text}")) for screen in screens]
    caption = "n/a: too few non-members to measure so small a rate" if unmeasured else ""
    title = "Attacks: AUC, and members found at a false-positive rate of"
    return _spaced(Group(_titled(title, table, caption), *notes))


def _patients(result: AuditResult) -> RenderableType:
    patients = view.part(result.summary, "patients")
    control = view.part(patients, "control")
    canaries = view.part(patients, "canaries")
    smallest = numbers.auc(patients.get("smallest_detectable_auc"))
    strong = numbers.auc(patients.get("detectable_auc_80"))
    table = Table.grid(padding=(0, 2))
    table.add_column(overflow="fold")
    table.add_column(overflow="fold")
    listed = (
        f"{numbers.count(patients.get('n_at_risk'))} of "
        f"{numbers.count(result.summary.get('n_patients'))}"
    )
    rows = {
        # Beside an answer that was not established, a bare "0" would read as a finding.
        "Patients at risk": f"not established ({listed} listed)"
        if wording.verdict(result.summary).status == "not_established"
        else f"{listed}, at a false discovery rate of {numbers.rate(patients.get('fdr'))}",
        "Smallest risk that could be listed": "none: no patient alone could be listed"
        if smallest == numbers.MISSING
        else f"AUC {smallest} measured, of a patient alone",
        "Listed in four audits of five": f"true AUC {strong}, of a patient alone",
        "Positive control": f"{numbers.count(control.get('found'))} of "
        f"{numbers.count(control.get('planted'))} planted patients found"
        if control
        else "not run",
        "Canaries": f"{numbers.count(canaries.get('found'))} of "
        f"{numbers.count(canaries.get('planted'))} found (trained on with wrong labels)",
    }
    if strong == numbers.MISSING:
        del rows["Listed in four audits of five"]
    if not canaries:
        del rows["Canaries"]
    for label, value in rows.items():
        _row(table, label, value)
    return _spaced(Group(table, *(Text(line) for line in wording.looks(patients))))


def _tails(result: AuditResult) -> RenderableType | None:
    tails = view.tails(result.summary)
    if not tails:
        return None
    corrected = any(tail.corrected != numbers.MISSING for tail in tails)
    last = ["corrected (95% bounds)"] if corrected else []
    table = _table("AUC", "measured (95% interval)", "by chance", *last)
    for tail in tails:
        measured = numbers.with_interval(tail.raw, tail.raw_interval)
        true = numbers.with_interval(tail.corrected, tail.corrected_interval)
        _row(table, tail.threshold, measured, tail.null, *([true] if corrected else []))
    caption = "corrected: share whose true AUC is that large" if corrected else ""
    return _spaced(_titled("Share of patients at or above an AUC", table, caption))


def _groups(result: AuditResult) -> RenderableType | None:
    cells = groups_view.top_cells(result, _MOST_CELLS)
    if not cells:
        return None
    table = _table("group", "patients", "ratio (95% interval)", "p", "q")
    for cell in cells:
        ratio = numbers.with_interval(cell.ratio, cell.interval)
        name = textwrap.shorten(cell.full_name, 100, placeholder=" ...")
        _row(table, name, cell.n_patients, ratio, cell.p_value, cell.q_value)
    title = "Groups that differ most; ratio 1: as many at highest risk as their size"
    caption = (
        f"The {len(cells)} smallest p; q is corrected for all compared. Left out: values of fewer "
        f"than {view.SMALL_CELL} patients, and those that would give their number away"
    )
    return _spaced(_titled(title, table, caption))


def _utility(result: AuditResult) -> RenderableType | None:
    utility = groups_view.utility_overall(result.summary)
    if utility is None:
        return None
    if utility.withheld:
        return _spaced(Text(f"Utility: withheld, {view.WITHHELD} held-out patients"))
    auroc = numbers.with_interval(utility.auroc, utility.auroc_interval)
    accuracy = numbers.with_interval(utility.accuracy, utility.accuracy_interval)
    return _spaced(Text(f"Utility on held-out patients: AUROC {auroc}, accuracy {accuracy}"))


def _guarantee(result: AuditResult) -> RenderableType | None:
    """The upper bounds, before the lower ones are read."""
    found = privacy_view.promise(result.summary)
    if found is None:
        return None
    table = _table("whose", "epsilon at most", "AUC at most")
    for one in found.bounds:
        _row(table, one.unit, one.epsilon, one.auc)
    title = f"Guaranteed by differential privacy at delta {found.delta}"
    return _spaced(_titled(title, table, found.note))


def _epsilon(result: AuditResult) -> RenderableType | None:
    found = epsilon_view.bounds(result.summary)
    if found is None:
        return None
    claims: dict[tuple[str, str], list[epsilon_view.Bound]] = {}
    for one in found.epsilon:
        claims.setdefault((one.delta, one.confidence), []).append(one)
    parts: list[RenderableType] = []
    for (delta, confidence), bounds in claims.items():
        title = f"Lower bounds of epsilon at delta {delta}, confidence {confidence} each"
        table = _table("evidence", "whose", "unit", "epsilon at least")
        for one in bounds:
            _row(table, f"{one.method} [{one.note}]", one.whose, one.unit, one.value)
        parts.append(_titled(title, table))
    lines = [
        f"{one.method} [{one.note}]: mu at least {one.value}, confidence {one.confidence} (whose: "
        f"{one.whose}; unit: {one.unit})"
        for one in found.gaussian
    ]
    lines += [f"[{i}] {line}" for i, line in enumerate(found.notes, start=1)]
    lines += [epsilon_view.LOWER_ONLY, *([found.caution] if found.caution else [])]
    return _spaced(Group(*parts, Text("\n".join(lines))))
