"""Every error that confide raises on purpose.

Each message says what was expected, where (file, row, column), the value that was found, and what
to do about it.  The command line turns a :class:`ConfideError` into one line and exit code 2, a
:class:`GuardError` into exit code 1.
"""

from __future__ import annotations


class ConfideError(Exception):
    """Base of all errors raised on purpose; never raised itself."""


class ArgumentError(ConfideError, ValueError):
    """A Python argument out of its domain: wrong value, shape or type."""


class ConfigError(ConfideError, ValueError):
    """A configuration that cannot be used; names the key."""


class TableError(ConfideError, ValueError):
    """A table of records or predictions that cannot be used; names row and column."""


class ImageError(ConfideError, ValueError):
    """An image file that cannot be used; names the file."""


class SignalError(ConfideError, ValueError):
    """Logits or signals that cannot be used; names the model and the record."""


class MissingFileError(ConfideError, FileNotFoundError):
    """A file or folder that should be there and is not."""

    def __str__(self) -> str:
        # OSError formats its arguments as errno and strerror; a plain sentence reads better.
        return str(self.args[0]) if self.args else ""


class FolderError(ConfideError, OSError):
    """An audit folder that cannot be used or written: in use, full disk, altered, wrong version."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class StoreError(ConfideError, OSError):
    """An object store that cannot be used: not reached, refused, or used by another audit.

    Credentials are never part of the message.
    """

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class MismatchError(ConfideError, ValueError):
    """A folder was begun with another configuration or other data; names the field."""


class TrainingError(ConfideError, RuntimeError):
    """A model could not be trained; says how to resume."""


class KeyFileError(ConfideError, ValueError):
    """A key that cannot be used: damaged, locked, of another architecture, or used before.

    Nothing secret is ever part of the message.
    """


class ReleaseError(ConfideError, ValueError):
    """A release that cannot be used: not finished, of another form, or altered; names the file."""


class UnfinishedError(ReleaseError):
    """A release without its manifest: not finished yet, or a file of it was lost."""


class GuardError(ConfideError, RuntimeError):
    """A guard of validity tripped and was not accepted by name."""


class MissingExtraError(ConfideError, ImportError):
    """An optional dependency is not installed; names the extra that brings it."""
