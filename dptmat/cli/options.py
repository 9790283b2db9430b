"""Options of the commands: made from the settings of a task, and those that several commands have."""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from dptmat.config.run import GROUPS, LEADING
from dptmat.config.settings import SettingsT, from_mapping, read_toml
from dptmat.defaults import DEVICES, PRECISIONS
from dptmat.errors import UserError
from dptmat.file_kinds import name_kind_of
from dptmat.files import refusal_to_write


class _Option(click.Option):
    """An option made from a field of a settings dataclass."""

    def __init__(self, field: dataclasses.Field) -> None:
        name, limits = _option_name(field.name), field.metadata
        shown = "required" if field.default is dataclasses.MISSING else f"default: {field.default}"
        super().__init__(
            [f"{name}/--no-{name[2:]}" if field.type is bool else name, field.name],
            type=click.Choice(limits["choices"]) if limits["choices"] else field.type,
            default=None,  # so that only what was given overrides the configuration file
            metavar=limits["unit"],
            help=limits["help"] + ("" if field.default == "" else f"  [{shown}]"),
        )
        self.group = limits["group"]


class _FormerOption(click.Option):
    """The former name of an option, which is still taken."""

    def __init__(self, field: dataclasses.Field) -> None:
        name = _option_name(field.metadata["formerly"])
        names = f"{name}/--no-{name[2:]}" if field.type is bool else name
        super().__init__([names, field.metadata["formerly"]], type=field.type, default=None, hidden=True)


def _option_name(name: str) -> str:
    return "--" + name.replace("_", "-")


def _rank(field: dataclasses.Field) -> tuple[int, int]:
    """Rank an option for the help text: by its group, the leading ones of each first."""
    place = LEADING.index(field.name) if field.name in LEADING else len(LEADING)
    return GROUPS.index(field.metadata["group"]), place


def settings_options(
    cls: type, groups: tuple[str, ...] = GROUPS, further: tuple[str, ...] = ()
) -> Callable[[Callable], Callable]:
    """Decorate a function with the options of a settings class: those of some groups, and further ones by name."""

    def decorate(function: Callable) -> Callable:
        fields = [f for f in dataclasses.fields(cls) if f.metadata["group"] in groups or f.name in further]
        options: list[click.Option] = [_Option(field) for field in sorted(fields, key=_rank)]
        options += [_FormerOption(field) for field in fields if field.metadata["formerly"]]
        # As click's own decorators do it, from the last to the first.
        function.__dict__.setdefault("__click_params__", []).extend(reversed(options))
        return function

    return decorate


config_file_option = click.option(
    "--config", "config_file", metavar="FILE", help="TOML file of these options, such as the config.toml of a run."
)
dry_run_option = click.option("--dry-run", is_flag=True, help="Print the resolved settings and stop.")
device_option = click.option(
    "--device", type=click.Choice(DEVICES), default="auto", show_default=True,
    help="Where the network runs; auto: on the GPU if there is one.",
)  # fmt: skip
amp_option = click.option(
    "--amp", type=click.Choice(PRECISIONS), default="off", show_default=True,
    help="Mixed precision: faster, alpha differs a little; auto: bf16 where the GPU has it, fp16 on older ones.",
)  # fmt: skip


def out_folder_option(what: str) -> Callable[[Callable], Callable]:
    return click.option("--out", required=True, metavar="DIR", help=f"Folder of {what}; made if missing.")


def resolve(cls: type[SettingsT], config_file: str | None, options: dict[str, Any]) -> SettingsT:
    """Take settings from a configuration file and options; what the command line gives wins."""
    values = read_toml(config_file, "--config") if config_file else {}
    given = {name: value for name, value in options.items() if value is not None}
    for field in dataclasses.fields(cls):  # of a former name and the present one the command line's wins
        if field.name in given:
            values.pop(field.metadata["formerly"], None)
        if field.metadata["formerly"] in given:
            values.pop(field.name, None)
    return from_mapping(cls, {**values, **given}, f"--config {config_file}" if config_file else "options")


def require_place_for_a_file(
    path: str, name: str, read: str | Path | None = None, replaces: tuple[str, ...] | None = None
) -> None:
    """Refuse a file to be written that is a folder, lies in none, cannot be written, or would replace something else.

    Args:
        path: The file.
        name: How messages call it.
        read: A file that is read, and stays.
        replaces: What a file that is there already may be, as `dptmat.file_kinds.name_kind` calls it; by default
            anything.

    Raises:
        UserError: It is so.
    """
    if read is not None and Path(path).exists() and Path(read).exists() and Path(path).samefile(read):
        raise UserError(f"{name} is what is read; give another name")
    if Path(path).is_dir() or not Path(os.path.realpath(path)).parent.is_dir():
        raise UserError(f"{name} is a folder or in none; give the name of a file in a folder that exists")
    kind = name_kind_of(path) if Path(path).is_file() else ""
    if kind and replaces is not None and not kind.startswith(replaces):
        raise UserError(f"{name} is there already and is {kind}; give another name")
    if refusal := refusal_to_write(path):
        raise UserError(f"{name} cannot be written: {refusal}; give a place that this user may write to")


def require_place_for_files(folder: str, names: tuple[str, ...]) -> None:
    """Refuse a folder to be written that is a file, lies in none, cannot be written, or holds anything but such files.

    Args:
        folder: The folder; it may be missing.
        names: Of the files.

    Raises:
        UserError: It is so.
    """
    path = Path(os.path.realpath(folder))
    if path.is_dir():
        if others := sorted(file.name for file in path.iterdir() if file.name not in names):
            raise UserError(f"{folder} holds other files already, such as {others[0]}; give a new folder")
    elif path.exists() or not path.parent.is_dir():
        raise UserError(f"{folder} is a file or in no folder; give the name of a new folder in one that exists")
    if refusal := refusal_to_write(path / names[0] if path.is_dir() else path):
        raise UserError(f"{folder} cannot be written: {refusal}; give a place that this user may write to")
