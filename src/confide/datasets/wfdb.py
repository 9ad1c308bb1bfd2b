"""Signals in the WFDB format of PhysioNet: a header (.hea) and its signal file, to millivolts.

Read here, because what is needed is small, and the files may come from anywhere: only formats 16
and 212, one segment, one signal file beside its header.  The format is that of header(5) and
signal(5) in the WFDB Applications Guide (https://physionet.org/physiotools/wag/).
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from confide.errors import MissingFileError, TableError

MAX_NUMBERS = 10_000_000
"""Most samples of a record, over all of its leads."""

_MAX_HEADER_BYTES = 2**16
_MILLIVOLTS = {"mV": 1.0, "uV": 1e-3, "µV": 1e-3, "μV": 1e-3, "V": 1e3}  # two signs for micro
_LEAST_GAIN, _MOST_GAIN = 1e-3, 1e9  # steps per millivolt; beyond is no ECG
_INVALID = {16: -(2**15), 212: -(2**11)}  # the sample that stands for "not measured"
_WHOLE = re.compile(r"-?[0-9]{1,9}")
_NUMBER = r"[0-9]{1,15}(?:\.[0-9]{0,15})?(?:[eE][+-]?[0-9]{1,2})?"
_GAIN = re.compile(rf"({_NUMBER})(?:\((-?[0-9]{{1,9}})\))?(?:/(\S+))?")
_RATE = re.compile(rf"({_NUMBER})(?:/.*)?")
_FORMAT = re.compile(r"([0-9]{1,3})(?:x1)?(?::0)?(?:\+0)?")
_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


@dataclass(frozen=True, kw_only=True)
class Lead:
    """One signal of a record.

    Parameters
    ----------
    name : such as "V1"
    gain : steps of the converter per millivolt
    baseline : step that stands for 0 mV
    checksum : sum of the samples modulo 2**16, None where it is not given
    """

    name: str
    gain: float
    baseline: int
    checksum: int | None


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a header says.

    Parameters
    ----------
    rate : samples per second
    n_samples : of each lead
    leads : in the order of the file
    file : name of the signal file, in the folder of the header
    format : 16 or 212
    """

    rate: float
    n_samples: int
    leads: tuple[Lead, ...]
    file: str
    format: int

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the leads."""
        return tuple(lead.name for lead in self.leads)


def read_header(path: Path) -> Header:
    """Read a header file.

    Raises
    ------
    MissingFileError : there is no such file
    TableError : not a header, or of a form that is not read here (several segments or signal
        files, another format, units that are no volts); names the file and the line
    """
    if not path.is_file():
        raise MissingFileError(f"There is no WFDB header {path}; check the folder.")
    with path.open("rb") as file:
        content = file.read(_MAX_HEADER_BYTES + 1)
    if len(content) > _MAX_HEADER_BYTES:
        raise TableError(f"{path} has more than {_MAX_HEADER_BYTES:,} bytes; it is no WFDB header.")
    lines = [
        (number, line)
        for number, line in enumerate(content.decode(errors="replace").splitlines(), start=1)
        if line.strip() and not line.lstrip().startswith("#")
    ]
    if not lines:
        raise TableError(f"{path} is empty; expected a WFDB header.")
    (number, first), *rest = lines
    where = f"{path}, line {number}"
    n_leads, rate, n_samples = _record_line(first, where)
    if len(rest) != n_leads:
        raise TableError(f"{where} announces {n_leads} signals and {len(rest)} lines follow.")
    found = [_signal_line(line, f"{path}, line {n}") for n, line in rest]
    files, formats = {one[0] for one in found}, {one[1] for one in found}
    if len(files) > 1 or len(formats) > 1:
        raise TableError(
            f"{path} has signals in several files or formats; save the record with all of them "
            "in one file of format 16."
        )
    leads = tuple(lead for _, _, lead in found)
    return Header(
        rate=rate, n_samples=n_samples, leads=leads, file=files.pop(), format=formats.pop()
    )


def read_signals(path: Path, header: Header | None = None) -> NDArray[np.float32]:
    """Read the signals of a record.

    Parameters
    ----------
    path : the header file
    header : what it says, if it was read before

    Returns
    -------
    (n_leads, n_samples) float32, in millivolts

    Raises
    ------
    MissingFileError : the header or its signal file is not there
    TableError : as :func:`read_header`; the signal file leads out of the folder, is longer or
        shorter than the header says, does not sum up to its checksum, or a sample is marked as
        not measured; names the file, the sample and the lead
    """
    header = read_header(path) if header is None else header
    where = path.parent / header.file
    if not where.resolve().is_relative_to(path.parent.resolve()):
        raise TableError(f"{where} is a link that leads out of its folder; put the file there.")
    if not where.is_file():
        raise MissingFileError(f"There is no signal file {where}, which {path} names.")
    n = len(header.leads) * header.n_samples
    # The last sample of an odd number in format 212 takes two bytes, and three with some writers.
    sizes = {2 * n} if header.format == 16 else {(3 * n + 1) // 2, 3 * ((n + 1) // 2)}
    with where.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size not in sizes:
            raise TableError(
                f"{where} is damaged: it has {size:,} bytes, and {path.name} speaks of "
                f"{min(sizes):,}."
            )
        content = file.read(size)
    steps = (_from_16 if header.format == 16 else _from_212)(content, n)
    steps = steps.reshape(header.n_samples, len(header.leads)).T
    _check(steps, header, where)
    gain = np.array([[lead.gain] for lead in header.leads])
    baseline = np.array([[lead.baseline] for lead in header.leads])
    signals: NDArray[np.float32] = ((steps - baseline) / gain).astype(np.float32)
    return signals


def _record_line(line: str, where: str) -> tuple[int, float, int]:
    """Number of signals, samples per second, and samples per signal."""
    name, *fields = line.split()
    if "/" in name:
        raise TableError(f"{where} is that of a record of several segments; save it as one.")
    if len(fields) < 3:
        raise TableError(
            f"{where} is {line[:60]!r}; expected name, signals, samples per second and samples."
        )
    n_leads, n_samples = (_whole(fields[i], what, where) for i, what in _COUNTS)
    rate = _RATE.fullmatch(fields[1])
    if rate is None or not float(rate[1]) > 0:
        raise TableError(f"{where} has {fields[1][:30]!r} samples per second; expected a number.")
    if not (n_leads > 0 and n_samples > 0 and n_leads * n_samples <= MAX_NUMBERS):
        raise TableError(
            f"{where} speaks of {n_leads:,} signals of {n_samples:,} samples; expected 1 to "
            f"{MAX_NUMBERS:,} numbers in all."
        )
    return n_leads, float(rate[1]), n_samples


_COUNTS = ((0, "number of signals"), (2, "number of samples"))


def _signal_line(line: str, where: str) -> tuple[str, int, Lead]:
    """The signal file, its format, and the lead."""
    fields = line.split(maxsplit=8)
    file, form, gain, _, zero, _, checksum, _, name = (*fields, *[""] * (9 - len(fields)))
    if not _FILE.fullmatch(file):
        raise TableError(f"{where} names the file {file[:60]!r}; expected a name in its folder.")
    found = _FORMAT.fullmatch(form)
    if found is None or int(found[1]) not in _INVALID:
        raise TableError(
            f"{where} has format {form[:30]!r}; formats 16 and 212 are read, with one sample per "
            "frame and no skew or offset."
        )
    scale = _GAIN.fullmatch(gain)
    if scale is None or not float(scale[1]) > 0:
        raise TableError(
            f"{where} has gain {gain[:30]!r}; without one, the signal is of unknown size."
        )
    units = scale[3] or "mV"
    if units not in _MILLIVOLTS:
        raise TableError(f"{where} has units {units[:30]!r}; expected mV, uV or V.")
    per_millivolt = float(scale[1]) / _MILLIVOLTS[units]
    if not _LEAST_GAIN <= per_millivolt <= _MOST_GAIN:
        raise TableError(f"{where} has gain {gain[:30]!r}, which cannot be that of an ECG.")
    baseline = scale[2] or zero or "0"
    total = _whole(checksum, "checksum", where) % 2**16 if checksum else 0
    lead = Lead(
        name=name.strip() or "unnamed",
        gain=per_millivolt,
        baseline=_whole(baseline, "baseline", where),
        checksum=total or None,  # 0 stands for an unknown one too
    )
    return file, int(found[1]), lead


def _whole(text: str, what: str, where: str) -> int:
    if not _WHOLE.fullmatch(text):
        raise TableError(f"{where} has {text[:30]!r} for a {what}; expected a whole number.")
    return int(text)


def _from_16(content: bytes, n: int) -> NDArray[np.int64]:
    """(n,) samples of two bytes each, the low one first."""
    return np.frombuffer(content, dtype="<i2", count=n).astype(np.int64)


def _from_212(content: bytes, n: int) -> NDArray[np.int64]:
    """(n,) samples of 12 bits, two in three bytes: low, both high halves, low."""
    padded = np.zeros(3 * ((n + 1) // 2), dtype=np.int64)
    padded[: len(content)] = np.frombuffer(content, dtype=np.uint8)
    first, high, second = padded.reshape(-1, 3).T
    pairs = np.stack([first + ((high & 0x0F) << 8), second + ((high >> 4) << 8)], axis=1)
    steps = pairs.reshape(-1)[:n]
    return np.where(steps >= 2**11, steps - 2**12, steps)


def _check(steps: NDArray[np.int64], header: Header, where: Path) -> None:
    for lead, values in zip(header.leads, steps, strict=True):
        if lead.checksum is not None and int(values.sum()) % 2**16 != lead.checksum:
            raise TableError(
                f"{where} is damaged: lead {lead.name[:30]!r} does not sum up to the checksum of "
                "the header; get the file again."
            )
        gap = values == _INVALID[header.format]
        if gap.any():
            raise TableError(
                f"{where}: sample {int(gap.argmax())} of lead {lead.name[:30]!r} is marked as not "
                f"measured ({gap.sum()} in all); fill gaps in or leave the record out."
            )
