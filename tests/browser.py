"""Chromium without a window, driven by its DevTools protocol over a socket: only the browser itself is needed.

On Debian: apt-get install chromium
"""

import base64
import json
import os
import shutil
import socket
import subprocess
import tempfile

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_ALONE = [
    "--headless", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-extensions", "--hide-scrollbars",
    "--remote-debugging-pipe",
]  # fmt: skip


class Page:
    """A page of a browser of its own, which ends with the block ``with Page() as page``.

    ``requests`` has the address of all that the page has asked for, ``complaints`` what the browser has said about it:
    exceptions, and warnings and errors of the console.

    Args:
        width, height: Of the window, in pixels.
        scheme: The colour scheme that the reader prefers, "light" or "dark".
    """

    def __init__(self, width=1280, height=900, scheme="light"):
        self.requests, self.complaints = [], []
        self._number, self._received, self._session = 0, b"", {}
        self._profile = tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True)
        self._socket, theirs = socket.socketpair()
        self._socket.settimeout(60)
        root = ["--no-sandbox"] if os.geteuid() == 0 else []  # for root the browser does not start with one
        command = [CHROMIUM, *_ALONE, *root, f"--user-data-dir={self._profile.name}", "about:blank"]
        with theirs:
            at = theirs.fileno()  # the browser reads commands from descriptor 3 and answers on 4
            self._browser = subprocess.Popen(
                ["bash", "-c", f'exec "$@" 3<&{at} 4>&{at}', "bash", *command],
                pass_fds=[at], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
        target = next(t for t in self.call("Target.getTargets")["targetInfos"] if t["type"] == "page")
        session = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)["sessionId"]
        self._session = {"sessionId": session}
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500
        )
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._socket.close()  # at which the browser ends
        self._browser.wait(timeout=60)
        self._profile.cleanup()

    def open(self, path):
        """Load a file and wait until its pictures are decoded."""
        self.call("Page.navigate", url=path.absolute().as_uri())
        self._wait_for("Page.loadEventFired")
        self.run("Promise.all([...document.images].map(image => image.decode().catch(() => 0)))")

    def run(self, script):
        """Value of a JavaScript expression; a promise is waited for."""
        answer = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"])
        return answer["result"].get("value")

    def press(self, key):
        """Press a key, such as ArrowRight, where the focus is."""
        code = {"Tab": 9, "Enter": 13, "End": 35, "Home": 36, "ArrowLeft": 37, "ArrowRight": 39}[key]
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)

    def point(self, x, y, kind="mouseMoved", **more):
        """Move the mouse, in pixels of the window."""
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)

    def screenshot(self, whole=False):
        """The window, or all of the page, as the bytes of a PNG file."""
        return base64.b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=whole)["data"])

    def call(self, method, **parameters):
        """Result of a command of the protocol."""
        self._number += 1
        command = {"id": self._number, "method": method, "params": parameters, **self._session}
        self._socket.sendall(json.dumps(command).encode() + b"\0")
        while True:
            message = self._next()
            if message.get("id") == self._number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']}")
                return message["result"]

    def _wait_for(self, event):
        while self._next().get("method") != event:
            pass

    def _next(self):
        while b"\0" not in self._received:
            received = self._socket.recv(1 << 20)
            if not received:
                raise RuntimeError("the browser has ended")
            self._received += received
        message, _, self._received = self._received.partition(b"\0")
        message = json.loads(message)
        details = message.get("params", {})
        if message.get("method") == "Network.requestWillBeSent":
            self.requests.append(details["request"]["url"])
        elif message.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(str(details["exceptionDetails"]))
        elif message.get("method") == "Log.entryAdded" and details["entry"]["level"] in ("warning", "error"):
            self.complaints.append(details["entry"]["text"])
        elif message.get("method") == "Runtime.consoleAPICalled" and details["type"] in ("warning", "error", "assert"):
            self.complaints.append(str(details["args"]))
        return message
