"""A real HTTP server with Zenodo's API for the files of a folder, and with the faults of the real Zenodo.

`python tests/support/zenodo_server.py FOLDER [PORT]` serves until it is interrupted; set ZENODO_URL to the
address that it prints.
"""

import contextlib
import hashlib
import json
import re
import sys
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

BLOCK = 1 << 16
RECORD = re.compile(r"/api/records/(\d+)$")
CONTENT = re.compile(r"/api/records/(\d+)/files/([^/]+)/content$")
PAGE = re.compile(r"/records/(\d+)/files/([^/]+)$")
# The files of the record that tests make.
TABLE, PARTS = "gz_decals_volunteers_5.csv", ["part1.zip", "part2.zip"]


class ZenodoServer:
    """Serve one record on 127.0.0.1; a context manager.

    Attributes:
        url: the address, for ZENODO_URL.
        record: the JSON of the record; a test may change it.
        requests: {file name, or "record": number of requests for it}.
        served: {file name: bytes of bodies sent}.
        ranges: [(file name, first byte, last byte)] of the answers 206, in order.
        agents: the User-Agents of all requests.
        failures: answers instead of the file, (status, headers), one for each request.
        instead: bodies instead of the file or the record, (blocks, headers), one for each request; with the
            header Transfer-Encoding their length is not announced.
        cuts: bytes after which the connection is cut, one number for each request.
        whole_only: routes that ignore ranges: "content", "page".
        shift: bytes by which the answers to ranges begin too late.
        corrupt: names of files that are sent with wrong bytes.
        missing: names of files that the record lists and the server does not have.
        limit: (requests, seconds), the rate limit to announce and to enforce, or None.
        refused: number of requests over this limit, which are answered with 429.
        pause: seconds to wait before each 64 kB, so that a test can interrupt the download.
        most_at_once: the largest number of files that were sent at the same time.
    """

    def __init__(self, folder, port=0):
        self.folder = Path(folder)
        self.record = _record_of(self.folder)
        self.requests, self.served = Counter(), Counter()
        self.ranges, self.agents = [], set()
        self.failures, self.instead, self.cuts = [], [], []
        self.whole_only, self.corrupt, self.missing = set(), set(), set()
        self.limit, self.refused, self.pause = None, 0, 0.0
        self.shift = 0
        self.at_once, self.most_at_once = 0, 0
        self.window = (0.0, 0)
        self.lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"zenodo": self})
        self.http = _Quiet(("127.0.0.1", port), handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"

    def __enter__(self):
        serve = {"poll_interval": 0.02}
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs=serve, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *error):
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()

    def entry(self, name):
        """A file's entry in the record's JSON; a test may change it."""
        return next((file for file in self.record["files"] if file["key"] == name), None)

    def fail(self, status, times=1, **headers):
        """Answer the next requests for files or the record with a status, e.g. `Retry_After=1`."""
        headers = {name.replace("_", "-"): str(value) for name, value in headers.items()}
        self.failures += [(status, headers)] * times

    def forget(self):
        """Start counting from 0."""
        self.requests.clear()
        self.served.clear()
        self.ranges.clear()

    @contextlib.contextmanager
    def sending(self):
        """Count a file as being sent."""
        with self.lock:
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            yield
        finally:
            with self.lock:
                self.at_once -= 1

    def spend(self):
        """Count one request against the rate limit: (headers to announce, whether it is allowed)."""
        if self.limit is None:
            return {}, True
        most, seconds = self.limit
        with self.lock:
            ends, left = self.window
            if time.time() >= ends:
                # Zenodo announces the end of the window in whole seconds.
                ends, left = float(int(time.time() + seconds) + 1), most
            self.window = (ends, max(left - 1, 0))
        announced = {
            "X-RateLimit-Limit": most,
            "X-RateLimit-Remaining": max(left - 1, 0),
            "X-RateLimit-Reset": int(ends),
        }
        return announced, left > 0


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        # The tests are about clients that disconnect.
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    zenodo = None

    def log_message(self, *words):
        pass

    def do_GET(self):
        zenodo = self.zenodo
        path = unquote(urlsplit(self.path).path)
        record, content, page = (route.fullmatch(path) for route in (RECORD, CONTENT, PAGE))
        found = content or page
        name = found[2] if found else "record" if record else path
        with zenodo.lock:
            zenodo.requests[name] += 1
            zenodo.agents.add(self.headers.get("User-Agent", ""))
            failure = zenodo.failures.pop(0) if zenodo.failures else None
            instead = zenodo.instead.pop(0) if zenodo.instead and not failure else None
        self.rate, allowed = zenodo.spend()
        if not allowed:
            zenodo.refused += 1
            failure = (429, {})
        if failure:
            self.answer(failure[0], b"it does not work now", failure[1])
        elif instead:
            self.send_instead(*instead)
        elif record:
            self.send_record(record[1])
        elif found and int(found[1]) == zenodo.record["id"]:
            self.send_file(name, "content" if content else "page")
        else:
            self.answer(404, b'{"status": 404, "message": "not found"}')

    def answer(self, status, body=b"", headers=None, kind="application/json"):
        self.send_head(status, len(body), {"Content-Type": kind, **(headers or {})})
        self.wfile.write(body)

    def send_head(self, status, length, headers):
        self.send_response(status)
        announced = {} if length is None else {"Content-Length": length}
        for name, value in {**self.rate, **headers, **announced}.items():
            self.send_header(name, str(value))
        self.end_headers()

    def send_instead(self, blocks, headers):
        chunked = "Transfer-Encoding" in headers
        self.send_head(200, None if chunked else sum(map(len, blocks)), headers)
        # A client that has enough closes the connection.
        with contextlib.suppress(ConnectionError):
            for block in blocks:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(block), block) if chunked else block)
            if chunked:
                self.wfile.write(b"0\r\n\r\n")

    def send_record(self, number):
        record = self.zenodo.record
        if number == str(record["conceptrecid"]):
            self.answer(302, b"", {"Location": f"{self.zenodo.url}/api/records/{record['id']}"})
        elif number == str(record["id"]):
            self.answer(200, json.dumps(record).encode())
        else:
            self.answer(404, b'{"status": 404, "message": "The persistent identifier does not exist."}')

    def send_file(self, name, route):
        zenodo = self.zenodo
        path = zenodo.folder / name
        if zenodo.entry(name) is None or name in zenodo.missing or not path.is_file():
            return self.answer(404, b'{"status": 404, "message": "not found"}')
        size = path.stat().st_size
        start, stop, status, headers = 0, size, 200, {}
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked and route not in zenodo.whole_only:
            start, stop = int(asked[1]) + zenodo.shift, min(int(asked[2] or size - 1) + 1, size)
            if start >= size:
                return self.answer(416, b"", {"Content-Range": f"bytes */{size}"})
            status = 206
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
            with zenodo.lock:
                zenodo.ranges.append((name, start, stop - 1))
        self.send_head(status, stop - start, {"Content-Type": "application/octet-stream", **headers})
        with zenodo.lock:
            cut = zenodo.cuts.pop(0) if zenodo.cuts else None
        with contextlib.suppress(ConnectionError), zenodo.sending(), open(path, "rb") as file:
            file.seek(start)
            self.copy(file, name, stop - start if cut is None else min(cut, stop - start))
        if cut is not None:
            self.close_connection = True

    def copy(self, file, name, left):
        zenodo = self.zenodo
        while left:
            if zenodo.pause:
                time.sleep(zenodo.pause)
            block = file.read(min(BLOCK, left))
            if name in zenodo.corrupt:
                block = bytes([block[0] ^ 1]) + block[1:]
            self.wfile.write(block)
            left -= len(block)
            with zenodo.lock:
                zenodo.served[name] += len(block)


def _record_of(folder):
    if (folder / "record.json").is_file():
        return json.loads((folder / "record.json").read_text())
    files = []
    for path in sorted(path for path in folder.iterdir() if path.is_file() and path.name[0] != "."):
        with open(path, "rb") as file:
            md5 = hashlib.file_digest(file, "md5").hexdigest()
        link = f"https://zenodo.org/api/records/99990001/files/{path.name}/content"
        about = {"key": path.name, "size": path.stat().st_size, "checksum": f"md5:{md5}"}
        files.append({**about, "links": {"self": link}})
    return {"id": 99990001, "conceptrecid": "99990000", "files": files}


def main():
    """Serve the folder of the command line until interrupted."""
    if len(sys.argv) not in (2, 3):
        sys.exit("usage: python tests/support/zenodo_server.py FOLDER [PORT]")
    with ZenodoServer(sys.argv[1], int(sys.argv[2]) if len(sys.argv) == 3 else 0) as server:
        print(server.url, flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            server.thread.join()


if __name__ == "__main__":
    main()
