"""Decoded images kept on disk: one array, and an index of the files that it was made from.

`images-ID.npy` is uint8 (n_records, channels, height, width), written in pieces of some records.
`images-ID.jsonl` says in its first line how the images were read, then a line a piece: its
checksum, and of each file its size, times and SHA-256.  A line is written after its piece is on
disk, so that a kill loses the piece in work alone, and the array is finished when every piece has
its line.  ID follows from the names of the files and the settings.

A file counts as unchanged when its size and its times, of content and of inode, are those that
were noted; otherwise its content is hashed again.  The second time cannot be set by programs that
restore the first.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import json
import math
import os
import shlex
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from confide.datasets.cache_index import (
    Index,
    OtherVersionError,
    Stats,
    Survey,
    checksum,
    digest_of,
    files_of,
)
from confide.datasets.image_files import naming
from confide.datasets.reading import Progress, Reading, each
from confide.errors import ConfideError, FolderError, ImageError

_MOST_PER_FILE = 2000  # bytes of the index

Reader = Callable[[NDArray[np.intp], Progress], NDArray[np.uint8]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Kept:
    """Images in a cache.

    Parameters
    ----------
    images : (n, channels, height, width) uint8, mapped, not in memory
    reading : channels and scale that they were read with
    notes : what was decided when they were read, and why they were read anew
    digests : (n,) SHA-256 (hex) of each file
    """

    images: NDArray[np.uint8]
    reading: Reading
    notes: tuple[str, ...]
    digests: tuple[str, ...]


def keep(
    folder: Path,
    paths: Sequence[Path],
    asked: dict[str, Any],
    *,
    survey: Callable[[], Survey],
    reader: Callable[[Reading], Reader],
    digest: Callable[[int], str],
    progress: Progress,
) -> Kept:
    """The images of some files, from the cache where it has them, else read into it first.

    A finished array is used when settings, versions of the decoders and all files are the same.
    It is begun anew, and a note says why, when it is damaged or a file changed; one that was not
    finished is gone on with.  All of the array is compared with its checksums.

    Parameters
    ----------
    folder : made with mode 0700 if it is not there; otherwise the user's own, and writable by
        nobody else; files in it get mode 0600
    paths : the files, one a record
    asked : how they are to be read, as JSON values
    survey : -> what is decided of all images
    reader : what was decided -> reads images without a cache
    digest : row -> SHA-256 (hex) of its file
    progress : called with (images kept, images in all) while the array is written

    Raises
    ------
    ImageError : a file is absent, or changed while it was read; and what `survey` raises
    FolderError : the folder is another's, others can write to it, it cannot be written, or has
        too little space
    """
    with _disk(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _refuse_shared(folder)
    store = _Store(folder, paths, asked, digest)
    found = store.finished()
    if found is not None:
        return found
    # Whoever waits finds it finished; the system lets go of it when its holder is gone.
    with _disk(folder), store.lock:
        return store.finished() or store.fill(survey, reader, progress)


class _Store:
    """An array and its index on disk."""

    def __init__(
        self,
        folder: Path,
        paths: Sequence[Path],
        asked: dict[str, Any],
        digest: Callable[[int], str],
    ) -> None:
        said = json.dumps([_names(paths), asked], sort_keys=True).encode()
        base = f"images-{hashlib.sha256(said).hexdigest()[:16]}"
        self._folder, self._paths, self._digest = folder, paths, digest
        self._array, self._index = folder / f"{base}.npy", folder / f"{base}.jsonl"
        self.lock = FileLock(folder / f"{base}.lock", mode=0o600)
        self._why = ""  # what is there is of no use

    def finished(self) -> Kept | None:
        """The array if it is whole and its files are the same."""
        index = self._read()
        if index is None or not index.is_whole:
            return None
        now, digests = _stats(self._paths, range(len(self._paths))), index.digests
        doubtful = np.flatnonzero((index.noted != now).any(axis=1)).tolist()
        anew = each(self._digest, doubtful)
        n_changed = sum(digests[row] != new for row, new in zip(doubtful, anew, strict=True))
        if n_changed:
            self._why = f"{n_changed:,} of {len(self._paths):,} files changed"
            return None
        if self._n_whole(index) < len(index.sums):
            self._why = "the array was damaged"
            return None
        if doubtful:
            self._note_again(index, now)
        return self._kept(index)

    def fill(
        self,
        survey: Callable[[], Survey],
        reader: Callable[[Reading], Reader],
        progress: Progress,
    ) -> Kept:
        """Write what is missing."""
        stats, index = _stats(self._paths, range(len(self._paths))), self._read()
        n_whole = 0
        if index is not None and not index.is_whole and index.stats == digest_of(stats) != "":
            n_whole = self._n_whole(index)
        elif index is not None:
            self._why = self._why or "it was not finished, and its files may have changed"
        if index is None or not n_whole:
            index = Index.of(survey(), stats)
            self._begin(index)
        self._write(index, n_whole, stats, reader(index.reading), progress)
        kept = self._kept(index)
        if not self._why:
            return kept
        told = f"The images were read anew into {self._array}: {self._why}."
        return replace(kept, notes=(*kept.notes, told))

    def _kept(self, index: Index) -> Kept:
        start = len(index.header)
        return Kept(
            images=np.memmap(self._array, np.uint8, "r", offset=start, shape=index.shape),
            reading=index.reading,
            notes=index.notes,
            digests=index.digests,
        )

    def _read(self) -> Index | None:
        """The index, None if it is not there or of no use."""
        n = len(self._paths)
        try:
            with _opened(self._index, os.O_RDONLY) as file:
                if os.fstat(file.fileno()).st_size > _MOST_PER_FILE * n + 2**20:
                    raise ValueError("too long")
                return Index.parse(file.read(), n)
        except FileNotFoundError:
            return None
        except OtherVersionError:
            self._why = "it was made by other versions of confide or of the decoders"
        except (OSError, ConfideError, ValueError, TypeError, LookupError, RecursionError):
            self._why = "its index was damaged"
        return None

    def _n_whole(self, index: Index) -> int:
        """How many pieces from the first have the bytes that they had."""
        try:
            with _opened(self._array, os.O_RDONLY) as file:
                if file.read(len(index.header)) != index.header:
                    return 0

                def same(piece: int) -> bool:
                    _, start, length = index.place(piece)
                    return checksum(os.pread(file.fileno(), length, start)) == index.sums[piece]

                return sum(itertools.takewhile(bool, each(same, range(len(index.sums)))))
        except OSError:
            return 0

    def _begin(self, index: Index) -> None:
        self._index.unlink(missing_ok=True)  # before the array that it speaks of
        self._array.unlink(missing_ok=True)
        line = index.first_line()
        with _opened(self._index) as file:
            _write(file, line)
        index.end = len(line)

    def _write(
        self, index: Index, n_whole: int, stats: Stats, read: Reader, progress: Progress
    ) -> None:
        n = index.shape[0]
        del index.sums[n_whole:], index.files[n_whole:]
        with _opened(self._array) as array, _opened(self._index) as lines:
            self._make_room(index, array)
            array.write(index.header)
            # What was written when a process was killed.
            array.truncate(array.seek(index.place(n_whole)[1]))
            lines.truncate(lines.seek(index.end))
            for piece in range(n_whole, -(-n // index.rows)):
                rows, _, _ = index.place(piece)
                images = read(np.array(rows), _later(progress, rows.start, n))
                digests = list(each(self._digest, rows))
                self._refuse_changed(rows, stats)
                content = images.reshape(-1).data
                _write(array, content)
                index.sums.append(checksum(content))
                index.files.append(files_of(stats[rows.start : rows.stop], digests))
                _write(lines, index.line(piece))

    def _make_room(self, index: Index, array: BinaryIO) -> None:
        needed = math.prod(index.shape) - os.fstat(array.fileno()).st_size
        free = shutil.disk_usage(self._folder).free
        if free < needed:
            raise FolderError(
                f"{self._folder} has {free:,} bytes free, the images take {needed:,}; free some "
                "space, or name another folder for `cache`."
            )

    def _refuse_changed(self, rows: range, stats: Stats) -> None:
        changed = (_stats(self._paths, rows) != stats[rows.start : rows.stop]).any(axis=1)
        if changed.any():
            row = rows.start + int(changed.argmax())
            raise ImageError(
                f"Row {row}: {self._paths[row]} changed while it was read; run this again when "
                "nothing writes to it."
            )

    def _note_again(self, index: Index, now: Stats) -> None:
        """Note times of files whose content was found the same."""
        digests = index.digests
        # Without it they are only checked again.
        with contextlib.suppress(OSError), self.lock, _opened(self._index) as lines:
            lines.truncate(lines.seek(index.end))
            for piece, old in enumerate(index.files):
                rows, _, _ = index.place(piece)
                index.files[piece] = files_of(
                    now[rows.start : rows.stop], digests[rows.start : rows.stop]
                )
                if index.files[piece] != old:
                    _write(lines, index.line(piece))


def _names(paths: Sequence[Path]) -> list[str]:
    """From the folder that all have in common, so that the data can move."""
    full = [str(path.absolute()) for path in paths]
    start = os.path.commonpath(full)
    return [os.path.relpath(path, start) for path in full]


def _stats(paths: Sequence[Path], rows: range) -> Stats:
    def one(row: int) -> tuple[int, int, int]:
        with naming(row, paths[row]):
            found = paths[row].stat()
            return found.st_size, found.st_mtime_ns, found.st_ctime_ns

    return np.array(list(each(one, rows)), dtype=np.int64)


def _refuse_shared(folder: Path) -> None:
    """Whoever can write to the folder chooses the pixels, and the checksums with them."""
    about, user = folder.stat(), os.getuid()
    if not folder.lstat().st_uid == about.st_uid == user:
        raise FolderError(
            f"{folder} is not your own folder, so that others choose what is read from it; name a "
            "folder of yours for `cache`, or one that is not there yet."
        )
    if about.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise FolderError(
            f"{folder} has mode {stat.S_IMODE(about.st_mode):04o}: others can write to it, and "
            f"choose what is read from it; run `chmod 700 {shlex.quote(str(folder))}` and delete "
            "what is not yours in it, or name another folder for `cache`."
        )


def _opened(path: Path, flags: int = os.O_RDWR | os.O_CREAT) -> BinaryIO:
    """A file for its owner alone, by default for reading and writing, and made if it is not there.

    Raises
    ------
    OSError : among others for a link, and for another's file
    """
    handle = os.open(path, flags | os.O_NOFOLLOW, 0o600)
    try:
        about = os.fstat(handle)
        if about.st_uid != os.getuid():
            raise PermissionError(errno.EPERM, "the file is another user's", str(path))
        if stat.S_IMODE(about.st_mode) != 0o600:
            with contextlib.suppress(OSError):  # of a disk that is only read
                os.fchmod(handle, 0o600)
        return os.fdopen(handle, "rb" if flags == os.O_RDONLY else "r+b")
    except BaseException:
        os.close(handle)
        raise


def _write(file: BinaryIO, content: bytes | memoryview) -> None:
    """Write, and wait until it is on disk."""
    file.write(content)
    file.flush()
    os.fsync(file.fileno())


def _later(progress: Progress, before: int, total: int) -> Progress:
    return lambda done, _: progress(before + done, total)


@contextlib.contextmanager
def _disk(folder: Path) -> Iterator[None]:
    try:
        yield
    except ConfideError:
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise FolderError(
                f"The disk that holds {folder} is full. What was kept is safe: free some space and "
                "run this again."
            ) from error
        raise FolderError(
            f"{folder} cannot be used as a cache ({error.strerror or error}); name another folder "
            "for `cache`, or leave it out."
        ) from error
