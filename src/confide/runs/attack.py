"""Attack a release with a suite of attacks and their controls; certify what was found."""

from __future__ import annotations

import math
import time
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from confide.config import Config
from confide.errors import ArgumentError, FolderError
from confide.inversion.base import (
    CodesOnly,
    Finding,
    InversionAttack,
    KnownAttributes,
    Matching,
    Substitute,
    Work,
)
from confide.inversion.scene import Scene, control
from confide.inversion.scores import score
from confide.inversion.settings import CONTROL_NUMBERS
from confide.inversion.suite import KNOWN
from confide.inversion.targets import Kind
from confide.inversion.verdict import SINGLES_OUT
from confide.reports.certificate import render_certificate
from confide.reports.dpia_certificate import summary_of_certificate
from confide.runs.attacked import Attacked, attacked
from confide.runs.certificate import certificate
from confide.runs.folder import resumable
from confide.runs.models import Progress, silent
from confide.runs.pictures import pictures
from confide.stores import plain, read_json, write_bytes, write_json, write_table

CONTROLS: tuple[Kind, ...] = ("linear", "noise")
STEPS = 1000
"""Of the progress of one attack on one target."""

Attack = InversionAttack[Any, Any]


@dataclass(frozen=True, kw_only=True)
class Part:
    """One attack on one target: what is stored of it.

    Attributes
    ----------
    attack : its name
    target : "release", or a control
    axis, x : of a variant, where it stands on which curve; "" and None otherwise
    made : the attack, with its settings
    """

    attack: str
    target: Kind
    axis: str
    x: float | None
    made: Attack = field(repr=False)

    @property
    def stem(self) -> str:
        """Of its files."""
        variant = "" if self.x is None else f".{self.axis.replace(' ', '-')}.{self.x:g}"
        return f"{self.attack}.{self.target}{variant}"


def attack_release(
    config: Config,
    folder: Path,
    path: Path,
    out: Path,
    *,
    truth: Path | None = None,
    max_reid: float | None = None,
    show_images: bool = False,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Run the suite against a release; attacks that are finished are not run again.

    Parameters
    ----------
    config, folder : from :func:`confide.config.load`; `data` is what the release was made from
    path : the release, or the folder of a challenge
    out : the folder for findings, certificate and report
    truth : RELEASE.private, by which findings are scored; no attack sees it
    max_reid : the gate on re-identification; that of the configuration by default
    show_images : whether the report shows what was recovered of some records beside the truth
    progress : called with (steps finished, steps in all)

    Returns
    -------
    the content of certificate.json

    Raises
    ------
    ReleaseError, MissingFileError, MismatchError, TableError : what is given cannot be used
    FolderError, MismatchError : `out` cannot be used, or was begun with something else
    """
    given = attacked(config, folder, path, truth)
    gate = max_reid
    if gate is None and config.attack.gate is not None:
        gate = config.attack.gate.reid
    with resumable(out, _asked(config, given), "attack on a release"):
        parts = list(_parts(config, given))
        runner = _Runner(config, given, out, progress, total=len(parts))
        found = {part.stem: runner.run(part) for part in parts}
        content = certificate(config, given, parts, found, gate)
        write_json(out / "certificate.json", content)
        shown = {name: found[f"{name}.release"].get("pictures", []) for name in content["attacks"]}
        write_bytes(out / "summary.md", summary_of_certificate(content).encode())
        (out / "report.pdf").unlink(missing_ok=True)
        page = render_certificate(content, shown if show_images else {})
        write_bytes(out / "report.html", page.encode())
    return content


def _parts(config: Config, given: Attacked) -> Iterator[Part]:
    shuffled = given.subject.architecture.settings.shuffle
    for name in config.attack.names:
        attack = KNOWN[name].of(config.attack.budget)
        # Where rows are shuffled, the linear encoder with rows in order is too easy by itself.
        second = shuffled and attack.finding in SINGLES_OUT and not math.isinf(attack.breaks_at)
        # What is found in codes alone means more beside what is found without any encoding.
        raw = attack.knowledge in (CodesOnly, KnownAttributes)
        more: tuple[Kind, ...] = (*(("shallow",) if second else ()), *(("raw",) if raw else ()))
        for kind in (*CONTROLS, *more, "release"):
            yield Part(attack=name, target=kind, axis="", x=None, made=attack)
        curves = {} if config.attack.budget == "quick" else attack.curves()
        for axis, points in curves.items():
            for x, variant in points.items():
                yield Part(attack=name, target="release", axis=axis, x=x, made=variant)


class _Runner:
    """Runs parts that are not there yet, each on its scene."""

    def __init__(
        self, config: Config, given: Attacked, out: Path, progress: Progress, *, total: int
    ) -> None:
        from confide.training.device import device_of

        self._config, self._given, self._out = config, given, out
        self._progress, self._done, self._total = progress, 0, total
        self._device = device_of(config.performance)
        self._scenes: dict[Kind, Scene] = {}

    def run(self, part: Part) -> dict[str, Any]:
        """What is stored of a part."""
        file = self._out / "parts" / f"{part.stem}.json"
        if not file.is_file():
            file.parent.mkdir(exist_ok=True)
            write_json(file, self._attacked(part))
        self._done += 1
        self._progress(self._done * STEPS, self._total * STEPS)
        return _read(file, part)

    def _attacked(self, part: Part) -> dict[str, Any]:
        content: dict[str, Any] = {
            "part": part.stem,
            "settings": part.made.settings(),
            "seconds": 0.0,
            "scores": [],
            "notes": [],
            "not_run": None,
        }
        kind = part.made.knowledge
        started = time.monotonic()
        try:
            scene = self._scene(part.target)
            known = scene.known(kind)
            truth = None if scene.hidden is None else scene.truth(kind)
            finding = part.made(known, self._work(part))
            content |= {
                "seconds": round(time.monotonic() - started, 2),
                "notes": list(finding.notes),
                "n_codes": known.codes.n_records,
            }
            if truth is not None:
                content["scores"] = [asdict(s) for s in score(finding, truth, seed=0)]
                content["pictures"] = pictures(finding, truth)
        except ArgumentError as error:
            # There is nothing to know here, too little to attack, or nothing to score by.
            return {**content, "not_run": str(error)}
        if part.target == "release" and part.x is None:
            self._keep(part, finding)
        return content

    def _work(self, part: Part) -> Work:
        def progress(done: int, total: int) -> None:
            step = STEPS * done // max(total, 1)
            self._progress(self._done * STEPS + min(step, STEPS), self._total * STEPS)

        minutes = self._config.attack.minutes
        # One seed for an attack on all targets: the same luck, the same effort.
        seed = np.random.SeedSequence([self._config.attack.seed, zlib.crc32(part.attack.encode())])
        return Work(
            seed=int(seed.generate_state(1)[0]),
            device=self._device,
            seconds=None if minutes is None else 60 * minutes,
            progress=progress,
        )

    def _scene(self, kind: Kind) -> Scene:
        if kind not in self._scenes:
            scene = replace(self._given.scene, device=self._device)
            if kind != "release":
                scene = control(scene, kind, CONTROL_NUMBERS[self._config.attack.budget])
            # Controls are held in memory: one at a time.
            self._scenes = {k: s for k, s in self._scenes.items() if k == "release"}
            self._scenes[kind] = scene
        return self._scenes[kind]

    def _keep(self, part: Part, finding: Finding) -> None:
        """Write what was found, for `confide challenge submit` and for whoever acts on it."""
        if isinstance(finding, Matching):
            hit = finding.assigned >= 0
            names = np.where(hit, self._given.names[finding.assigned], "")
            best = finding.similarity[np.arange(len(hit)), finding.assigned]
            table = pd.DataFrame(
                {
                    "code": self._given.rows,
                    "record": pd.Series(names).where(hit),
                    "similarity": np.where(hit, best, np.nan),
                }
            )
            write_table(self._out / f"{part.attack}.parquet", table)
        if isinstance(finding, Substitute) and self._given.targets:
            names, records = zip(*self._given.targets.items(), strict=True)
            buffer = BytesIO()
            np.save(buffer, finding.means(np.stack(records)), allow_pickle=False)
            write_json(self._out / f"{part.attack}.means.json", list(names))
            write_bytes(self._out / f"{part.attack}.means.npy", buffer.getvalue())


_SCORE = ("value", "chance", "chance_low", "chance_high")


def _read(file: Path, part: Part) -> dict[str, Any]:
    """What is stored of a part.

    Raises
    ------
    FolderError : it is damaged, or of another part
    """
    content = read_json(file)
    try:
        same = (content["part"], content["settings"]) == (part.stem, plain(part.made.settings()))
        for one in content["scores"]:
            for name in _SCORE:
                # Some scores have no chance level.
                float(one[name] if name == "value" else one[name] or 0.0)
        whole = same and {"seconds", "notes", "not_run"} <= content.keys()
    except (KeyError, TypeError, ValueError, AttributeError):
        whole = False
    if not whole:
        raise FolderError(f"{file} is damaged or of another run; delete it to attack again.")
    found: dict[str, Any] = content
    return found


def _asked(config: Config, given: Attacked) -> dict[str, Any]:
    asked = config.attack.model_dump(mode="json", exclude={"gate", "plaintexts"})
    facts = given.subject.facts
    return {
        "confide": version("confide"),
        "truth": given.scene.hidden is not None,
        "attack": asked,
        "release": facts.get("manifest_digest", facts),
        "records": given.facts,
        "fingerprint": _fingerprint(given),
    }


def _fingerprint(given: Attacked) -> int:
    """Of the records that the attacker has and of those that are hidden."""
    crc = 0
    for one in (given.scene.plaintexts, given.scene.hidden):
        if one is not None:
            for array in (one.records, one.patient, one.attribute):
                crc = zlib.crc32(np.ascontiguousarray(array).tobytes(), crc)
    return crc
