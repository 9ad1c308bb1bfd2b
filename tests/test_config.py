from pathlib import Path

import pytest

from confide.config import CodesConfig, Config, load, load_as, parse
from confide.errors import ConfigError, MissingFileError

TABLE = "{name: table, path: a.csv, patient: p, label: l"
EMBEDDED = "data: {name: embedded}\n"


@pytest.fixture
def write(tmp_path):
    def file(text):
        path = tmp_path / "study.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return file


def refusal(path):
    with pytest.raises(ConfigError) as caught:
        load(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    assert message.endswith((".", "?"))
    for jargon in ("tuple", "ByFraction", "ByColumn", "dict", "pydantic", "nput should"):
        assert jargon not in message
    return message.removeprefix(str(path)).lstrip(":, ")


def test_a_short_configuration_has_the_documented_defaults(write):
    config, folder = load(write("data: {name: embedded}"))
    assert folder == write("data: {name: embedded}").parent
    found = config.model_dump(mode="json")
    assert found["data"] == {"name": "embedded", "test": {"fraction": 0.2, "seed": 0}}
    assert found["train"] == {
        "model": {"name": "tabular_resnet", "width": 300, "depth": 6},
        "epochs": 30,
        "batch_size": 512,
        "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 1e-7},
        "schedule": {"name": "cosine", "warmup": 0.05},
        "ema": 0.995,
        "augment": "none",
        "views": 1,
        "trace": False,
        "privacy": None,
    }
    assert found["audit"] == {
        "n_models": 64,
        "fraction": 0.5,
        "seed": 0,
        "attacks": ["lira", "rmia"],
        "fdr": 0.05,
        "canaries": 0,
        "until": None,
    }
    assert set(found["performance"].values()) == {"auto"}


def test_a_configuration_survives_json(write):
    config, _ = load(write(f"data: {TABLE}, groups: {{age: [40, 60], sex: []}}}}"))
    assert Config.model_validate(config.model_dump(mode="json")) == config


def test_an_empty_block_is_one_of_defaults(write):
    assert load(write(EMBEDDED + "train:\naudit:\n"))[0] == parse({"data": {"name": "embedded"}})


def test_paths_are_relative_to_the_file(tmp_path, monkeypatch):
    below = tmp_path / "study"
    below.mkdir()
    (below / "a.csv").write_text("p,l,x\n" + "".join(f"{i},{i % 2},{i}.5\n" for i in range(10)))
    (below / "study.yaml").write_text(f"data: {TABLE}}}")
    monkeypatch.chdir(tmp_path)
    config, folder = load(Path("study/study.yaml"))
    assert config.data.load(folder).cohort.n_records == 10


@pytest.mark.parametrize(
    ("text", "message"),
    [
        # Unknown keys at every level, with the nearest known one.
        (EMBEDDED + "trian: {}", "unknown key trian. Did you mean 'train'?"),
        ("data: {name: embedded, tset: 1}", "unknown key data.tset. Did you mean 'test'?"),
        ("data: {name: embedded, test: {seeed: 1}}", "data.test.seeed. Did you mean 'seed'?"),
        (f"data: {TABLE}, pathh: b}}", "unknown key data.pathh. Did you mean 'path'?"),
        (f"data: {TABLE}, test: {{fractoin: 1}}}}", "test.fractoin. Did you mean 'fraction'?"),
        (f"data: {TABLE}, test: {{column: a, valeu: 1}}}}", "test.valeu. Did you mean 'value'?"),
        (EMBEDDED + "train: {epoch: 3}", "unknown key train.epoch. Did you mean 'epochs'?"),
        (EMBEDDED + "train: {optimizer: {lrr: 1}}", "train.optimizer.lrr. Did you mean 'lr'?"),
        (
            EMBEDDED + "train: {optimizer: {name: adamw, beta: 1}}",
            "train.optimizer.beta. Did you mean 'betas'?",
        ),
        (EMBEDDED + "train: {model: {widht: 8}}", "train.model.widht. Did you mean 'width'?"),
        (EMBEDDED + "train: {schedule: {warmpu: 0}}", "schedule.warmpu. Did you mean 'warmup'?"),
        (EMBEDDED + "audit: {n_model: 8}", "unknown key audit.n_model. Did you mean 'n_models'?"),
        (EMBEDDED + "performance: {devise: cpu}", "performance.devise. Did you mean 'device'?"),
        # Unknown names.
        ("data: {name: tabel}", "unknown data.name = 'tabel'. Did you mean 'table'?"),
        (EMBEDDED + "train: {model: {name: wrm}}", "train.model.name = 'wrm'. Did you mean 'wrn'?"),
        (EMBEDDED + "train: {optimizer: {name: adam}}", "name = 'adam'. Did you mean 'adamw'?"),
        (EMBEDDED + "audit: {attacks: [lirra]}", "unknown attack 'lirra'. Did you mean 'lira'?"),
        (EMBEDDED + "train: {schedule: {name: cos}}", "schedule.name = 'cos': must be 'cosine'"),
        # Missing keys.
        ("audit: {n_models: 8}", "data is missing"),
        ("data:", "data is missing"),
        ("data: {}", "data.name is missing. Known: chexpert, ecg, embed, embedded, fairvision,"),
        ("data: {name: table, patient: p, label: l}", "data.path is missing, and it has no"),
        (f"data: {TABLE}, test: {{column: split}}}}", "data.test.value is missing"),
        # Wrong types and values.
        ("data: embedded", "data = 'embedded': expected a block of keys"),
        (f"data: {TABLE}, test: 3}}", "data.test = 3: expected a block of keys"),
        (f"data: {TABLE}, test: {{fraction: 2}}}}", "data.test.fraction = 2: must be less than 1"),
        (f"data: {TABLE}, groups: race}}", "data.groups = 'race': expected a list"),
        (f"data: {TABLE}, groups: {{age: [4, x]}}}}", "data.groups.age.1 = 'x': expected a number"),
        (f"data: {TABLE}, test: {{column: s, value: [1]}}}}", "data.test.value = [1]: expected"),
        (EMBEDDED + "train: 3", "train = 3: expected a block of keys"),
        (EMBEDDED + "train: {epochs: 1.5}", "train.epochs = 1.5: expected a whole number"),
        (EMBEDDED + "train: {epochs: many}", "train.epochs = 'many': expected a whole number"),
        (EMBEDDED + "train: {epochs: 0}", "train.epochs = 0: must be greater than or equal to 1"),
        (EMBEDDED + "train: {optimizer: {lr: .inf}}", "train.optimizer.lr = inf: must be a finite"),
        (EMBEDDED + "train: {model: {name: wrn, depth: 11}}", "depth=11 to be 6n + 4; use 10 or"),
        (EMBEDDED + "train: {augment: weak}", "train: augment='weak' changes images"),
        (EMBEDDED + "train: {privacy: {epsilon: 8}}", "train.privacy.unit is missing, and it"),
        (EMBEDDED + "audit: {n_models: 3}", "audit.n_models = 3: must be greater than or equal"),
        (EMBEDDED + "audit: {fraction: .nan}", "audit.fraction = nan: must be"),
        (EMBEDDED + "audit: {attacks: []}", "audit.attacks = []: name at least one attack"),
        (EMBEDDED + "audit: {attacks: lira}", "audit.attacks = 'lira': expected a list"),
        (EMBEDDED + "performance: {models_at_once: 0}", "models_at_once = 0: expected auto or a"),
        (EMBEDDED + "performance: {device: gpu}", "device = 'gpu': must be 'auto', 'cpu' or"),
        (EMBEDDED + "3: 4", "the key 3 is not text"),
        # Not a configuration.
        ("", "should hold blocks such as data: and audit:, got None"),
        ("- data\n- audit", "should hold blocks such as data: and audit:, got ['data', 'audit']"),
        ("just words", "should hold blocks"),
        ("data: {name: embedded", "line 1, is not valid YAML"),
        ("data:\n\tname: embedded", "line 2, is not valid YAML"),
        (b"data: \xff\xfe", "is not valid YAML"),
        ("data: !!python/object:os.system {}", "is not valid YAML"),
        # Keys given twice, and references, also ones that go round or explode.
        (
            "data: {name: embedded}\ndata: {name: phantom}",
            "line 2, is not valid YAML: the key data",
        ),
        ("data: {name: embedded, name: phantom}", "the key name is given twice"),
        ("data: &a {name: embedded}\ntrain: *a", "line 2, is not valid YAML: the alias *a"),
        ("data: &a [*a]", "the alias *a is not supported"),
        ("[" * 5000, "is nested too deep"),
    ],
)
def test_a_problem_is_one_sentence_with_key_value_and_remedy(write, text, message):
    assert message in refusal(write(text))


def test_every_problem_is_named_at_once(write):
    found = refusal(write("data: {name: table, path: a}\ntrain: {epochs: -1, ema: 2}"))
    for part in ("data.patient is", "data.label is", "train.epochs = -1", "train.ema = 2"):
        assert part in found


def test_a_long_value_is_not_repeated_in_full(write):
    assert len(refusal(write(EMBEDDED + f"train: {{epochs: {'x' * 5000}}}"))) < 300


def test_a_long_name_is_not_repeated_in_full(write):
    found = refusal(write(f"data: {{name: {'x' * 90_000}}}"))
    assert "unknown data.name = 'xxx" in found
    assert len(found) < 2000


def test_variables_come_from_the_environment(write, monkeypatch):
    monkeypatch.setenv("STUDY", "/data/study")
    monkeypatch.setenv("N", "8")
    config, _ = load(
        write(
            "data: {name: table, path: '${STUDY}/${N}.csv', patient: p, label: [a, '${N}']}\n"
            "audit: {n_models: '${N}'}"
        )
    )
    assert config.data.path == Path("/data/study/8.csv")
    assert config.data.label == ("a", "8")
    assert config.audit.n_models == 8


def test_a_variable_that_is_not_set_is_named_with_its_key(write, monkeypatch):
    monkeypatch.delenv("STUDY", raising=False)
    found = refusal(write("data: {name: table, path: '${STUDY}/a.csv', patient: p, label: l}"))
    assert found.startswith("data.path uses ${STUDY}, but the environment variable STUDY is not")


def test_a_variable_is_not_substituted_twice(write, monkeypatch):
    monkeypatch.setenv("ONE", "${TWO}")
    config, _ = load(write("data: {name: table, path: '${ONE}', patient: p, label: l}"))
    assert config.data.path == Path("${TWO}")


def test_a_file_that_is_missing_or_a_folder(tmp_path):
    with pytest.raises(MissingFileError, match="There is no configuration at"):
        load(tmp_path / "no.yaml")
    with pytest.raises(MissingFileError, match="is a folder; a configuration is a YAML file"):
        load(tmp_path)


def test_a_huge_file_is_not_read(write):
    assert "is it a configuration?" in refusal(write("# " + "x" * 1_000_001))


def test_a_configuration_cannot_be_changed():
    config = parse({"data": {"name": "embedded"}})
    with pytest.raises(ValueError, match="frozen"):
        config.audit.seed = 3


def test_a_configuration_of_another_command(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("data: {name: release, path: r, label: view}\ncompare: {arms: plain}\n")
    with pytest.raises(ConfigError, match="unknown key compare"):
        load(path)
    path.write_text("data: {name: release, path: r, label: view}\n")
    assert load(path)[0].data.path == (Path("r"),)
    assert load_as(CodesConfig, path)[0].data.sites == ("r",)
    path.write_text("data: {name: embedded}\n")
    with pytest.raises(ConfigError, match="is for other commands: `confide encode train` takes"):
        load_as(CodesConfig, path)


def test_sites_have_one_name_each(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("data: {name: release, path: [x/r, y/r], label: view}\n")
    with pytest.raises(ConfigError, match="2 releases need as many different names"):
        load_as(CodesConfig, path)
    path.write_text("data: {name: release, path: [x/r, y/r], site: [x, y], label: view}\n")
    assert load_as(CodesConfig, path)[0].data.sites == ("x", "y")
    path.write_text(path.read_text() + "compare: {records: a.yaml}\n")
    with pytest.raises(ConfigError, match="names 1, expected one for each of the 2 releases"):
        load_as(CodesConfig, path)
