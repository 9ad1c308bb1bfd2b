"""Model files: each kind gives the model's own numbers, and nothing is unpickled or evaluated."""

import io
import json
import os
import pickle
import zipfile

import numpy as np
import pytest
import torch

from confide.cohort import Cohort
from confide.errors import ArgumentError, MissingExtraError, MissingFileError, SignalError
from confide.runs.model_archives import harmless_pt2, kind_of
from confide.runs.model_files import open_model
from confide.runs.outputs import to_logits
from confide.training.settings import Performance

CPU = Performance(device="cpu")
X = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


class Trap:
    """Unpickled, it makes a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)).eval()


@pytest.fixture(scope="module")
def expected(network):
    return network(torch.from_numpy(X)).detach().numpy()


@pytest.fixture(scope="module")
def exported(network, tmp_path_factory):
    """The network as .pt2, for batches of any size."""
    path = tmp_path_factory.mktemp("exported") / "model.pt2"
    n = torch.export.Dim("n", min=1, max=4096)
    program = torch.export.export(network, (torch.zeros(3, 4),), dynamic_shapes=({0: n},))
    torch.export.save(program, path)
    return path


def rewritten(source, target, change):
    """A copy of an archive; `change` takes a name without its root, and content."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            root, _, inner = name.partition("/")
            new.writestr(name, change(inner, old.read(name)))
        extra = change(None, None)
        if extra:
            new.writestr(f"{root}/{extra[0]}", extra[1])
    return target


def test_an_exported_program(exported, expected):
    assert kind_of(exported) == "pt2"
    run = open_model(exported, performance=CPU).run
    np.testing.assert_allclose(run(X), expected, atol=1e-6)
    assert run(X[:1]).shape == (1, 3)


def test_torchscript(network, expected, tmp_path):
    path = tmp_path / "model.pt"
    torch.jit.trace(network, torch.from_numpy(X)).save(str(path))
    assert kind_of(path) == "torchscript"
    np.testing.assert_allclose(open_model(path, performance=CPU).run(X), expected, atol=1e-6)
    content = bytearray(path.read_bytes())
    content[content.index(b"collections")] ^= 1  # in a pickle, which nothing else would check
    path.write_bytes(content)
    with pytest.raises(ArgumentError, match=r"is damaged: the checksum of .* differs"):
        open_model(path, performance=CPU)


def test_onnx(network, expected, tmp_path):
    pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    weights = [p.detach().numpy() for p in network.parameters()]
    inner = [onnx.numpy_helper.from_array(w, f"w{i}") for i, w in enumerate(weights)]
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("Gemm", ["x", "w0", "w1"], ["h"], transB=1),
            onnx.helper.make_node("Relu", ["h"], ["r"]),
            onnx.helper.make_node("Gemm", ["r", "w2", "w3"], ["z"], transB=1),
        ],
        "network",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 4])],
        [onnx.helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, ["n", 3])],
        inner,
    )
    opsets = [onnx.helper.make_opsetid("", 17)]
    path = tmp_path / "model.onnx"
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8)
    path.write_bytes(model.SerializeToString())
    np.testing.assert_allclose(open_model(path, performance=CPU).run(X), expected, atol=1e-6)
    path.write_bytes(b"\x08\x08 damaged")
    with pytest.raises(ArgumentError, match="cannot be opened"):
        open_model(path)


def test_skops(tmp_path):
    skops = pytest.importorskip("skops.io")
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer

    y = np.array(["b", "a", "b", "a", "b"])
    model = LogisticRegression().fit(X, y)
    path = tmp_path / "model.skops"
    skops.dump(model, path)
    found = open_model(path)
    assert (found.output, found.classes) == ("probabilities", ("a", "b"))
    np.testing.assert_allclose(found.run(X), model.predict_proba(X))
    skops.dump(make_pipeline(FunctionTransformer(os.path.basename), model), path)
    with pytest.raises(ArgumentError, match="does not trust"):
        open_model(path)


def test_a_library_that_is_absent_is_named(tmp_path, monkeypatch):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"\x08\x08")
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r"confide\[onnx\]"):
        open_model(path)
    with zipfile.ZipFile(tmp_path / "model.skops", "w") as archive:
        archive.writestr("schema.json", "{}")
    monkeypatch.setitem(__import__("sys").modules, "skops", None)
    with pytest.raises(MissingExtraError, match=r"confide\[skops\]"):
        open_model(tmp_path / "model.skops")


def test_pickles_are_refused_by_content(network, tmp_path):
    trap = tmp_path / "sprung"
    (tmp_path / "a.onnx").write_bytes(pickle.dumps(Trap(trap)))
    torch.save(Trap(trap), tmp_path / "b.pt2")
    torch.save(network.state_dict(), tmp_path / "c.pt")
    torch.save(network, tmp_path / "d.pt", _use_new_zipfile_serialization=False)
    (tmp_path / "e.joblib").write_bytes(b"\x78\x9c")
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(ArgumentError, match="pickle"):
            open_model(path)
    assert not trap.exists()


def test_pickles_inside_an_exported_program_are_not_opened(exported, tmp_path):
    """PyTorch itself opens example inputs, weights and constants that are pickles."""
    trap = tmp_path / "sprung"
    buffer = io.BytesIO()
    torch.save((Trap(trap),), buffer)
    inputs = rewritten(
        exported,
        tmp_path / "inputs.pt2",
        lambda name, old: buffer.getvalue() if name == "data/sample_inputs/model.pt" else old,
    )
    assert open_model(inputs, performance=CPU).run(X).shape == (5, 3)  # dropped, not needed

    def pickled(name, old):
        if name == "data/weights/model_weights_config.json":
            return old.replace(b'"use_pickle": false', b'"use_pickle": true')
        return buffer.getvalue() if name == "data/weights/weight_0" else old

    legacy = ("data/weights/model.pt", buffer.getvalue())
    opaque = ("data/constants/opaque_obj_0", pickle.dumps(Trap(trap)))
    native = ("data/aotinductor/model/a.so", b"\x7fELF")
    changes = [
        pickled,
        *(lambda n, o, e=e: e if n is None else o for e in (legacy, opaque, native)),
    ]
    for i, change in enumerate(changes):
        with pytest.raises(ArgumentError, match="not loaded"):
            open_model(rewritten(exported, tmp_path / f"{i}.pt2", change))
    assert not trap.exists()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("target", "torch.load"),
        ("target", "torch.hub.load"),
        ("target", "_operator.methodcaller"),
        ("target", "#trap"),
        ("expr_str", "__import__('os').mkdir('sprung')"),
        ("expr_str", "s0.__class__"),
        ("expr_str", "eval(s0)"),
    ],
)
def test_text_that_would_be_run_is_refused(exported, tmp_path, key, value):
    def change(name, old):
        if name != "models/model.json":
            return old
        program = json.loads(old)
        program["graph_module"]["graph"]["nodes"][0][key] = value
        return json.dumps(program).encode()

    path = rewritten(exported, tmp_path / "model.pt2", change)
    with pytest.raises(ArgumentError, match="not run"):
        harmless_pt2(path)


def test_guards_of_an_exported_program_are_dropped(exported, tmp_path):
    def change(name, old):
        if name != "models/model.json":
            return old
        return json.dumps(json.loads(old) | {"guards_code": ["1/0"]}).encode()

    path = rewritten(exported, tmp_path / "model.pt2", change)
    with zipfile.ZipFile(harmless_pt2(path)) as archive:
        (name,) = [n for n in archive.namelist() if n.endswith("models/model.json")]
        assert json.loads(archive.read(name))["guards_code"] == []


def test_files_that_are_no_models(tmp_path):
    with pytest.raises(MissingFileError, match="no model file"):
        open_model(tmp_path / "none.onnx")
    (tmp_path / "a.pt2").write_bytes(b"PK\x03\x04 damaged")
    with pytest.raises(ArgumentError, match="damaged"):
        open_model(tmp_path / "a.pt2")
    (tmp_path / "b.h5").write_bytes(b"\x89HDF")
    with pytest.raises(ArgumentError, match="no model that can be read"):
        open_model(tmp_path / "b.h5")
    with zipfile.ZipFile(tmp_path / "c.pt2", "w") as archive:
        archive.writestr("something", "else")
    with pytest.raises(ArgumentError, match="no kind of model"):
        open_model(tmp_path / "c.pt2")
    with zipfile.ZipFile(tmp_path / "d.pt2", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb", b"\0" * (80 * 2**20))
    with pytest.raises(ArgumentError, match="unpacks to"):
        open_model(tmp_path / "d.pt2")


def cohort(task="multiclass", n=30, classes=("a", "b", "c")):
    rng = np.random.default_rng(0)
    label = (
        rng.integers(0, 2, (n, len(classes))).astype(float)
        if task == "multilabel"
        else rng.integers(0, len(classes), n)
    )
    return Cohort(
        record=np.arange(n), patient=np.arange(n), label=label, task=task, classes=classes
    )


def test_outputs_become_logits_in_the_order_of_the_classes():
    z = np.random.default_rng(1).normal(size=(30, 3)) * 3
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    logits, warnings = to_logits(z[:, ::-1], cohort(), output=None, classes=("c", "b", "a"))
    np.testing.assert_array_equal(logits[:, 0], z)
    assert not warnings
    found, _ = to_logits(p, cohort(), output="probabilities")
    np.testing.assert_allclose(found[:, 0] - found[:, 0, :1], z - z[:, :1], atol=1e-9)


def test_binary_outputs_become_one_logit():
    z = np.random.default_rng(1).normal(size=(30, 2))
    two = cohort("binary", classes=("no", "yes"))
    np.testing.assert_allclose(to_logits(z, two, output=None)[0][:, 0, 0], z[:, 1] - z[:, 0])
    np.testing.assert_array_equal(to_logits(z[:, 0], two, output=None)[0][:, 0, 0], z[:, 0])
    p = 1 / (1 + np.exp(-z[:, 0]))
    found = to_logits(p, two, output="probabilities")[0][:, 0, 0]
    np.testing.assert_allclose(found, z[:, 0], atol=1e-9)


def test_labels_that_a_model_does_not_have_are_nan():
    z = np.random.default_rng(1).normal(size=(30, 2))
    found, _ = to_logits(z, cohort("multilabel"), output=None, classes=("c", "x"))
    np.testing.assert_array_equal(found[:, 0, 2], z[:, 0])
    assert np.isnan(found[:, 0, :2]).all()


def test_probabilities_taken_for_logits_are_refused():
    p = np.full((30, 3), 1 / 3)
    for output in (None, "logits"):
        with pytest.raises(ArgumentError, match="output: probabilities"):
            to_logits(p, cohort(), output=output)
    with pytest.raises(ArgumentError, match="between 0 and 1"):
        to_logits(p[:, 0], cohort("binary", classes=("no", "yes")), output=None)
    to_logits(p * 0.5, cohort(), output="logits")  # said by name, and no distribution


def test_extreme_probabilities_are_clipped_and_counted():
    p = np.zeros((30, 3))
    p[:, 0] = 1
    found, (warning,) = to_logits(p, cohort(), output="probabilities")
    assert np.isfinite(found).all()
    assert warning.startswith("the model gives 30 records")


def test_outputs_that_cannot_be_used():
    z = np.random.default_rng(1).normal(size=(30, 3))
    with pytest.raises(ArgumentError, match="shape"):
        to_logits(z[:7], cohort(), output=None)
    with pytest.raises(ArgumentError, match="has 2 outputs"):
        to_logits(z[:, :2], cohort(), output=None)
    with pytest.raises(ArgumentError, match="must be the same"):
        to_logits(z, cohort(), output=None, classes=("a", "b", "x"))
    with pytest.raises(ArgumentError, match="predicted"):
        to_logits(np.zeros(30, dtype=np.int64), cohort(), output=None)
    z[4, 1] = np.nan
    with pytest.raises(SignalError, match=r"record 4 \(row 4, output 1\)"):
        to_logits(z, cohort(), output=None)
    with pytest.raises(SignalError, match="in \\[0, 1\\]"):
        to_logits(np.full((30, 3), 2.0), cohort(), output="probabilities")
    with pytest.raises(SignalError, match="expected 1"):
        to_logits(np.full((30, 3), 0.5), cohort(), output="probabilities")
