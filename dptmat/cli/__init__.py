"""The ``dptmat`` command: reads options, calls one function of the library, and turns user errors into one line.

Each command imports its task itself, so that ``--help`` need not wait for PyTorch.
"""

import sys

import click

from dptmat.cli import (  # noqa: F401 - each adds its commands to the group
    app,
    data,
    foregrounds,
    mattes,
    networks,
    pack,
    train,
    trimaps,
)
from dptmat.cli.console import escape, give_up_unless_flushed, open_streams
from dptmat.cli.group import dptmat
from dptmat.errors import UserError


def main() -> None:
    """Run the command: exit status 2 and one line for what a user can mend."""
    open_streams()
    try:
        status = dptmat.main(standalone_mode=False)
        give_up_unless_flushed(sys.stdout)
        sys.exit(status)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
    except click.ClickException as error:
        click.echo(f"dptmat: {escape(error.format_message())}", err=True)
    except click.Abort:
        click.echo("dptmat: interrupted", err=True)
        sys.exit(130)
    except BrokenPipeError:  # of an answer: who reads it has had enough
        give_up_unless_flushed(sys.stdout)
        sys.exit(1)
    except (UserError, OSError) as error:
        give_up_unless_flushed(sys.stdout)
        click.echo(f"dptmat: {escape(str(error))}", err=True)
    sys.exit(2)
