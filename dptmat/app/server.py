"""The page's server: on this machine alone, with a temporary folder that is gone afterwards."""

import os
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.parse import urlsplit

from dptmat.errors import UserError

HOST = "127.0.0.1"
PORTS = range(7860, 7960)
MOST_BYTES = "100mb"  # of an uploaded file
# Nothing is loaded from elsewhere, and nothing sent there, whatever gets into the page; no other page may frame it.
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; connect-src 'self' data: blob:; worker-src 'self' blob:; font-src 'self' data:; "
    "object-src 'none'; frame-ancestors 'none'; form-action 'self'"
)
_PATIENCE = 2  # seconds that what is under way has at the end


def listen(port: int | None) -> socket.socket:
    """Take a port of this machine: the one that is given, 0 for any; by default the first of PORTS that is free.

    Raises:
        UserError: It is taken, or may not be.
    """
    for candidate in PORTS if port is None else [port]:
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if os.name == "posix":  # elsewhere it would take a port from another program
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, candidate))
            listener.listen()
            return listener
        except OSError as error:
            listener.close()
            reason = error.strerror or str(error)
    which = f"`port` {port}" if port is not None else f"the ports {PORTS[0]} to {PORTS[-1]}"
    raise UserError(f"{which}: {reason}; give another `port`, or 0 for any that is free")


def serve(build: Callable[[str], Any], listener: socket.socket, ready: Callable[[str], object]) -> None:
    """Serve a page until a signal ends it: Ctrl-C as KeyboardInterrupt, others as SystemExit.

    Args:
        build: Makes the page, a ``gradio.Blocks``, for a temporary folder.
        listener: As of `listen`; closed afterwards.
        ready: Is told the page's address when it can be opened.
    """
    with listener, _signals(), _temporary_folder() as folder:
        import uvicorn

        app = _application(build(folder), listener.getsockname()[1])
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            while not server.started and thread.is_alive():
                thread.join(0.05)
            ready(f"http://{HOST}:{listener.getsockname()[1]}")
            while thread.is_alive():
                thread.join(0.5)
        finally:
            server.should_exit = True
            thread.join(_PATIENCE)


@contextmanager
def _temporary_folder() -> Iterator[str]:
    """A folder that all temporary files go to, gradio's too, and that is removed afterwards."""
    former = tempfile.tempdir
    with tempfile.TemporaryDirectory(prefix="dptmat-app-", ignore_cleanup_errors=True) as folder:
        folder = os.path.realpath(folder)
        os.environ["GRADIO_TEMP_DIR"] = tempfile.tempdir = folder
        try:
            yield folder
        finally:
            os.environ.pop("GRADIO_TEMP_DIR", None)
            tempfile.tempdir = former


@contextmanager
def _signals() -> Iterator[None]:
    """End by SystemExit where a signal would end the process at once, and leave the folder behind."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    ending = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    heard = [number for number in ending if signal.getsignal(number) != signal.SIG_IGN]
    former = {number: signal.signal(number, leave) for number in heard}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _application(page: Any, port: int) -> Any:
    """Mount the page where this machine alone can ask for it, and by no other name: else any web site could."""
    import gradio
    from fastapi import FastAPI
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    gradio.mount_gradio_app(
        app, page, path="/", server_name=HOST, server_port=port, footer_links=[], run_history=False, allowed_paths=[],
        show_error=False, max_file_size=MOST_BYTES, ssr_mode=False, enable_monitoring=False, mcp_server=False,
        pwa=False, css_paths=Path(__file__).with_name("page.css"),
    )  # fmt: skip
    page.has_launched = True  # from here on gradio takes files from its own folder alone
    app.add_middleware(_Guard)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])
    return app


class _Guard:
    """Answers with _POLICY, refuses what pages of other sites send, and fetches nothing from the web for anybody."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        async def send_with_policy(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                headers = {"content-security-policy": _POLICY, "referrer-policy": "same-origin"}
                message["headers"] = [*message["headers"], *((k.encode(), v.encode()) for k, v in headers.items())]
            await send(message)

        if scope["type"] == "http" and (_is_of_another_site(scope) or "file=http" in scope["path"].lower()):
            await send_with_policy({"type": "http.response.start", "status": 403, "headers": []})
            await send({"type": "http.response.body", "body": b""})
        else:
            await self._app(scope, receive, send_with_policy)


def _is_of_another_site(scope: MutableMapping[str, Any]) -> bool:
    origin = dict(scope["headers"]).get(b"origin", b"").decode("latin-1")
    return bool(origin) and urlsplit(origin).hostname not in (HOST, "localhost")
