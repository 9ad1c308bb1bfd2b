"""Valid files made malformed; each change is drawn from a `random.Random`, and can be redone.

`altered` changes the bytes of one file by its form: any bytes, lines of text, or a document of
JSON, whose structure is kept so that a change comes past the parser.
"""

import json
import re
import struct
import zlib

HUGE = (2**7, 2**8 - 1, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)
WORDS = (
    *("", "NaN", "-NaN", "inf", "-Infinity", "1e999", "-1e999", "1e-400", "-0", "0x10", "1_0"),
    *("-1", "0", "1", "2", "3.5", "007", "9" * 19, "-" + "9" * 25, "1" + "0" * 400, "9" * 5000),
    *("null", "~", "true", "no", "None", "NA", "[]", "{}", "[[1]]", "{a: 1}", "'", '"', "\\", "#"),
    *("!!python/object/apply:os.mkdir [x]", "!!binary aGk=", "!!set {a}", "2001-01-01", "12:30:45"),
    *("&a [*a]", "*a", "<<: *a", "? [a]", "${HOME}", "${NOT_THERE}", "${", "---", "...", "%TAG"),
    *("../../../etc/passwd", "/etc/passwd", "..", ".", "/", "//", "~root", "C:\\x", "a\0b", "\0"),
    *("a/../../b", "file:///etc/passwd", "nul", "<script>alert(1)</script>", "&lt;", "=1+1"),
    *("\u202e", "\ufeff", "\u2028", "İ", "ß", "𝟙", "１", "é", "e\u0301", "\U0001f600", "\x85"),
    *(" ", "\t", "\n", "\r", "a,b", "a;b", "a b", "x" * 300, "x" * 70_000),
    *("[" * 2000, "{a: " * 900),
)  # fmt: skip
_TOKEN = re.compile(r"[\w.+-]+|[^\w\s]")
_DIGITS = re.compile(rb"\d+")


def altered(rng, name, files):
    """The bytes that the file `name` of `files` is replaced by."""
    content = files[name]
    form = form_of(name, content)
    chance = rng.random()
    if chance < 0.02:
        return rng.randbytes(rng.choice((0, 1, 7, 64, 3000)))
    if chance < 0.05:  # another file under this name
        return files[rng.choice(sorted(files))]
    if form == "json" and chance < 0.8:
        return document(rng, content)
    if form in ("json", "text") and chance < 0.95:
        return text(rng, content)
    if form == "png" and chance < 0.6:
        return png_sealed(binary(rng, content, files.values()))
    if form == "npy" and chance < 0.4:
        return npy_header(rng, content)
    return binary(rng, content, files.values())


def form_of(name, content):
    """How a file is altered."""
    if name.endswith((".json", ".hea")) or content[:1] in (b"{", b"["):
        return "json" if content[:1] in (b"{", b"[") else "text"
    if content.startswith(b"\x89PNG"):
        return "png"
    if content.startswith(b"\x93NUMPY"):
        return "npy"
    is_text = name.endswith((".yaml", ".csv", ".jsonl", ".key"))
    return "text" if is_text else "binary"


def binary(rng, content, others=()):
    """One to four changes of bytes."""
    raw = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(raw) + 1)
        if rng.random() < 0.5:  # where most headers are
            at = min(at, rng.randrange(200))
        kind = rng.randrange(10)
        if kind == 0 and at < len(raw):
            raw[at] ^= 1 << rng.randrange(8)
        elif kind == 1 and at < len(raw):
            raw[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF))
        elif kind in (2, 3):  # a length or a size, raised
            form = rng.choice("HIQ")
            number = struct.pack(
                rng.choice("<>") + form, rng.choice(HUGE) % 2 ** (8 * len_of(form))
            )
            raw[at : at + len(number)] = number
        elif kind == 4:
            del raw[at:]
        elif kind == 5:
            raw[at:at] = rng.randbytes(rng.randrange(1, 40))
        elif kind == 6:
            del raw[at : at + rng.randrange(1, 40)]
        elif kind == 7:
            raw[at : at + 8] = raw[at : at + rng.randrange(1, 300)] * rng.choice((1, 2, 20))
        elif kind == 8 and others:
            other = rng.choice(sorted(others))
            start = rng.randrange(len(other) + 1)
            raw[at : at + 16] = other[start : start + rng.randrange(1, 200)]
        else:
            raw = bytearray(digits(rng, bytes(raw)))
    return bytes(raw)


def len_of(form):
    return struct.calcsize(f"<{form}")


def digits(rng, content):
    """One of the numbers in ASCII becomes another."""
    found = list(_DIGITS.finditer(content[:5000]))
    if not found:
        return content[::-1]
    one = rng.choice(found)
    number = rng.choice((b"0", b"-1", b"1" * 18, b"9" * 30, b"4294967296", b"1e9", b""))
    return content[: one.start()] + number + content[one.end() :]


def text(rng, content):
    """One to three changes of words or lines."""
    lines = content.decode("utf-8", errors="surrogateescape").split("\n")
    for _ in range(rng.choice((1, 1, 2, 3))):
        at = rng.randrange(len(lines))
        word = rng.choice(WORDS)
        kind = rng.randrange(9)
        tokens = list(_TOKEN.finditer(lines[at]))
        if kind < 4 and tokens:
            one = rng.choice(tokens)
            lines[at] = lines[at][: one.start()] + word + lines[at][one.end() :]
        elif kind == 4:
            lines.insert(at, lines[rng.randrange(len(lines))])
        elif kind == 5 and len(lines) > 1:
            del lines[at]
        elif kind == 6:
            lines.insert(at, word)
        elif kind == 7:
            lines[at] = " " * rng.randrange(8) + lines[at].lstrip()
        else:
            lines[at] = lines[at] * rng.choice((2, 3, 50))
    return "\n".join(lines).encode("utf-8", errors="surrogateescape")


_DEEP = "\0deep\0"


def odd_value(rng):
    """A value that nobody expects."""
    return rng.choice(
        (
            *(
                None,
                True,
                False,
                -1,
                0,
                1,
                2,
                7,
                2**31,
                2**53 + 1,
                2**63,
                2**64,
                10**400,
                -(10**30),
            ),
            *(0.5, -0.0, 1e308, 1e-320, float("nan"), float("inf"), "0", "", [], {}, [[]], [None]),
            *({"": None}, {"a": {"a": []}}, [1, 2, 3], ["a", "b"], [0.5] * 9, {"format": 1}, _DEEP),
            *(rng.choice(WORDS), [rng.choice(WORDS)], {rng.choice(WORDS): rng.choice(WORDS)}),
        )
    )


def document(rng, content):
    """JSON with one to three values replaced, removed, repeated, moved or nested deeply."""
    try:
        root = json.loads(content)
    except (ValueError, RecursionError):
        return text(rng, content)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        places = list(places_of(root))
        if not places:
            root = odd_value(rng)
            break
        # Upper places are few and matter more than the thousandth number of a list.
        weights = [1 / (1 + depth) ** 2 for _, _, depth in places]
        holder, key, _ = rng.choices(places, weights)[0]
        kind = rng.randrange(8)
        if kind < 4:
            holder[key] = odd_value(rng)
        elif kind == 4:
            del holder[key]
        elif kind == 5:
            other, where, _ = rng.choice(places)
            if where in other if isinstance(other, dict) else where < len(other):
                holder[key] = json.loads(json.dumps(other[where]))
        elif kind == 6:
            holder[key] = [holder[key]] * rng.choice((1, 2, 300))
        elif isinstance(holder, dict):
            holder[rng.choice((*WORDS, str(key) + " "))] = holder[key]
        else:
            holder *= 2
    nested = rng.choice(("[" * 600 + "]" * 600, '{"a":' * 90_000 + "1" + "}" * 90_000))
    said = json.dumps(root, indent=rng.choice((None, 1)), ensure_ascii=rng.random() < 0.5)
    said = said.replace(json.dumps(_DEEP), nested)
    if rng.random() < 0.05 and said.startswith("{") and isinstance(root, dict) and root:
        said = f"{{{json.dumps(next(iter(root)))}: 1, {said[1:]}"  # a key given twice
    return said.encode("utf-8", errors="surrogatepass")


def places_of(value, depth=0):
    """Every (holder, key, depth) of a document, of long lists the first few."""
    if isinstance(value, dict):
        pairs = list(value.items())
    elif isinstance(value, list):
        pairs = list(enumerate(value[:12]))
    else:
        return
    for key, inner in pairs:
        yield value, key, depth
        yield from places_of(inner, depth + 1)


def png_sealed(content):
    """A PNG file whose checksums fit what its chunks hold now, as far as there are chunks."""
    made, at = bytearray(content[:8]), 8
    while at + 12 <= len(content):
        size = int.from_bytes(content[at : at + 4], "big")
        body = content[at + 4 : at + 8 + size]
        made += content[at : at + 4] + body + zlib.crc32(body).to_bytes(4, "big")
        at += 12 + size
    return bytes(made) + content[at:]


_DTYPES = (
    "|O",
    "<f2",
    "<f4",
    ">f8",
    "|b1",
    "<c8",
    "<M8[ns]",
    "<U5",
    "|S3",
    "|V7",
    "<i8",
    "|u1",
    "<f16",
)
_SHAPES = ("()", "(0,)", "(1,)", "(-1,)", "(2, 3)", "(True,)", "(2**9,)", "(1099511627776, 8)", "3")


def npy_header(rng, content):
    """An .npy file that states another type, shape or order, or no literal at all."""
    said = content[10:128]
    kind = rng.randrange(5)
    if kind == 0:
        said = re.sub(rb"'descr': '[^']*'", f"'descr': '{rng.choice(_DTYPES)}'".encode(), said)
    elif kind == 1:
        said = re.sub(rb"\([^)]*\)", rng.choice(_SHAPES).encode(), said)
    elif kind == 2:
        said = said.replace(b"False", b"True")
    elif kind == 3:
        said = re.sub(rb"'[|<>][^']*'", b"[('a', '<f4'), ('b', '|O')]", said)
    else:
        said = text(rng, said)
    said = said.strip()[:60_000] + b" " * 20 + b"\n"
    return content[:8] + len(said).to_bytes(2, "little") + said + content[128:]
