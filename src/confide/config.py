"""The configuration of a run: YAML in, checked settings out."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator

from confide._check import did_you_mean
from confide.datasets import AnySource
from confide.datasets.base import Settings
from confide.errors import ConfigError, MissingFileError
from confide.training.settings import Performance, TrainSettings

_LARGEST_CONFIG = 1_000_000
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


class AuditBlock(Settings):
    """The `audit:` block: how many models, who is in them, and what is computed.

    Parameters
    ----------
    n_models : models to train, at least 4
    fraction : share of the models that hold each patient
    seed : of masks and models
    attacks : names of attacks
    fdr : false discovery rate of the list of patients at risk
    """

    n_models: int = Field(default=64, ge=4, le=100_000)
    fraction: float = Field(default=0.5, gt=0, lt=1)
    seed: int = Field(default=0, ge=0)
    attacks: tuple[str, ...] = ("lira", "rmia")
    fdr: float = Field(default=0.05, gt=0, lt=1)

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


class Config(Settings):
    """A whole configuration: what data, what training, what audit, and how fast.

    Everything but `performance` changes the answer.
    """

    data: AnySource
    train: TrainSettings = TrainSettings()
    audit: AuditBlock = AuditBlock()
    performance: Performance = Performance()


def load(path: Path) -> tuple[Config, Path]:
    """Read a YAML configuration.

    ``${NAME}`` in a value is taken from the environment.

    Returns
    -------
    the configuration, and the folder to which its paths are relative

    Raises
    ------
    MissingFileError : no such file
    ConfigError : not YAML, an unknown key (the nearest known one is named), a value out of its
        domain, or a variable that is not set
    """
    if not path.is_file():
        raise MissingFileError(f"There is no configuration at {path}.")
    if path.stat().st_size > _LARGEST_CONFIG:
        raise ConfigError(
            f"{path} is larger than {_LARGEST_CONFIG:,} bytes; is it a configuration?"
        )
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{path} should hold blocks such as data: and audit:, got {raw!r:.60}.")
    return parse(raw, str(path)), path.resolve().parent


def parse(raw: dict[str, Any], where: str = "the configuration") -> Config:
    """Check a configuration given as plain dicts; errors as in :func:`load`."""
    try:
        return Config.model_validate(_substituted(raw, where))
    except ValidationError as error:
        problems = [_problem(e) for e in error.errors()]
        raise ConfigError(f"{where}: {'; '.join(problems)}") from None


def _substituted(value: Any, where: str) -> Any:
    if isinstance(value, dict):
        return {key: _substituted(item, where) for key, item in value.items()}
    if isinstance(value, list):
        return [_substituted(item, where) for item in value]
    if not isinstance(value, str):
        return value

    def from_environment(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in os.environ:
            raise ConfigError(
                f"{where} uses ${{{name}}}, but the environment variable {name} is not set."
            )
        return os.environ[name]

    return _VARIABLE.sub(from_environment, value)


def _problem(error: Any) -> str:
    """One sentence for one of pydantic's errors."""
    keys, model = _walk(error["loc"])
    name = ".".join(keys)
    if error["type"] == "extra_forbidden" and model is not None:
        return f"unknown key {name}.{did_you_mean(keys[-1], model.model_fields)}"
    if error["type"] == "missing":
        return f"{name} is missing; it has no default."
    if error["type"] == "union_tag_invalid":
        value = error["ctx"]["tag"]
        expected = [tag.strip("' ") for tag in error["ctx"]["expected_tags"].split(",")]
        return f"unknown {name}.name = {value!r}.{did_you_mean(value, expected)}"
    if error["type"] == "union_tag_not_found":
        return f"{name} needs a name, for example `name: table`."
    message = error["msg"].removeprefix("Value error, ")
    return f"{name} = {error['input']!r:.80}: {message[0].lower()}{message[1:]}"


def _walk(loc: tuple[int | str, ...]) -> tuple[list[str], type[BaseModel] | None]:
    """The user's key path of an error (without pydantic's union tags), and its settings class."""
    model: type[BaseModel] | None = Config
    candidates: list[type[BaseModel]] = []
    keys: list[str] = []
    for part in loc:
        tagged = [c for c in candidates if part in (_tag(c), c.__name__)]
        if tagged:
            model, candidates = tagged[0], []
            continue
        keys.append(str(part))
        field = model.model_fields.get(str(part)) if model is not None else None
        if field is not None:
            candidates = list(_models(field.annotation))
            model = candidates[0] if len(candidates) == 1 else None
    return keys, model


def _tag(model: type[BaseModel]) -> Any:
    field = model.model_fields.get("name")
    return next(iter(get_args(field.annotation)), None) if field else None


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models(inner)
