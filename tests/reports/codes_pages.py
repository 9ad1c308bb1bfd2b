"""Pages of a training on codes, read back: tags, visible text and rows of tables."""

import sys
from html.parser import HTMLParser
from pathlib import Path

from confide.reports.codes import render_codes

sys.path.insert(0, str(Path(__file__).parent))  # tests are imported from files
from codes_inputs import METHOD

HEADS = ("Arm", "Arms", "Model", "Models and test records", "Arm and models", "Site", "Fact")
"""First cells of the headers of tables."""


class Page(HTMLParser):
    """Tags, visible text and table rows of a page."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.text, self.rows = [], "", []
        self._skip, self._cell = None, False
        self.feed(page)
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self._skip = tag
        elif tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
            self._cell = True

    def handle_endtag(self, tag):
        if tag == self._skip:
            self._skip = None
        elif tag in ("td", "th"):
            self._cell = False

    def handle_data(self, data):
        if self._skip:
            return
        self.text += " " + data
        if self._cell:
            self.rows[-1][-1] = " ".join(f"{self.rows[-1][-1]} {data}".split())


def page(inputs, title="Codes"):
    return Page(render_codes(*inputs, title=title, method=METHOD))


def put(table, rows, **columns):
    """Set columns of some rows of the table."""
    for column, value in columns.items():
        table.loc[rows, column] = value


def rows_below(shown, *header):
    """Rows of the table with that header, up to the next header."""
    start = shown.rows.index(list(header)) + 1
    stop = next((i for i in range(start, len(shown.rows)) if shown.rows[i][0] in HEADS), None)
    return shown.rows[start:stop]
