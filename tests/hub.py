"""A Hub of the tests: a server on 127.0.0.1 with the few routes by which huggingface_hub reads and writes."""

import base64
import hashlib
import http.server
import json
import threading
from urllib.parse import unquote, urlsplit

TOKEN = "hf_TESTTOKENofNOBODY"


class Hub(http.server.ThreadingHTTPServer):
    """A server of model repositories.

    ``repos`` holds for each name its revisions, each a commit; ``commits`` the files of each. ``faults`` maps a name
    to the (status, error code) that any request for it gets.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repos, self.commits, self.faults = {}, {}, {}
        self.private, self.requests, self.sizes = {}, [], {}
        self.lfs = {}
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"

    def put(self, name, files, revision="main"):
        """Make a commit of files, bytes by path, the newest of a revision; give its hash."""
        commit = hashlib.sha1(repr((name, revision, len(self.commits))).encode()).hexdigest()
        self.commits[commit] = dict(files)
        self.repos.setdefault(name, {})[revision] = commit
        self.repos[name][commit] = commit
        return commit

    def handle_error(self, request, client_address):
        pass


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self._resolve(body=False)

    def do_GET(self):
        self._resolve(body=True)

    def _resolve(self, body):
        """``/user/name/resolve/revision/file``."""
        parts = [unquote(part) for part in urlsplit(self.path).path.split("/")[1:]]
        name = "/".join(parts[:2])
        self.server.requests.append((self.command, self.path, self.headers.get("authorization")))
        if name in self.server.faults:
            return self._refuse(*self.server.faults[name])
        if name not in self.server.repos:
            return self._refuse(401, "RepoNotFound")
        revision = parts[3]
        if revision not in self.server.repos[name]:
            return self._refuse(404, "RevisionNotFound")
        commit = self.server.repos[name][revision]
        content = self.server.commits[commit].get("/".join(parts[4:]))
        if content is None:
            return self._refuse(404, "EntryNotFound")
        self.send_response(200)
        self.send_header("X-Repo-Commit", commit)
        self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        self.send_header("Content-Length", str(self.server.sizes.get(name, len(content))))
        self.end_headers()
        if body:
            self.wfile.write(content)

    def do_POST(self):
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = unquote(urlsplit(self.path).path)
        self.server.requests.append(("POST", path, self.headers.get("authorization")))
        if self.headers.get("authorization") != f"Bearer {TOKEN}":
            return self._refuse(401, "")
        if path == "/api/repos/create":
            return self._create(json.loads(content))
        if path == "/api/validate-yaml":
            known = b"license: mit" in content or b"license: apache-2.0" in content
            errors = [] if known else [{"message": '"license" must be one of apache-2.0, mit'}]
            return self._answer({"errors": errors, "warnings": []}, 400 if errors else 200)
        name, _, verb = path.removeprefix("/api/models/").rpartition("/main")[0].rpartition("/")
        if verb == "preupload":
            files = json.loads(content)["files"]
            mode = {True: "lfs", False: "regular"}
            return self._answer({"files": [
                {"path": file["path"], "uploadMode": mode[file["path"].endswith((".safetensors", ".png"))],
                 "shouldIgnore": False, "oid": None} for file in files
            ]})  # fmt: skip
        if verb == "commit":
            return self._commit(name, [json.loads(line) for line in content.splitlines()])
        if path.endswith("/info/lfs/objects/batch"):
            objects = json.loads(content)["objects"]
            return self._answer({"transfer": "basic", "objects": [
                {**each, "actions": {"upload": {"href": f"{self.server.url}/lfs/{each['oid']}", "header": {}}}}
                for each in objects
            ]})  # fmt: skip
        return self._refuse(404, "")

    def do_PUT(self):
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.lfs[self.path.rpartition("/")[2]] = content
        self._answer({})

    def _create(self, asked):
        name = f"{asked.get('organization') or 'me'}/{asked['name']}"
        if name in self.server.faults:
            return self._refuse(*self.server.faults[name])
        url = f"{self.server.url}/{name}"
        if name in self.server.repos:
            return self._answer({"url": url}, 409)
        self.server.put(name, {})
        self.server.private[name] = bool(asked.get("private")) or asked.get("visibility") == "private"
        return self._answer({"url": url})

    def _commit(self, name, lines):
        files = {}
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.lfs[value["oid"]]
        commit = self.server.put(name, files)
        self._answer({"commitUrl": f"{self.server.url}/{name}/commit/{commit}", "commitOid": commit})

    def _answer(self, content, status=200):
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _refuse(self, status, code):
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()
