"""The site builds without a warning, needs no network, and its reference is that of the program."""

import functools
import html
import http.server
import os
import re
import subprocess
import sys
import threading
import zlib
from html.parser import HTMLParser
from typing import get_args

import pytest
import typer
from pydantic import BaseModel

import confide
from confide import attacks, errors
from confide.cli import app
from confide.config import CodesConfig, Config
from confide.runs.model_settings import ModelConfig
from docs_pages import DOCS, ROOT

sys.path.insert(0, str(DOCS))

from _docstrings import as_markdown, entries, summary
from _hooks import commands


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("docs") / "site"
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr, done.stderr
    return folder


class Parts(HTMLParser):
    """What a page loads, its ids, its visible text, and its tables as rows of text."""

    def __init__(self, path):
        super().__init__()
        self.loads, self.ids, self.text, self.rows = [], [], [], []
        self._cell = None
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.ids += [given["id"]] if given.get("id") else []
        if tag in ("script", "img", "iframe", "source", "video", "audio", "embed"):
            self.loads += [given[key] for key in ("src", "srcset") if given.get(key)]
        if tag == "link" and given.get("rel") not in ("canonical", "next", "prev"):
            self.loads.append(given.get("href", ""))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self._cell = []

    def handle_endtag(self, tag):
        if tag in ("td", "th") and self._cell is not None:
            self.rows[-1].append(" ".join("".join(self._cell).split()))
            self._cell = None

    def handle_data(self, data):
        self.text.append(data)
        if self._cell is not None:
            self._cell.append(data)

    @property
    def words(self):
        return " ".join("".join(self.text).split())


def test_nothing_is_loaded_from_elsewhere(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > 30
    for path in pages:
        for load in Parts(path).loads:
            assert not re.match(r"(\w+:)?//", load), f"{path.name} loads {load}"
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"import\(|cdnjs|unpkg|jsdelivr", text), path.name
    for path in site.rglob("*.css"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"(@import|url\()\s*[\"']?(https?:)?//", text), path.name


@pytest.mark.browser
def test_search_works_without_a_network(site):
    from playwright.sync_api import sync_playwright

    handler = type(
        "Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *_: None}
    )
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(handler, directory=site)
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    here = f"http://127.0.0.1:{server.server_port}/"
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path="/usr/bin/chromium", args=["--no-sandbox"]
            )
            page = browser.new_page()
            asked, faults = [], []
            page.on("request", lambda request: asked.append(request.url))
            page.on("pageerror", lambda fault: faults.append(str(fault)))
            for name in ("tutorials/csv.html", "reference/cli.html", "index.html"):
                page.goto(here + name, wait_until="networkidle")
            # What is typed before the page's script listens is lost: typed until it is heard.
            box, found = page.locator("input.md-search__input"), ".md-search-result__item a"
            for _ in range(20):
                box.click()
                box.fill("")
                box.press_sequentially("erase")
                page.wait_for_timeout(2000)
                if page.locator(found).count():
                    break
            page.wait_for_selector(found)
            browser.close()
    finally:
        server.shutdown()
        server.server_close()
    assert [url for url in asked if not url.startswith((here, "data:", "blob:"))] == []
    assert faults == []


def plain(text):
    return " ".join(text.replace("`", "").replace("\\[", "[").split())


def test_every_command_and_option_is_explained(site):
    page = Parts(site / "reference" / "cli.html")
    found = dict(commands(typer.main.get_command(app), "confide"))
    assert len(found) > 20
    for name, command in found.items():
        assert name.replace(" ", "-") in page.ids
        for paragraph in (command.help or "").split("\n\n"):
            assert plain(paragraph) in page.words, name
        assert plain(command.epilog or "") in page.words
        for one in command.params:
            said = [row for row in page.rows if len(row) == 3 and row[1] == plain(one.help or "")]
            word = one.opts[0] if one.param_type_name == "option" else one.metavar
            assert any(word in row[0] for row in said), (name, word)


def models(kind, found):
    """The blocks of a configuration, and those in them."""
    if isinstance(kind, type) and issubclass(kind, BaseModel) and kind not in found:
        found.append(kind)
        for field in kind.model_fields.values():
            models(field.annotation, found)
    for inner in get_args(kind):
        models(inner, found)
    return found


def test_every_key_is_explained_with_its_default(site):
    path = site / "reference" / "configuration.html"
    text = path.read_text(encoding="utf-8")
    for kind in {k for top in (Config, CodesConfig, ModelConfig) for k in models(top, [])}:
        start = text.index(f'<a id="{kind.__name__}"></a>')
        table = text[text.index("<table>", start) : text.index("</table>", start)]
        cells = [
            [plain(html.unescape(re.sub("<.*?>", "", cell))) for cell in row.split("</td>")]
            for row in table.split("<tr>")[2:]
        ]
        shown = {cell[0]: cell[1] for cell in cells}
        assert shown.keys() == kind.model_fields.keys(), kind.__name__
        for name, field in kind.model_fields.items():
            assert shown[name] == default_of(field), (kind.__name__, name)


def default_of(field):
    if field.is_required():
        return "required"
    value = field.default_factory() if field.default_factory else field.default
    if hasattr(value, "name"):
        return value.name
    if isinstance(value, BaseModel):
        inside = ", ".join(f"{k}: {v}" for k, v in value.model_dump(mode="json").items())
        return f"{{{inside}}}" if len(inside) < 28 else "its defaults"
    if isinstance(value, tuple):
        return f"[{', '.join(map(str, value))}]"
    if isinstance(value, float):
        return repr(value).replace("1e-0", "1.0e-0")
    return (
        str(value).lower().replace("none", "null") if isinstance(value, bool | None) else str(value)
    )


def test_reference_has_the_public_names(site):
    inventory = zlib.decompress((site / "objects.inv").read_bytes().split(b"\n", 4)[4]).decode()
    there = {line.split(" ")[0] for line in inventory.splitlines()}
    public = [getattr(confide, name) for name in confide.__all__ if name != "__version__"]
    public += [getattr(attacks, name) for name in attacks.__all__ if name != "KNOWN"]
    public += [one for one in vars(errors).values() if isinstance(one, type)]
    for one in public:
        assert f"{one.__module__}.{one.__qualname__}" in there
    assert {"confide.attacks.KNOWN", "confide.training.trainer.TorchTrainer"} <= there


def test_docstrings_become_markdown():
    text = """Do it; see :func:`confide.audit`.

    Parameters
    ----------
    a, b : (n,) numbers
        that go on
    *rest : what is <left>

    Returns
    -------
    the sum

    >>> 1 + 1
    2
    """
    assert as_markdown(text).splitlines() == [
        "Do it; see `confide.audit`.",
        "",
        "",
        "**Parameters**",
        "",
        "- `a`, `b`: (n,) numbers",
        "    that go on",
        "- `*rest`: what is &lt;left>",
        "",
        "",
        "**Returns**",
        "",
        "- the sum",
        "",
        "",
        "```python",
        ">>> 1 + 1",
        "2",
        "```",
    ]
    assert entries(text) == {
        "a": "(n,) numbers that go on",
        "b": "(n,) numbers that go on",
        "*rest": "what is <left>",
    }
    assert summary(text) == "Do it; see `audit`."
