"""Settings of a task as a frozen dataclass: the same names, defaults and limits in Python, TOML files and options."""

import dataclasses
import difflib
import logging
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import tomli_w

from dptmat.errors import UserError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

_logger = logging.getLogger(__name__)

# Largest numbers of settings without a limit of their own.
_MOST: dict[type, float] = {int: 2**31 - 1, float: 1e30}
_LONGEST = 1000  # letters of one that is a word, or words
_LARGEST = 1 << 20  # bytes of a file of settings

SettingsT = TypeVar("SettingsT", bound="DataclassInstance")


def setting(
    default: Any,
    help: str,
    *,
    unit: str | None = None,
    low: float | None = None,
    high: float | None = None,
    choices: Sequence[str] | None = None,
    group: str = "Run",
    changeable_on_resume: bool = False,
    formerly: str | None = None,
) -> Any:
    """Make a field of a settings dataclass.

    Args:
        default: Its default; the type of the field's annotation.
        help: One line on meaning, for the help text.
        unit: The unit or kind of value, shown in the help text.
        low, high: Smallest and largest value allowed.
        choices: The values allowed.
        group: Heading in the help text.
        changeable_on_resume: Whether a resumed run may change it; the others decide what the run computes.
        formerly: The name that it had in an earlier version, which is still taken.
    """
    metadata = {
        "help": help, "unit": unit, "low": low, "high": high, "choices": choices, "group": group,
        "changeable_on_resume": changeable_on_resume, "formerly": formerly,
    }  # fmt: skip
    return dataclasses.field(default=default, metadata=metadata)


def check(settings: "DataclassInstance") -> None:
    """Check every field against its limits.

    Raises:
        UserError: A value is not of the type of its field, or outside its limits; the message names the field.
    """
    for field in dataclasses.fields(settings):
        value, limits = getattr(settings, field.name), field.metadata
        kind: Any = field.type
        allowed = (int, float) if kind is float else kind
        if not isinstance(value, allowed) or (isinstance(value, bool) and kind is not bool):
            raise UserError(f"`{field.name}` must be of type {kind.__name__}, got {_short(value)}")
        if limits["choices"] and value not in limits["choices"]:
            raise UserError(f"`{field.name}` must be one of {', '.join(limits['choices'])}; got {_short(value)}")
        if kind is float and not abs(value) < math.inf:  # of whole numbers, too, however large
            raise UserError(f"`{field.name}` must be a finite number; got {value}")
        if isinstance(value, str) and not is_path(field) and not (value.isprintable() and len(value) <= _LONGEST):
            raise UserError(f"`{field.name}` must be a word or words in one line; got {_short(value)}")
        empty = value == "" and field.default is dataclasses.MISSING
        if is_path(field) and (empty or "\0" in str(value)):
            raise UserError(f"`{field.name}` must be the path of a file or folder; got {_short(value)}")
        low, high = limits["low"], limits["high"]
        if (low is not None and not value >= low) or (high is not None and not value <= high):
            raise UserError(f"`{field.name}` must be {_expected(low, high)}; got {_short(value)}")
        if kind in _MOST and high is None and value > _MOST[kind]:
            raise UserError(f"`{field.name}` must be {_MOST[kind]} or less; got {_short(value)}")


def is_path(field: dataclasses.Field) -> bool:
    """Tell whether a field is the path of a file or folder, perhaps with other words that it may be."""
    return bool({"DIR", "FILE"} & set((field.metadata["unit"] or "").split("|")))


def _short(value: object) -> str:
    """Write a value that is refused as Python does, of 100 letters at most, however long it is."""
    if isinstance(value, int) and value.bit_length() > 300:
        return f"a number of {value.bit_length()} bits"
    text = repr(value[:100]) if isinstance(value, str | bytes) else repr(value)
    return text if len(text) <= 110 else f"{text[:100]}..."


def _expected(low: float | None, high: float | None) -> str:
    if low is None or high is None:
        return f"{low} or more" if high is None else f"{high} or less"
    return f"{low} to {high}"


def from_mapping(cls: type[SettingsT], values: Mapping[str, Any], source: str) -> SettingsT:
    """Make settings of class ``cls`` from values by name; paths may be strings or ``pathlib`` ones.

    Args:
        cls: A settings dataclass.
        values: Of the fields; those that are not there have their defaults. Former names are taken, with a note.
        source: What messages call ``values``.

    Raises:
        UserError: A name is unknown, a required field is missing, or a value is refused.
    """
    fields = {field.name: field for field in dataclasses.fields(cls)}
    former = {field.metadata["formerly"]: name for name, field in fields.items() if field.metadata["formerly"]}
    given = {}
    for name, value in values.items():
        if name in former:
            if former[name] in values:
                raise UserError(f"{source}: {name} is the former name of {former[name]}; give one of them")
            _logger.warning("%s: %s is called %s now", source, name, former[name])
        elif name not in fields:
            near = difflib.get_close_matches(name, fields, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known keys: {', '.join(fields)}"
            raise UserError(f"{source}: unknown key {name!r}; {hint}")
        name = former.get(name, name)
        value = os.fspath(value) if isinstance(value, os.PathLike) else value
        # What a shell does only where the path is a word of its own, and never in a file.
        given[name] = os.path.expanduser(value) if isinstance(value, str) and is_path(fields[name]) else value
    required = (name for name, field in fields.items() if field.default is dataclasses.MISSING)
    missing = [f"`{name}`" for name in sorted(required) if name not in given]
    if missing:
        raise UserError(f"missing: {', '.join(missing)}; give each as an option or as a key of the --config file")
    return cls(**given)


def take_settings(cls: type[SettingsT], settings: SettingsT | None, options: Mapping[str, Any], call: str) -> SettingsT:
    """Take the settings of a Python call, which are given whole or by name.

    Args:
        cls: Their class.
        settings: All of them, or None.
        options: By name.
        call: What messages call the function.

    Raises:
        TypeError: They are given in neither or in both ways.
        UserError: As for `from_mapping`.
    """
    if settings is None:
        return from_mapping(cls, options, f"{call}()")
    if not isinstance(settings, cls) or options:
        example = f'{call}(data="photos", out="runs/first")' if call == "pretrain" else f"{call}(fg=..., out=...)"
        raise TypeError(f"{call}() takes a {cls.__name__}, or settings by name such as {example}; got {settings!r}")
    return settings


def read_toml(path: str | Path, name: str) -> dict[str, Any]:
    """Read a TOML file; ``name`` is what messages call it.

    Raises:
        UserError: It is missing, larger than a file of settings, or not TOML.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(_LARGEST + 1)
        if len(content) > _LARGEST:
            raise ValueError(f"it has more than {_LARGEST} bytes")
        return tomllib.loads(os.fsdecode(content))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{name} {path} cannot be read as TOML: {error}") from error


def to_toml(settings: "DataclassInstance") -> str:
    """Write every setting, defaults included, as the text of a TOML file: ``--config`` with it repeats the run."""
    return tomli_w.dumps(dataclasses.asdict(settings))
