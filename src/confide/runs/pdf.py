"""A report as PDF: printed by the Chromium of this machine, offline, on A4."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from confide.errors import ArgumentError, FolderError, MissingExtraError, MissingFileError
from confide.stores import disk_errors, write_bytes

BROWSERS = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "chrome",
    "microsoft-edge",
    "msedge",
)
"""Names that are looked for on PATH, in this order."""

_VARIABLE = "CONFIDE_CHROMIUM"
_LARGEST_PAGE = 64_000_000
_LARGEST_PDF = 256_000_000
_PAPER = b"<style>@page { size: A4; }</style>"
_DRAWING_MS = 30_000  # of the page's own clock, which runs only while nothing is being done
_FLAGS = (
    "--headless",
    "--disable-gpu",
    "--disable-extensions",
    "--disable-sync",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-breakpad",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--no-default-browser-check",
    "--no-pings",
    "--password-store=basic",
    "--host-resolver-rules=MAP * ~NOTFOUND",  # no name and no address leads anywhere
    "--no-pdf-header-footer",
    f"--virtual-time-budget={_DRAWING_MS}",
    "--run-all-compositor-stages-before-draw",
)


def find_browser(environ: Mapping[str, str] | None = None) -> Path:
    """The Chromium that prints.

    Parameters
    ----------
    environ : the environment, that of this process by default; `CONFIDE_CHROMIUM` names a program
        and goes before what is on `PATH`

    Raises
    ------
    MissingExtraError : there is none; says what to install
    MissingFileError : `CONFIDE_CHROMIUM` names something that is no program
    """
    given = os.environ if environ is None else environ
    named = given.get(_VARIABLE)
    if named:
        found = shutil.which(named, path=given.get("PATH"))
        if found is None:
            raise MissingFileError(
                f"{_VARIABLE} names {named!r}, which is no program that can be run; set it to the "
                "path of a Chromium or Chrome."
            )
        return Path(found)
    for name in BROWSERS:
        found = shutil.which(name, path=given.get("PATH", ""))
        if found is not None:
            return Path(found)
    raise MissingExtraError(
        f"A PDF is printed by Chromium, and none of {', '.join(BROWSERS)} is on PATH; install one, "
        f"or set {_VARIABLE} to its path. report.html can also be printed from any browser."
    )


def write_pdf(html: Path, pdf: Path, *, timeout: float = 180.0) -> int:
    """Print a page of ours as PDF on A4, figures drawn.

    The browser runs without network, with a profile of its own that is removed afterwards. The
    file is written whole or not at all, readable by its owner alone.

    Parameters
    ----------
    html : the page, a file
    pdf : the file to write
    timeout : seconds until the browser is stopped

    Returns
    -------
    number of pages

    Raises
    ------
    ArgumentError : `timeout` is not positive
    MissingExtraError, MissingFileError : no browser, or no page
    FolderError : the page is too large, the browser failed, or what it wrote is no whole PDF
    """
    if not timeout > 0:
        raise ArgumentError(f"Expected timeout={timeout!r} to be above 0 seconds.")
    browser = find_browser()
    content = _page(html)
    with tempfile.TemporaryDirectory(prefix="confide-pdf-") as name:
        folder = Path(name)
        with disk_errors(folder):
            (folder / "page.html").write_bytes(content)
        printed = folder / "page.pdf"
        said = _run(_command(browser, folder), folder, timeout, html)
        pages = _pages(printed, html, said)
        with disk_errors(folder):
            write_bytes(pdf, printed.read_bytes())
    return pages


def print_report(folder: Path) -> Path:
    """Print report.html of a folder as report.pdf beside it; see :func:`write_pdf`."""
    pdf = folder / "report.pdf"
    write_pdf(folder / "report.html", pdf)
    return pdf


def _page(html: Path) -> bytes:
    if not html.is_file():
        raise MissingFileError(f"{html} is missing; `confide audit report` draws it again.")
    if html.stat().st_size > _LARGEST_PAGE:
        raise FolderError(f"{html} is larger than {_LARGEST_PAGE:,} bytes; it was not printed.")
    with disk_errors(html.parent):
        content = html.read_bytes()
    # The page itself leaves the paper to whoever prints it.
    return content.replace(b"</head>", _PAPER + b"</head>", 1)


def _command(browser: Path, folder: Path) -> list[str]:
    # Chromium refuses its sandbox to root; everybody else keeps it.
    is_root = hasattr(os, "geteuid") and os.geteuid() == 0
    return [
        str(browser),
        *_FLAGS,
        *(["--no-sandbox"] if is_root else []),
        f"--user-data-dir={folder / 'profile'}",
        f"--print-to-pdf={folder / 'page.pdf'}",
        (folder / "page.html").as_uri(),
    ]


def _run(command: Sequence[str], folder: Path, timeout: float, html: Path) -> str:
    """Run the browser to its end; what it said last."""
    log = folder / "log"
    with log.open("wb") as said:
        try:
            process = subprocess.Popen(  # noqa: S603 - a browser that the user installed
                command,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                cwd=folder,
                env=_environment(folder),
                start_new_session=True,
            )
        except OSError as error:
            raise FolderError(
                f"{command[0]} could not be started ({error.strerror or error}); set {_VARIABLE} "
                "to the path of a Chromium."
            ) from error
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise FolderError(
                f"{command[0]} did not print {html} within {timeout:g} seconds and was stopped; "
                "try again, or print the page from a browser."
            ) from None
        finally:
            _stop(process)
    return next(iter(_last_lines(log)), "it said nothing")


def _environment(folder: Path) -> dict[str, str]:
    kept = {"PATH", "LANG", "LC_ALL", "TZ", "FONTCONFIG_FILE", "FONTCONFIG_PATH", "LD_LIBRARY_PATH"}
    ours = {name: value for name, value in os.environ.items() if name in kept}
    # Home too, so that nothing of the user's own browser is read or written.
    return ours | {"HOME": str(folder), "TMPDIR": str(folder)}


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End a browser and its children, whatever state they are in."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        process.kill()
    process.wait()


def _last_lines(log: Path) -> Iterator[str]:
    text = log.read_bytes()[-20_000:].decode("utf-8", errors="replace")
    for line in reversed(text.splitlines()):
        plain = "".join(c for c in line.strip() if c.isprintable())
        # Complaints about a message bus are said by every run of a browser without a desktop.
        if plain and "dbus" not in plain:
            yield plain[:200]


def _pages(printed: Path, html: Path, said: str) -> int:
    """Number of pages of what was printed, which is a whole PDF."""
    size = printed.stat().st_size if printed.is_file() else 0
    if 0 < size <= _LARGEST_PDF:
        content = printed.read_bytes()
        # Chromium writes its page objects uncompressed.
        pages = len(re.findall(rb"/Type\s*/Page\b", content))
        if content.startswith(b"%PDF-") and content.rstrip().endswith(b"%%EOF") and pages:
            return pages
    raise FolderError(
        f"The browser printed no whole PDF of {html} ({said}); try again, or print the page from "
        "a browser."
    )
