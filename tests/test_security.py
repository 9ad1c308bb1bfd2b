"""docs/security.md holds: what the code may import and call, and what a run does to the machine."""

import ast
import json
import os
import pickle
import re
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from confide import _tables, config, stores
from confide.config import load
from confide.datasets import arrays, dicom, ecg, wfdb
from confide.encoders import key_file, manifest, published
from confide.inversion import challenge_files
from confide.runs import logdir_files, model_archives, pdf
from confide.runs.encode import encode
from confide.runs.launch import run_config
from fuzzing.sandbox import watched
from runs.coding import new_key, unlock

SRC = Path(__file__).parents[1] / "src" / "confide"
PAGE = (SRC.parents[1] / "docs" / "security.md").read_text(encoding="utf-8")
FILES = sorted(SRC.rglob("*.py"))

UNPICKLERS = {"pickle", "cPickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
NETWORK = {
    *("socket", "ssl", "http", "urllib", "urllib3", "requests", "httpx", "aiohttp", "ftplib"),
    *("smtplib", "telnetlib", "xmlrpc", "socketserver", "huggingface_hub", "fsspec", "ray"),
    *("obstore", "boto3", "botocore"),
}
PROCESSES = {"subprocess", "multiprocessing", "pty"}
ALLOWED = {
    # signals in an object store, where they are asked for; urllib.parse reads an address
    "_objects.py": {"obstore", "urllib"},
    "runs/engines.py": {"socket", "ray", "multiprocessing"},  # workers, where they are asked for
    "runs/pdf.py": {"subprocess"},  # the browser that prints
    "models/timm_nets.py": {"huggingface_hub"},  # weights by name, where they are asked for
}
"""What may reach the network or start a process, by file; docs/security.md names them."""

CALLS = {"eval", "exec", "compile", "__import__"}
METHODS = {
    *("os.system", "os.popen", "os.execv", "os.execve", "os.spawnv", "tempfile.mktemp"),
    *(
        "yaml.unsafe_load",
        "yaml.full_load",
        "yaml.load_all",
        "pandas.read_pickle",
        "pd.read_pickle",
    ),
    *("shutil.unpack_archive", "np.fromfile", "jinja2.Template"),
}
ONLY_IN = {
    "torch.jit.load": {"runs/model_files.py"},
    "torch.export.load": {"runs/model_files.py"},
    "skops.io.load": {"runs/model_files.py"},
    "importlib.import_module": {"__init__.py", "models/own.py", "models/timm_nets.py"},
    "import_module": {"__init__.py"},
}
NEEDED = {  # keyword: the value without which a call is refused
    "torch.load": ("weights_only", True),
    "np.load": ("allow_pickle", False),
    "numpy.load": ("allow_pickle", False),
    "np.save": ("allow_pickle", False),
    "Environment": ("autoescape", True),
}


def findings(source, name="x.py"):
    """What a file of the package may not hold, in words."""
    return [what for node in ast.walk(ast.parse(source)) for what in _of(node, name)]


def _of(node, name):
    if isinstance(node, ast.Import | ast.ImportFrom):
        yield from _of_import(node, name)
    elif isinstance(node, ast.Call):
        yield from _of_call(node, name)
    elif isinstance(node, ast.Attribute) and node.attr in ("extractall", "find_class"):
        yield node.attr


def _of_import(node, name):
    names = [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        names = [node.module or ""] if not node.level else []
    yield from (f"imports {one}" for one in names if _barred(one, name))


def _barred(module, name):
    head = module.split(".")[0]
    if head in ALLOWED.get(name, ()):
        return False
    return head in UNPICKLERS | NETWORK | PROCESSES


def _of_call(node, name):
    called = ast.unparse(node.func)
    given = {k.arg: k.value.value for k in node.keywords if isinstance(k.value, ast.Constant)}
    if called in CALLS | METHODS or name not in ONLY_IN.get(called, {name}):
        yield f"calls {called}"
    if called in NEEDED:
        word, value = NEEDED[called]
        if given.get(word) is not value:
            yield f"calls {called} without {word}={value}"
    if called == "yaml.load" and ast.unparse(node.args[-1]) not in ("_Loader", "yaml.SafeLoader"):
        yield "calls yaml.load with another loader"
    if given.get("shell") or given.get("allow_pickle"):
        yield f"calls {called} with shell or allow_pickle"
    if called.endswith("import_module") and node.args and isinstance(node.args[0], ast.Constant):
        module = str(node.args[0].value)
        if _barred(module, name):
            yield f"imports {module}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SRC)))
def test_no_file_unpickles_evaluates_or_calls_home(path):
    assert findings(path.read_text(encoding="utf-8"), str(path.relative_to(SRC))) == []


@pytest.mark.parametrize(
    "source",
    [
        *(
            "import pickle",
            "from pickle import loads",
            "import urllib.request as u",
            "import shelve",
        ),
        *("from http import client", "import socket", "import requests", "import subprocess"),
        *(
            "def f():\n    import marshal",
            "eval('1')",
            "exec(x)",
            "os.system('ls')",
            "compile(x, y, z)",
        ),
        *("torch.load(f)", "torch.load(f, weights_only=False)", "torch.load(f, weights_only=w)"),
        *("np.load(f)", "np.load(f, allow_pickle=True)", "np.save(f, x)", "pd.read_pickle(f)"),
        *("yaml.load(f, yaml.Loader)", "yaml.load(f)", "yaml.unsafe_load(f)", "run(x, shell=True)"),
        *("archive.extractall(p)", "torch.jit.load(f)", "importlib.import_module('pickle')"),
        *("Environment(loader=x)", "Environment(autoescape=False)", "tempfile.mktemp()"),
    ],
)
def test_each_is_found(source):
    assert findings(source)


@pytest.mark.parametrize(
    "source",
    [
        *("model.eval()", "re.compile(x)", "torch.load(f, weights_only=True)", "import json"),
        *("np.load(f, allow_pickle=False)", "yaml.load(f, _Loader)", "yaml.safe_load(f)"),
        *("from confide.runs.pdf import socket", "Environment(autoescape=True)"),
    ],
)
def test_what_is_harmless_is_not(source):
    assert findings(source) == []


def test_the_list_of_exceptions_is_not_longer_than_needed():
    for name, modules in ALLOWED.items():
        text = (SRC / name).read_text(encoding="utf-8")
        assert all(module in text for module in modules), name


def test_markup_is_made_in_reports_alone():
    for path in FILES:
        if path.relative_to(SRC).parts[0] != "reports":
            assert "Markup(" not in path.read_text(encoding="utf-8"), path
    for template in (SRC / "reports" / "templates").glob("*.j2"):
        text = template.read_text(encoding="utf-8")
        assert "|safe" not in text.replace(" ", ""), template
        assert "autoescape" not in text, template


TABLE = "pid,label,age,sex\n" + "".join(
    f"{i},{i % 2},{20 + 7 * i % 50},{'fm'[i // 2 % 2]}\n" for i in range(60)
)
AUDIT = {
    "data": {
        "name": "table",
        "path": "t.csv",
        "patient": "pid",
        "label": "label",
        "groups": ["sex"],
    },
    "train": {"model": {"name": "tabular_resnet", "width": 8, "depth": 1}, "epochs": 1},
    "audit": {"n_models": 4},
    "performance": {"device": "cpu"},
}
PHANTOM = {"name": "phantom", "n_patients": 24, "max_views": 2, "size": [16, 16]}
CODES = {
    "data": PHANTOM | {"test": {"fraction": 0.4}},
    "encode": {"patch": 8, "width": 8, "private_depth": 1, "dev": {"fraction": 0.4}},
    "performance": {"device": "cpu"},
}


def written(folder, name, content):
    path = folder / name
    path.write_text(json.dumps(content))
    return path


@pytest.fixture(scope="module")
def audited(tmp_path_factory):
    """An audit and an encoding of records, and what they did that nobody asked for."""
    tmp_path = tmp_path_factory.mktemp("runs")
    (tmp_path / "t.csv").write_text(TABLE)
    before = os.umask(0)  # the modes do not rest on it
    try:
        return tmp_path, _done(tmp_path)
    finally:
        os.umask(before)


def _done(tmp_path):
    with watched(tmp_path) as found:
        run_config(*load(written(tmp_path, "a.yaml", AUDIT)), tmp_path / "audit")
        key = new_key(tmp_path, "k")
        encode(*load(written(tmp_path, "c.yaml", CODES)), key, tmp_path / "codes", unlock=unlock)
    return found


def test_a_run_opens_no_socket_and_writes_to_its_folder_alone(audited):
    folder, found = audited
    assert found == []
    assert (folder / "audit" / "report.html").is_file()
    assert (folder / "codes" / "release.json").is_file()


def test_files_are_for_their_owner_alone(audited):
    folder, _ = audited
    for name in ("audit", "codes", "codes.private"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o700, name
        for path in (folder / name).rglob("*"):
            assert not path.stat().st_mode & 0o077, path
    for name in ("k.key", "k.key.state.json"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600, name


LIMITS = {
    "1,000,000 bytes, no YAML alias": config._LARGEST_CONFIG,
    "| 8 GiB | refused |": _tables.MAX_BYTES,
    "8 GiB; `.npz` is unpacked": arrays.MAX_ARRAY_BYTES,
    "89,478,485 (": Image.MAX_IMAGE_PIXELS,
    "512 MiB;": dicom.MAX_FILE_BYTES,
    "200,000 reads": dicom._MAX_READS,
    "tables of 4 MiB": dicom._MAX_LUT_BYTES,
    "header of 65,536 bytes": wfdb._MAX_HEADER_BYTES,
    "10,000,000 samples": wfdb.MAX_NUMBERS,
    "100,000,000 numbers": ecg._MAX_NUMBERS,
    "`info.json` 16 MB": logdir_files._LARGEST_INFO,
    "1000 views, 1000 classes": logdir_files._MAX_SIDE,
    "| 100,000 bytes; 256": key_file._LARGEST_FILE,
    "256 MiB of memory": key_file._SCRYPT_BYTES,
    "of confide | 256 MB": stores._LARGEST_JSON,
    "`release.json` | 64 MB": manifest._LARGEST_MANIFEST,
    "1000 bytes a cell": published._LARGEST_CELL,
    "lists of 256 MB": challenge_files._LARGEST_JSON,
    "header of 4096 bytes": challenge_files._LARGEST_HEADER,
    "| 8 GiB; unpacked": model_archives.MAX_BYTES,
    "unpacked 50 times": model_archives._RATIO,
    "and 64 MiB |": model_archives._SLACK,
    "a report to print | 64 MB": pdf._LARGEST_PAGE,
}
"""A limit by the words of the page that state it."""


@pytest.mark.parametrize("words", LIMITS)
def test_the_page_states_the_limits(words):
    assert words in PAGE
    number, unit = re.search(r"([\d,]+) ?(MB|MiB|GiB)?", words.removeprefix("`.npz`")).groups()
    factor = {None: 1, "MB": 10**6, "MiB": 2**20, "GiB": 2**30}[unit]
    assert int(number.replace(",", "")) * factor == LIMITS[words]


class TestTheWatch:
    """The watch sees what it is there for."""

    def test_sockets(self, tmp_path):
        with watched(tmp_path) as found:
            socket.socket(socket.AF_INET).close()
            for one in socket.socketpair():  # within the process
                one.close()
        assert len(found) == 1
        assert "socket" in found[0]

    def test_files(self, tmp_path):
        inside, outside = tmp_path / "in", tmp_path / "out"
        inside.mkdir()
        outside.mkdir()
        (outside / "secret").write_text("x")
        (inside / "link").symlink_to(outside / "secret")
        with watched(inside, secret=outside) as found:
            (inside / "file").write_text("x")
            (inside / "file").unlink()
            os.close(os.open(inside / "link", os.O_RDONLY | os.O_PATH | os.O_NOFOLLOW))
            assert found == []
            (inside / "link").read_text()
            (outside / "more").write_text("x")
            (outside / "more").unlink()
            (outside / "folder").mkdir()
        assert len(found) == 5  # to write is to open, too

    def test_programs_and_pickles(self, tmp_path):
        with watched(tmp_path) as found:
            pickle.loads(pickle.dumps(Path()))  # noqa: S301 - our own
            subprocess.run([sys.executable, "-c", ""], check=True)
        assert any("pickle" in one for one in found)
        assert any("Popen" in one for one in found)
