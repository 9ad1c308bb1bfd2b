"""Every block of code of every page runs, or is excused by name."""

import shlex
import shutil

import pytest
import typer
from typer.testing import CliRunner

from confide.cli import app
from docs_pages import PAGES, ROOT, blocks_of, commands_of, config_of, make_release, name_of
from runs.logs import make_logs

BLOCKS = [block for path in PAGES for block in blocks_of(path)]
LANGUAGES = {"python", "sh", "yaml", "text", "diff"}
EXAMPLES = "test_examples.py runs these commands, on smaller data"

EXCUSED = {
    "README.md": {
        "make demo": "sets the project up",
        "confide data describe examples/embedded.yaml": EXAMPLES,
        "python examples/model.py": EXAMPLES,
        "confide audit run examples/embedded_early.yaml --out runs/early": EXAMPLES,
        "confide key new a.key": EXAMPLES,
        "confide key new x.key": EXAMPLES,
    },
    "datasets.md": {
        "confide data describe ptb-xl --path FOLDER": "cli/test_data.py describes a folder",
    },
    "index.md": {
        "confide demo": "minutes; the second command is run by test_examples.py",
    },
    "encoding.md": {
        "confide key new a.key": EXAMPLES,
        "confide encode train examples/phantom_train.yaml --out runs/codes": EXAMPLES,
    },
    "attacks.md": {
        "confide key new x.key": EXAMPLES,
        "confide challenge export examples/phantom_attack.yaml --key c.key --out challenge": (
            "minutes; runs/test_challenge.py does the same on smaller data"
        ),
    },
}
"""{page: {name of the block: why it is not run}}; the commands in it are checked all the same."""

ELSEWHERE = {"extending/": "test_extending.py runs each page"}
"""{folder: why the Python of its pages is not run here}."""

EXIT_1 = {"confide attack run codes/x site.yaml --truth codes/x.private --out runs/attack"}
"""Commands of which a page says that they end with exit code 1."""


@pytest.fixture(scope="module")
def audited(tmp_path_factory):
    """runs/scores of the page on predictions."""
    folder = tmp_path_factory.mktemp("predictions")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run_page("howto/predictions.md", folder)
    return folder / "runs" / "scores"


def scores(folder, request):
    shutil.copytree(request.getfixturevalue("audited"), folder / "runs" / "scores")


def release(folder, request):
    make_release(folder)


def logs(folder, request):
    made = make_logs(folder, test=20)
    frame = made.frame.rename(columns={"pid": "patient_id"})
    frame.to_csv(made.records, index=False)


PREPARED = {
    "encoding.md": release,
    "howto/erase.md": scores,
    "howto/share.md": scores,
    "howto/log-directory.md": logs,
}
"""What lies in the folder before a page begins, where the page says that the reader has it."""


def runs(block):
    made_here = block.language == "yaml" and block.title
    return (block.language in ("python", "sh") or made_here) and not excuse(block)


def excuse(block):
    named = EXCUSED.get(block.page, {}).get(block.name)
    folders = [f for f in ELSEWHERE if block.page.startswith(f) and block.language == "python"]
    return named or bool(folders)


def ids(block):
    return f"{block.page}:{block.line}"


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_every_block_says_its_language(path):
    for block in blocks_of(path):
        assert block.language in LANGUAGES, f"{block.page}, line {block.line}"


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language == "yaml"], ids=ids)
def test_configuration_is_valid(block):
    config_of(block.text)


def commands():
    for block in BLOCKS:
        if block.language == "sh":
            for line in commands_of(block):
                yield pytest.param(line, id=f"{block.page}: {line[:60]}")


@pytest.mark.parametrize("line", list(commands()))
def test_command_exists_with_its_options(line):
    words = shlex.split(line)
    for word in words:
        if word.startswith("examples/"):
            assert (ROOT / word).is_file(), word
    if words[0] in ("make", "python"):  # of the README; test_examples.py looks at those
        return
    assert words.pop(0) == "confide"
    command = typer.main.get_command(app)
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    command.make_context(line, words)  # raises where an option or an argument does not fit


def test_every_excuse_is_needed():
    there = {(block.page, block.name) for block in BLOCKS}
    named = {(page, name) for page, names in EXCUSED.items() for name in names}
    assert named <= there
    for folder in ELSEWHERE:
        assert any(b.page.startswith(folder) and b.language == "python" for b in BLOCKS)
    assert PREPARED.keys() <= {block.page for block in BLOCKS if runs(block)}
    lines = {line for b in BLOCKS if b.language == "sh" for line in commands_of(b)}
    assert lines >= EXIT_1


RUNNING = sorted({block.page for block in BLOCKS if runs(block) and block.language != "yaml"})
RUNNING.remove("howto/predictions.md")  # run by the fixture, because others go on from it


@pytest.mark.parametrize("page", RUNNING)
def test_page_runs(page, tmp_path, monkeypatch, request):
    """The blocks of a page run one after the other, in a folder with what the page makes."""
    if page in PREPARED:
        PREPARED[page](tmp_path, request)
    monkeypatch.chdir(tmp_path)
    run_page(page, tmp_path)


def test_page_on_predictions_runs(audited):
    assert {"report.html", "summary.json", "patients.parquet"} <= {
        p.name for p in audited.iterdir()
    }


def run_page(page, folder):
    (folder / "examples").symlink_to(ROOT / "examples")
    names = {"__name__": "__main__"}
    for block in BLOCKS:
        if block.page != page or not runs(block):
            continue
        if block.language == "yaml":
            (folder / block.title).write_text(block.text, encoding="utf-8")
        elif block.language == "python":
            code = compile(block.text, f"{page}, line {block.line}", "exec")
            exec(code, names)  # noqa: S102
        else:
            for line in commands_of(block):
                done = CliRunner().invoke(app, shlex.split(line)[1:], catch_exceptions=False)
                assert done.exit_code == (line in EXIT_1), (line, done.output)
