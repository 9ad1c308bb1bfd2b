"""The page of a comparison: one HTML file that opens offline."""

from __future__ import annotations

from confide.audits.comparison import Comparison
from confide.reports import compare_frontier, compare_view, html, numbers

STATUS = {
    "told_apart": "Recipes are told apart",
    "not_told_apart": "Not told apart",
    "not_compared": "Not compared",
}
READING = (
    "An audit trains many models of one recipe, each on a random part of the patients. What a "
    "recipe gives away is how well an attacker tells, from what a model says about a record, "
    "whether its patient was in the training data.",
    "Recipes are told apart where the 95% interval of their difference, corrected for all "
    "comparisons on this page (Holm), leaves out zero. Two recipes whose intervals overlap in the "
    "figure may still be told apart, because the same patients are compared.",
    "“Not detectably lower” utility means that the interval of the difference does not lie below "
    "zero. It does not show that the utility is the same: look at how low the interval reaches.",
    "The list of patients at risk, the rates of the attack and shares as measured depend on the "
    "number of models. The bounds of corrected shares are comparable between any numbers; their "
    "estimates lean with few models.",
    "A recipe that gives away less is not thereby safe: its own report says what was found.",
)


def render_comparison(found: Comparison, *, title: str = "Recipes compared") -> str:
    """Draw a comparison as one HTML page.

    Parameters
    ----------
    found : what :func:`confide.audits.comparison.compare` returned; nothing is computed from it
    title : heading of the page

    Returns
    -------
    the page; no patient is named, and small groups are withheld.  All is in the HTML, and scripts
    only sort and download
    """
    summary = found.summary
    attack = compare_view.attack(summary)
    verdict = summary["verdict"]
    return html.page(
        "compare.html.j2",
        title=title,
        method={
            "audits": compare_view.names(summary),
            "attack that all are compared by": attack,
            "patients": numbers.count(summary["n_patients"]),
            "records": numbers.count(summary["n_records"]),
            "intervals": "95%, patients and models as sampling units, unless said otherwise",
            "correction": "Holm, over all differences with a p-value",
            **({"version of confide": summary["version"]} if "version" in summary else {}),
        },
        scripts=[html.template_file("tables.js")],
        status=STATUS[verdict["status"]],
        verdict=numbers.name(verdict["text"]),
        names=compare_view.names(summary),
        attack=attack,
        n_patients=numbers.count(summary["n_patients"]),
        n_records=numbers.count(summary["n_records"]),
        warnings=[numbers.name(line) for line in summary["warnings"]],
        guards=compare_view.guards(summary),
        frontiers=compare_frontier.frontiers(summary, attack),
        left_out=[numbers.name(arm["name"]) for arm in summary["arms"] if arm.get("auroc") is None],
        settings=compare_view.settings(summary),
        unknown=compare_view.unknown_settings(summary),
        audits=compare_view.audits(summary),
        shares=compare_view.shares(summary),
        texts=[numbers.name(pair["text"]) for pair in summary["pairs"]],
        differences=compare_view.differences(summary),
        attacks=compare_view.attacks(summary),
        groups=compare_view.groups(found.groups, summary),
        reading=READING,
    )
