"""An audit whose arrays lie in an object store: what holds in a folder holds there."""

import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from pathlib import Path

import boto3
import numpy as np
import pytest
import yaml
from moto.server import ThreadedMotoServer
from typer.testing import CliRunner

from confide import _objects
from confide.cli import app, main
from confide.cohort import Cohort
from confide.config import load
from confide.errors import ArgumentError, MismatchError, MissingExtraError, StoreError
from confide.runs import analyse, erase_signals, run_config
from confide.runs.engines import run_by
from confide.runs.study import Study
from confide.runs.verify import RESULTS, verify_audit
from confide.stores import AuditFolder
from confide.training.base import Trainer

TABLE = "pid,label,age,sex\n" + "".join(
    f"{i},{i % 2},{20 + 7 * i % 50},{'fm'[i // 2 % 2]}\n" for i in range(60)
)
CONFIG = {
    "data": {"name": "table", "path": "t.csv", "patient": "pid", "label": "label"},
    "train": {"model": {"name": "tabular_resnet", "width": 4, "depth": 1}, "epochs": 1},
    "audit": {"n_models": 4},
    "performance": {"models_at_once": 2, "device": "cpu"},
}
ARRAYS = ("logits", "heldout_logits", "membership")
SECRET, KEY = "notthatsecret0123", "AKIAOFTHETESTS"


class Server:
    """What answers as S3 does, on this machine."""

    def __init__(self):
        self._begin(0)

    def _begin(self, port):
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
        self._server.start()
        self.port = self._server.get_host_and_port()[1]

    def stop(self):
        self._server.stop()

    def again(self):
        """At the same address, with the same objects."""
        self._begin(self.port)


@pytest.fixture(scope="module")
def server():
    with pytest.MonkeyPatch.context() as patch:
        server = Server()
        patch.setenv("AWS_ACCESS_KEY_ID", KEY)
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.port}")
        patch.setenv("AWS_ALLOW_HTTP", "true")
        yield server
        server.stop()


@pytest.fixture
def bucket(server, request):
    """An empty one, as boto3 sees it."""
    name = f"b{abs(hash(request.node.nodeid))}"
    boto3.client("s3").create_bucket(Bucket=name)
    return boto3.resource("s3").Bucket(name)


@pytest.fixture
def url(bucket):
    return f"s3://{bucket.name}/audits/one"


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(_objects, "_PATIENT", {"max_retries": 1})
    monkeypatch.setattr(_objects, "_BRISK", {"max_retries": 1})


class Noise(Trainer):
    """Logits that follow from members and seed alone; does something after some models."""

    logits_shape = (1, 1)
    models_at_once = 2

    def __init__(self, after=None, act=None):
        self.trained, self.after, self.act = [], after, act

    def fit(self, members, seeds):
        if len(self.trained) == self.after:
            self.act()
        self.trained += list(seeds)
        rng = [np.random.default_rng(seed) for seed in seeds]
        noise = np.stack([one.normal(size=members.shape[1]) for one in rng])
        return (noise + members)[:, :, None, None].astype(np.float32)


def study(signals=None, after=None, act=None, **changed):
    ids = np.array([f"p{i}" for i in range(40)], dtype=object)
    cohort = Cohort(
        record=ids, patient=ids, label=np.arange(40) % 2, task="binary", classes=("no", "yes")
    )
    given = {"cohort": cohort, "trainer": Noise(after, act), "n_models": 8, "signals": signals}
    return Study(**given | changed)


def keys(bucket, prefix=""):
    return sorted(one.key for one in bucket.objects.filter(Prefix=prefix))


def chunk(bucket, name, model):
    return bucket.Object(
        f"audits/one/signals.zarr/{name}/c/{model}/0" + "/0/0" * (name != "membership")
    )


def same(one, other, names=("logits", "membership")):
    a, b = AuditFolder.read(one), AuditFolder.read(other)
    return all(a.array(name)[:].tobytes() == b.array(name)[:].tobytes() for name in names)


def written(tmp_path):
    (tmp_path / "t.csv").write_text(TABLE)
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(CONFIG))
    return load(tmp_path / "study.yaml")


def files(folder):
    return [path for path in Path(folder).rglob("*") if path.is_file()]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The same audit in a folder."""
    folder = tmp_path_factory.mktemp("plain")
    run_config(*written(folder), folder / "out")
    return folder / "out"


def require_equal(plain, out):
    assert same(plain, out, ARRAYS)
    assert not (out / "signals.zarr").exists()
    for name in RESULTS:
        assert (out / name).read_bytes() == (plain / name).read_bytes(), name
    found = verify_audit(out)
    assert found.sound
    assert found.state == "finished"


class Here:
    """An engine without processes; the slow test below has some."""

    def each(self, function, job, groups):
        for group in groups:
            yield group, function(job, group)


def test_a_whole_audit_is_that_of_a_folder(plain, tmp_path, bucket, url):
    config, folder = written(tmp_path)
    run_by(Here(), config, folder, tmp_path / "out", signals=f"{url}/")
    require_equal(plain, tmp_path / "out")
    assert len(keys(bucket, "audits/one/signals.zarr/logits/")) == 5  # and what describes them
    assert keys(bucket) == keys(bucket, "audits/one/")
    stored = [one.get()["Body"].read() for one in bucket.objects.all()]
    for content in [*stored, *(path.read_bytes() for path in files(tmp_path))]:
        assert SECRET.encode() not in content
        assert KEY.encode() not in content


@pytest.mark.slow
@pytest.mark.parametrize("how", ["--workers=2", "--ray=local"])
def test_several_processes_by_the_command_line(plain, tmp_path, url, monkeypatch, how):
    if how.startswith("--ray"):
        pytest.importorskip("ray")
    written(tmp_path)
    command = ["audit", "run", f"{tmp_path}/study.yaml", "--out", f"{tmp_path}/out"]
    monkeypatch.setattr(sys, "argv", ["confide", *command, "--signals", url, how])
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code
    require_equal(plain, tmp_path / "out")


def test_jobs_that_share_a_folder(tmp_path, url):
    study().train(tmp_path / "plain")
    study(url).train_some(tmp_path / "out", 2, 6)
    study(url).train_some(tmp_path / "out", 0, 4)
    last = study()
    last.train(tmp_path / "out")
    assert len(last.trainer.trained) == 2
    assert same(tmp_path / "plain", tmp_path / "out")


def test_an_interrupted_audit_goes_on(tmp_path, url):
    def stop():
        raise KeyboardInterrupt

    study().train(tmp_path / "plain")
    with pytest.raises(KeyboardInterrupt):
        study(url, 4, stop).train(tmp_path / "out")
    rest = study()  # the folder knows where
    rest.train(tmp_path / "out")
    assert len(rest.trainer.trained) == 4
    assert same(tmp_path / "plain", tmp_path / "out")


def test_a_kill_before_the_prefix_is_claimed(tmp_path, bucket, url, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(_objects.InStore, "claim", _killed)
        with pytest.raises(KeyboardInterrupt):
            study(url).train(tmp_path / "out")
    assert keys(bucket) == []
    study().train(tmp_path / "out")
    assert AuditFolder.read(tmp_path / "out").done.all()


def _killed(*_, **__):
    raise KeyboardInterrupt


def test_lost_and_damaged_chunks_are_found_and_mended(tmp_path, bucket, url):
    study(url).train(tmp_path / "out")
    study().train(tmp_path / "plain")
    chunk(bucket, "logits", 3).delete()
    damaged = chunk(bucket, "logits", 6)
    content = bytearray(damaged.get()["Body"].read())
    content[5] ^= 1
    damaged.put(Body=bytes(content))
    found = verify_audit(tmp_path / "out")
    assert [(one.model, one.what) for one in found.damage] == [
        (3, "model 3, records 0 to 39: missing"),
        (6, "model 6, records 0 to 39: damaged"),
    ]
    with pytest.raises(OSError, match=r"1 stored chunk\(s\) of s3://.*/logits are missing"):
        analyse(tmp_path / "out")
    again = study(url)
    with pytest.warns(RuntimeWarning, match="unfinished again: model 3, 6"):
        again.train(tmp_path / "out")
    assert len(again.trainer.trained) == 4  # groups of two
    assert same(tmp_path / "plain", tmp_path / "out")
    assert verify_audit(tmp_path / "out").sound
    bucket.Object("audits/one/signals.zarr/logits/zarr.json").delete()
    with pytest.warns(RuntimeWarning, match="logits is missing; all models are trained"):
        study().train(tmp_path / "out")
    assert same(tmp_path / "plain", tmp_path / "out")


def test_a_prefix_belongs_to_one_audit(tmp_path, bucket, url):
    study(url).train(tmp_path / "out")
    before = keys(bucket)
    with pytest.raises(StoreError, match="holds the signals of another audit, or other objects"):
        study(url).train(tmp_path / "other")
    assert not (tmp_path / "other" / "manifest.json").exists()
    bucket.put_object(Key="mine/thesis.txt", Body=b"mine")
    with pytest.raises(StoreError, match="or other objects; choose another prefix"):
        study(f"s3://{bucket.name}/mine").train(tmp_path / "other")
    study().train(tmp_path / "plain")
    for out, signals in (("out", f"{url}-2"), ("plain", url)):
        with pytest.raises(MismatchError, match=r"was begun with signals = .*; it is 's3:"):
            study(signals).train(tmp_path / out)
    assert keys(bucket) == sorted([*before, "mine/thesis.txt"])
    # A manifest that names the prefix of somebody else.
    study(f"{url}-3").train(tmp_path / "third")
    manifest = json.loads((tmp_path / "third" / "manifest.json").read_text())
    (tmp_path / "third" / "manifest.json").write_text(json.dumps(manifest | {"signals": url}))
    for use in (analyse, verify_audit, erase_signals, study().train):
        with pytest.raises(StoreError, match="holds the signals of another audit"):
            use(tmp_path / "third")
    assert all(key in keys(bucket) for key in before)


def test_an_outage_is_one_error_and_loses_nothing(tmp_path, server, url, impatient):
    study().train(tmp_path / "plain")
    with pytest.raises(StoreError, match=r"does not answer.*run the same command again to go on"):
        study(url, 4, server.stop).train(tmp_path / "out")
    before = (tmp_path / "out" / "manifest.json").read_bytes()
    assert AuditFolder.read(tmp_path / "out").done.sum() == 4
    for use in (study().train, analyse, verify_audit, erase_signals):
        with pytest.raises(StoreError, match="does not answer"):
            use(tmp_path / "out")
    with pytest.raises(StoreError, match="does not answer"):
        study(url).train(tmp_path / "new")
    assert not (tmp_path / "new" / "manifest.json").exists()
    assert (tmp_path / "out" / "manifest.json").read_bytes() == before
    server.again()
    rest = study()
    rest.train(tmp_path / "out")
    assert len(rest.trainer.trained) == 4
    assert same(tmp_path / "plain", tmp_path / "out")


class Stalling(BaseHTTPRequestHandler):
    """Answers nothing to the first request, and that there is no such object to others."""

    asked = 0

    def do_GET(self):
        type(self).asked += 1
        if self.asked == 1:
            time.sleep(2)
            return
        self.send_response(404)
        self.end_headers()

    def log_message(self, *_):
        pass


def test_a_request_that_stalls_is_asked_again(server, monkeypatch):
    patient = _objects._PATIENT["retry_timeout"] / 30  # one request may take 30 s; here 1 s
    monkeypatch.setitem(_objects._PATIENT, "retry_timeout", patient)
    monkeypatch.setenv("AWS_TIMEOUT", "1s")
    stalling = ThreadingHTTPServer(("127.0.0.1", 0), Stalling)
    thread = threading.Thread(target=stalling.serve_forever)
    thread.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{stalling.server_port}")
    try:
        assert _objects.InStore("s3://bucket/audit", "x").is_ours() is None
    finally:
        stalling.shutdown()
        stalling.server_close()
        thread.join()
    assert Stalling.asked > 1


def test_no_such_bucket(tmp_path, server):
    with pytest.raises(StoreError, match="there is no such bucket"):
        study("s3://nobodys-bucket/audit").train(tmp_path / "out")


def test_objects_that_went_away_and_every_command_says_where_it_looks(tmp_path, bucket, url):
    out = str(tmp_path / "out")
    study(url).train(tmp_path / "out")
    bucket.objects.all().delete()
    with pytest.raises(StoreError, match=r"holds no signals of this audit\. Is it the store"):
        study().train(tmp_path / "out")
    for command in ("audit report", "audit verify", "audit erase"):
        done = CliRunner().invoke(app, [*command.split(), out])
        assert isinstance(done.exception, StoreError), command
        assert done.stderr == f"Signals are at {url}.\n", command
        assert done.stdout == ""
    done = CliRunner().invoke(app, ["compare", out, out, "--out", str(tmp_path / "compared")])
    assert done.stderr == 2 * f"Signals are at {url}.\n"


class Refusing(BaseHTTPRequestHandler):
    """As S3 refuses a signature: it quotes who asked."""

    def do_GET(self):
        body = f"<Error><Code>SignatureDoesNotMatch</Code><AWSAccessKeyId>{KEY}</AWSAccessKeyId>"
        self.send_response(403)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_):
        pass


def test_credentials_that_are_refused_are_not_told(tmp_path, server, monkeypatch, capfd):
    refusing = HTTPServer(("127.0.0.1", 0), Refusing)
    thread = threading.Thread(target=refusing.serve_forever)
    thread.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{refusing.server_port}")
    written(tmp_path)
    arguments = ("run", str(tmp_path / "study.yaml"), "--out", str(tmp_path / "out"))
    monkeypatch.setattr(
        sys, "argv", ["confide", "audit", *arguments, "--signals", "s3://bucket/audit"]
    )
    with pytest.raises(SystemExit) as stop:
        main()
    refusing.shutdown()
    refusing.server_close()
    thread.join()
    assert stop.value.code == 2
    said = capfd.readouterr()
    assert "it refuses these credentials (403 SignatureDoesNotMatch)" in said.err
    assert said.err.startswith("Signals are at s3://bucket/audit.\n")
    for text in (KEY, SECRET):
        assert text not in said.out + said.err


@pytest.mark.parametrize(
    ("name", "value", "what"),
    [
        ("ENDPOINT_URL", "nowhere", "AWS_ENDPOINT_URL is no address that begins with https"),
        ("ENDPOINT_URL", "http://127.0.0.1:99999", "AWS_ENDPOINT_URL is no address that begins"),
        ("ENDPOINT_URL", "http://a b", "AWS_ENDPOINT_URL is no address that begins"),
        ("ENDPOINT_URL", "https://", "AWS_ENDPOINT_URL is no address that begins"),
        ("ACCESS_KEY_ID", "a\n", "its address or its credentials are malformed"),
    ],
)
def test_variables_that_are_malformed(tmp_path, server, monkeypatch, capfd, name, value, what):
    monkeypatch.setenv(f"AWS_{name}", value)
    with pytest.raises(StoreError, match=what):
        study("s3://bucket/audit").train(tmp_path / "out")
    if name == "ENDPOINT_URL":
        assert capfd.readouterr().err == ""  # the library would print where it panicked


def test_erasing_deletes_every_object(tmp_path, bucket, url, monkeypatch):
    study(url).train(tmp_path / "out")
    bucket.put_object(Key="audits/one-more", Body=b"of somebody else")
    identity = bucket.Object("audits/one/confide.json").get()["Body"].read()
    with monkeypatch.context() as patch:
        patch.setattr(_objects.InStore, "remove", _killed)
        with pytest.raises(KeyboardInterrupt):
            erase_signals(tmp_path / "out")
    assert len(keys(bucket)) > 1
    assert not verify_audit(tmp_path / "out").sound
    bucket.Object("audits/one/confide.json").delete()  # as in another store
    with pytest.raises(StoreError, match=r"holds no signals of this audit\. Is it the store"):
        erase_signals(tmp_path / "out")
    assert not verify_audit(tmp_path / "out").sound
    bucket.put_object(Key="audits/one/confide.json", Body=identity)
    with monkeypatch.context() as patch:
        patch.setattr(_objects.InStore, "release", _killed)
        with pytest.raises(KeyboardInterrupt):
            erase_signals(tmp_path / "out")
    assert keys(bucket) == ["audits/one-more", "audits/one/confide.json"]
    assert not verify_audit(tmp_path / "out").sound
    found = erase_signals(tmp_path / "out")
    assert f"{url}/signals.zarr" in found["removed"]
    assert any("Where their bucket keeps versions" in note for note in found["notes"])
    assert keys(bucket) == ["audits/one-more"]
    assert verify_audit(tmp_path / "out").sound
    assert f"{url}/signals.zarr" not in erase_signals(tmp_path / "out")["removed"]
    study(url).train(tmp_path / "next")  # the prefix is free
    erase_signals(tmp_path / "out")
    assert verify_audit(tmp_path / "next").sound


@pytest.mark.parametrize(
    "wrong",
    [
        *("s3://me:hunter2@bucket/x", "s3://bucket/x?hunter2=1", "s3://bucket/x#hunter2"),
        *("s3://bucket", "s3://bucket/a/../b", "s3://bucket//a", "bucket/a", "s3:///a"),
        *("http://hunter2/a", "file:///etc/a", "s3://bucket/a b", "s3://bucket/a\n", ""),
    ],
)
def test_urls_that_are_none(tmp_path, wrong):
    with pytest.raises(ArgumentError, match="s3://BUCKET/PREFIX") as error:
        study(wrong)
    assert "hunter2" not in str(error.value)
    study().train(tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    manifest |= {"signals": wrong, "signals_id": "x"}
    (tmp_path / "out" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(OSError, match="is damaged, entries are missing"):
        AuditFolder.read(tmp_path / "out")


def test_a_prefix_within_the_arrays_of_an_audit(tmp_path, url):
    with pytest.raises(ArgumentError, match=r"leads into the signals of an audit"):
        study(f"{url}/signals.zarr/more").train(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_without_obstore_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    with pytest.raises(MissingExtraError, match=r"install confide\[s3\]"):
        study("s3://bucket/audit")
