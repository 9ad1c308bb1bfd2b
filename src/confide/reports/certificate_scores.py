"""What the scores of a certificate are, in plain words, and how each is written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from confide.reports import numbers

Unit = Literal["share", "area", "decimal", "rank", "number"]
"""How a score is written; "share" and "area" lie between 0 and 1 and have an axis."""


@dataclass(frozen=True, kw_only=True)
class ScoreWords:
    """What a score is.

    Attributes
    ----------
    title : two or three words
    unit : how it is written
    sentence : what it says, with what guessing or nothing gives where that is fixed
    """

    title: str
    unit: Unit
    sentence: str


_SMALLER = "The smaller, the more was found."

_SCORES = {
    "reid": ScoreWords(
        title="re-identified",
        unit="share",
        sentence="Share of the codes whose own plaintext was named, where each plaintext may be "
        "named once; a code without an answer counts as wrong.",
    ),
    "reid_identical": ScoreWords(
        title="re-identified, copies count",
        unit="share",
        sentence="The same, where a plaintext that is identical to the right one, value by value, "
        "counts as right.",
    ),
    "patient": ScoreWords(
        title="right patient",
        unit="share",
        sentence="Share of the codes for which a plaintext of the right patient was named.",
    ),
    "first_rank": ScoreWords(
        title="right one first",
        unit="share",
        sentence="Share of the codes of which the right record comes first, ahead of all others.",
    ),
    "mean_rank": ScoreWords(
        title="mean rank",
        unit="rank",
        sentence=f"Mean place of the right record among all plaintexts; 1 is first. {_SMALLER}",
    ),
    "coverage": ScoreWords(
        title="answered",
        unit="share",
        sentence="Share of the codes for which a plaintext was named at all, right or wrong.",
    ),
    "challenge2": ScoreWords(
        title="nearest prediction",
        unit="share",
        sentence="Share of the codes whose mean row is nearest to the one predicted for their own "
        "record, among those predicted for all records.",
    ),
    "challenge2_reverse": ScoreWords(
        title="nearest code",
        unit="share",
        sentence="Share of the predictions that are nearest to the code of their own record, "
        "among all codes.",
    ),
    "mse_ratio": ScoreWords(
        title="error ratio",
        unit="decimal",
        sentence="Squared error of the predictions over that of always predicting the mean; 0 is "
        f"no error, 1 is no better than the mean. {_SMALLER}",
    ),
    "mmd": ScoreWords(
        title="discrepancy",
        unit="number",
        sentence="Squared maximum mean discrepancy of predicted and true codes; 0 where both have "
        "one distribution. It says nothing of single records, and has no level of chance.",
    ),
    "auc": ScoreWords(
        title="AUC",
        unit="area",
        sentence="Chance that a case looked for (a code with the attribute, or two codes of one "
        "patient) scores higher than another; 0.5 is guessing, 1 is certainty.",
    ),
    "precision_at_1": ScoreWords(
        title="nearest is the patient's",
        unit="share",
        sentence="Share of the codes whose most similar other code is of the same patient, among "
        "codes of patients who have another.",
    ),
    "map_correlation": ScoreWords(
        title="correlation of maps",
        unit="decimal",
        sentence="Mean correlation of the map recovered of a hidden record, patch by patch, with "
        "the map that the record itself gives; 1 is the same map.",
    ),
    "linkage_first_rank": ScoreWords(
        title="map is nearest to its own",
        unit="share",
        sentence="Share of the codes whose recovered map is most like that of their own record, "
        "among the hidden records: who comes upon that record could tell whose code it is.",
    ),
    "linkage_assigned": ScoreWords(
        title="map is assigned its own",
        unit="share",
        sentence="The same, where each record is given to one code.",
    ),
    "correlation": ScoreWords(
        title="correlation of records",
        unit="decimal",
        sentence="Median correlation of a rebuilt record with the true one, value by value; 1 is "
        "the same but for brightness and contrast.",
    ),
}


def of(name: Any) -> ScoreWords:
    """What a score of that name is; of an unknown one only its name."""
    known = _SCORES.get(str(name))
    return known or ScoreWords(
        title=numbers.name(name),
        unit="number",
        sentence="A score that this page has no words for; see the documentation of its attack.",
    )


def written(value: Any, unit: Unit, like: Any = None) -> numbers.Written:
    """A score as text; with `like`, as many digits of a share as that one would have.

    >>> written(0.05, "share"), written(0.61, "area"), written(1234.5, "rank"), written(2e-5, "")
    ('5.0%', '0.610', '1,234.5', '2e-05')
    """
    x = numbers.number(value)
    if x is None:
        return numbers.Written(numbers.MISSING)
    if unit == "share":
        return numbers.percent(x, like=like)
    if unit in ("area", "decimal"):
        return numbers.auc(x)
    return numbers.Written(f"{x:,.1f}" if unit == "rank" else f"{x:.3g}", x)
