"""A server of records whose answers have faults.

A fault is a function of (random.Random, bytes of the file) that returns one of `Faulty.troubles`.
"""

import contextlib
import functools
import json
import re
import socket
import struct

from zenodo_server import ZenodoServer, _Handler

PAGE = b"<!DOCTYPE html>\n<html><body>We are down for maintenance.</body></html>"


class Faulty(ZenodoServer):
    """A server that has troubles with the requests for one name.

    Attributes:
        troubles: functions of the handler, one for each request; they answer and return True, or spoil the
            answer that follows.
        name: of the file, or "record".
    """

    def __init__(self, folder):
        super().__init__(folder)
        self.troubles, self.name = [], None
        self.http.RequestHandlerClass = type("Handler", (_FaultyHandler,), {"zenodo": self})


class _FaultyHandler(_Handler):
    rate = {}

    def do_GET(self):
        name = "record" if re.search(r"/records/\d+$", self.path) else self.path.rsplit("/files/")[-1]
        name = name.removesuffix("/content")
        with self.zenodo.lock:
            hit = self.zenodo.troubles and name == self.zenodo.name
            trouble = self.zenodo.troubles.pop(0) if hit else None
        writer = self.wfile
        try:
            if not (trouble and trouble(self)):
                super().do_GET()
        finally:
            self.wfile = writer

    def asked(self):
        """The complete content, and the first and last byte that are asked for (None without a range)."""
        if self.zenodo.name == "record":
            return json.dumps(self.zenodo.record).encode(), None
        content = (self.zenodo.folder / self.zenodo.name).read_bytes()
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        return content, found and (int(found[1]), min(int(found[2] or len(content)), len(content) - 1))

    def send_other(self, change):
        """Answer with a changed body; the headers say what its length is."""
        content, part = self.asked()
        headers = {} if part is None else {"Content-Range": f"bytes {part[0]}-{part[1]}/{len(content)}"}
        body = change(content if part is None else content[part[0] : part[1] + 1])
        self.answer(200 if part is None else 206, body, headers)
        return True


class _Spoiled:
    """A writer that lets some bytes through, and then spoils the connection."""

    def __init__(self, handler, most, spoil):
        self.handler, self.writer, self.left, self.spoil = handler, handler.wfile, most, spoil
        self.closed = False

    def write(self, data):
        self.writer.write(data[: self.left])
        self.left -= len(data)
        if self.left < 0:
            self.handler.close_connection = True
            self.spoil(self.handler.connection)
            raise ConnectionAbortedError
        return len(data)

    def flush(self):
        self.writer.flush()


def shut(connection):
    """Close the connection."""
    connection.shutdown(socket.SHUT_RDWR)


def reset(connection):
    """Reset the connection."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    # The server still holds the file descriptor: a copy of it is closed with it.
    connection.close()


def stall(connection):
    """Wait until the client closes the connection, a second at most."""
    with contextlib.suppress(OSError):
        connection.settimeout(1)
        connection.recv(1)


def spoils(spoil):
    """A fault: after some bytes of the answer, its head included, the connection is spoiled."""

    def trouble(chance, size):
        most = chance.randrange(400 + size)

        def spoiled(handler):
            handler.wfile = _Spoiled(handler, most, spoil)

        return spoiled

    return trouble


def answers(status, waits):
    """A fault: another status, perhaps with the header Retry-After."""

    def trouble(chance, size):
        headers = {"Retry-After": chance.randint(1, 3000)} if waits and chance.random() < waits else {}

        def answered(handler):
            handler.answer(status, b"not now", headers)
            return True

        return answered

    return trouble


def page(chance, size):
    """A fault: a page about maintenance, with status 200 and with or without its length."""
    headers = {"Content-Type": chance.choice(["text/html; charset=utf-8", "text/plain"])}
    headers |= chance.choice([{}, {"Transfer-Encoding": "chunked"}])

    def answered(handler):
        handler.send_instead([PAGE], headers)
        handler.close_connection = True
        return True

    return answered


def changed(how):
    """A fault: a changed body; the headers say what its length is."""
    return lambda chance, size: lambda handler: handler.send_other(functools.partial(how, chance))


def shorter(chance, body):
    """The beginning of a body."""
    return body[: chance.randrange(len(body))]


def longer(chance, body):
    """A body with more bytes at its end."""
    return body + chance.randbytes(chance.randint(1, 5000))


def flipped(chance, body):
    """A body with one other bit."""
    place = chance.randrange(len(body))
    return body[:place] + bytes([body[place] ^ 1 << chance.randrange(8)]) + body[place + 1 :]


def next_to(chance, size):
    """A fault: other bytes than those that were asked for; the headers say which."""
    shift = chance.randint(1, 100)

    def answered(handler):
        content, part = handler.asked()
        if part is None:
            return False
        start = max(part[0] - shift, 0)
        headers = {"Content-Range": f"bytes {start}-{part[1]}/{len(content)}"}
        handler.answer(206, content[start : part[1] + 1], headers)
        return True

    return answered
