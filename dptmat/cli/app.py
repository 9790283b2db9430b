"""The command that opens a page for the browser."""

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

import click

from dptmat.cli.console import give_up_unless_flushed, show_log
from dptmat.cli.group import dptmat
from dptmat.cli.options import amp_option, device_option
from dptmat.errors import UserError


@dptmat.command("app")
@click.option(
    "--checkpoint", metavar="FILE|DIR|hf://USER/NAME", multiple=True, required=True,
    help="Network, as for predict; give it twice to compare two.",
)  # fmt: skip
@click.option(
    "--port", metavar="NUMBER", type=click.IntRange(0, 65535),
    help="Of 127.0.0.1; 0: any that is free.  [default: from 7860 the first that is free]",
)  # fmt: skip
@device_option
@amp_option
@click.option(
    "--tile", metavar="PIXELS", type=click.IntRange(min=0),
    help="Side of the tiles of a large photograph, as for predict.  [default: 2016, for gca 1568]",
)  # fmt: skip
def app_command(checkpoint: tuple[str, ...], port: int | None, device: str, amp: str, tile: int | None) -> None:
    """Open a page for the browser: load a photograph, mark it, see alpha and cut-out, download them.

    Only this machine can open it, nothing is sent anywhere, and what was uploaded is gone when the command ends, by
    Ctrl-C.

    \b
    Examples: dptmat app --checkpoint matteformer.pt
              dptmat app --checkpoint runs/a/checkpoints/best.pt --checkpoint runs/b/checkpoints/best.pt
    """
    for package in ("gradio", "uvicorn"):
        if find_spec(package) is None:
            raise UserError(f"the page needs the package {package}; install it: pip install 'dptmat[app]'")
    from dptmat.app.server import listen, serve
    from dptmat.device import choose_device, choose_dtype
    from dptmat.tiles import require_tile
    from dptmat.weights.load import load_network

    show_log(err=True)
    if len(checkpoint) > 2:
        raise UserError(f"`checkpoint` must be given once, or twice to compare two; got {len(checkpoint)}")
    if tile is not None:
        require_tile(tile)
    where = choose_device(device)
    dtype = choose_dtype(amp, where)
    listener = listen(port)
    loaded = [load_network(path, where) for path in checkpoint]
    names = [
        f"{config['model']}, {os.path.basename(path.rstrip('/'))}"
        for path, (_, config) in zip(checkpoint, loaded, strict=True)
    ]
    if len(names) == 2:
        names = [f"{number}: {name}" for number, name in enumerate(names, 1)]
    networks = {name: network for name, (network, _) in zip(names, loaded, strict=True)}

    def build(folder: str) -> object:
        from dptmat.app.page import Page

        return Page(networks, folder, tile=tile, dtype=dtype).blocks

    with _ending_at_once():
        serve(build, listener, lambda address: click.echo(f"{address}  (Ctrl-C ends it)"))


@contextmanager
def _ending_at_once() -> Iterator[None]:
    """End the process also while a thread of the page computes, which Python would wait for, or abort at; as
    `dptmat.cli.main` ends it.
    """
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as error:
        workers = [thread for thread in threading.enumerate() if thread.name.startswith("AnyIO worker")]
        for thread in workers:
            thread.join(0.2)
        if not any(thread.is_alive() for thread in workers):
            raise
        if isinstance(error, KeyboardInterrupt):
            click.echo("dptmat: interrupted", err=True)
        give_up_unless_flushed(sys.stdout)
        os._exit(130 if isinstance(error, KeyboardInterrupt) else int(error.code or 0))
