"""An audit of a training recipe as Markdown, for a data-protection impact assessment.

It mirrors the parts of Art. 35(7) GDPR.  What the audit measured is filled in, with its interval
and its source; what only the controller knows is a marked blank.  Nothing is concluded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from confide.audits.result import AuditResult
from confide.reports import dpia_words as words
from confide.reports import epsilon_view, groups_view, numbers, privacy_view, view, wording
from confide.reports import markdown as md
from confide.reports.view import part

_NOT_TESTED = (
    "Attackers who see more than answers: weights, gradients, several versions of one model.",
    "Attackers who change the training data, and queries made to fit a model.",
    "Attribute inference: what a model tells of a person of whom only a part is known.",
    "Extraction, regurgitation, model inversion and reconstruction of records.",
    "Membership of people outside this cohort, and other models than those of this recipe.",
    "The model that is released: the audit measures the recipe, on models made for this purpose.",
    "Upper bounds: no figure says that more cannot be found.",
)


def summary_of_audit(result: AuditResult, *, title: str, method: Mapping[str, Any]) -> str:
    """Write an audit of many models of a recipe as Markdown.

    Parameters
    ----------
    result : what the audit found; nothing is computed from it, it is only written out
    title : name of what was audited
    method : facts on how the audit was made, as for :func:`confide.reports.html.render`; notes on
        the data are left out, since they may quote single records

    Returns
    -------
    the document.  It names no patient, figures of fewer than 10 patients are withheld, and names
    from the data are text, whatever they hold
    """
    summary = result.summary
    return md.document(
        [
            *words.opening(
                title,
                summary.get("version"),
                "Measured: whether an attacker can tell, patient by patient, who was in the "
                "training data of models of one recipe.",
            ),
            *_result(summary),
            *_processing(summary),
            *_necessity(summary),
            *_tested(summary),
            *_likelihood(summary),
            *_groups(result),
            *_measures(summary, method),
            *words.checks(summary),
            *_open(summary),
            *words.who_judges(),
            *_method(method),
        ]
    )


def _result(summary: Mapping[str, Any]) -> Iterator[str]:
    said = wording.verdict(summary)
    yield md.heading(2, "What was found, in short")
    yield words.alerts(summary)
    yield f"**{md.text(said.label)}.** {md.text(said.headline)}"
    yield md.text(said.text) if said.text else ""
    yield from words.points("This means", said.means)
    yield from words.points("This does not mean", said.means_not)
    yield f"Source: {md.code('summary.json: verdict, patients')}."


def _processing(summary: Mapping[str, Any]) -> Iterator[str]:
    yield md.heading(2, "Description of the processing (Art. 35(7)(a))")
    yield words.blanks("Fact", words.PROCESSING)
    yield "What the audit saw of it:"
    yield words.facts(
        [
            ("Patients audited", numbers.count(summary.get("n_patients")), "", "n_patients"),
            ("Records of theirs", numbers.count(summary.get("n_records")), "", "n_records"),
            (
                "Records held out of all models",
                numbers.count(summary.get("n_heldout_records")),
                "",
                "n_heldout_records",
            ),
            ("Models trained and attacked", numbers.count(summary.get("n_models")), "", "n_models"),
            ("Task of the models", numbers.name(summary.get("task")), "", "task"),
        ]
    )


def _necessity(summary: Mapping[str, Any]) -> Iterator[str]:
    yield md.heading(2, "Necessity and proportionality (Art. 35(7)(b))")
    yield words.blanks("Fact", words.NECESSITY)
    found = groups_view.utility_overall(summary)
    if found is None or found.withheld:
        yield "How well the models do their task was not measured, or may not be shown."
        return
    yield f"How well the models do their task, on {found.n_patients} patients in none of them:"
    yield words.facts(
        [
            ("AUROC", found.auroc, found.auroc_interval, "utility.overall.auroc"),
            ("Accuracy", found.accuracy, found.accuracy_interval, "utility.overall.accuracy"),
        ]
    )


def _tested(summary: Mapping[str, Any]) -> Iterator[str]:
    yield md.heading(2, "What was tested")
    yield "Membership inference. The attacker considered"
    yield md.bullets(wording.THREAT_MODEL)
    yield md.bullets(wording.THREAT_LIMITS)
    names = [attack.name for attack in view.attacks(summary)]
    yield f"Attacks: {md.text(', '.join(names) or 'none')}. {_key('attacks')}"
    yield md.bullets(f"{one.name}: {one.text}" for one in view.screens(summary))


def _likelihood(summary: Mapping[str, Any]) -> Iterator[str]:
    patients = part(summary, "patients")
    yield md.heading(2, "Likelihood of identification by the tested means (Art. 35(7)(c))")
    yield md.heading(3, "Single patients")
    yield words.facts([*_of_patients(summary, patients)])
    yield (
        "Shares of patients at or above an area under the ROC curve (AUC): 0.5 is guessing, 1 is "
        "certainty. The measured share is inflated by noise; the corrected one is an estimate, "
        f"its bounds hold for any distribution that agrees with the data. {_key('patients.tail')}"
    )
    yield md.table(
        ["AUC at least", "Measured (95%)", "By chance (middle 95%)", "Corrected (95% bounds)"],
        [
            (
                one.threshold,
                numbers.with_interval(one.raw, one.raw_interval),
                numbers.with_interval(one.null, one.null_interval),
                numbers.with_interval(one.corrected, one.corrected_interval),
            )
            for one in view.tails(summary)
        ],
    )
    yield md.heading(3, "All records together")
    yield from attack_tables(summary, view.attacks(summary), "attacks")
    yield from _epsilon(summary)


def _of_patients(
    summary: Mapping[str, Any], patients: Mapping[str, Any]
) -> Iterator[tuple[str, str, str, str]]:
    listed, whole = (
        numbers.count(one) for one in (patients.get("n_at_risk"), summary.get("n_patients"))
    )
    fdr = numbers.rate(patients.get("fdr"))
    yield (
        f"Patients listed as at risk, at a false discovery rate of {fdr}",
        listed if numbers.MISSING in (listed, whole) else f"{listed} of {whole}",
        "",
        "patients.n_at_risk",
    )
    smallest, strong = (
        numbers.auc(patients.get(key)) for key in ("smallest_detectable_auc", "detectable_auc_80")
    )
    yield (
        "Smallest measured AUC from which a patient alone is listed",
        "none: with so few models nobody alone could be"
        if smallest == numbers.MISSING
        else smallest,
        "",
        "patients.smallest_detectable_auc",
    )
    yield (
        "True AUC of a patient alone who is listed in four audits of five",
        strong,
        "",
        "patients.detectable_auc_80",
    )
    for key, name in (("control", "Positive control"), ("canaries", "Canaries")):
        one = part(patients, key)
        if one:
            planted, found = (numbers.count(one.get(word)) for word in ("planted", "found"))
            yield f"{name}: planted patients found", f"{found} of {planted}", "", f"patients.{key}"


def attack_tables(
    summary: Mapping[str, Any], attacks: list[view.Attack], key: str
) -> Iterator[str]:
    """Areas, and shares of members found at low false-positive rates, attack by attack.

    Parameters
    ----------
    summary : of the audit
    attacks : from :func:`confide.reports.view.attacks`
    key : where they stand in summary.json
    """
    if not attacks:
        yield "No attack was measured."
        return
    yield f"Areas under the ROC curve; 0.5 is guessing. {_key(key)}"
    yield md.table(
        ["Attack", "AUC", "95% interval", "Balanced accuracy"],
        [(one.name, one.auc, one.interval, one.balanced_accuracy) for one in attacks],
    )
    prevalences = view.prevalences(summary)
    yield (
        "Members found at a low rate of false alarms, and how many of 100 persons whom the attack "
        "names are members, if that share of the persons asked about are. "
        + _key(f"{key}.NAME.tpr_at_fpr")
    )
    yield md.table(
        [
            "Attack",
            "False alarms",
            "Members found",
            "95% interval",
            "Behind it",
            *(f"Right, if {share} are members" for share in prevalences),
        ],
        [
            (
                one.name,
                rate.fpr,
                rate.tpr if rate.measurable else "not measurable",
                rate.interval if rate.measurable else "",
                f"{rate.false_positives} false alarms" if rate.measurable else "",
                *(rate.ppv.get(share, "") for share in prevalences),
            )
            for one in attacks
            for rate in one.rates
        ],
    )


def _epsilon(summary: Mapping[str, Any]) -> Iterator[str]:
    found = epsilon_view.bounds(summary)
    if found is None:
        return
    yield md.heading(3, "Claims of differential privacy that are refuted")
    yield f"{epsilon_view.LOWER_ONLY} {md.text(found.caution) if found.caution else ''}".strip()
    head = ["Evidence", "Whose", "Unit", "At least", "Delta", "Confidence", "Counts", "Note"]
    for name, bounds in (("Epsilon", found.epsilon), ("Mu", found.gaussian)):
        if bounds:
            yield f"{name}. {_key('epsilon')}"
            yield md.table(
                head,
                [
                    (b.method, b.whose, b.unit, b.value, b.delta, b.confidence, b.evidence, b.note)
                    for b in bounds
                ],
            )
    yield md.bullets(f"Note {i}: {note}" for i, note in enumerate(found.notes, start=1))


def _groups(result: AuditResult) -> Iterator[str]:
    yield md.heading(2, "Groups of data subjects")
    groups = groups_view.groups(result)
    if not groups:
        yield "No group was given, so differences between groups were not looked for."
        return
    yield (
        "The ratio compares a group's share of the patients with the highest risk to its share of "
        "all patients: 1 is its share, 2 twice that. The adjusted difference of mean AUC is that "
        "at equal numbers of records and rarity of classes. A difference says nothing of its "
        "cause. Figures of fewer than 10 patients are withheld, and with them others from which "
        f"they would follow. Source: {md.code('groups.parquet')}, "
        f"{md.code('summary.json: groups, utility.by_group')}. Pairs of groups stand in "
        f"{md.code('report.html')}."
    )
    utility = groups_view.utility_by_group(result)
    for group in groups:
        beside = {one.value: one for one in utility.get(group.name, [])}
        yield md.heading(3, group.name)
        yield (
            f"Any difference in the highest risk: p = {md.text(group.p_value)}; in the adjusted "
            f"mean AUC: p = {md.text(group.p_adjusted)}."
        )
        yield md.table(
            ["Value", "Patients", "Ratio (95%)", "Mean AUC", "Adjusted difference (95%)", "AUROC"],
            [_group_row(cell, beside.get(cell.value)) for cell in group.cells],
        )


def _group_row(cell: groups_view.Cell, utility: groups_view.Utility | None) -> tuple[str, ...]:
    if cell.withheld:
        return cell.value, groups_view.WITHHELD, "", "", "", ""
    shown = utility is not None and not utility.withheld
    auroc = (
        numbers.with_interval(utility.auroc, utility.auroc_interval) if utility and shown else ""
    )
    return (
        cell.value,
        cell.n_patients,
        numbers.with_interval(cell.ratio, cell.interval),
        cell.mean_auc,
        numbers.with_interval(cell.adjusted, cell.adjusted_interval),
        auroc,
    )


def _measures(summary: Mapping[str, Any], method: Mapping[str, Any]) -> Iterator[str]:
    yield md.heading(2, "Measures (Art. 35(7)(d))")
    trained = {key: value for key, value in method.items() if str(key).startswith("train: ")}
    private = {key: value for key, value in trained.items() if "privacy" in str(key)}
    if not trained:
        yield "How the models were trained is not known to the audit: predictions were read."
    elif private:
        yield "The configuration asks for training with differential privacy:"
        yield md.table(["Setting", "Value"], view.method_rows(private))
        yield from _promise(summary)
    else:
        yield "The configuration asks for no training with differential privacy."
    yield words.blanks("Measure", words.MEASURES)


def _promise(summary: Mapping[str, Any]) -> Iterator[str]:
    found = privacy_view.promise(summary)
    if found is None:
        return
    yield f"What was accounted for. {_key('privacy')}"
    yield md.table(["Fact", "Value"], found.facts)
    yield f"{privacy_view.MEANING} {_key('privacy.by_unit')}"
    yield md.table(
        [
            "Whose",
            "Epsilon",
            "AUC at most",
            *(f"Found at {rate} false alarms" for rate in found.rates),
        ],
        [
            (one.unit, one.epsilon, one.auc, *(one.tpr.get(rate, "") for rate in found.rates))
            for one in found.bounds
        ],
    )
    yield md.text(found.note) if found.note else ""
    yield "The guarantee does not cover:"
    yield md.bullets(privacy_view.OUTSIDE)


def _open(summary: Mapping[str, Any]) -> Iterator[str]:
    yield md.heading(2, "Residual uncertainty")
    patients = part(summary, "patients")
    strong = numbers.auc(patients.get("detectable_auc_80"))
    missed = (
        f" One who is alone at risk with a true AUC of {strong} is missed in one audit of five, "
        "one with less more often."
    )
    yield md.bullets(
        [
            "A patient who is not listed may still be at risk."
            + missed * (strong != numbers.MISSING),
            "Intervals are for other patients of the same kind and other models of the recipe, at "
            "95%. One in twenty may miss the truth.",
            f"Of patients listed, on average up to {numbers.rate(patients.get('fdr'))} are there "
            "by chance.",
            "All rests on membership drawn at random, patient by patient.",
            *wording.looks(patients),
        ]
    )
    yield md.heading(2, "What was not tested")
    yield md.bullets(_NOT_TESTED)


def _method(method: Mapping[str, Any]) -> Iterator[str]:
    yield md.heading(2, "Method and versions")
    yield words.method_table(method)
    yield (
        f"{md.code('report.html')} holds the same figures with curves and references; "
        f"{md.code('summary.json')} holds them in full."
    )


def _key(key: str) -> str:
    return f"Source: {md.code(f'summary.json: {key}')}."
