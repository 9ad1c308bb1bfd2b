"""What an attack run looks at: a release, the truth where it is at hand, the attacker's records."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from confide.config import Config
from confide.datasets import Opened
from confide.encoders.progress import is_begun
from confide.encoders.publish import read_private
from confide.encoders.release import Release, sha256, verify
from confide.encoders.settings import EncodeSettings
from confide.errors import MismatchError, MissingFileError, ReleaseError, TableError
from confide.inversion.attribute import Attribute
from confide.inversion.base import Architecture, Codes, Records
from confide.inversion.challenge import ChallengeFolder, is_challenge
from confide.inversion.scene import Hidden, Plaintexts, Scene, Some
from confide.inversion.settings import NEEDS, RECORDS
from confide.inversion.targets import Target

PLAINTEXTS = 4
"""Plaintexts that the attacker is given, at most, for each code that is attacked at most."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Subject:
    """The codes in question.

    Attributes
    ----------
    codes : all of them
    architecture : of their encoder
    facts : what a certificate says of them
    challenge : the folder, if they are of a challenge
    """

    codes: Codes
    architecture: Architecture
    facts: dict[str, Any]
    challenge: ChallengeFolder | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Attacked:
    """A scene and the names of what is in it.

    Attributes
    ----------
    scene : the release as a target
    subject : the codes in question
    rows : (n_codes,) numbers, in the release, of the codes that are attacked
    names : (n_plaintexts,) record ids of the attacker's plaintexts; empty without
    targets : of a challenge, its images of challenge 2 by name; empty where they are not at hand
    facts : what a certificate says of records and attribute
    notes : what was decided, a sentence each
    """

    scene: Scene
    subject: Subject
    rows: NDArray[np.intp]
    names: NDArray[Any]
    targets: dict[str, NDArray[Any]]
    facts: dict[str, Any]
    notes: tuple[str, ...]


def subject_of(path: Path, config: Config, folder: Path) -> Subject:
    """Open what is to be attacked: a release, or the folder of a challenge.

    Raises
    ------
    MissingFileError, ReleaseError : there is none, or it is damaged or of an unknown architecture
    """
    if is_challenge(path):
        challenge = ChallengeFolder.read(path)
        shape = config.data.open(folder).shape
        architecture = Architecture(settings=config.encode, shape=tuple(shape))
        wanted = (architecture.n_patches, config.encode.width)
        if challenge.shape != wanted:
            raise ReleaseError(
                f"{path} holds codes {challenge.shape}, the `encode` and `data` blocks describe "
                f"{wanted}; give the architecture that the challenge states."
            )
        facts = {
            "challenge": True,
            "n_records": challenge.n_records,
            "shape": list(challenge.shape),
            "encoder": {**config.encode.architecture(shape), "shuffle": config.encode.shuffle},
        }
        return Subject(codes=challenge, architecture=architecture, facts=facts, challenge=challenge)
    damage = verify(path)
    if damage:
        raise ReleaseError(
            f"{path} is not as it was made: {damage[0].file} is {damage[0].what} "
            f"({len(damage)} file(s) in all); get it again from where it was made."
        )
    release = Release.read(path)
    manifest = release.manifest
    facts = {
        "release_id": release.id,
        "key_id": release.key_id,
        "manifest_digest": manifest.digest,
        "release_json_sha256": sha256(path / "release.json"),
        "n_records": release.n_records,
        "shape": list(release.shape),
        "dtype": manifest.dtype,
        "encoder": manifest.encoder,
        "labels": list(manifest.labels),
        "columns": list(manifest.columns),
        "pseudonyms": manifest.pseudonyms,
    }
    architecture = _architecture(path, manifest.encoder)
    if release.shape != (architecture.n_patches, architecture.settings.width):
        raise ReleaseError(
            f"{path} holds codes {release.shape}, its encoder would make "
            f"{(architecture.n_patches, architecture.settings.width)}; it was not made by confide."
        )
    return Subject(codes=release, architecture=architecture, facts=facts)


def _architecture(path: Path, encoder: dict[str, Any]) -> Architecture:
    values = dict(encoder)
    try:
        shape = tuple(int(side) for side in values.pop("shape"))
        settings: EncodeSettings = TypeAdapter(EncodeSettings).validate_python(values)
        architecture = Architecture(settings=settings, shape=shape)
        architecture.n_patches  # noqa: B018 (refuses sides that are no multiples of the patch)
    except (KeyError, TypeError, ValueError, ValidationError):
        raise ReleaseError(
            f"{path} was made by an encoder that this version of confide does not know, "
            f"{encoder!r:.200}; use the version that made it."
        ) from None
    return architecture


def attacked(config: Config, folder: Path, path: Path, truth: Path | None) -> Attacked:
    """Bring together what is attacked, with what, and what is true.

    Parameters
    ----------
    config, folder : from :func:`confide.config.load`
    path : the release
    truth : its RELEASE.private, for scoring; None if it is not at hand

    Raises
    ------
    MismatchError : the records of the configuration are not those of the release
    TableError : there is no such attribute
    """
    subject = subject_of(path, config, folder)
    if truth is not None and subject.challenge is not None:
        raise MismatchError(
            f"{path} is a challenge, which has no RELEASE.private; score what is found with "
            "`confide challenge score`."
        )
    opened = config.data.open(folder)
    _require_shape(opened, subject, "data")
    attribute = Attribute.of(opened, _attribute(config, opened))
    block = config.attack
    rng = np.random.default_rng([block.seed, 10])
    n, most = subject.codes.n_records, RECORDS[block.budget]
    table = None if truth is None else _truth(truth, subject, opened)
    patient = np.arange(n) if table is None else pd.factorize(table["patient"])[0]
    rows = _sample(patient, most, rng)
    theirs = opened if block.plaintexts is None else block.plaintexts.open(folder)
    _require_shape(theirs, subject, "attack.plaintexts")
    plaintexts, names = None, np.array([], dtype=object)
    if block.knowledge != "codes":
        chosen = _plaintext_rows(config, subject, table, rows, theirs, rng)
        plaintexts = Plaintexts(
            records=theirs.read(chosen),
            patient=theirs.cohort.patient_index[chosen].astype(np.int64),
            attribute=attribute.values(theirs)[chosen],
        )
        names = _plaintext_names(subject, theirs, chosen)
    hidden = None
    if table is not None:
        of = table["row"].to_numpy()[rows]
        records = opened.read(of)
        hidden = Hidden(
            records=records,
            patient=patient[rows].astype(np.int64),
            match=_match(config, of, records, chosen, plaintexts.records)
            if plaintexts is not None
            else np.full(len(rows), -1, dtype=np.int64),
            attribute=attribute.values(opened)[of],
        )
    codes = subject.codes if len(rows) == n else Some(subject.codes, rows)
    scene = Scene(
        target=Target(kind="release", architecture=subject.architecture, codes=codes),
        plaintexts=plaintexts,
        hidden=hidden,
        known_share=block.known_share,
        seed=block.seed,
    )
    facts = {
        "n_codes": len(rows),
        "n_patients": None if hidden is None else len(np.unique(hidden.patient)),
        "n_plaintexts": len(names),
        "attribute": attribute.meaning,
        "attribute_is_published": attribute.name
        in (*subject.facts.get("labels", ()), *subject.facts.get("columns", ())),
    }
    notes = [*opened.notes, *_told(config, hidden, plaintexts)]
    if len(rows) < n:
        notes.append(
            f"{len(rows):,} of {n:,} codes were attacked, drawn by chance (by patient where the "
            "truth is at hand); among more codes each is harder to find."
        )
    return Attacked(
        scene=scene,
        subject=subject,
        rows=rows,
        names=names,
        targets=_targets(subject, opened),
        facts=facts,
        notes=tuple(notes),
    )


def _told(config: Config, hidden: Hidden | None, plaintexts: Plaintexts | None) -> list[str]:
    """Where attacks that are described by images of others are given the hidden ones."""
    if plaintexts is None:
        return []
    of_others = [name for name in config.attack.names if NEEDS[name] == "unpaired"]
    if config.attack.knowledge != "unpaired":
        return [
            f"The attacker has the hidden records themselves: {', '.join(of_others)} would find "
            "less with records of other patients alone."
        ] * bool(of_others)
    if hidden is None:
        return []
    ours, theirs = (
        {_digest(record) for record in records} for records in (hidden.records, plaintexts.records)
    )
    same = len(ours & theirs)
    return [
        f"{same:,} hidden records are among the attacker's plaintexts, which should be of other "
        "patients: what was found is more than such an attacker finds."
    ] * bool(same)


def _targets(subject: Subject, opened: Opened) -> dict[str, NDArray[Any]]:
    """Images of challenge 2; they lie among the records of `data`, or are not submitted."""
    challenge = subject.challenge
    if challenge is None or not challenge.target_images:
        return {}
    try:
        rows = challenge.target_rows(opened.cohort.record, opened.frame)
    except TableError:
        return {}
    records = opened.read(np.array(list(rows.values()), dtype=np.intp))
    return dict(zip(rows, records, strict=True))


def _attribute(config: Config, opened: Opened) -> str:
    """What probes look for: what is asked for, else the first group, else the label."""
    groups = [str(name) for name in opened.cohort.groups.columns]
    label = getattr(config.data, "label", "label")
    labels = [label] if isinstance(label, str) else list(label)
    return config.attack.attribute or [*groups, *labels][0]


def _truth(path: Path, subject: Subject, opened: Opened) -> pd.DataFrame:
    if not is_begun(path):
        raise MissingFileError(
            f"{path} is no folder of a release's own; name the RELEASE.private that was made with "
            "the release."
        )
    beside = read_private(path, subject.facts["release_id"])
    if beside.asked.get("fingerprint of the data") != opened.fingerprint():
        raise MismatchError(
            "The records of the configuration are not those of the release; name the `data` that "
            "it was made from."
        )
    return beside.truth


def _require_shape(opened: Opened, subject: Subject, block: str) -> None:
    if tuple(opened.shape) != tuple(subject.architecture.shape):
        raise MismatchError(
            f"The records of `{block}` have shape {tuple(opened.shape)}, those of the codes "
            f"{tuple(subject.architecture.shape)}; read them at the same size."
        )


def _sample(patient: NDArray[Any], most: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """Rows of all codes, or of random patients until there are `most`."""
    n = len(patient)
    if n <= most:
        return np.arange(n)
    place = rng.permutation(patient.max() + 1)[patient]
    return np.sort(np.argsort(place, kind="stable")[:most])


def _plaintext_rows(
    config: Config,
    subject: Subject,
    table: pd.DataFrame | None,
    rows: NDArray[np.intp],
    theirs: Opened,
    rng: np.random.Generator,
) -> NDArray[np.intp]:
    """Which records the attacker has, in an order that tells nothing."""
    every = np.arange(theirs.cohort.n_records)
    if config.attack.knowledge == "unpaired":
        most = PLAINTEXTS * RECORDS[config.attack.budget]
        return np.sort(rng.permutation(every)[:most])
    if subject.challenge is not None:
        rows_of = subject.challenge.rows_of(theirs.cohort.record, theirs.frame)
        every = np.sort(np.fromiter(rows_of.values(), dtype=np.intp))
    elif table is not None and config.attack.plaintexts is None:
        # In the order of the table: where the truth is not at hand it is the same.
        every = np.sort(table["row"].to_numpy()[rows])
    return rng.permutation(every)


def _plaintext_names(subject: Subject, theirs: Opened, rows: NDArray[np.intp]) -> NDArray[Any]:
    """Record ids of plaintexts; of a challenge the names of its images."""
    record = theirs.cohort.record
    if subject.challenge is not None:
        record = record.astype(object)
        for image, row in subject.challenge.rows_of(theirs.cohort.record, theirs.frame).items():
            record[row] = image
    return np.array([str(name) for name in record[rows]], dtype=object)


def _match(
    config: Config,
    of: NDArray[np.intp],
    records: Records,
    chosen: NDArray[np.intp],
    theirs: Records,
) -> NDArray[np.int64]:
    """Number of each record's plaintext, -1 where the attacker does not have it.

    Parameters
    ----------
    of : (n_codes,) rows of the records in `data`
    records : (n_codes, *shape)
    chosen : (n_plaintexts,) rows of the plaintexts in their table
    theirs : (n_plaintexts, *shape)
    """
    if config.attack.knowledge in ("codes", "unpaired"):
        return np.full(len(of), -1, dtype=np.int64)
    if config.attack.plaintexts is None:
        place = {int(row): i for i, row in enumerate(chosen)}
        return np.array([place[int(row)] for row in of], dtype=np.int64)
    # Another table may name and number them otherwise: what is in them tells.
    free: dict[bytes, list[int]] = {}
    for i, one in enumerate(theirs):
        free.setdefault(_digest(one), []).append(i)
    match = np.array([(free.get(_digest(one)) or [-1]).pop(0) for one in records], dtype=np.int64)
    if (match < 0).all():
        raise TableError(
            f"None of the {len(theirs):,} records of `attack.plaintexts` is a record of the "
            "release, value by value; read them alike, or use knowledge: unpaired."
        )
    return match


def _digest(record: NDArray[Any]) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(record).tobytes()).digest()
