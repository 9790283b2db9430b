"""Settings of a task as a frozen dataclass: the same names, defaults and limits in Python, TOML files and options."""

import dataclasses
import difflib
import os
from pathlib import Path

import tomli_w

from dptmat.errors import UserError

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib


def setting(default, help, *, unit=None, low=None, high=None, choices=None, group="Run", free=False):
    """A field of a settings dataclass.

    Args:
        default: Its default; the type of the field's annotation.
        help: One line on meaning, for the help text.
        unit: The unit or kind of value, shown in the help text.
        low, high: Smallest and largest value allowed.
        choices: The values allowed.
        group: Heading in the help text.
        free: Whether a resumed run may change it; the others decide what the run computes.
    """
    metadata = {"help": help, "unit": unit, "low": low, "high": high, "choices": choices, "group": group, "free": free}
    return dataclasses.field(default=default, metadata=metadata)


def option_name(field):
    """The command-line name of a field: ``batch_size`` is ``--batch-size``."""
    return "--" + field.name.replace("_", "-")


def check(config):
    """Check every field against its limits.

    Raises:
        UserError: A value is not of the type of its field, or outside its limits; the message names the option.
    """
    for field in dataclasses.fields(config):
        name, value, limits = option_name(field), getattr(config, field.name), field.metadata
        allowed = (int, float) if field.type is float else field.type
        if not isinstance(value, allowed) or (isinstance(value, bool) and field.type is not bool):
            raise UserError(f"{name} must be of type {field.type.__name__}, got {value!r}")
        if limits["choices"] and value not in limits["choices"]:
            raise UserError(f"{name} must be one of {', '.join(limits['choices'])}; got {value!r}")
        low, high = limits["low"], limits["high"]
        if (low is not None and not value >= low) or (high is not None and not value <= high):
            expected = (
                f"{low} to {high}"
                if None not in (low, high)
                else f"{low} or more"
                if high is None
                else f"{high} or less"
            )
            raise UserError(f"{name} must be {expected}; got {value}")


def from_mapping(cls, values, source):
    """Settings of class ``cls`` from a dictionary; ``source`` names it in messages.

    Raises:
        UserError: A key is unknown, or a required one is missing.
    """
    fields = {field.name: field for field in dataclasses.fields(cls)}
    for key in values:
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known keys: {', '.join(fields)}"
            raise UserError(f"{source}: unknown key {key!r}; {hint}")
    missing = [
        option_name(field)
        for field in fields.values()
        if field.default is dataclasses.MISSING and field.name not in values
    ]
    if missing:
        raise UserError(
            f"missing: {', '.join(sorted(missing))}; give each as an option or as a key of the --config file"
        )
    return cls(**values)


def read_toml(path, name="--config"):
    """A TOML file as a dictionary; ``name`` is what messages call it.

    Raises:
        UserError: It is missing or not TOML.
    """
    try:
        return tomllib.loads(os.fsdecode(Path(path).read_bytes()))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{name} {path} cannot be read as TOML: {error}") from error


def to_toml(config):
    """Every setting, defaults included, as the text of a TOML file: ``--config`` with it repeats the run."""
    return tomli_w.dumps(dataclasses.asdict(config))
