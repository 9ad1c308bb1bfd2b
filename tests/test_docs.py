"""The docs say what is: links lead somewhere, defaults are right, folders hold what is listed."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from confide.attacks import KNOWN as KNOWN_ON_MODELS
from confide.cohort import Cohort
from confide.config import CodesConfig, load_as, parse, parse_as
from confide.encoders.settings import LinearSettings, NeuraCryptSettings
from confide.inversion.settings import NEEDS, AttackBlock
from confide.masks import balanced
from confide.runs import Model, audit_model, audit_scores
from docs_pages import make_release, name_of

ROOT = Path(__file__).parents[1]
DOCS = sorted((ROOT / "docs").rglob("*.md"))
ATTACKS = (ROOT / "docs" / "attacks.md").read_text(encoding="utf-8")
DESIGN = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
ENCODING = (ROOT / "docs" / "encoding.md").read_text(encoding="utf-8")


def blocks(text, language):
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


@pytest.mark.parametrize("path", DOCS, ids=name_of)
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)#\s]+)", path.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (path.parent / target).is_file(), target


def test_every_page_is_in_the_navigation():
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    here = [*DOCS, *(ROOT / "docs").rglob("*.ipynb")]
    assert sorted(pages(nav)) == sorted(p.relative_to(ROOT / "docs").as_posix() for p in here)


def pages(entry):
    if isinstance(entry, str):
        return [entry]
    inner = entry.values() if isinstance(entry, dict) else entry
    return [page for one in inner for page in pages(one)]


def test_defaults_of_an_encoding():
    given = yaml.safe_load(blocks(ENCODING, "yaml")[0])["encode"]
    defaults = NeuraCryptSettings().model_dump(mode="json")
    assert given == {**given, **defaults}
    assert given.keys() == defaults.keys()
    config = parse({"data": {"name": "phantom"}, "encode": given})
    assert config.encode == NeuraCryptSettings()


def test_what_the_docs_say_of_the_linear_encoder():
    """Fields marked as neuracrypt's are those that it does not have, and it keeps the order."""
    lines = blocks(ENCODING, "yaml")[0].splitlines()
    only = {line.split(":")[0].strip() for line in lines if "(neuracrypt only)" in line}
    assert only == NeuraCryptSettings.model_fields.keys() - LinearSettings.model_fields.keys()
    assert LinearSettings().shuffle is False


def test_defaults_of_a_training(tmp_path):
    block = blocks(ENCODING, "yaml")[1]
    given = yaml.safe_load(block)
    (tmp_path / "train.yaml").write_text(block)
    config, _ = load_as(CodesConfig, tmp_path / "train.yaml")
    least = parse_as(CodesConfig, {"data": {"name": "release", "path": "a", "label": "label"}})
    assert config.train == least.train
    assert config.compare == least.compare
    assert config.performance == least.performance
    shown = {name: given[name].keys() for name in ("train", "compare", "data")}
    assert shown == {name: getattr(config, name).model_dump().keys() for name in shown}
    for name in ("model", "optimizer", "schedule"):
        assert given["train"][name].keys() == getattr(config.train, name).model_dump().keys()
    assert config.data.groups == least.data.groups


def test_defaults_of_an_attack():
    given = yaml.safe_load(blocks(ATTACKS, "yaml")[0])["attack"]
    assert given.keys() == AttackBlock.model_fields.keys()
    plain = {k: v for k, v in given.items() if v not in (None, [])}
    assert plain == AttackBlock().model_dump(mode="json", include=set(plain))
    assert parse({"data": {"name": "phantom"}, "attack": given}).attack == AttackBlock()


def test_every_attack_stands_in_the_table():
    releases, models = ATTACKS.split("# Membership attacks on models\n")
    assert set(re.findall(r"^\| `([a-z-]+)` \|", releases, flags=re.MULTILINE)) == set(NEEDS)
    named = re.findall(r"`(\w+)`", "".join(re.findall(r"^\|[^|]*\|", models, flags=re.MULTILINE)))
    assert set(named) == set(KNOWN_ON_MODELS)


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    folder = tmp_path_factory.mktemp("docs")
    make_release(folder)
    return folder


def test_folders_hold_what_the_design_lists(released):
    listed = dict(re.findall(r"^\| `([\w./]+)` \|.*\| (yes|never) \|$", DESIGN, flags=re.MULTILINE))
    here = {
        path.relative_to(released).as_posix()
        for path in released.rglob("*")
        if path.is_file() and "codes.zarr" not in path.parts and path.name != ".lock"
    }
    names = {
        name.replace("FILE", "a.key").replace("RELEASE", "codes/a"): leaves
        for name, leaves in listed.items()
    }
    assert (released / "codes" / "a" / "codes.zarr").is_dir()
    assert here == names.keys() - {"codes/a/codes.zarr"}
    inside = {name for name in here if name.startswith("codes/a/")}
    assert {name for name, leaves in names.items() if leaves == "yes"} == inside | {
        "codes/a/codes.zarr"
    }


def table_of(after):
    """First cell -> the rest, of the first table after a text in the design."""
    _, rest = DESIGN.split(after, 1)
    table = rest[rest.index("\n|---") :].split("\n\n")[0]
    rows = (line.strip("| ").split(" | ", 1) for line in table.splitlines()[2:])
    return {name: what for first, what in rows for name in re.findall(r"`([\w.]+)`", first)}


def test_tables_of_an_audit_have_the_columns_of_the_design(tmp_path):
    rng = np.random.default_rng(0)
    cohort = Cohort(
        record=np.arange(80),
        patient=np.repeat(np.arange(40), 2),
        label=rng.integers(0, 2, 80),
        task="binary",
        classes=("no", "yes"),
        groups=pd.DataFrame({"sex": np.repeat(["f", "m"], 40)}),
    )
    held = balanced(16, 40, seed=0)
    table = pd.DataFrame(
        {
            "model": np.repeat(np.arange(16), 80),
            "record": np.tile(cohort.record, 16),
            "patient": np.tile(cohort.patient, 16),
            "member": cohort.expand(held).ravel().astype(int),
            "label": np.tile(cohort.label, 16),
            "logit_0": rng.normal(size=16 * 80),
            "sex": np.tile(cohort.groups["sex"], 16),
        }
    )
    table.to_parquet(tmp_path / "table.parquet")
    found = audit_scores(tmp_path / "table.parquet", tmp_path / "out")
    files = table_of("## An audit folder")
    here = {path.name for path in (tmp_path / "out").iterdir()} - {".lock"}
    assert here == set(files)
    for name in ("records", "patients", "groups", "curves"):
        said = re.sub(r"\(.*?\)", "", files[f"{name}.parquet"]).split(";")[0]
        columns = [c.strip().replace("group_*", "group_sex") for c in said.split(",")]
        assert list(getattr(found, name).columns) == columns
    keys = list(table_of("`summary.json`, in the order of its keys"))
    assert list(found.summary) == [key for key in keys if key not in ("privacy", "until")]
    assert found.summary["verdict"]["status"] in table_of("in the order of its keys")["verdict"]
    of_patients = table_of("in the order of its keys")["patients"]
    assert all(key in of_patients for key in found.summary["patients"])

    target = Model(model=rng.normal(size=(80, 1)), members=cohort.expand(held)[0])
    one = audit_model(target, cohort, tmp_path / "one")
    assert {p.name for p in (tmp_path / "one").iterdir()} - {".lock"} == set(files)
    assert list(one.records) == ["record", "patient", "group_sex", "member", "score_loss"]
    # 20 non-members are too few to measure a rate of 1 %.
    assert list(one.patients) == ["patient", "n_records", "group_sex", "member", "score_loss"]
    assert set(one.curves["curve"]) == {"roc", "roc_patients"}
    assert (one.summary["kind"], len(one.groups)) == ("released_model", 0)


@pytest.mark.parametrize("path", [*DOCS, ROOT / "README.md"], ids=name_of)
def test_no_code_is_called_what_it_is_not(path):
    """Such words stand only where they are denied, or name a parameter, a file or a paper."""
    text = path.read_text(encoding="utf-8")
    allowed = (
        r"private_depth|\.private|\bprivate\.py|private depth|[Nn]o code is[^.;]*"
        r"|taken for anonymous"
    )
    rest = re.sub(allowed, "", text)
    assert not re.search(r"\b(private|anonym\w*|secure)\b", rest, flags=re.IGNORECASE)
