"""What --help prints: every key of a command with its value, its meaning and its bounds."""

import re
from dataclasses import Field
from functools import reduce
from io import StringIO
from typing import Any, get_args

from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from hp_lightning.common.hydra_grammar import typed
from hp_lightning.schema.checks import settings
from hp_lightning.schema.setting import Bound

WIDTH = 120
LONGEST_VALUE = 40


def help_template(schema: type, cfg: DictConfig, program: str) -> str:
    """The help of a command as a template, in which Hydra puts the config groups.

    Args:
        schema: the dataclass of its config
        cfg: the config that the command line composes, with Hydra's own
        program: what a person has started
    """
    has_groups = any(not re.search("^hydra/|@", choice) for choice in cfg.hydra.runtime.choices)
    groups = ["Groups; choose by group=choice:", "", "$APP_CONFIG_GROUPS"] if has_groups else []
    usage = f"{program} [key=value...]: {str(schema.__doc__).strip()}"
    keys = keys_table(schema, OmegaConf.to_container(cfg, resolve=False)).replace("$", "$$")
    return "\n".join((usage, "", *groups, "Keys and their values; change one by key=value:", "", keys))


def keys_table(schema: type, values: Any, keys: str = "") -> str:
    """A line or two for each key: its value, its meaning and its bounds.

    Args:
        schema: the dataclass of a config
        values: nested dicts of its values
        keys: a regular expression of those that are shown
    """
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    for key, field in settings(schema):
        if re.match(keys, key):
            said = [field.metadata["meaning"], *(_predicate(bound, field) for bound in field.metadata["bounds"])]
            table.add_row(f"{key}={_shown(reduce(dict.__getitem__, key.split('.'), values))}", "; ".join(said))
    page = StringIO()
    Console(file=page, width=WIDTH, color_system=None, markup=False, emoji=False, highlight=False).print(table)
    return "\n".join(line.rstrip() for line in page.getvalue().splitlines())


def _predicate(bound: Bound, field: Field[Any]) -> str:
    may_be_null = type(None) in get_args(field.type)
    return bound.predicate.replace("must be", "must be null or") if may_be_null else bound.predicate


def _shown(value: Any) -> str:
    word = typed(value)
    return word if len(word) <= LONGEST_VALUE else f"{word[:LONGEST_VALUE]}..."
