"""Readers of predictions, log directories, audit folders, certificates and model files."""

import contextlib
import json
import shutil
from functools import cache
from pathlib import Path
from unittest import mock

import google_crc32c
import numpy as np

from confide.runs import erase_signals
from confide.runs import logdir as logdirs
from confide.runs.analysis import analyse
from confide.runs.compare import compare_audits
from confide.runs.figures import write_figures
from confide.runs.model_files import open_model
from confide.runs.predictions import read_predictions
from confide.training.settings import Performance
from fuzzing.reader import Reader
from reports import certificates
from runs.comparing import make as make_audit
from runs.conftest import make_table
from runs.logs import make_logs

CPU = Performance(device="cpu")


def write_predictions(kind, name, **more):
    def write(folder):
        table = make_table(n_models=4, n_patients=8, kind=kind, **more)
        path = folder / name
        table.to_parquet(path) if path.suffix == ".parquet" else table.to_csv(path, index=False)

    return write


def write_all_predictions(folder):
    write_predictions("logits", "a.csv")(folder)
    write_predictions("probs", "b.csv", n_classes=3)(folder)
    write_predictions("signal", "c.csv")(folder)
    write_predictions("logits", "d.parquet", n_views=2)(folder)


def write_logs(folder):
    made = make_logs(folder / "a", n_runs=6, n_patients=12, test=5)
    shutil.move(made.path, folder / "logs")
    shutil.move(made.records, folder / "records.csv")
    shutil.rmtree(folder / "a")


def read_logs(folder):
    # What is copied is read; that it can be analysed is the matter of other tests.
    with mock.patch.object(logdirs, "analyse"):
        logdirs.audit_logdir(
            folder / "logs", folder / "records.csv", folder / "out", patient="pid", groups=["sex"]
        )


@cache
def small_audit():
    """The files of a small audit that names held-out records, made once."""
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        out = Path(name) / "a"
        make_audit(out, leak=2.0, n_models=4)
        return {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file()}


def write_audit(folder):
    for name, content in small_audit().items():
        path = folder / "a" / name
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.write_bytes(content)


def write_two_audits(folder):
    write_audit(folder)
    shutil.copytree(folder / "a", folder / "b")
    path = folder / "b" / "manifest.json"
    path.write_text(path.read_text().replace('"epochs": 3', '"epochs": 4'))


def seal_chunks(folder):
    """Checksums of chunks that fit what they hold now."""
    for path in folder.glob("*/signals.zarr/*/c/**/*"):
        if path.is_file():
            values = path.read_bytes()[:-4]
            path.write_bytes(values + google_crc32c.value(values).to_bytes(4, "little"))


ANALYSED = ("manifest.json", "cohort.parquet", "signals.zarr/**/*")


class _EnoughError(Exception):
    """Ends an analysis when all was read."""


def read_audit(folder):
    """All that an audit reads, without what it computes of it."""

    def enough(signals, *_, trace=None, heldout=None, **more):
        for one in (signals, trace):
            if one is not None:
                one[:, :]
        if heldout is not None:
            [heldout[0][i] for i in range(len(heldout[0]))]
        raise _EnoughError

    with mock.patch("confide.runs.analysis.audit", enough), contextlib.suppress(_EnoughError):
        analyse(folder / "a")


def write_drawn(folder):
    write_two_audits(folder)
    compare_audits([folder / "a", folder / "b"], folder / "c")
    (folder / "d").mkdir()
    (folder / "d/certificate.json").write_text(json.dumps(certificates.small(0.4, 0.02)))


def drawn(name):
    return lambda folder: write_figures(folder / name, kind="png")


def write_models(folder):
    """A small network in every form that is read."""
    import onnx
    import skops.io
    import torch
    from sklearn.linear_model import LogisticRegression

    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2)
    ).eval()
    torch.jit.save(torch.jit.trace(network, torch.zeros(2, 4)), folder / "a.pt")
    n = torch.export.Dim("n", min=1, max=64)
    program = torch.export.export(network, (torch.zeros(3, 4),), dynamic_shapes=({0: n},))
    torch.export.save(program, folder / "b.pt2")
    x = np.random.default_rng(0).normal(size=(20, 4))
    skops.io.dump(LogisticRegression().fit(x, np.arange(20) % 2), folder / "c.skops")
    weight = onnx.numpy_helper.from_array(np.ones((4, 2), dtype=np.float32), "w")
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["x", "w"], ["z"])],
        "network",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 4])],
        [onnx.helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, ["n", 2])],
        [weight],
    )
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8
    )
    (folder / "d.onnx").write_bytes(model.SerializeToString())


def read_model(path):
    open_model(path, performance=CPU)


READERS = [
    Reader(
        name="predictions",
        make=write_all_predictions,
        read=read_predictions,
        alone=True,
        weight=6,
        tries=30,
    ),
    Reader(
        name="log directory",
        make=write_logs,
        read=read_logs,
        writes=True,
        closed=True,
        weight=0.4,
        tries=6,
    ),
    Reader(
        name="audit folder",
        make=write_audit,
        read=read_audit,
        files=tuple(f"a/{one}" for one in ANALYSED),
        seal=seal_chunks,
        writes=True,
        weight=0.4,
        tries=5,
    ),
    Reader(
        name="audit folder, analysed",
        make=write_audit,
        read=lambda folder: analyse(folder / "a"),
        files=tuple(f"a/{one}" for one in ANALYSED),
        seal=seal_chunks,
        writes=True,
        weight=0.01,
        tries=0,
    ),
    Reader(
        name="audits to compare",
        make=write_two_audits,
        read=lambda folder: compare_audits([folder / "a", folder / "b"], folder / "c"),
        files=("a/*.json", "a/*.parquet"),
        writes=True,
        weight=0.1,
        tries=0,
    ),
    Reader(
        name="audit to erase",
        make=write_audit,
        read=lambda folder: erase_signals(folder / "a"),
        files=("a/*.json", "a/*.parquet"),
        writes=True,
        weight=0.1,
        tries=3,
    ),
    *(
        Reader(
            name=f"figures of {what}",
            make=write_drawn,
            read=drawn(name),
            files=(f"{name}/*.json", f"{name}/*.parquet"),
            writes=True,
            weight=0.02,
            tries=0,
        )
        for name, what in (("a", "an audit"), ("c", "a comparison"), ("d", "a certificate"))
    ),
    Reader(name="model file", make=write_models, read=read_model, alone=True, weight=2, tries=0),
]
