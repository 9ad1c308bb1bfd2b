"""Models that several processes train: workers of one run, and jobs that share a folder."""

import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import yaml

from confide.cohort import Cohort
from confide.config import load
from confide.errors import ArgumentError, FolderError, MismatchError, TrainingError
from confide.runs import analyse, engines, erase_signals, run_config
from confide.runs import study as study_module
from confide.runs.engines import Job, Processes, run_by
from confide.runs.study import Study
from confide.stores import AuditFolder, claimed
from confide.training.base import Trainer

sys.path.insert(0, str(Path(__file__).parent))  # tests are imported from files
import working

CONFIG = {
    "data": {"name": "embedded"},
    "train": {"model": {"name": "tabular_resnet", "width": 8, "depth": 1}, "epochs": 1},
    "audit": {"n_models": 16, "until": "stable"},
    "performance": {"models_at_once": 3, "device": "cpu"},
}
TABLES = ("summary.json", "records.parquet", "patients.parquet", "groups.parquet")


class Noise(Trainer):
    """Logits that follow from members and seed alone; counts what it trains."""

    logits_shape = (1, 1)
    models_at_once = 2

    def __init__(self):
        self.trained = []

    def fit(self, members, seeds):
        self.trained += list(seeds)
        rng = [np.random.default_rng(seed) for seed in seeds]
        noise = np.stack([one.normal(size=members.shape[1]) for one in rng])
        return (noise + members)[:, :, None, None].astype(np.float32)


def study(n_models=12, **changed):
    ids = np.array([f"p{i}" for i in range(40)], dtype=object)
    cohort = Cohort(
        record=ids, patient=ids, label=np.arange(40) % 2, task="binary", classes=("no", "yes")
    )
    return Study(**{"cohort": cohort, "trainer": Noise(), "n_models": n_models} | changed)


def states(out):
    return AuditFolder.read(out).done.tolist()


def same(one, other, names=("logits", "membership")):
    a, b = AuditFolder.read(one), AuditFolder.read(other)
    return all(a.array(name)[:].tobytes() == b.array(name)[:].tobytes() for name in names)


class TestJobs:
    """Each trains a range of models; nobody leads."""

    def test_ranges_make_the_same_folder(self, tmp_path):
        study().train(tmp_path / "whole")
        seen = []
        first = study()
        assert first.train_some(tmp_path / "parts", 4, 8, lambda *step: seen.append(step)) == 4
        assert seen == [(2, 4), (4, 4)]
        assert states(tmp_path / "parts") == [False] * 4 + [True] * 4 + [False] * 4
        assert study().train_some(tmp_path / "parts", 8, 12) == 8
        last = study()
        assert last.train_some(tmp_path / "parts", 0, 12) == 12
        assert len(first.trainer.trained) == len(last.trainer.trained) == 4
        assert list((tmp_path / "parts").glob(".models-*"))
        study().train(tmp_path / "parts")  # has nothing to do but to clean up
        assert same(tmp_path / "whole", tmp_path / "parts")
        for name in ("whole", "parts"):
            analyse(tmp_path / name)
        for name in TABLES:
            parts = (tmp_path / "parts" / name).read_bytes()
            assert parts == (tmp_path / "whole" / name).read_bytes()
        assert not list((tmp_path / "parts").glob(".models-*"))

    def test_what_another_job_trains_is_left_to_it(self, tmp_path):
        ours = study()
        with study().opened(tmp_path / "out"):
            pass
        with claimed(tmp_path / "out", slice(2, 4)) as first:
            assert first
            with claimed(tmp_path / "out", slice(2, 4)) as second:
                assert not second
            assert ours.train_some(tmp_path / "out", 0, 6) == 4
        assert states(tmp_path / "out") == [True] * 2 + [False] * 2 + [True] * 2 + [False] * 6

    @pytest.mark.parametrize("what", ["train", "erase"])
    def test_nobody_takes_the_folder_from_a_job(self, tmp_path, what):
        study().train_some(tmp_path / "out", 0, 4)
        writing = tmp_path / "out" / "signals.zarr" / "chunk.partial"
        writing.touch()
        with (
            claimed(tmp_path / "out", slice(4, 6)),
            pytest.raises(FolderError, match="in use by another process; wait for it"),
        ):
            study().train(tmp_path / "out") if what == "train" else erase_signals(tmp_path / "out")
        study().train_some(tmp_path / "out", 4, 6)
        assert writing.exists()
        (tmp_path / "out" / ".models-000008.lock").touch()  # of a job that was killed
        ours = study()
        ours.train(tmp_path / "out")
        assert len(ours.trainer.trained) == 6
        assert not writing.exists()
        assert not list((tmp_path / "out").glob(".models-*"))

    def test_between_two_groups_others_may_write(self, tmp_path, monkeypatch):
        """And nobody trains models of a folder that is theirs meanwhile."""
        monkeypatch.setattr(study_module, "_PATIENCE", 0.1)

        def after_a_group(done, total):
            folder.enter_context(study().opened(tmp_path / "out"))

        ours = study()
        with ExitStack() as folder, pytest.raises(FolderError, match="in use by another process"):
            ours.train_some(tmp_path / "out", 0, 4, after_a_group)
        assert len(ours.trainer.trained) == 2
        assert states(tmp_path / "out") == [True] * 2 + [False] * 10

    def test_an_erased_folder_stays_empty(self, tmp_path):
        study().train(tmp_path / "out")
        analyse(tmp_path / "out")
        kept = AuditFolder.read(tmp_path / "out").manifest["cohort_sha256"]
        erase_signals(tmp_path / "out")
        assert kept not in (tmp_path / "out" / "manifest.json").read_text()
        with (
            pytest.raises(FolderError, match="were erased on"),
            claimed(tmp_path / "out", slice(0, 2)),
        ):
            pass
        assert not (tmp_path / "out" / "signals.zarr").exists()

    def test_jobs_that_begin_a_folder_together(self, tmp_path, monkeypatch):
        """One finds it empty, and then the other's files in it."""
        out, mkdir = tmp_path / "out", Path.mkdir

        def made(path, *arguments, **named):
            mkdir(path, *arguments, **named)
            if path == out:
                monkeypatch.setattr(Path, "mkdir", mkdir)
                study().train_some(out, 0, 2)

        monkeypatch.setattr(Path, "mkdir", made)
        assert study().train_some(out, 2, 4) == 4

    @pytest.mark.parametrize("name", ["logits", "membership"])
    def test_an_array_that_was_lost_is_made_again(self, tmp_path, name):
        study().train(tmp_path / "whole")
        study().train(tmp_path / "out")
        (tmp_path / "out" / "signals.zarr" / name / "zarr.json").unlink()
        ours = study()
        if name == "logits":
            with pytest.warns(RuntimeWarning, match="logits is missing; all models are trained"):
                ours.train(tmp_path / "out")
        else:
            ours.train(tmp_path / "out")
        assert len(ours.trainer.trained) == (12 if name == "logits" else 0)
        assert same(tmp_path / "whole", tmp_path / "out")
        assert all(states(tmp_path / "out"))

    @pytest.mark.parametrize("given", [(0, 13), (-2, 4), (4, 4), (6, 4)])
    def test_ranges_that_are_none(self, tmp_path, given):
        with pytest.raises(ArgumentError, match="0 <= A < B <= 12, got"):
            study().train_some(tmp_path / "out", *given)

    def test_groups_stay_together(self, tmp_path):
        with pytest.raises(ArgumentError, match=r"Models 1:5 part a group of 2 .* use 0:6"):
            study().train_some(tmp_path / "out", 1, 5)
        other = study(n_models=5)  # the last group is smaller
        assert other.train_some(tmp_path / "other", 4, 5) == 1

    def test_one_configuration_a_folder(self, tmp_path):
        study().train_some(tmp_path / "out", 0, 4)
        with pytest.raises(MismatchError, match=r"audit.seed = 0; it is 1 now"):
            study(seed=1).train_some(tmp_path / "out", 4, 8)

    def test_shapes_are_known_before(self, tmp_path):
        other = study()
        other.trainer.logits_shape = None
        with pytest.raises(ArgumentError, match="set its logits_shape"):
            other.train_some(tmp_path / "out", 0, 4)


def job(tmp_path):
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(CONFIG))
    config, folder = load(tmp_path / "study.yaml")
    return Job(config=config, folder=folder, out=tmp_path)


class TestProcesses:
    """Workers of one run."""

    def test_the_result_is_that_of_one_process(self, tmp_path):
        asked = job(tmp_path)
        one = run_config(asked.config, asked.folder, tmp_path / "one")
        seen = []
        with Processes(2) as engine:
            two = run_by(
                engine,
                asked.config,
                asked.folder,
                tmp_path / "two",
                progress=lambda done, total: seen.append(done),
            )
        assert two.summary == one.summary
        assert seen[0] == 0
        assert seen[-1] == 16
        assert seen == sorted(seen)
        assert same(tmp_path / "one", tmp_path / "two", ("logits", "heldout_logits", "membership"))
        for name in TABLES:
            assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()
        for path in (tmp_path / "two").rglob("*"):
            assert path.stat().st_mode & 0o077 == 0, path

    def test_workers_that_fail_and_that_die(self, tmp_path, monkeypatch):
        asked, groups = job(tmp_path), [slice(4, 8), slice(8, 12)]
        with Processes(1) as engine:
            ((_, pid),) = engine.each(working.number, asked, groups[:1])
            os.kill(pid, signal.SIGKILL)  # while it has nothing to do
            until(lambda: not alive(pid))
            with pytest.raises(RuntimeError, match="OddError"):
                list(engine.each(working.odd, asked, groups[:1]))
            with pytest.raises(TrainingError, match=r"^Models 4 to 7: diverged"):
                list(engine.each(working.fail, asked, groups[:1]))
            # Killed by the first group and by the second, and replaced.
            found = dict(result for _, result in engine.each(working.die_once, asked, groups))
            assert set(found) == {4, 8}
            assert os.getpid() not in found.values()
            monkeypatch.setattr(engines, "_TRIES", 1)
            with pytest.raises(TrainingError, match=r"ended from outside 1 times.*--workers"):
                list(engine.each(working.die, asked, groups))

    def test_workers_end_with_the_first_process(self, tmp_path):
        asked = job(tmp_path)
        program = f"""if __name__ == "__main__":
            import sys
            sys.path.insert(0, {str(Path(__file__).parent)!r})
            from pathlib import Path
            import working
            from confide.config import load
            from confide.runs.engines import Job, Processes
            config, folder = load(Path({str(tmp_path / "study.yaml")!r}))
            with Processes(1) as engine:
                job = Job(config=config, folder=folder, out=folder)
                list(engine.each(working.wait, job, [slice(0, 1)]))
        """
        assert asked.folder == tmp_path
        (tmp_path / "program.py").write_text(program)
        first = subprocess.Popen([sys.executable, tmp_path / "program.py"])
        try:
            until(lambda: (tmp_path / "working").exists() and (tmp_path / "working").read_text())
            worker = int((tmp_path / "working").read_text())
            assert alive(worker)
        finally:
            first.kill()
            first.wait()
        until(lambda: not alive(worker))


@pytest.mark.parametrize("address", ["127.0.0.1:1", "[::1]:1", "127.0.0.1:99999", "no host:1"])
def test_nobody_listens_there(address):
    """Said at once; where Ray is not installed it is another error."""
    pytest.importorskip("ray")
    with pytest.raises(TrainingError, match="No Ray cluster answers at"):
        engines.Ray(address)


def until(condition, seconds=120):
    for _ in range(seconds * 20):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("it did not come")


def alive(pid):
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2]
    except FileNotFoundError:
        return False
