"""Names that a shell completes.  Kept as text, so that completion imports nothing heavy."""

from __future__ import annotations

DATA = (
    "chexpert",
    "ecg",
    "embed",
    "embedded",
    "fairvision",
    "fitzpatrick17k",
    "images",
    "mimic-cxr",
    "mimic-iv-ed",
    "phantom",
    "ptb-xl",
    "table",
)
FORMATS = ("pdf", "svg", "png")
GUARDS = ("blind", "recipe")
MEMBERSHIP_ATTACKS = (
    "calibrated_loss",
    "lira",
    "lira_offline",
    "loss",
    "lt_iqr",
    "quantile",
    "rmia",
    "rmia_offline",
    "stacked",
)
INVERSION_ATTACKS = (
    "alignment",
    "assignment",
    "attribute-probe",
    "discriminator",
    "linkage",
    "mmd",
    "noise-mmd",
    "one-key-linkage",
    "plaintext",
    "reconstruction",
    "transfer",
    "two-keys-linkage",
    "unpaired-alignment",
    "wrongly-paired",
)
RULES = ("stable", "se=0.05")
STYLES = ("nature", "plain")


def data(incomplete: str) -> list[str]:
    """Data sources; where none fits, the shell offers files."""
    return _fitting(DATA, incomplete)


def formats(incomplete: str) -> list[str]:
    """Forms of the files of figures."""
    return _fitting(FORMATS, incomplete)


def guards(incomplete: str) -> list[str]:
    """Guards that can be accepted by name."""
    return _fitting(GUARDS, incomplete)


def inversion_attacks(incomplete: str) -> list[str]:
    """Attacks on releases."""
    return _fitting(INVERSION_ATTACKS, incomplete)


def rules(incomplete: str) -> list[str]:
    """Rules of stopping early."""
    return _fitting(RULES, incomplete)


def styles(incomplete: str) -> list[str]:
    """How figures for papers look."""
    return _fitting(STYLES, incomplete)


def membership_attacks(incomplete: str) -> list[str]:
    """The last of several names separated by commas.

    >>> membership_attacks("lira,sta")
    ['lira,stacked']
    """
    before, comma, last = incomplete.rpartition(",")
    used = before.split(",")
    names = _fitting([name for name in MEMBERSHIP_ATTACKS if name not in used], last)
    return [before + comma + name for name in names]


def _fitting(names: tuple[str, ...] | list[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]
