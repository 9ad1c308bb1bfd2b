"""A report as PDF: whole, on A4, with its figures, and without any network."""

import http.server
import os
import re
import sys
import threading
import time
from pathlib import Path

import pypdf
import pytest

from confide.errors import ArgumentError, FolderError, MissingExtraError, MissingFileError
from confide.reports.html import render
from confide.runs.pdf import BROWSERS, find_browser, print_report, write_pdf

sys.path.append(str(Path(__file__).parents[1]))
from reports.conftest import make

PAGE = "<!doctype html><html><head><title>t</title></head><body>{}</body></html>"


def program(folder, name, script):
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


@pytest.fixture(scope="module")
def browser():
    try:
        return find_browser()
    except MissingExtraError:
        pytest.skip("no browser")


@pytest.fixture
def page(tmp_path):
    path = tmp_path / "report.html"
    path.write_text(PAGE.format("<p>Some words.</p>"))
    return path


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """A program that is run in place of the browser."""

    def make(script):
        monkeypatch.setenv("CONFIDE_CHROMIUM", str(program(tmp_path, "browser", script)))

    return make


def test_browsers_are_found_in_order(tmp_path):
    with pytest.raises(MissingExtraError, match="CONFIDE_CHROMIUM"):
        find_browser({"PATH": str(tmp_path)})
    with pytest.raises(MissingExtraError):
        find_browser({})
    for name in reversed(BROWSERS):
        program(tmp_path, name, "true")
        assert find_browser({"PATH": str(tmp_path)}).name == name
    mine = program(tmp_path, "mine", "true")
    given = {"PATH": str(tmp_path), "CONFIDE_CHROMIUM": str(mine)}
    assert find_browser(given) == mine
    with pytest.raises(MissingFileError, match="no program"):
        find_browser({**given, "CONFIDE_CHROMIUM": str(tmp_path / "gone")})


def test_what_is_refused(tmp_path, page):
    with pytest.raises(MissingFileError, match="audit report"):
        write_pdf(tmp_path / "gone.html", tmp_path / "a.pdf")
    with pytest.raises(ArgumentError, match="timeout"):
        write_pdf(page, tmp_path / "a.pdf", timeout=0)
    with page.open("r+b") as file:
        file.truncate(65_000_000)
    with pytest.raises(FolderError, match="larger"):
        write_pdf(page, tmp_path / "a.pdf")


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo no display >&2; exit 1", "no display"),
        ("true", "said nothing"),
        ("echo half > page.pdf", "no whole PDF"),
        ("printf '%%PDF-1.4\\n%%%%EOF\\n' > page.pdf", "no whole PDF"),
    ],
)
def test_a_browser_that_fails(tmp_path, page, stand_in, script, said):
    stand_in(script)
    before = page.with_suffix(".pdf")
    before.write_bytes(b"of before")
    with pytest.raises(FolderError, match=said):
        write_pdf(page, before)
    assert before.read_bytes() == b"of before"
    assert not list(tmp_path.glob("*.partial"))


def test_a_browser_that_hangs_is_stopped_with_its_children(tmp_path, page, stand_in):
    alive = tmp_path / "alive"
    stand_in(f"(while :; do date +%s%N > {alive}; sleep 0.1; done) & sleep 600")
    with pytest.raises(FolderError, match="within 2 seconds"):
        write_pdf(page, tmp_path / "a.pdf", timeout=2)
    time.sleep(0.3)
    then = alive.read_text()
    time.sleep(0.5)
    assert alive.read_text() == then


def test_the_browser_gets_a_copy_and_a_home_of_its_own(tmp_path, page, stand_in, monkeypatch):
    monkeypatch.setenv("SECRET", "1")
    log = tmp_path / "seen"
    stand_in(
        f'env > {log}; pwd >> {log}; echo "$@" >> {log}; cat page.html >> {log}\n'
        "printf '%%PDF-1.4\\n<< /Type /Page >>\\n%%%%EOF\\n' > page.pdf"
    )
    assert write_pdf(page, tmp_path / "a.pdf") == 1
    assert (tmp_path / "a.pdf").stat().st_mode & 0o777 == 0o600
    seen = log.read_text()
    home = re.search(r"^HOME=(.*)$", seen, re.MULTILINE)[1]
    assert "SECRET" not in seen
    assert f"--user-data-dir={home}/profile" in seen
    assert "size: A4" in seen
    assert ("--no-sandbox" in seen) == (os.geteuid() == 0)
    assert not Path(home).exists()
    assert "size: A4" not in page.read_text()


@pytest.fixture(scope="module")
def printed(browser, tmp_path_factory):
    """A report of an audit, printed."""
    folder = tmp_path_factory.mktemp("printed")
    html = render(make(), title="A title of mine", method={"seed": 1})
    (folder / "report.html").write_text(html, encoding="utf-8")
    return pypdf.PdfReader(print_report(folder))


@pytest.mark.browser
def test_a_report_on_paper(printed):
    assert len(printed.pages) > 3
    for sheet in printed.pages:
        assert [round(float(v)) for v in sheet.mediabox[2:]] == [595, 842]
    text = " ".join(" ".join(sheet.extract_text() for sheet in printed.pages).split())
    assert printed.metadata.title == "A title of mine"
    for said in ("A title of mine", "12 of 455 patients are at risk", "Groups", "Method"):
        assert said in text
    for said in ("False-positive rate", "Patients at or above"):
        assert said in text  # titles of axes: figures are drawn, and their letters are letters
    assert "drawn by a script" not in text


@pytest.mark.browser
def test_figures_on_paper_are_vectors(printed):
    sheet = next(one for one in printed.pages if "True-positive rate" in one.extract_text())
    content = sheet.get_contents().get_data()
    assert len(re.findall(rb"\s[lc]\n", content)) > 200
    assert not list(sheet.images)


@pytest.mark.browser
def test_nothing_is_cut_on_paper(printed):
    outside, n = [], 0

    def look(text, cm, tm, font, size):
        nonlocal n
        x = tm[4] * cm[0] + tm[5] * cm[2] + cm[4]
        n += 1
        if text.strip() and not 0 <= x <= 595 - 28:
            outside.append((text, x))

    for sheet in printed.pages:
        sheet.extract_text(visitor_text=look)
    assert n > 200
    assert outside == []


@pytest.mark.browser
def test_no_request_leaves(browser, tmp_path):
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    port = server.server_port
    html = "".join(
        f'<img src="http://{host}:{port}/a"><iframe src="http://{host}:{port}/b"></iframe>'
        for host in ("127.0.0.1", "localhost")
    )
    (tmp_path / "page.html").write_text(PAGE.format(f"{html}<p>words</p>"))
    try:
        assert write_pdf(tmp_path / "page.html", tmp_path / "a.pdf") == 1
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert asked == []
