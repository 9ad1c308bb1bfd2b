"""What a reader of a hostile file must not do, watched while it reads.

Python tells an audit hook of every file that is opened and of every socket, process and class of
a pickle.  The hook cannot be removed again; it does nothing while no reader is watched.
"""

import contextlib
import os
import socket
import sys
import tempfile
from pathlib import Path

_NETWORK = ("socket.connect", "socket.bind", "socket.sendto", "socket.getaddrinfo")
_INTERNET = (socket.AF_INET, socket.AF_INET6)
_NEVER = (*_NETWORK, "pickle.find_class", "os.system", "subprocess.Popen", "os.exec", "os.fork")
_CHANGES = ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.chmod",
            "os.truncate", "shutil.rmtree")  # fmt: skip
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

_watched = []
_hooked = []


class BrokenError(Exception):
    """A reader did what none may do."""


@contextlib.contextmanager
def watched(inside, *, secret=None):
    """Collect what is done that must not be, in a list that is empty if all is well.

    Parameters
    ----------
    inside : the folder that may be written to
    secret : a folder of which nothing may be opened, or None
    """
    if not _hooked:
        sys.addaudithook(_hook)
        _hooked.append(True)
    found = []
    spare = Path(inside) / ".temporary"
    spare.mkdir(exist_ok=True)
    before, tempfile.tempdir = tempfile.tempdir, str(spare)
    _watched.append((os.path.realpath(inside), secret and os.path.realpath(secret), found))
    try:
        yield found
    finally:
        _watched.pop()
        tempfile.tempdir = before


def _hook(event, args):
    if not _watched:
        return
    inside, secret, found = _watched[-1]
    if event in _NEVER or (event == "socket.__new__" and args[1] in _INTERNET):
        found.append(f"{event} {args!r:.200}")
    elif event == "open":
        path, mode, flags = args
        if not isinstance(path, str | bytes):  # a file that is open
            return
        path = os.fsdecode(path)
        place = _real(path, flags or 0)
        writes = bool((flags or 0) & _WRITING) or bool(set(mode or "") & set("wax+"))
        if secret and _below(place, secret):
            found.append(f"opened {path}, which leads to {place}")
        if writes and not _below(place, inside) and not _harmless(place):
            found.append(f"wrote to {path}, which is {place}")
    elif event in _CHANGES:
        _changed(event, args, inside, found)


def _changed(event, args, inside, found):
    path = args[0]
    if not isinstance(path, str | bytes | os.PathLike):
        return
    folder = next((a for a in args[1:] if isinstance(a, int) and not isinstance(a, bool)), -1)
    path = os.fsdecode(path)
    if event in ("os.remove", "os.rmdir", "os.mkdir") and folder >= 0 and not path.startswith("/"):
        path = f"/proc/self/fd/{args[-1]}/{path}"
    place = _itself(path)
    if not _below(place, inside) and not _harmless(place):
        found.append(f"{event} of {place}")


def _real(path, flags):
    if flags & os.O_NOFOLLOW:
        return _itself(path)
    return os.path.realpath(path)


def _itself(path):
    """Where a file is, which may be a link."""
    return str(Path(path).parent.resolve() / Path(path).name)


def _below(path, folder):
    return path == folder or path.startswith(f"{folder}{os.sep}")


def _harmless(path):
    return path.startswith("/dev/") or "__pycache__" in path


class Peak:
    """Bytes by which the memory of this process grew at most since `reset`; 0 where not known."""

    def __init__(self):
        self._start = 0

    def reset(self):
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
        self._start = _status("VmRSS")

    def grown(self):
        return max(_status("VmHWM") - self._start, 0)


def _status(name):
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    return 0
