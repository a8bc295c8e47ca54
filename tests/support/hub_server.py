"""A real HTTP server that answers requests for files of a repository like Hugging Face."""

import hashlib
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

RESOLVE = re.compile(r"/([\w.-]+/[\w.-]+)/resolve/([^/]+)/(.+)$")
STORED = re.compile(r"/stored/([0-9a-f]{64})$")


@dataclass
class Repository:
    """One repository.

    Attributes:
        revisions: {branch, tag, pull request or commit: {file name: bytes}}.
        token: the token that may read it; None if everybody may.
        gated: whether its owner must grant access.
    """

    revisions: dict = field(default_factory=dict)
    token: str | None = None
    gated: bool = False


def commit_of(files):
    """The commit of a set of files on this server: 40 hexadecimal digits."""
    return hashlib.sha1(b"".join(name.encode() + data for name, data in sorted(files.items()))).hexdigest()


class HubServer:
    """Serve repositories on 127.0.0.1; a context manager.

    As with Hugging Face, weights are on another host: the answer redirects to `localhost`.

    Attributes:
        url: the address, for HF_ENDPOINT.
        repositories: {"organisation/name": `Repository`}.
        sent: names of the files whose bytes were sent.
        leaked: whether a token reached the host of the weights.
        broken: whether every request fails with 500.
        short: whether only the first half of every file is sent.
    """

    def __init__(self):
        self.repositories, self.stored = {}, {}
        self.sent, self.leaked, self.broken, self.short = [], False, False, False
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self.http.daemon_threads = True
        self.port = self.http.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self):
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()
        return self

    def __exit__(self, *error):
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()

    def add(self, name, files, revision="main", **about):
        """Put files into a repository, at a revision."""
        repository = self.repositories.setdefault(name, Repository(**about))
        repository.revisions[revision] = repository.revisions[commit_of(files)] = files


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub = None

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self._answer_request()

    def do_GET(self):
        self._answer_request()

    def _answer_request(self):
        path = urlsplit(self.path).path
        if self.hub.broken:
            return self._answer(500)
        if found := STORED.match(path):
            self.hub.leaked |= "Authorization" in self.headers
            name, data = self.hub.stored[found[1]]
            return self._answer(200, data, name, ETag=f'"{found[1]}"')
        found = RESOLVE.match(path)
        if not found:
            return self._answer(404)
        name, revision, file = (unquote(part) for part in found.groups())
        return self._resolve(self.hub.repositories.get(name), revision, file)

    def _resolve(self, repository, revision, file):
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token == "wrong":
            return self._answer(401, X_Error_Message="Invalid credentials in Authorization header")
        if repository is None or (repository.token and token != repository.token):
            return self._answer(404 if token else 401, X_Error_Code="RepoNotFound")
        if repository.gated:
            return self._answer(403, X_Error_Code="GatedRepo")
        if revision not in repository.revisions:
            return self._answer(404, X_Error_Code="RevisionNotFound")
        files = repository.revisions[revision]
        commit = {"X_Repo_Commit": commit_of(files)}
        if file not in files:
            return self._answer(404, X_Error_Code="EntryNotFound", **commit)
        data = files[file]
        if not file.endswith((".safetensors", ".bin")):
            return self._answer(200, data, file, ETag=f'"{hashlib.sha1(data).hexdigest()}"', **commit)
        sha256 = hashlib.sha256(data).hexdigest()
        self.hub.stored[sha256] = file, data
        place = f"http://localhost:{self.hub.port}/stored/{sha256}"
        linked = {"X_Linked_Etag": f'"{sha256}"', "X_Linked_Size": len(data)}
        return self._answer(302, Location=place, **linked, **commit)

    def _answer(self, status, data=b"", name=None, **headers):
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), str(value))
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "GET" and data:
            self.hub.sent.append(name)
            self.wfile.write(data[: len(data) // 2] if self.hub.short else data)
            self.close_connection = self.hub.short
