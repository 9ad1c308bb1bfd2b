"""`confide audit verify`: what is damaged is named, with what mends it; what is sound is not."""

import json
import shutil
import warnings

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import confide
from confide._places import Checked
from confide.cli import app
from confide.errors import FolderError, MissingFileError
from confide.runs import Model, audit_model, audit_scores, erase_signals
from confide.runs.verify import verify_audit
from confide.stores import AuditFolder, read_table

N_MODELS = 16
AGAIN = "Run what made the audit again, with the same --out"


def cohort():
    rng = np.random.default_rng(0)
    patient = np.repeat(np.arange(30), 2)
    return confide.Cohort(
        record=np.arange(60),
        patient=patient,
        label=rng.integers(0, 2, 60),
        task="binary",
        classes=("no", "yes"),
    )


def make(out, until=None, trained=None):
    """A small audit of a function that knows its members; `trained` gets the seeds."""
    label = cohort().label

    def fit(train, query, seed):
        if trained is not None:
            trained.append(seed)
        rng = np.random.default_rng(seed)
        return np.isin(query, train) * (2.0 * label[query] - 1) + rng.normal(size=len(query))

    _, test = cohort().split(0.2, seed=0)
    attacks = ("lira",)
    return confide.run(
        cohort(), fit, out, test=test, n_models=N_MODELS, attacks=attacks, until=until
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("verify") / "audit"
    make(out)
    return out


@pytest.fixture
def out(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "audit")


def rewrite(out, **changes):
    path = out / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def chunk(out, name, model):
    (path,) = (
        p for p in (out / "signals.zarr" / name / "c" / str(model)).rglob("*") if p.is_file()
    )
    return path


def cut(path):
    path.write_bytes(path.read_bytes()[:-9])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_sound(whole):
    found = verify_audit(whole)
    assert found.sound
    assert (found.state, found.n_models, found.n_finished) == ("finished", 16, 16)
    assert found.read == [
        "cohort.parquet",
        "48 chunks of heldout_logits, logits, membership",
        "members as the design draws them",
        "7 files of results",
    ]
    assert found.notes == found.warnings == []


@pytest.mark.parametrize(
    ("damage", "file", "what", "remedy"),
    [
        (
            lambda out: chunk(out, "logits", 3).unlink(),
            "signals.zarr/logits",
            "model 3, records 0 to 47: missing",
            f"{AGAIN}; it trains those models again.",
        ),
        (
            lambda out: flip(chunk(out, "heldout_logits", 0)),
            "signals.zarr/heldout_logits",
            "model 0, records 0 to 11: damaged",
            AGAIN,
        ),
        (
            lambda out: cut(chunk(out, "membership", 15)),
            "signals.zarr/membership",
            "model 15, patients 0 to 23: damaged",
            "Restore it from a copy",
        ),
        (
            lambda out: shutil.rmtree(out / "signals.zarr" / "heldout_logits"),
            "signals.zarr/heldout_logits",
            "the array is missing",
            f"{AGAIN}; it makes the array again.",
        ),
        (
            lambda out: cut(out / "signals.zarr" / "logits" / "zarr.json"),
            "signals.zarr/logits",
            "its zarr.json is damaged",
            "Restore it from a copy",
        ),
        (lambda out: flip(out / "cohort.parquet"), "cohort.parquet", "is damaged", AGAIN),
        (lambda out: (out / "cohort.parquet").unlink(), "cohort.parquet", "is missing", AGAIN),
        (lambda out: cut(out / "records.parquet"), "records.parquet", "is damaged", "report"),
        (lambda out: (out / "groups.parquet").unlink(), "groups.parquet", "is missing", "report"),
        (lambda out: cut(out / "summary.json"), "summary.json", "is damaged", "report"),
        (lambda out: cut(out / "report.html"), "report.html", "is damaged", "report"),
        (
            lambda out: pd.read_parquet(out / "patients.parquet")[1:].to_parquet(
                out / "patients.parquet"
            ),
            "patients.parquet",
            "has 23 rows, expected 24",
            "report",
        ),
        (lambda out: cut(out / "manifest.json"), "manifest.json", "is not valid JSON", "Restore"),
        (lambda out: (out / "manifest.json").unlink(), "manifest.json", "is missing", "Restore"),
        (lambda out: rewrite(out, models=["dome"]), "manifest.json", "entries are missing", "Rest"),
        (lambda out: rewrite(out, seeds=[1] * 16), "manifest.json", "its seeds or its design", "R"),
        (lambda out: rewrite(out, until={}), "manifest.json", "its entry `until` is damaged", "R"),
    ],
)
def test_damage_is_named_with_what_mends_it(out, damage, file, what, remedy):
    damage(out)
    found = verify_audit(out)
    assert [one.file for one in found.damage] == [file]
    assert found.damage[0].what.startswith(what)
    assert remedy in found.damage[0].remedy


@pytest.mark.parametrize("nested", [False, True])
def test_what_a_damaged_description_of_an_array_claims_costs_nothing(out, nested):
    path = out / "signals.zarr" / "membership" / "zarr.json"
    stored = json.loads(path.read_text())
    stored["shape"][1] = 10**12
    path.write_text("[" * 10**5 if nested else json.dumps(stored))
    with pytest.raises(FolderError, match=r"zarr\.json.*(cannot be read|is damaged)"):
        AuditFolder.read(out).check_complete("membership")
    assert not verify_audit(out).sound


def test_members_that_the_design_does_not_draw(out):
    membership = AuditFolder.read(out).array("membership")
    membership[5] = ~membership[5]
    (one,) = verify_audit(out).damage
    assert (one.model, one.what) == (
        5,
        "model 5: its members are not those that the design draws",
    )


def test_an_array_of_another_shape(out):
    folder = AuditFolder.read(out)
    folder.create_array("trace", (N_MODELS, 7), np.float32)
    folder.array("trace")[:] = 0.0
    (one,) = verify_audit(out).damage
    assert one.what == "holds float32 of shape (16, 7), expected floats of shape (16, 48)"


def test_what_the_system_does_not_let_be_read(out, monkeypatch):
    def fail(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Checked, "__getitem__", fail)
    assert {one.what.split(": ")[1] for one in verify_audit(out).damage[:48]} == {"unreadable"}
    with pytest.raises(FolderError, match=r"The system refuses to read .*logits, model 0; check"):
        make(out)


def test_an_unfinished_audit_is_sound(out):
    rewrite(out, models=["done"] * 10 + ["pending"] * 6)
    chunk(out, "logits", 12).unlink()  # not finished: may be half written
    (out / "signals.zarr" / "x.partial").touch()
    found = verify_audit(out)
    assert found.sound
    assert (found.state, found.n_finished) == ("unfinished", 10)
    assert found.notes[0] == "6 models are not finished; run it again to go on."
    assert "The results are of other models; `confide audit report" in found.notes[1]
    assert "1 file(s) of an interrupted write (*.partial)" in found.notes[2]


@pytest.mark.parametrize("n", [0, 3, 6])
def test_results_that_a_kill_left_unwritten_are_no_damage(out, n):
    order = ["records.parquet", "patients.parquet", "groups.parquet", "curves.parquet"]
    for name in [*order, "summary.json", "summary.md", "report.html"][n:]:
        (out / name).unlink()
    found = verify_audit(out)
    assert found.sound
    assert found.state == "unfinished"
    assert "The results are not all written" in found.notes[0]


def test_a_folder_of_an_older_version_has_no_checksum_of_its_records(out):
    manifest = json.loads((out / "manifest.json").read_text())
    del manifest["cohort_sha256"]
    (out / "manifest.json").write_text(json.dumps(manifest))
    found = verify_audit(out)
    assert found.sound
    assert "No checksum of cohort.parquet was kept" in found.notes[0]
    cut(out / "cohort.parquet")
    assert [one.file for one in verify_audit(out).damage] == ["cohort.parquet"]


def test_files_that_others_can_read_are_told(out):
    (out / "summary.md").chmod(0o644)
    found = verify_audit(out)
    assert found.sound
    assert "may use 1 of its files and folders (summary.md, ...); close them" in found.warnings[0]


def test_predictions_of_others(table, tmp_path):
    table().to_csv(tmp_path / "p.csv", index=False)
    out = tmp_path / "audit"
    audit_scores(tmp_path / "p.csv", out, attacks=("lira",))
    found = verify_audit(out)
    assert found.sound
    assert any("was read from others; it cannot be drawn again" in note for note in found.notes)
    cut(chunk(out, "logits", 2))
    (one,) = verify_audit(out).damage
    assert one.remedy.endswith("or read the predictions again into another --out.")


def test_a_released_model(tmp_path):
    rng = np.random.default_rng(0)
    member = np.repeat(rng.permutation(30) % 2, 2)
    target, other = rng.normal(size=(2, 60, 1))
    audit_model(
        Model(model=target, members=member),
        cohort(),
        tmp_path / "a",
        references=[Model(model=other)],
    )
    found = verify_audit(tmp_path / "a")
    assert (found.sound, found.state, found.n_models) == (True, "finished", 2)
    cut(chunk(tmp_path / "a", "logits", 1))
    (one,) = verify_audit(tmp_path / "a").damage
    assert one.what == "model 1, records 0 to 59: damaged"


def test_erased(out):
    erase_signals(out)
    found = verify_audit(out)
    assert (found.sound, found.state) == (True, "erased")
    (out / "signals.zarr").mkdir()
    (one,) = verify_audit(out).damage
    assert (one.file, one.what) == ("signals.zarr", "is there, although the folder was erased")
    rewrite(out, format="erasing since 2026-01-01")
    (one,) = verify_audit(out).damage
    assert one.what == "erasing was interrupted (erasing since 2026-01-01)"
    assert "confide audit erase" in one.remedy


def test_no_audit_folder(out, tmp_path):
    with pytest.raises(MissingFileError, match="There is no audit folder at"):
        verify_audit(tmp_path / "gone")
    with pytest.raises(MissingFileError, match=r"manifest\.json is missing; is .* an audit folder"):
        verify_audit(tmp_path)
    rewrite(out, format=2)
    with pytest.raises(FolderError, match="has format 2; this version reads format 1"):
        verify_audit(out)
    rewrite(out, asked={})
    with pytest.raises(FolderError, match="is no audit folder, it holds another kind of run"):
        verify_audit(out)


@pytest.mark.parametrize("until", [None, "se=0.4"])
def test_run_again_trains_what_was_lost_alone(tmp_path, monkeypatch, until):
    monkeypatch.setattr("confide.runs.launch.analyse", lambda out: None)
    out, first = tmp_path / "audit", []
    make(out, until, first)
    before = {p: p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file()}
    chunk(out, "logits", 3).unlink()
    flip(chunk(out, "heldout_logits", 7))
    flip(out / "cohort.parquet")
    trained = []
    with pytest.warns(RuntimeWarning, match=r"missing or damaged; unfinished again: model 3, 7\."):
        make(out, until, trained)
    assert trained == [first[3], first[7]]
    assert {p: p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file()} == before
    with warnings.catch_warnings(action="error"):
        make(out, until, trained)
    assert len(trained) == 2


@pytest.mark.parametrize("width", ["80", "200"])
def test_the_command(out, width):
    def verify(*arguments):
        return CliRunner().invoke(app, ["audit", "verify", *arguments], env={"COLUMNS": width})

    done = verify(str(out))
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "Sound. 16 of 16 models are finished."
    for model in range(16):
        chunk(out, "logits", model).unlink()
        flip(chunk(out, "heldout_logits", model))
    done = verify(str(out))
    assert done.exit_code == 1
    assert done.stdout.startswith("signals.zarr/heldout_logits: model 0, records 0 to 11: damaged")
    assert "and 12 more; --json lists all" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("Damaged: 32 things are not as written.")
    done = verify(str(out), "--json")
    assert done.exit_code == 1
    found = json.loads(done.stdout)
    assert not found["sound"]
    assert len(found["damage"]) == 32
    assert found["damage"][16] == {
        "file": "signals.zarr/logits",
        "what": "model 0, records 0 to 47: missing",
        "remedy": f"{AGAIN}; it trains those models again.",
        "model": 0,
        "records": [0, 47],
    }


def test_an_altered_byte_of_a_table_never_gives_other_values(whole, tmp_path):
    table = read_table(whole / "patients.parquet")
    content = (whole / "patients.parquet").read_bytes()
    n_found = 0
    for at in range(4, len(content), 97):
        (tmp_path / "t.parquet").write_bytes(content[:at] + b"\x55" + content[at + 1 :])
        try:
            values = read_table(tmp_path / "t.parquet").to_numpy()
        except FolderError:
            n_found += 1
            continue
        assert pd.DataFrame(values).equals(pd.DataFrame(table.to_numpy()))
    assert n_found > 50
