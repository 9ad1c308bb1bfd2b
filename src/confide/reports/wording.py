"""What a verdict means and what it does not mean, in plain words.

"None found" and "not established" are two answers, and neither of them is "safe".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from confide.audits import guards
from confide.reports import numbers
from confide.reports.view import part


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The verdict of an audit in words.

    Attributes
    ----------
    status : "at_risk", "detectable", "none_found" or "not_established"
    label : the status as two or three words
    headline : one sentence
    text : what the audit itself says about its verdict; may be empty
    means, means_not, next_steps : sentences
    """

    status: str
    label: str
    headline: str
    text: str
    means: tuple[str, ...]
    means_not: tuple[str, ...]
    next_steps: tuple[str, ...]


_COMPARE = (
    "Audit a recipe that memorises less (stopped earlier, or smaller) and "
    "set the two side by side: confide compare."
)
_MORE_MODELS = (
    "Train more models to find smaller risks; confide audit plan says what a number of models can "
    "find."
)


def verdict(summary: Mapping[str, Any]) -> Verdict:
    """The verdict of a summary in words; a summary without one is "not established"."""
    found = part(summary, "verdict")
    patients = part(summary, "patients")
    text = numbers.name(found.get("text") or "").removeprefix("(blank)")
    match found.get("status"):
        case "at_risk":
            return _at_risk(summary, patients, text)
        case "detectable":
            return _detectable(patients, text)
        case "none_found":
            return _none_found(patients, text)
        case _:
            return _not_established(summary, patients, text)


def _at_risk(summary: Mapping[str, Any], patients: Mapping[str, Any], text: str) -> Verdict:
    n = numbers.count(patients.get("n_at_risk"))
    total = numbers.count(summary.get("n_patients"))
    # One is a figure that a reader meets often here, so the grammar follows it.
    who = f"{n} of {total} patients is" if n == "1" else f"{n} of {total} patients are"
    return Verdict(
        status="at_risk",
        label="Patients at risk",
        headline=f"{who} at risk of being recognised as part of the training data.",
        text=text,
        means=(
            "Somebody who holds such a patient's record and has the means described below can tell "
            "better than by guessing whether the patient was in the training data.",
            f"On average at most {numbers.rate(patients.get('fdr'))} of those on such a list "
            "are false alarms (rule of Benjamini and Hochberg), as long as patients hardly "
            "influence each other's figures.",
            *looks(patients),
        ),
        means_not=(
            f"That the other patients are safe. {_reach(patients)}",
            *_canaries(patients),
            "That anybody has attacked a model, or that a record could be rebuilt: only whether a "
            "patient was in the training data is measured.",
        ),
        next_steps=(
            "Before such a model leaves the house, have the person responsible for data "
            "protection weigh this risk against its purpose.",
            _COMPARE,
            "See below how large the risk is and whether it falls on some groups more. Who the "
            "patients are stands in the audit's table of patients.",
        ),
    )


def _detectable(patients: Mapping[str, Any], text: str) -> Verdict:
    return Verdict(
        status="detectable",
        label="Leakage detected",
        headline="Membership leaks, though no single patient could be named.",
        text=text,
        means=(
            "Over all records, an attack tells training data from other data better than by "
            "guessing.",
            "No single patient stood out from chance at a false discovery rate of "
            f"{numbers.rate(patients.get('fdr'))}.",
            *looks(patients),
            _control(patients),
            *_canaries(patients),
        ),
        means_not=(
            f"That each patient is safe. {_reach(patients)}",
            "That the leak is harmless because it is small on average: it need not be spread "
            "evenly over patients.",
        ),
        next_steps=(
            "See under Risk of patients how many are exposed once noise is taken out.",
            f"{_MORE_MODELS} Single patients may then stand out.",
            _COMPARE,
        ),
    )


def _none_found(patients: Mapping[str, Any], text: str) -> Verdict:
    return Verdict(
        status="none_found",
        label="None found",
        headline="No patient at risk was found, within what this audit could detect.",
        text=text,
        means=(
            "No single patient stood out from chance at a false discovery rate of "
            f"{numbers.rate(patients.get('fdr'))}.",
            *looks(patients),
            _control(patients),
            *_canaries(patients),
        ),
        means_not=(
            f"That the model is safe or the data anonymous. {_reach(patients)}",
            "That nothing leaks on average: patients can leak a little each without any one of "
            "them standing out. See the attacks below.",
            "That a better attack, or a model trained in another way, would find nothing.",
        ),
        next_steps=(
            "Record this result with its limits: the smallest risk that could be listed, the "
            "guards and the warnings.",
            _MORE_MODELS,
            "Audit again when the recipe or the data change.",
        ),
    )


def _not_established(summary: Mapping[str, Any], patients: Mapping[str, Any], text: str) -> Verdict:
    if guards.voided(summary.get("guards") or []):
        means: tuple[str, ...] = (
            "A check failed without which the figures do not mean what they should; see the "
            "guards. A list of patients, long or short, is no evidence.",
        )
    else:
        means = (
            "The audit has no answer. It was not shown that it could find a patient at risk, so a "
            "short or empty list is no evidence.",
            _control(patients),
            *_canaries(patients),
            _reach(patients),
        )
    return Verdict(
        status="not_established",
        next_steps=(
            ("Mend what the failed guard names, and audit again.",)
            if guards.voided(summary.get("guards") or [])
            else (_MORE_MODELS,)
        )
        + ("Until then, decide as if patients were at risk.",),
        label="Not established",
        headline="This audit cannot say whether patients are at risk.",
        text=text,
        means=means,
        means_not=(
            "That patients are safe. Not established is never safe.",
            "That patients are at risk: this is just as open.",
        ),
    )


def _reach(patients: Mapping[str, Any]) -> str:
    smallest = numbers.auc(patients.get("smallest_detectable_auc"))
    if smallest == numbers.MISSING:
        return (
            "With this number of models and patients no patient alone could have been listed, not "
            "even one given away completely."
        )
    strong = numbers.auc(patients.get("detectable_auc_80"))
    often = (
        ""
        if strong == numbers.MISSING
        else f" A true AUC of {strong} is found in four audits of five."
    )
    # Where many are at risk, the rule of the list reaches lower: this is about one alone.
    return (
        f"A patient who is alone at risk is listed only from a measured AUC of {smallest} "
        f"upwards, with several records from slightly more.{often} Smaller risks can stay unseen."
    )


def _control(patients: Mapping[str, Any]) -> str:
    control = part(patients, "control")
    planted, found = (numbers.count(control.get(key)) for key in ("planted", "found"))
    if numbers.MISSING in (planted, found):
        return "No positive control was run: no patients were planted for the audit to find."
    return (
        f"Positive control: of {planted} planted patients, each of whose records has an AUC of "
        f"{numbers.auc(control.get('auc'))}, {found} were found."
    )


def _canaries(patients: Mapping[str, Any]) -> tuple[str, ...]:
    """One sentence on the canaries, none where there are none."""
    canaries = part(patients, "canaries")
    planted, found = (numbers.count(canaries.get(key)) for key in ("planted", "found"))
    if numbers.MISSING in (planted, found):
        return ()
    return (
        f"Canaries: of {planted} held-out patients that were trained on with wrong labels, "
        f"{found} were found.",
    )


def looks(patients: Mapping[str, Any]) -> tuple[str, ...]:
    """One sentence on what the chance to stop early costs, none where there was none."""
    n, fdr = numbers.number(patients.get("looks")), numbers.number(patients.get("fdr"))
    if n is None or fdr is None or n <= 1:
        return ()
    return (
        f"The list was made at a false discovery rate of {numbers.rate(float(f'{fdr / n:.3g}'))}: "
        f"{numbers.rate(fdr)} divided by the {numbers.count(n)} looks that were planned, because "
        "the audit could have stopped at any of them.",
    )


THREAT_MODEL = (
    "holds a person's record, with its label, and asks whether that person was in the training "
    "data;",
    "can put the record to the model and read its output in full;",
    "has reference models: the same recipe, trained on random parts of the same cohort.",
)
"""What the attacker of an audit has, as the ends of one sentence."""

THREAT_LIMITS = (
    "This is a strong attacker, chosen on purpose. An attacker with less finds less; a better "
    "attack may find more.",
    "The models of this audit are not the released model. Each was trained on a random part of "
    "the patients (half of them, unless the method below says otherwise), so that every patient is "
    "in some models and out of others. What is measured is the recipe on this cohort; the "
    "released model may give away more or less.",
    "One attack on one person is uncertain even where the average is high. The predictive values "
    "below say how far a single answer can be trusted.",
)
"""What the reader has to keep in mind about that attacker."""

_PAPERS = {
    "lira": "Carlini, Chien, Nasr, Song, Terzis, Tramèr. Membership inference attacks from first "
    "principles. IEEE Symposium on Security and Privacy, 2022. (LiRA)",
    "rmia": "Zarifzadeh, Liu, Shokri. Low-cost high-power membership inference attacks. ICML 2024. "
    "(RMIA)",
    "calibrated_loss": "Watson, Guo, Cormode, Sablayrolles. On the importance of difficulty "
    "calibration in membership inference attacks. ICLR 2022. (difficulty-calibrated loss)",
    "quantile": "Bertran et al. Scalable membership inference attacks via quantile regression. "
    "NeurIPS 2023. (quantile regression)",
    "loss": "Yeom, Giacomelli, Fredrikson, Jha. Privacy risk in machine learning: analyzing the "
    "connection to overfitting. IEEE Computer Security Foundations Symposium, 2018. (loss "
    "threshold)",
    "lt_iqr": "Pollock et al. Free record-level privacy risk evaluation through artifact-based "
    "methods. arXiv:2411.05743. (LT-IQR)",
    "delong": "DeLong, DeLong, Clarke-Pearson. Comparing the areas under two or more correlated "
    "receiver operating characteristic curves: a nonparametric approach. Biometrics 44:837-845, "
    "1988. (standard error of an AUC)",
    "obuchowski": "Obuchowski. Nonparametric analysis of clustered ROC curve data. Biometrics "
    "53:567-578, 1997. (intervals where a patient has several records)",
    "fdr": "Benjamini, Hochberg. Controlling the false discovery rate: a practical and powerful "
    "approach to multiple testing. Journal of the Royal Statistical Society B 57:289-300, 1995. "
    "(list of patients at risk)",
    "holm": "Holm. A simple sequentially rejective multiple test procedure. Scandinavian Journal "
    "of Statistics 6:65-70, 1979. (p-values of groups)",
    "one_run": "Steinke, Nasr, Jagielski. Privacy auditing with one (1) training run. NeurIPS "
    "2023. (bounds of epsilon from guesses)",
    "clopper_pearson": "Jagielski, Ullman, Oprea. Auditing differentially private machine "
    "learning: how private is private SGD? NeurIPS 2020. (bounds of epsilon from one patient)",
    "gdp": "Dong, Roth, Su. Gaussian differential privacy. Journal of the Royal Statistical "
    "Society B 84:3-37, 2022. (mu)",
    "tail": "Ignatiadis, Wager. Confidence intervals for nonparametric empirical Bayes analysis. "
    "arXiv:1902.02774, 2021. (bounds of corrected shares)",
    "shrinkage": "Morris. Parametric empirical Bayes inference: theory and applications. Journal "
    "of the American Statistical Association 78:47-55, 1983. (risk with noise taken out)",
    "patients": "Knolle et al. Disparate privacy risks from medical AI. Nature 656:192-198, 2026. "
    "(risk of a patient over models)",
}


def references(summary: Mapping[str, Any]) -> tuple[str, ...]:
    """The papers of the parts that this audit used, in the order of the page."""
    attacks = part(summary, "attacks")
    names = {name.removesuffix("_offline") for name in attacks}
    bounds = {str(one.get("method")) for one in summary.get("epsilon") or []}
    patients = part(summary, "patients")
    used = names | bounds
    if attacks:
        used |= {"obuchowski"}
    if patients:
        used |= {"patients", "delong", "fdr", "shrinkage"}
    tails = part(patients, "tail")
    if any(part(tails, key).get("corrected") is not None for key in tails):
        used |= {"tail"}
    if part(summary, "groups"):
        used |= {"holm"}
    return tuple(paper for key, paper in _PAPERS.items() if key in used)
