"""What kind of file a model is, by its content, and a .pt2 file without its dangerous parts.

A file of torch.export is a zip archive of JSON and of raw weights.  PyTorch's own reader also
takes pickles in it, of inputs, weights and constants, native libraries, and strings that it
evaluates as Python.  Here such an archive is written anew in memory from its harmless entries
alone, and one that needs the others is refused.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from confide.errors import ArgumentError, MissingFileError

Kind = Literal["pt2", "torchscript", "onnx", "skops", "table"]

MAX_BYTES = 8 * 2**30
"""A model larger than this, as a file or unpacked, is refused."""

_MAX_JSON = 256 * 2**20
_RATIO, _SLACK = 50, 64 * 2**20  # real weights hardly pack; a bomb packs a thousandfold
_REMEDY = (
    "Save the model with torch.export.save (.pt2), torch.jit.save, as ONNX or with skops, or give "
    "a table of its predictions"
)
_PICKLES = (".pkl", ".pickle", ".joblib", ".pth", ".ckpt", ".bin")

_WEIGHT = re.compile(r"data/(weights/weight|constants/tensor)_\d+")
_HARMLESS = re.compile(
    r"(archive_format|archive_version|byteorder|\.data/(version|serialization_id)|models/model\.json"
    r"|data/(weights|constants)/model_(weights|constants)_config\.json)"
)
_TARGET = re.compile(
    r"torch\.ops\.(aten|prims)\.\w+(\.\w+)?|torch\.sym_(max|min|not|float|int|ite|sqrt|sum)"
    r"|torch\.ops\.higher_order\.(cond|wrap_with_set_grad_enabled|wrap_with_autocast)"
    r"|_operator\.(getitem|add|sub|mul|floordiv|truediv|mod|pow|neg|pos|eq|ne|ge|gt|le|lt|and_|or_)"
    r"|math\.(trunc|floor|ceil|sqrt|log2|pow)"
)
_SYMBOL = re.compile(r"Symbol\('[su]\d+'(, \w+=(True|False))*\)")
_SIZE = re.compile(
    r"[su]\d+|Integer|Rational|Add|Mul|Pow|Max|Min|Mod|PythonMod|FloorDiv|CleanDiv|CeilDiv|floor"
    r"|ceiling|Eq|Ne|Ge|Gt|Le|Lt|Equality|Unequality|GreaterThan|StrictGreaterThan|LessThan"
    r"|StrictLessThan"
)


def kind_of(path: Path) -> Kind:
    """The kind of a model file, from what it holds.

    Raises
    ------
    MissingFileError : there is no such file
    ArgumentError : a pickle, which is never opened, too large a file, or no known kind
    """
    if not path.is_file():
        raise MissingFileError(f"There is no model file {path}; check the path.")
    if path.stat().st_size > MAX_BYTES:
        raise ArgumentError(f"{path} is larger than {MAX_BYTES:,} bytes; is it a model?")
    with path.open("rb") as file:
        head = file.read(512)
    if head[:4] == b"PK\x03\x04":
        return _kind_of_archive(path)
    if head[:4] == b"PAR1" or path.suffix in (".csv", ".gz", ".parquet"):
        return "table"
    if (head[:1] == b"\x80" and head[1:2] <= b"\x05") or path.suffix in _PICKLES:
        raise ArgumentError(_pickle(path))
    if path.suffix == ".onnx":
        return "onnx"
    raise ArgumentError(f"{path} is no model that can be read. {_REMEDY}.")


def _pickle(path: Path) -> str:
    return (
        f"{path} is a pickle: opening it would run whatever code is in it, so it is never opened. "
        f"{_REMEDY}."
    )


def _kind_of_archive(path: Path) -> Kind:
    names = [name for name, _ in entries(path)]
    inner = {name.partition("/")[2] for name in names}
    if "schema.json" in names:
        return "skops"
    if "models/model.json" in inner and "archive_format" in inner:
        return "pt2"
    if "constants.pkl" in inner and any(name.startswith("code/") for name in inner):
        return "torchscript"
    if "data.pkl" in inner:
        raise ArgumentError(_pickle(path))
    raise ArgumentError(f"{path} is an archive, but of no kind of model that is known. {_REMEDY}.")


def entries(path: Path) -> list[tuple[str, int]]:
    """Names and sizes of what an archive holds; one that unpacks to far more is refused."""
    try:
        with zipfile.ZipFile(path) as archive:
            found = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise ArgumentError(f"{path} is a damaged archive ({error}).") from error
    total = sum(entry.file_size for entry in found)
    if total > min(MAX_BYTES, _RATIO * path.stat().st_size + _SLACK):
        raise ArgumentError(f"{path} unpacks to {total:,} bytes, too many for a file of its size.")
    names = [entry.filename for entry in found]
    if len(set(names)) < len(names):
        raise ArgumentError(f"{path} holds an entry twice; save the model anew.")
    return [(entry.filename, entry.file_size) for entry in found]


def refuse_damaged(path: Path) -> None:
    """Compare the checksums of all that an archive holds, as not every reader of one does.

    What is altered may otherwise ask for any amount of memory.

    Raises
    ------
    ArgumentError : one differs
    """
    try:
        with zipfile.ZipFile(path) as archive:
            altered = archive.testzip()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, zlib.error) as error:
        raise ArgumentError(f"{path} is a damaged archive ({error}).") from error
    if altered is not None:
        raise ArgumentError(f"{path} is damaged: the checksum of {altered:.80} differs.")


def harmless_pt2(path: Path) -> io.BytesIO:
    """The archive of an exported program without pickles, native code and evaluated text.

    Example inputs, which are a pickle, are dropped; they are not needed to run a model.

    Raises
    ------
    ArgumentError : the program needs something that is refused; says what
    """
    clean = io.BytesIO()
    entries(path)
    try:
        with zipfile.ZipFile(path) as archive, zipfile.ZipFile(clean, "w") as kept:
            for entry in archive.infolist():
                root, _, name = entry.filename.partition("/")
                if name.startswith("data/sample_inputs/"):
                    kept.writestr(f"{root}/{name}", b"")
                elif name.endswith(".json") and _HARMLESS.fullmatch(name):
                    if entry.file_size > _MAX_JSON:
                        raise ArgumentError(f"{path}: {name} has {entry.file_size:,} bytes.")
                    kept.writestr(f"{root}/{name}", _checked(path, name, archive.read(entry)))
                elif _WEIGHT.fullmatch(name) or _HARMLESS.fullmatch(name):
                    kept.writestr(f"{root}/{name}", archive.read(entry))
                else:
                    raise ArgumentError(
                        f"{path} holds {entry.filename!r:.80}, which is native code, a pickle or "
                        "unknown, and is not loaded. Save the model with torch.export.save of a "
                        "recent PyTorch, without custom objects, or as ONNX."
                    )
    except (zipfile.BadZipFile, OSError, ValueError, RecursionError) as error:
        if isinstance(error, ArgumentError):
            raise
        raise ArgumentError(f"{path} is damaged ({error}).") from error
    clean.seek(0)
    return clean


def _checked(path: Path, name: str, content: bytes) -> bytes:
    """One JSON entry, refused if reading it would unpickle or evaluate something."""
    parsed = json.loads(content)
    for key, value in _pairs(parsed):
        if key == "use_pickle" and value:
            raise ArgumentError(f"{path}: {name} has weights as pickles, which are not loaded.")
        bad = isinstance(value, str) and (
            (key == "target" and not _TARGET.fullmatch(value))
            or (key == "expr_str" and not _is_size(value))
            or (key == "path_name" and not re.fullmatch(r"(weight|tensor)_\d+", value))
        )
        if bad:
            raise ArgumentError(
                f"{path}: {name} uses {value!r:.80}, which is no plain operation on tensors and is "
                "not run. Export the model without custom operations, or as ONNX."
            )
    if isinstance(parsed, dict) and "guards_code" in parsed:
        parsed["guards_code"] = []  # Python text that would be executed
    return json.dumps(parsed).encode()


def _is_size(text: str) -> bool:
    """Whether an expression of sizes is arithmetic on symbols and nothing else."""
    text = _SYMBOL.sub("s0", text)
    plain = re.fullmatch(r"[\w\s+\-*/(),<>=]*", text, re.ASCII) is not None
    return plain and all(_SIZE.fullmatch(word) for word in re.findall(r"[A-Za-z_]\w*", text))


def _pairs(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key, inner
            yield from _pairs(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _pairs(inner)
