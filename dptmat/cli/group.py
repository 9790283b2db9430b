"""The command ``dptmat`` itself, which the others belong to, and how it names options in errors."""

import os
import re
from typing import Any

import click

from dptmat.errors import UserError


class Command(click.Command):
    """A command whose help lists its options by groups, and whose errors name its options.

    The library names its parameters, between backticks.
    """

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        groups: dict[str, list[tuple[str, str]]] = {}
        for option in self.get_params(ctx):
            record = option.get_help_record(ctx)
            if record:
                groups.setdefault(getattr(option, "group", "Options"), []).append(record)
        for name, records in groups.items():
            with formatter.section(name):
                formatter.write_dl(records)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Judge what stands for files and folders: a tilde is the home folder, and nothing is no path.

        Options made from settings are judged with these, where some may be empty.

        Raises:
            click.ClickException: An option that stands for a file or folder is empty.
        """
        rest = super().parse_args(ctx, args)
        for parameter in self.params:
            name, value = parameter.name or "", ctx.params.get(parameter.name or "")
            values = value if isinstance(value, tuple) else (value,)
            if not all(isinstance(each, str) for each in values) or not _is_path(parameter):
                continue
            if hasattr(parameter, "group"):
                continue
            for each in values:
                if not each or "\0" in each:
                    raise click.ClickException(
                        f"{parameter.opts[0]} must be the path of a file or folder; got {each!r}"
                    )
            expanded = tuple(map(os.path.expanduser, values))
            ctx.params[name] = expanded if isinstance(value, tuple) else expanded[0]
        return rest

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except UserError as error:
            raise click.ClickException(with_options(str(error), self)) from error


def _is_path(parameter: click.Parameter) -> bool:
    words = (parameter.metavar or "").replace(".", "|").split("|")  # such as DIR|FILE or FILE.png
    return bool({"DIR", "FILE", "IN", "OUT"} & set(words))


def with_options(message: str, command: click.Command) -> str:
    """Write the parameters that a message of the library names, between backticks, as options of the command."""
    options = {parameter.name: parameter.opts[0] for parameter in command.params}
    return re.sub(r"`(\w+)`", lambda name: options.get(name[1], name[1]), message)


class Group(click.Group):
    command_class = Command


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="dptmat", prog_name="dptmat")
def dptmat() -> None:
    """Pre-train image-matting networks without labels; fine-tune, score and use them.

    \b
    A matte (alpha) says of each pixel how opaque the foreground is there.
    A trimap marks what is surely foreground, surely background, and unknown.
    """
