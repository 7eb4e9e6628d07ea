"""A composed config as its checked dataclass."""

import dataclasses
from collections.abc import Callable, Iterator
from operator import attrgetter
from typing import Any, TypeVar, cast

from omegaconf import MISSING, DictConfig, OmegaConf

from hp_lightning.common.errors import InputError
from hp_lightning.common.hydra_grammar import typed, without_interpolation

Schema = TypeVar("Schema")


def resolved(cfg: DictConfig) -> Any:
    """Plain values: a typed config would be taken as it is, keys added by +key=value included."""
    return OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)


def escaped(value: Any) -> Any:
    """The same value, `without_interpolation` in any text of it."""
    if isinstance(value, dict):
        return {key: escaped(item) for key, item in value.items()}
    if isinstance(value, list):
        return [escaped(item) for item in value]
    return without_interpolation(value) if isinstance(value, str) else value


def no_rules(cfg: Any) -> Iterator[InputError]:
    """Rules of a config whose fields know nothing of each other."""
    yield from ()


def validated(
    plain: Any, schema: type[Schema], rules: Callable[[Schema], Iterator[InputError]] = no_rules, prefix: str = ""
) -> Schema:
    """Plain values as the dataclass that they are of.

    Args:
        plain: nested dicts and lists
        schema: a dataclass whose fields are `setting`s or such dataclasses
        rules: what the fields must be to each other; gives an error for each rule that is broken
        prefix: of the keys, as in "sweep."

    Raises:
        InputError: a value is out of its bounds or a rule is broken; names all such keys, and has the code of the first
        MissingMandatoryValue: there is no value for a key
    """
    typed = cast(Schema, OmegaConf.to_object(OmegaConf.merge(_without_defaults(schema), escaped(plain))))
    problems = list(_out_of_bounds(typed, prefix)) or list(rules(typed))
    if problems:
        raise InputError(problems[0].code, "; ".join(map(str, problems)))
    return typed


def _without_defaults(schema: type) -> DictConfig:
    """What an older version saved must not be filled up with defaults that it was not made with."""
    blank: DictConfig = OmegaConf.structured(schema)
    for key, _ in settings(schema):
        OmegaConf.update(blank, key, MISSING)
    return blank


def settings(schema: Any, prefix: str = "") -> Iterator[tuple[str, dataclasses.Field[Any]]]:
    """Every key of a config, with what its `setting` says."""
    for field in dataclasses.fields(schema):
        key = prefix + field.name
        if dataclasses.is_dataclass(field.type):
            yield from settings(field.type, f"{key}.")
        else:
            yield key, field


def _out_of_bounds(cfg: Any, prefix: str) -> Iterator[InputError]:
    for key, field in settings(cfg):
        value = attrgetter(key)(cfg)
        if value == "" and not field.metadata["may_be_empty"]:
            yield InputError("config.empty", f"{prefix}{key} is empty: give it a value, or leave it out")
        elif value is None and field.type is Any and field.default is not None:
            yield InputError("config.null", f"{prefix}{key}=null is invalid: give a value, or leave the key out")
        elif value is not None:
            broken = (bound for bound in field.metadata["bounds"] if not bound.holds(value))
            yield from (InputError(bound.code, f"{prefix}{key}={typed(value)} {bound.predicate}") for bound in broken)
