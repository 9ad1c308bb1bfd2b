"""Columns of a table -> a matrix of numbers that a network can train on."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from confide._tables import coded, require_columns, text
from confide.errors import TableError

MAX_CATEGORIES = 32
NEARLY_ALL = 0.95
_HUGE = 1e30  # squares and ratios of such numbers leave the range of float32

_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_ID_WORDS = {"id", "ids", "nbr", "mrn", "uid", "uuid", "guid", "ssn", "empi", "identifier"}
_ID_OWNERS = "patient|subject|person|case|record|encounter|admission|hadm|visit|stay|study|image"
_ID_WORD = re.compile(rf"({_ID_OWNERS})(id|nr|no|nbr|number)")
_NUMBERS = {"boolean", "integer", "floating", "mixed-integer-float", "decimal"}
_TEXT = {"string", "categorical", "empty", "mixed-integer"}

# Words of names of columns that say who somebody is, and what to say of them.
_TELLING = {
    "a person's name": {
        *("name", "names", "surname", "firstname", "lastname", "forename", "middlename"),
        *("fullname", "fname", "lname", "maiden", "nickname", "initials"),
    },
    "an address or another contact": {
        *("address", "street", "zip", "zipcode", "postcode", "postal", "city", "town", "village"),
        *("county", "phone", "telephone", "mobile", "fax", "email", "mail"),
    },
    "a birth": {"dob", "birth", "birthday", "birthdate", "born"},
    "a date or time": {"date", "dates", "datetime", "timestamp"},
    "a path or file": {
        *("path", "paths", "file", "files", "filename", "filepath", "folder", "directory"),
        *("url", "uri"),
    },
    "an accession": {"accession", "accessionnumber"},
}
_TIMED = re.compile(
    "(study|series|acquisition|content|scan|exam|visit|admit|admission|disch|discharge|death|chart|"
    "event|start|end)(date|time)"
)
_MEASURED = {"age", "ages", "offset", "days", "weeks", "months", "years", "weight", "order"}
_LARGEST_DURATION = 1000  # a number beyond is a time of the clock rather than a duration

_MONTH = "(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*"
_DATE = re.compile(
    r"\d{4}[-/.]\d{1,2}([-/.]\d{1,2})?([t ].*)?"
    r"|\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4}( .*)?"
    rf"|\d{{1,2}}[-. ]*{_MONTH}[-., ]*\d{{2,4}}( .*)?"
    rf"|{_MONTH}\.? \d{{1,2}},? \d{{4}}( .*)?"
    r"|(19|20)\d{2}(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])(\d{6}.*)?"
    r"|\d{1,2}:\d{2}(:\d{2}.*)?",
    re.IGNORECASE,
)
_PATH = re.compile(
    r".*\.(png|jpe?g|dcm|dicom|tiff?|bmp|gif|webp|nii|gz|npy|npz|hea|dat|edf|xml|csv|txt|zip|svs)"
    r"|\w+://.*|[a-z]:\\.*|[.~]*/.*|[^\\/]+([\\/][^\\/]+){2,}"
    r"|\w*[a-z_]\d{3,}\w*[\\/].*|.*[\\/]\w*[a-z_]\d{3,}\w*",
    re.IGNORECASE,
)
_FREE_TEXT = 40  # characters, in the mean
_DATES = {"date", "datetime", "datetime64", "time", "period"}

Feature = tuple[str, NDArray[np.float32]]


def looks_like_identifier(column: pd.Series[Any], name: str) -> bool:
    """Whether a column seems to name records or patients rather than to describe them.

    So it is when a word of its name is id, nbr, mrn, uuid or the like ("encounter_id",
    "patientId", "subjectid"), or when it holds text or whole numbers of which nearly all (95 %)
    differ.  Fractions are measurements, and may well all differ.
    """
    words = [word.lower() for word in _WORDS.findall(name)]
    if any(word in _ID_WORDS or _ID_WORD.fullmatch(word) for word in words):
        return True
    known = column.dropna()
    if pd.api.types.is_float_dtype(known) and (known != np.floor(known)).any():
        return False
    return len(known) > 1 and known.nunique() >= NEARLY_ALL * len(known)


def may_identify(column: pd.Series[Any], name: str) -> str | None:
    """Why publishing a column may tell who a patient is, or None when nothing speaks for it.

    By name or by values: identifiers, names of people, addresses, births, dates and times, paths
    and files, accession numbers, free text.  Numbers that are measured pass, also when all of them
    differ; so do days counted from an unnamed day ("offset_days").  Rare values are not looked at.

    Returns
    -------
    the reason, which completes "The column may identify patients: ..."
    """
    words = [word.lower() for word in _WORDS.findall(name)]
    kind = _kind(column)
    if any(word in _ID_WORDS or _ID_WORD.fullmatch(word) for word in words):
        return "its name is that of an identifier"
    if kind in _DATES:
        return "it holds dates or times"
    if kind not in _NUMBERS | _TEXT:
        return "it holds neither numbers nor text"
    counts = column.astype(object).value_counts()
    if kind == "boolean" or set(counts.index) <= {0, 1}:
        return None
    values = [text(value) for value in counts.index]
    measured = kind in _NUMBERS and not _MEASURED.isdisjoint(words)
    told = _told(words, values if kind in _NUMBERS else None)
    if told and not (measured and told != "a date or time"):
        return f"its name speaks of {told}"
    if _share(_DATE, values, counts) >= NEARLY_ALL:
        return "its values are dates or times"
    if kind in _NUMBERS:
        differ = not measured and looks_like_identifier(column, "")
        return "nearly all of its values differ, as those of identifiers do" if differ else None
    return _told_by_text(column, values, counts)


def _told(words: Sequence[str], numbers: Sequence[str] | None) -> str | None:
    for what, known in _TELLING.items():
        if not known.isdisjoint(words):
            return what
    if any(_TIMED.fullmatch(word) for word in words):
        return "a date or time"
    if "time" in words or "times" in words:
        # Such as the days in hospital.
        lasted = numbers is not None and all(float(n) < _LARGEST_DURATION for n in numbers)
        return None if lasted else "a date or time"
    return None


def _told_by_text(
    column: pd.Series[Any], values: Sequence[str], counts: pd.Series[Any]
) -> str | None:
    if _share(_PATH, values, counts) > 1 - NEARLY_ALL:
        return "its values are paths or names of files"
    n_known = int(counts.sum())
    length = sum(len(value) * n for value, n in zip(values, counts, strict=True))
    if n_known and length > _FREE_TEXT * n_known and 2 * len(values) > n_known:
        return "it is free text"
    if looks_like_identifier(column, ""):
        return "nearly all of its values differ, as those of identifiers do"
    return None


def _share(pattern: re.Pattern[str], values: Sequence[str], counts: pd.Series[Any]) -> float:
    """Share of the known records whose value fits."""
    fits = [n for value, n in zip(values, counts, strict=True) if pattern.fullmatch(value.strip())]
    return sum(fits) / max(int(counts.sum()), 1)


def default_features(
    frame: pd.DataFrame, taken: Collection[str]
) -> tuple[list[str], tuple[str, ...]]:
    """Columns to train on when none are named, and notes on those left out.

    `taken` are columns with another use (patient, label, groups ...), which are no features.
    """
    rest = [name for name in frame.columns if name not in taken]
    other = [name for name in rest if _kind(frame[name]) not in _NUMBERS | _TEXT]
    ids = [
        name for name in rest if name not in other and looks_like_identifier(frame[name], str(name))
    ]
    notes = []
    if ids:
        notes.append(
            f"Left out, because they look like identifiers: {', '.join(ids)}; name them under "
            "`features` to train on them."
        )
    if other:
        notes.append(f"Left out, because they are neither numbers nor text: {', '.join(other)}.")
    return [name for name in rest if name not in ids and name not in other], tuple(notes)


def feature_matrix(
    frame: pd.DataFrame, columns: Sequence[str], pool: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], tuple[str, ...], tuple[str, ...]]:
    """Encode columns; all that is estimated is estimated from the training pool alone.

    Numbers are standardised by the mean and standard deviation of the pool; a missing one becomes
    the mean and is flagged by a 0/1 feature "<name> is missing"; a note tells of what is missing in
    held-out records alone, where that flag is constant over the pool.  Text becomes a 0/1 feature
    "<name>=<value>" for each of at most 32 categories; with more, the rarest share
    "<name>=(other)".  Categories that the pool does not have are (other) too, or no category
    where there is no such feature.  Features that are constant over the pool are dropped.

    Parameters
    ----------
    frame : one row per record
    columns : names of the columns to encode
    pool : (n_records,) bool, the records to estimate from

    Returns
    -------
    matrix : (n_records, n_features) float32
    names : (n_features,)
    notes : what was dropped, pooled or looks wrong, one sentence each

    Raises
    ------
    TableError : a column is absent, has a number beyond 1e30 (names the row), is neither number
        nor text, or no column is left
    """
    require_columns(frame, columns)
    notes: list[str] = []
    features: list[Feature] = []
    constant: list[str] = []
    for name in columns:
        absent = frame[name].isna().to_numpy()
        if absent.any() and not absent[pool].any():
            notes.append(
                f"{name} is missing in {int(absent.sum()):,} held-out record(s) and in none of the "
                "training pool, so that no feature flags it."
            )
        kept = [one for one in _encoded(frame[name], name, pool, notes) if np.ptp(one[1][pool])]
        features += kept
        if not kept:
            constant.append(name)
    if constant:
        notes.append(f"Left out, because constant over the training pool: {', '.join(constant)}.")
    if not features:
        raise TableError("No feature is left to train on; name columns that vary.")
    matrix = np.empty((len(frame), len(features)), dtype=np.float32)
    for i, (_, values) in enumerate(features):
        matrix[:, i] = values
    return matrix, tuple(name for name, _ in features), tuple(notes)


def _kind(column: pd.Series[Any]) -> str:
    if pd.api.types.is_bool_dtype(column):
        return "boolean"
    return str(pd.api.types.infer_dtype(column, skipna=True))


def _encoded(
    column: pd.Series[Any], name: str, pool: NDArray[np.bool_], notes: list[str]
) -> list[Feature]:
    kind = _kind(column)
    if kind in _NUMBERS:
        numbers = pd.to_numeric(column).to_numpy(np.float64, na_value=np.nan)
        return _standardised(numbers, name, pool)
    if kind not in _TEXT:
        raise TableError(f"Feature {name!r} holds values of kind {kind}; expected numbers or text.")
    return _one_hot(column, name, pool, notes)


def _standardised(
    numbers: NDArray[np.float64], name: str, pool: NDArray[np.bool_]
) -> list[Feature]:
    _refuse_huge(numbers, numbers, name)
    missing = np.isnan(numbers)
    flag = (f"{name} is missing", missing.astype(np.float32))
    known = numbers[pool & ~missing]
    if not known.size or known.min() == known.max():
        return [flag]
    # Exactly rounded sums: the same features, and fingerprint, on every machine.
    mean = math.fsum(known) / known.size
    sd = math.sqrt(math.fsum((known - mean) ** 2) / known.size)
    scaled = np.where(missing, 0.0, (numbers - mean) / sd)
    _refuse_huge(scaled, numbers, name)
    return [(name, scaled.astype(np.float32)), flag]


def _refuse_huge(checked: NDArray[np.float64], numbers: NDArray[np.float64], name: str) -> None:
    huge = np.abs(checked) > _HUGE
    if huge.any():
        row = int(np.argmax(huge))
        raise TableError(
            f"Feature {name!r} in row {row} is {numbers[row]:g}, too far from the others to be "
            "trained on; correct it or leave it blank."
        )


def _one_hot(
    column: pd.Series[Any], name: str, pool: NDArray[np.bool_], notes: list[str]
) -> list[Feature]:
    codes, values = coded(column, name)
    _note_numbers(codes, values, name, notes)
    count = np.bincount(codes[pool & (codes >= 0)], minlength=len(values))
    seen = np.flatnonzero(count)
    kept = seen
    if len(seen) > MAX_CATEGORIES:
        # Stable: of equally frequent categories the first by alphabet are kept.
        kept = np.sort(seen[np.argsort(-count[seen], kind="stable")][: MAX_CATEGORIES - 1])
        notes.append(
            f"{name} has {len(seen)} categories; all but the {len(kept)} most frequent are "
            f"pooled into {name}=(other)."
        )
    features = [
        (f"{name}={text(values[value])}", (codes == value).astype(np.float32)) for value in kept
    ]
    if len(kept) < len(seen):
        other = (codes >= 0) & ~np.isin(codes, kept)
        features.append((f"{name}=(other)", other.astype(np.float32)))
    return [*features, (f"{name} is missing", (codes < 0).astype(np.float32))]


def _note_numbers(
    codes: NDArray[np.intp], values: Sequence[Any], name: str, notes: list[str]
) -> None:
    """Say so when a few words make text of a column of numbers."""
    word = pd.to_numeric(pd.Series(values, dtype=object), errors="coerce").isna().to_numpy()
    is_word = np.append(word, False)[codes]  # code -1, a missing value, is none
    if is_word.any() and is_word.sum() <= (1 - NEARLY_ALL) * (codes >= 0).sum():
        # Notes stand in reports, so they quote no cell.
        notes.append(f"{name} is taken as text, because a few of its values are no numbers.")
