"""The configuration of a run: YAML in, checked settings out."""

from __future__ import annotations

import os
import re
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar, get_args

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from confide._check import did_you_mean
from confide.datasets import KNOWN as SOURCES
from confide.datasets import AnySource
from confide.datasets.base import Settings
from confide.encoders.settings import EncodeSettings, NeuraCryptSettings
from confide.encoders.source import ReleasedCodes, listed, sites_of
from confide.errors import ConfigError, MissingFileError
from confide.inversion.settings import AttackBlock
from confide.training.codes_settings import CodeTrainSettings
from confide.training.settings import Performance, TrainSettings, named

_LARGEST_CONFIG = 1_000_000
_MOST_PROBLEMS = 5  # that one error names
_LONGEST_PROBLEM = 1000  # characters of each; names come from the file
_BLOCK = 16  # models per balanced block of a run that can stop early
_MORE_THAN_ONE = ("all sites", "mean over sites", "own site", "one site")  # words of the results
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


Kind = TypeVar("Kind", bound=BaseModel)


class AuditBlock(Settings):
    """The `audit:` block: how many models, who is in them, and what is computed.

    Parameters
    ----------
    n_models : models to train, at least 4
    fraction : share of the models that hold each patient
    seed : of masks and models
    attacks : names of attacks
    fdr : false discovery rate of the list of patients at risk
    canaries : held-out patients to train on with wrong labels, who should be found; they count
        among no patients, but every model sees about half of them
    until : stop early, when it is enough: `stable` (the list of patients at risk does not change
        any more) or `se=0.05` (a patient's risk is known to this standard error); `n_models` is
        then the most models, a multiple of 16
    """

    n_models: int = Field(default=64, ge=4, le=100_000)
    fraction: float = Field(default=0.5, gt=0, lt=1)
    seed: int = Field(default=0, ge=0)
    attacks: tuple[str, ...] = ("lira", "rmia")
    fdr: float = Field(default=0.05, gt=0, lt=1)
    canaries: int = Field(default=0, ge=0, le=1000)
    until: str | None = None

    @field_validator("attacks")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        from confide.attacks import KNOWN

        for name in names:
            if name not in KNOWN:
                raise ValueError(f"unknown attack {name!r}.{did_you_mean(name, KNOWN)}")
        if not names:
            raise ValueError("name at least one attack")
        return names

    @field_validator("until")
    @classmethod
    def _rule(cls, text: str | None, info: ValidationInfo) -> str | None:
        if text is None:
            return None
        if text != "stable" and not 0.0 < _standard_error(text) < 0.5:
            raise ValueError(
                "expected stable, or se= and a standard error between 0 and 0.5, such as se=0.05"
            )
        n_models = info.data.get("n_models", _BLOCK)  # absent where it has an error of its own
        if n_models % _BLOCK:
            below = n_models // _BLOCK * _BLOCK
            near = f"{below} or {below + _BLOCK}" if below else f"{_BLOCK}"
            raise ValueError(f"n_models = {n_models} must be a multiple of {_BLOCK}; use {near}")
        return text


def _standard_error(text: str) -> float:
    """X of "se=X"; NaN for any other text."""
    try:
        return float(text.removeprefix("se=")) if text.startswith("se=") else float("nan")
    except ValueError:
        return float("nan")


class Config(Settings):
    """A whole configuration: what data, what training, audit, encoding or attack, and how fast.

    Everything but `performance` changes the answer.
    """

    data: Annotated[AnySource | ReleasedCodes, Field(discriminator="name")]
    train: TrainSettings = TrainSettings()
    audit: AuditBlock = AuditBlock()
    encode: Annotated[EncodeSettings, named("neuracrypt")] = NeuraCryptSettings()
    attack: AttackBlock = AttackBlock()
    performance: Performance = Performance()

    @field_validator("audit")
    @classmethod
    def _attacks_have_traces(cls, audit: AuditBlock, info: ValidationInfo) -> AuditBlock:
        from confide.attacks import require_inputs

        if "train" in info.data:  # not where that block has errors of its own
            # Whether records are held out is known when the data are read.
            require_inputs(audit.attacks, trace=info.data["train"].trace, population=True)
        return audit


class Releases(Settings):
    """The `data:` block of a training on codes.

    Parameters
    ----------
    path : releases, one a site
    site : their names; by default those of the folders
    label : the column to learn, with two values; of several columns each is learnt by a model of
        its own, and has the values 1, 0 and missing
    groups : public columns by which results are also given
    """

    name: Literal["release"] = "release"
    path: Annotated[tuple[Path, ...], BeforeValidator(listed)] = Field(min_length=1)
    site: tuple[str, ...] = ()
    label: Annotated[tuple[str, ...], BeforeValidator(listed)] = Field(min_length=1)
    groups: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _one_name_each(self) -> Self:
        for key in ("path", "label", "groups"):
            given = getattr(self, key)
            twice = [name for i, name in enumerate(given) if name in given[:i]]
            if twice:
                raise ValueError(f"`{key}` names {str(twice[0])!r} twice; name it once")
        for name in self.sites:
            if name in _MORE_THAN_ONE:
                raise ValueError(f"{name!r} names more than one site; choose another name")
        return self

    @property
    def sites(self) -> tuple[str, ...]:
        """Name of each release's site."""
        return sites_of(self.path, self.site)


class Comparison(Settings):
    """What a training on codes is compared with; needs RELEASE.private beside each release.

    Parameters
    ----------
    records : the configurations that the releases were made from, in the same order
    arms : "plain", the same network with a trainable encoder in front, on the records themselves;
        "linear", codes of the linear encoder under keys of their own, which are written nowhere
    """

    records: Annotated[tuple[Path, ...], BeforeValidator(listed)] = ()
    arms: tuple[Literal["plain", "linear"], ...] = ("plain", "linear")


class CodesConfig(Settings):
    """The configuration of a training on codes."""

    data: Releases
    train: CodeTrainSettings = CodeTrainSettings()
    compare: Comparison = Comparison()
    performance: Performance = Performance()

    @model_validator(mode="after")
    def _same_sites(self) -> Self:
        n, wanted = len(self.compare.records), len(self.data.path)
        if n not in (0, wanted):
            raise ValueError(
                f"compare.records names {n}, expected one for each of the {wanted} releases"
            )
        return self


def load(path: Path) -> tuple[Config, Path]:
    """Read the YAML configuration of an audit or an encoding; see :func:`load_as`."""
    return load_as(Config, path)


def load_as(kind: type[Kind], path: Path) -> tuple[Kind, Path]:
    """Read a YAML configuration.

    ``${NAME}`` in a value is taken from the environment.

    Returns
    -------
    the configuration, and the folder to which its paths are relative

    Raises
    ------
    MissingFileError : no such file
    ConfigError : not YAML, a key that is unknown (the nearest known one is named) or given twice,
        a value out of its domain, a variable that is not set, or a YAML alias (no configuration
        needs one, and a few lines of them can fill the memory)
    """
    if not path.is_file():
        if path.is_dir():
            raise MissingFileError(f"{path} is a folder; a configuration is a YAML file.")
        raise MissingFileError(f"There is no configuration at {path}.")
    if path.stat().st_size > _LARGEST_CONFIG:
        raise ConfigError(
            f"{path} is larger than {_LARGEST_CONFIG:,} bytes; is it a configuration?"
        )
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), _Loader)  # noqa: S506 (a SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}," if error.problem_mark else ""
        raise ConfigError(f"{path}{line} is not valid YAML: {error.problem}.") from error
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{path} is not valid YAML: {' '.join(str(error).split())}.") from error
    except RecursionError as error:
        raise ConfigError(f"{path} is nested too deep; is it a configuration?") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{path} should hold blocks such as data: and audit:, got {raw!r:.60}.")
    return parse_as(kind, raw, str(path)), path.resolve().parent


class _Loader(yaml.SafeLoader):
    """Plain YAML in which no key is given twice and nothing refers to something else."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event: Any = self.peek_event()  # type: ignore[no-untyped-call]
            raise _refused(f"the alias *{event.anchor} is not supported, write its value", event)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise _refused(f"the key {key.value} is given twice, keep one of them", key)
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else None)
        return super().construct_mapping(node, deep)


def _refused(problem: str, where: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=where.start_mark)


def parse(raw: dict[str, Any], where: str = "the configuration") -> Config:
    """Check a configuration given as plain dicts; errors as in :func:`load_as`."""
    return parse_as(Config, raw, where)


def parse_as(kind: type[Kind], raw: dict[str, Any], where: str = "the configuration") -> Kind:
    """Check a configuration of one kind; errors as in :func:`load_as`."""
    given = {key: _substituted(value, where, f"{key}") for key, value in raw.items()}
    # A block with nothing in it, which YAML reads as null, is one of defaults.
    given = {key: value for key, value in given.items() if value is not None}
    data = given.get("data")
    if kind is CodesConfig and isinstance(data, dict) and data.get("name", "release") != "release":
        raise ConfigError(
            f"{where} is for other commands: `confide encode train` takes data: {{name: release}}."
        )
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        problems = _of_one_form([_Problem.of(e, given, kind) for e in error.errors()])
        shown = [_shortened(p.sentence()) for p in problems[:_MOST_PROBLEMS]]
        if len(problems) > len(shown):
            shown.append(f"and {len(problems) - len(shown)} more")
        found = "; ".join(shown)
        raise ConfigError(f"{where}: {found}.") from None


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_PROBLEM else f"{text[:_LONGEST_PROBLEM]}..."


def with_audit(config: Config, where: str, **changes: Any) -> Config:
    """The configuration with other values in its `audit` block; errors as in :func:`load_as`."""
    block = parse_as(AuditBlock, config.audit.model_dump() | changes, where)
    return config.model_copy(update={"audit": block})


def _substituted(value: Any, where: str, key: str) -> Any:
    if isinstance(value, dict):
        return {k: _substituted(item, where, f"{key}.{k}") for k, item in value.items()}
    if isinstance(value, list):
        return [_substituted(item, where, f"{key}.{i}") for i, item in enumerate(value)]
    if not isinstance(value, str):
        return value

    def from_environment(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in os.environ:
            raise ConfigError(
                f"{where}: {key} uses ${{{name}}}, but the environment variable {name} is not set; "
                "set it or write the value."
            )
        return os.environ[name]

    return _VARIABLE.sub(from_environment, value)


_EXPECTED = {
    "string_type": "text",
    "path_type": "a path",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a block of keys",
    "model_type": "a block of keys",
    "model_attributes_type": "a block of keys",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "too_short": "at least one",
}
"""What to say where pydantic's own words are about Python."""

_NO_VALUE = ("missing", "extra_forbidden", "invalid_key")


@dataclass(frozen=True, kw_only=True)
class _Problem:
    """One of pydantic's errors, at the keys that the user wrote.

    Where a value may take several forms (a list or a block, say), pydantic gives errors of each
    and puts the form into the place: `forms` is {keys above it: form}.
    """

    error: Any
    keys: tuple[str, ...]
    settings: type[BaseModel] | None
    forms: dict[tuple[str, ...], str]

    @classmethod
    def of(cls, error: Any, given: Any, kind: type[BaseModel]) -> _Problem:
        settings: type[BaseModel] | None = kind
        candidates: list[type[BaseModel]] = []
        keys: list[str] = []
        forms: dict[tuple[str, ...], str] = {}
        for i, part in enumerate(error["loc"]):
            last = i == len(error["loc"]) - 1 and error["type"] in _NO_VALUE
            tagged = [c for c in candidates if part in (_tag(c), c.__name__)]
            if tagged or not (last or _holds(given, part)):
                settings, candidates = tagged[0] if tagged else None, []
                forms[tuple(keys)] = str(part)
                continue
            keys.append(str(part))
            given = given[part] if _holds(given, part) else None
            field = settings.model_fields.get(str(part)) if settings is not None else None
            if field is not None:
                candidates = list(_models(field.annotation))
                settings = candidates[0] if len(candidates) == 1 else None
        return cls(error=error, keys=tuple(keys), settings=settings, forms=forms)

    def sentence(self) -> str:
        kind, context = self.error["type"], self.error.get("ctx", {})
        name = ".".join(self.keys)
        if kind == "extra_forbidden" and self.settings is not None:
            return f"unknown key {name}." + _hint(self.keys[-1], self.settings.model_fields)
        if kind == "invalid_key":
            return f"the key {name} is not text, put it in quotes or remove it"
        if kind == "missing":
            return f"{name} is missing, and it has no default"
        if kind == "union_tag_invalid":
            value = context["tag"]
            expected = [tag.strip("' ") for tag in context["expected_tags"].split(",")]
            return f"unknown {name}.name = {value!r}." + _hint(value, expected)
        if kind == "union_tag_not_found":
            return f"{name}.name is missing." + _hint("", SOURCES)
        message = self.error["msg"].removeprefix("Value error, ").rstrip(".")
        message = message.replace("Input should be", "must be")
        if kind in _EXPECTED:
            message = f"expected {_EXPECTED[kind]}"
        value = self.error["input"]
        # What is said of a whole block names its keys itself.
        shown = "" if kind == "value_error" and isinstance(value, dict) else f" = {value!r:.80}"
        return f"{name}{shown}: {message[0].lower()}{message[1:]}"


def _hint(word: str, options: Iterable[str]) -> str:
    return did_you_mean(word, options).rstrip(".")


def _of_one_form(problems: list[_Problem]) -> list[_Problem]:
    """Where a value may take several forms, keep what is said of the one that was meant."""
    for place in sorted({place for p in problems for place in p.forms}, key=len):
        by_form: dict[str, list[_Problem]] = {}
        for problem in problems:
            if place in problem.forms:
                by_form.setdefault(problem.forms[place], []).append(problem)
        if len(by_form) > 1:
            best = min(by_form.values(), key=_misfit)
            problems = [p for p in problems if place not in p.forms or p in best]
    return problems


def _misfit(problems: Sequence[_Problem]) -> tuple[int, int, int]:
    n_unknown = sum(p.error["type"] == "extra_forbidden" for p in problems)
    return n_unknown, -max(len(p.keys) for p in problems), len(problems)


def _holds(value: Any, part: Any) -> bool:
    if isinstance(value, dict):
        return part in value
    return isinstance(value, list | tuple) and isinstance(part, int) and part < len(value)


def _tag(model: type[BaseModel]) -> Any:
    field = model.model_fields.get("name")
    return next(iter(get_args(field.annotation)), None) if field else None


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models(inner)
