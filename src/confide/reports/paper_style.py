"""How figures for papers look: sizes, letters, lines and colours."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from confide import _check as check
from confide.errors import ArgumentError, MissingExtraError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Format = Literal["pdf", "svg", "png"]
FORMATS: tuple[Format, ...] = ("pdf", "svg", "png")

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
"""Colours that people with any common colour blindness tell apart (Okabe and Ito, 2008)."""

GREY = "#6b7280"
_MM = 1 / 25.4
_PNG_DPI = 600


@dataclass(frozen=True, kw_only=True)
class Style:
    """How figures look.

    Attributes
    ----------
    name : what it is asked for by
    single, double : widths of one and of two columns, mm
    letters : size of all letters, pt
    fonts : families, the first that is installed is used
    line : width of axes, pt; curves are twice as wide
    """

    name: str
    single: float
    double: float
    letters: float
    fonts: tuple[str, ...]
    line: float

    def __post_init__(self) -> None:
        for name in ("single", "double", "letters", "line"):
            if not getattr(self, name) > 0:
                raise ArgumentError(f"Expected {name}={getattr(self, name)!r} to be above 0.")

    def settings(self) -> dict[str, Any]:
        """What matplotlib is told."""
        return {
            "font.family": "sans-serif",
            "font.sans-serif": list(self.fonts),
            **dict.fromkeys(
                (
                    "font.size",
                    "axes.labelsize",
                    "axes.titlesize",
                    "xtick.labelsize",
                    "ytick.labelsize",
                    "legend.fontsize",
                    "figure.titlesize",
                    "figure.labelsize",
                ),
                self.letters,
            ),
            **dict.fromkeys(
                ("axes.linewidth", "xtick.major.width", "ytick.major.width", "grid.linewidth"),
                self.line,
            ),
            "xtick.minor.width": self.line / 2,
            "ytick.minor.width": self.line / 2,
            "xtick.major.size": 2.5,
            "ytick.major.size": 2.5,
            "xtick.minor.size": 1.5,
            "ytick.minor.size": 1.5,
            "lines.linewidth": 2 * self.line,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.unicode_minus": True,
            "legend.frameon": False,
            "legend.handlelength": 2.2,
            "pdf.fonttype": 42,  # letters stay letters, which journals ask for
            "svg.fonttype": "none",
            "svg.hashsalt": "confide",  # else names inside the file change from run to run
            "text.parse_math": False,  # a $ in a name is a $
            "text.usetex": False,
        }


_HELVETICA = ("Helvetica", "Arial", "Liberation Sans", "DejaVu Sans")
_SCRIPTS = ("Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans", "Arial Unicode MS")
"""Asked for letters that the fonts of a style do not have."""

STYLES: dict[str, Style] = {
    style.name: style
    for style in (
        Style(name="nature", single=89, double=183, letters=7, fonts=_HELVETICA, line=0.5),
        Style(name="plain", single=120, double=180, letters=9, fonts=("DejaVu Sans",), line=0.8),
    )
}
"""Styles by name; widths and letters of "nature" are those that the journal asks for."""


def style_named(name: str) -> Style:
    """The style of that name.

    Raises
    ------
    ArgumentError : there is none; names the nearest
    """
    return STYLES[check.one_of(STYLES, style=name)]


@contextlib.contextmanager
def styled(style: Style) -> Iterator[None]:
    """Draw in a style; what the user set for matplotlib is put back afterwards.

    Raises
    ------
    MissingExtraError : matplotlib is not installed
    """
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise MissingExtraError(
            "Figures for papers are drawn by matplotlib, which is not installed; run: "
            "pip install 'confide[figures]'"
        ) from error
    # The user's own file of settings has no part in it: the same figures everywhere.
    with mpl.rc_context(), warnings.catch_warnings():
        # A letter that no font has is a box in the figure, and no trouble of the figure's.
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        mpl.rcdefaults()
        settings: Any = style.settings() | {"font.sans-serif": _installed(style.fonts)}
        mpl.rcParams.update(settings)
        yield


def _installed(fonts: tuple[str, ...]) -> list[str]:
    """The families that are there, in order; matplotlib warns of each that is not."""
    from matplotlib.font_manager import fontManager

    known = set(fontManager.get_font_names())
    # The last of all comes with matplotlib.
    return [name for name in dict.fromkeys((*fonts, *_SCRIPTS, "DejaVu Sans")) if name in known]


def blank(width: float, height: float) -> Figure:
    """An empty figure; sizes in mm."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width * _MM, height * _MM), layout="constrained")


def encode(figure: Figure, kind: Format) -> bytes:
    """The file of a figure: the same bytes for the same figure, without a date."""
    from io import BytesIO

    metadata: dict[Format, dict[str, str | None]] = {
        "pdf": {"CreationDate": None, "Creator": "confide", "Producer": None},
        "svg": {"Date": None, "Creator": "confide"},
        "png": {"Software": None},
    }
    stream = BytesIO()
    figure.savefig(stream, format=kind, metadata=metadata[kind], dpi=_PNG_DPI)
    return stream.getvalue()
