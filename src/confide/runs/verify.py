"""Read everything that an audit folder stores, and say what is not sound and what mends it.

Checksums find damage.  They do not find what somebody altered together with its checksum.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from confide import masks
from confide._disk import cohort_is_as_written, lost_chunks
from confide._objects import in_store
from confide.cohort import Cohort
from confide.errors import ArgumentError, ConfideError, FolderError, MissingFileError
from confide.runs.canaries import canary_records
from confide.runs.erase import REMOVED, TABLES, without_seeds
from confide.runs.looks import Until
from confide.runs.models import Progress, cohort_from_table, model_seeds, silent
from confide.runs.verified import Damage, Verified
from confide.stores import FORMAT, AuditFolder, read_json, read_table

RESULTS = (*(f"{name}.parquet" for name in TABLES), "summary.json", "summary.md", "report.html")
"""What an analysis writes, in this order."""


def verify_audit(path: Path, progress: Progress = silent) -> Verified:
    """Read all that an audit folder stores; nothing is written and no lock is taken.

    Every chunk of every finished model is read, a few at a time.

    Parameters
    ----------
    path : the audit folder; one that is still being written, or was erased, too
    progress : called with (parts verified, parts in all)

    Raises
    ------
    MissingFileError : there is no audit folder
    FolderError : the folder is of another kind, or of another version of confide
    StoreError : the object store that holds its arrays cannot be used
    """
    found = Verified()
    manifest = _manifest(path, found)
    if manifest is not None:
        if str(manifest["format"]).startswith("eras"):
            _erased(path, manifest, found)
        else:
            _Reader(path, manifest, found).read(progress)
    leftovers = sorted(path.rglob("*.partial"))
    if leftovers:
        found.notes.append(
            f"{len(leftovers)} file(s) of an interrupted write (*.partial), or of one that goes on "
            "now; the next run removes them."
        )
    _modes(path, found)
    return found


def _manifest(path: Path, found: Verified) -> dict[str, Any] | None:
    """The manifest, or None where it is damaged, which is then among the damage."""
    if not path.is_dir():
        raise MissingFileError(f"There is no audit folder at {path}.")
    file = path / "manifest.json"
    remedy = "Restore manifest.json from a copy, or audit again with another --out."
    if not file.is_file() and not any((path / n).exists() for n in ("signals.zarr", *RESULTS)):
        raise MissingFileError(f"{file} is missing; is {path} an audit folder?")
    try:
        stored = read_json(file)
    except (MissingFileError, FolderError) as error:
        what = "is missing" if isinstance(error, MissingFileError) else "is not valid JSON"
        found.damage.append(Damage(file="manifest.json", what=what, remedy=remedy))
        return None
    if isinstance(stored, dict) and "asked" in stored:
        raise FolderError(f"{path} is no audit folder, it holds another kind of run.")
    if isinstance(stored, dict) and str(stored.get("format")).startswith("eras"):
        return stored
    try:
        return AuditFolder.read(path).manifest
    except FolderError:
        if isinstance(stored, dict) and stored.get("format", FORMAT) != FORMAT:
            raise  # of another version
        what = "entries are missing or are none that confide writes"
        found.damage.append(Damage(file="manifest.json", what=what, remedy=remedy))
        return None


def _erased(path: Path, manifest: Mapping[str, Any], found: Verified) -> None:
    """An erased folder holds nothing that tells members."""
    state = str(manifest["format"])
    found.state = "erased"
    remedy = f"Run `confide audit erase {shlex.quote(str(path))}` again."

    def add(file: str, what: str) -> None:
        found.damage.append(Damage(file=file, what=what, remedy=remedy))

    if not state.startswith("erased on "):
        add("manifest.json", f"erasing was interrupted ({state})")
        return
    found.notes.append(f"The signals were {state}.")
    if without_seeds(dict(manifest)) != manifest:
        add("manifest.json", "holds seeds, from which members can be drawn again")
    for name in REMOVED:
        if (path / name).exists():
            add(name, "is there, although the folder was erased")
    objects = in_store(manifest)
    if objects is not None and objects.is_ours():
        add(str(objects), "is there, although the audit was erased")
    found.read.append("manifest.json and the names of files")


def _modes(path: Path, found: Verified) -> None:
    """Files that others can read tell them who was in a training set."""
    open_ = [p for p in (path, *path.rglob("*")) if p.lstat().st_mode & 0o077 and p.exists()]
    if open_:
        name = open_[0].relative_to(path) if open_[0] != path else "the folder itself"
        found.warnings.append(
            f"Others than the owner may use {len(open_):,} of its files and folders ({name}, ...); "
            f"close them with: chmod -R go= {shlex.quote(str(path))}"
        )


class _Reader:
    """Reads one folder that has a manifest and was not erased."""

    def __init__(self, path: Path, manifest: dict[str, Any], found: Verified) -> None:
        self.path, self.manifest, self.found = path, manifest, found
        self.folder = AuditFolder(path, manifest)
        self.done = self.folder.done
        self.own = "source" not in manifest
        self.table: pd.DataFrame | None = None
        self.cohort: Cohort | None = None
        self.heldout: Cohort | None = None
        self.lost_members: set[int] = set()

    def read(self, progress: Progress) -> None:
        found = self.found
        found.n_models, found.n_finished = len(self.done), int(self.done.sum())
        arrays = self.folder.signals.names()
        steps = [self.check_manifest, self.check_cohort, self.check_arrays]
        total = len(steps) + len(arrays) + 2
        for n_done, step in enumerate(steps, 1):
            step()
            progress(n_done, total)
        n_chunks = 0
        for n_done, name in enumerate(arrays, len(steps) + 1):
            n_chunks += self.check_chunks(name)
            progress(n_done, total)
        found.read.append(f"{n_chunks:,} chunks of {', '.join(arrays) or 'no signals'}")
        self.check_membership()
        progress(total - 1, total)
        self.check_results()
        progress(total, total)

    def add(self, file: str, what: str, remedy: str, **more: Any) -> None:
        self.found.damage.append(Damage(file=file, what=what, remedy=remedy, **more))

    @property
    def elsewhere(self) -> str:
        if self.own:
            return "Restore it from a copy, or audit again with another --out."
        return "Restore it from a copy, or read the predictions again into another --out."

    @property
    def again(self) -> str:
        """What trains lost models again, or writes the cohort again."""
        if not self.own:
            return self.elsewhere
        return "Run what made the audit again, with the same --out"

    def check_manifest(self) -> None:
        design, n = self.manifest.get("design", {}), len(self.done)
        try:
            Until.of(self.manifest)
        except FolderError:
            self.add("manifest.json", "its entry `until` is damaged", self.elsewhere)
        if not self.own or not design:
            return
        try:
            seeds = model_seeds(int(design["seed"]), n)
            bad = design["n_models"] != n or self.manifest["seeds"] != seeds
        except (LookupError, TypeError, ValueError):
            bad = True
        if bad:
            self.add("manifest.json", "its seeds or its design are damaged", self.elsewhere)

    def check_cohort(self) -> None:
        """cohort.parquet: its checksum, and that it is a cohort."""
        name = "cohort.parquet"
        as_written = cohort_is_as_written(self.folder)
        remedy = f"{self.again}; it writes the table again." if self.own else self.again
        if not (self.path / name).is_file():
            if self.done.any():
                self.add(name, "is missing", remedy)
            return
        try:
            if as_written is False:
                raise FolderError("has not the checksum in the manifest")
            self.table = read_table(self.path / name)
            self.cohort, self.heldout = cohort_from_table(
                self.table, self.manifest["task"], self.manifest["classes"]
            )
        except (ConfideError, LookupError, TypeError, ValueError):
            self.add(name, "is damaged", remedy if as_written is not None else self.elsewhere)
            return
        self.found.read.append(name)
        if as_written is None:
            self.found.notes.append(
                f"No checksum of {name} was kept when it was written; its form and the checksums "
                "of its pages, if it has any, were checked."
            )

    def check_arrays(self) -> None:
        """The arrays that must be there, their shapes and types."""
        has = set(self.folder.signals.names())
        due = {"membership"} | ({"logits"} if "signal" not in has else {"signal"})
        if self.heldout is not None and "logits" in due:
            due.add("heldout_logits")
        if self.done.any():
            for name in sorted(due - has):
                remedy = f"{self.again}; it makes the array again." if self.own else self.again
                self.add(f"signals.zarr/{name}", "the array is missing", remedy)
        for name in sorted(has):
            try:
                array = self.folder.array(name)
            except FolderError:
                self.add(f"signals.zarr/{name}", "its zarr.json is damaged", self.elsewhere)
                continue
            wanted, kind = self.expected(name, array.shape)
            if array.dtype.kind != kind or array.shape != wanted:
                what = f"holds {array.dtype} of shape {array.shape}"
                if wanted is not None:
                    what += f", expected {'bool' if kind == 'b' else 'floats'} of shape {wanted}"
                self.add(f"signals.zarr/{name}", what, self.elsewhere)

    def expected(self, name: str, shape: tuple[int, ...]) -> tuple[tuple[int, ...], str]:
        """Shape and kind of an array; what is not known is taken from its own shape."""
        n, cohort, heldout = len(self.done), self.cohort, self.heldout
        if name == "membership":
            width = cohort.n_patients if cohort is not None else shape[-1]
            return (n, width), "b"
        rows = shape[1] if len(shape) > 1 else 0
        if name in ("logits", "signal", "trace") and cohort is not None:
            rows = cohort.n_records
        if name == "heldout_logits" and heldout is not None:
            rows = heldout.n_records
        if name.endswith("logits"):
            n_classes = 1 if self.manifest["task"] == "binary" else len(self.manifest["classes"])
            return (n, rows, *shape[2:3], n_classes), "f"
        return (n, rows, *shape[2:]), "f"

    def check_chunks(self, name: str) -> int:
        """Read every chunk that should be there; how many were read."""
        try:
            array, lost = self.folder.array(name), list(lost_chunks(self.folder, name))
        except FolderError:
            return 0  # told with the shapes
        for one in lost:
            remedy = self.again
            if name == "membership":
                self.lost_members.add(one.model)
                remedy = self.elsewhere
            elif self.own:
                remedy += "; it trains those models again."
            unit = "patients" if name == "membership" else "records"
            what = f"model {one.model}, {unit} {one.first} to {one.last}: {one.what}"
            self.add(
                f"signals.zarr/{name}",
                what,
                "Check the disk and permissions." if one.what == "unreadable" else remedy,
                model=one.model,
                records=(one.first, one.last),
            )
        n_due = int(self.done.sum())
        if name == "membership" and n_due:
            n_due = len(self.done)
        return n_due * int(array.chunks_per_model) - len(lost)

    def check_membership(self) -> None:
        """Who was in which model is what the design draws."""
        design, has = self.manifest.get("design", {}), self.folder.has_array("membership")
        if not self.own or not design:
            self.found.notes.append(
                "Who was in which model was read from others; it cannot be drawn again to compare."
            )
            return
        if not has or not self.done.any() or any(d.model is None for d in self.found.damage):
            return
        members = self.folder.array("membership")
        try:
            drawn = masks.balanced(
                len(self.done),
                members.shape[1],
                fraction=design["fraction"],
                seed=design["seed"],
                block=design.get("block"),
            )
        except (ArgumentError, LookupError, TypeError, ValueError):
            self.add("manifest.json", "its design is damaged", self.elsewhere)
            return
        sound = [i for i in range(len(drawn)) if i not in self.lost_members]
        for model in sound:
            if not np.array_equal(members[model], drawn[model]):
                what = f"model {model}: its members are not those that the design draws"
                self.add("signals.zarr/membership", what, self.elsewhere, model=model)
        self.found.read.append("members as the design draws them")

    def check_results(self) -> None:
        """Tables, summary and report, and that they are about these models and records."""
        present = [name for name in RESULTS if (self.path / name).is_file()]
        quoted = shlex.quote(str(self.path))
        remedy = f"`confide audit report {quoted}` writes it again."
        # A kill leaves the first of them; one that is missing before another was lost.
        n_due = 1 + RESULTS.index(present[-1]) if present else 0
        for name in RESULTS[:n_due]:
            if name not in present:
                self.add(name, "is missing", remedy)
        sizes = {}
        for name in present:
            try:
                sizes[name] = _read_result(self.path / name)
            except (ConfideError, ValueError):
                self.add(name, "is damaged", remedy)
        if present:
            self.found.read.append(f"{len(sizes)} files of results")
        self.found.state = "finished"
        if unfinished := self.unfinished():
            self.found.state = "unfinished"
            self.found.notes.append(f"{unfinished} models are not finished; run it again to go on.")
        summary = sizes.get("summary.json", {})
        stale = bool(summary) and _n_models(summary) != int(self.done.sum())
        if n_due < len(RESULTS) or stale:
            self.found.notes.append(
                f"The results are {'of other models' if stale else 'not all written'}; `confide "
                f"audit report {quoted}` writes them."
            )
            self.found.state = "unfinished"
        if summary and not stale and self.cohort is not None and self.table is not None:
            real = self.cohort.select(~canary_records(self.table))
            for name, what in _contradictions(sizes, real):
                self.add(name, what, remedy)

    def unfinished(self) -> int:
        try:
            until = Until.of(self.manifest)
        except FolderError:
            until = None
        due = len(self.done) if until is None else until.n_due
        return int((~self.done[:due]).sum())


def _contradictions(sizes: Mapping[str, Any], cohort: Cohort) -> Iterator[tuple[str, str]]:
    """Files whose numbers of records or patients are not those of the cohort."""
    counts = {"n_records": cohort.n_records, "n_patients": cohort.n_patients}
    for key, n in counts.items():
        if sizes["summary.json"].get(key) != n:
            yield (
                "summary.json",
                f"is about {sizes['summary.json'].get(key)!r:.80} {key[2:]}, not {n}",
            )
        table = f"{key[2:]}.parquet"
        if table in sizes and sizes[table] != n:
            yield table, f"has {sizes[table]:,} rows, expected {n:,}"


def _n_models(summary: Mapping[str, Any]) -> int | None:
    """The models of an analysis; that of a released model counts its target alone."""
    named = summary.get("models")
    return len(named) if isinstance(named, list) else summary.get("n_models")


def _read_result(file: Path) -> Any:
    """The number of rows of a table, the content of a summary; damage raises."""
    if file.suffix == ".parquet":
        return len(read_table(file))
    if file.suffix == ".json":
        content = read_json(file)
        if not isinstance(content, dict):
            raise FolderError(f"{file} is no summary.")
        return content
    text = file.read_text(encoding="utf-8").rstrip()
    if not text or (file.suffix == ".html" and not text.endswith("</html>")):
        raise FolderError(f"{file} is cut short.")
    return None
