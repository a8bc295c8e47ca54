"""A real Chromium without a window: it opens a page as a reader does, and says what it shows.

It is driven over two pipes with the DevTools protocol
(https://chromedevtools.github.io/devtools-protocol/), so that no other package is needed.
"""

import base64
import itertools
import json
import os
import select
import shutil
import subprocess
import time
from contextlib import contextmanager

import pytest

FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars"]
FLAGS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
# No page may need the network: an address that is not this machine's cannot be found.
FLAGS += ["--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1"]
SECONDS = 60


@contextmanager
def browser(folder):
    """A running Chromium; without one the test is skipped.

    Args:
        folder: where it keeps its profile.

    Yields:
        `Browser`.
    """
    if not (program := shutil.which("chromium")):
        pytest.skip("chromium is not installed")
    (reading, answers), (commands, writing) = os.pipe(), os.pipe()

    def connect():
        # Chromium reads commands from 3 and writes answers to 4.
        os.dup2(commands, 50), os.dup2(answers, 51)
        os.dup2(50, 3), os.dup2(51, 4)

    process = subprocess.Popen(
        [program, *FLAGS, "--remote-debugging-pipe", f"--user-data-dir={folder}", "about:blank"],
        preexec_fn=connect,
        close_fds=False,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(commands), os.close(answers)
    try:
        yield Browser(reading, writing)
    finally:
        process.kill()
        process.wait()
        os.close(reading), os.close(writing)


class Browser:
    """A page of a running Chromium.

    Attributes:
        errors: what the pages have written to the console as an error, and requests that failed.
    """

    def __init__(self, reading, writing):
        self._reading, self._writing = reading, writing
        self._numbers, self._rest, self._session, self._loaded = itertools.count(1), b"", None, False
        self.errors = []
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable")

    def open(self, address, width=1440, height=900):
        """Open a page in a window of this size, in pixels, and wait until it is loaded."""
        self._call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        self._loaded = False
        self._call("Page.navigate", url=str(address))
        self._until(lambda: self._loaded, f"{address} is not loaded")

    def value(self, script):
        """The value of an expression of JavaScript in the page."""
        answer = self._call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait_for(self, script):
        """Wait until an expression is true; returns its value."""
        found = []

        def is_true():
            found.append(self.value(script))
            return found[-1]

        self._until(is_true, f"{script} does not become true")
        return found[-1]

    def screenshot(self, path):
        """Write what the window shows as PNG."""
        path.write_bytes(base64.b64decode(self._call("Page.captureScreenshot")["data"]))

    def _until(self, done, otherwise):
        end = time.monotonic() + SECONDS
        while not done():
            assert time.monotonic() < end, otherwise
            self._receive(0.1)

    def _call(self, method, **params):
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._writing, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + SECONDS
        while True:
            for answer in self._receive(1):
                if answer.get("id") == number:
                    assert "error" not in answer, (method, answer)
                    return answer["result"]
            assert time.monotonic() < end, f"Chromium does not answer {method}"

    def _receive(self, seconds):
        """The messages that come within some seconds; events are noted on the way."""
        ready, _, _ = select.select([self._reading], [], [], seconds)
        if not ready:
            return []
        data = os.read(self._reading, 1 << 20)
        assert data, "Chromium has ended"
        *messages, self._rest = (self._rest + data).split(b"\0")
        messages = [json.loads(message) for message in messages]
        for message in messages:
            self._note(message.get("method"), message.get("params", {}))
        return messages

    def _note(self, event, params):
        if event == "Page.loadEventFired":
            self._loaded = True
        elif event == "Runtime.exceptionThrown":
            self.errors.append(
                params["exceptionDetails"].get("exception", {}).get("description", str(params))
            )
        elif event == "Runtime.consoleAPICalled" and params["type"] == "error":
            self.errors.append(str([entry.get("value") for entry in params["args"]]))
        elif event == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.errors.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
        elif event == "Network.loadingFailed" and not params.get("canceled"):
            self.errors.append(params["errorText"])
