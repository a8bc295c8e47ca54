"""A real Chromium that tests look at and click in: the protocol of its developer tools, over two pipes."""

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path

import pytest

FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-pipe"]
FLAGS += ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--mute-audio"]
# No page may need the network: an address that is not this machine's cannot be found.
FLAGS += ["--hide-scrollbars", "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1"]
PATIENCE = 30


class Page:
    """An open page; its errors, its requests and what it saved are lists."""

    def __init__(self, write, read):
        self.write, self.read, self.number, self.buffer, self.session = write, read, 0, b"", None
        self.errors, self.requests, self.logged = [], [], []
        (target,) = [one for one in self.call("Target.getTargets")["targetInfos"] if one["type"] == "page"]
        found = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self.session = found["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method, **params):
        """Call a method of the protocol; returns its result."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        message |= {"sessionId": self.session} if self.session else {}
        os.write(self.write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next(PATIENCE)
            if answer.get("id") == self.number:
                assert "error" not in answer, answer
                return answer["result"]

    def _next(self, seconds):
        """The next message of the browser; what it tells by itself is noted."""
        end = time.monotonic() + seconds
        while b"\0" not in self.buffer:
            ready, _, _ = select.select([self.read], [], [], max(0, end - time.monotonic()))
            assert ready, "the browser does not answer"
            self.buffer += os.read(self.read, 1 << 20)
        first, _, self.buffer = self.buffer.partition(b"\0")
        message = json.loads(first)
        method, params = message.get("method"), message.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.errors.append(params["exceptionDetails"].get("exception", params["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and params["type"] == "error":
            self.errors.append([one.get("value") for one in params["args"]])
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.errors.append(params["entry"])
        elif method == "Network.loadingFailed" and not params.get("canceled"):
            self.errors.append(params["errorText"])
        elif method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        return message

    def do(self, script):
        """The value of an expression of JavaScript; a promise is waited for."""
        found = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait(self, script):
        """Wait until an expression is true, and return its value; an element of the page is {}."""
        end = time.monotonic() + PATIENCE
        while True:
            found = self.do(f"(() => {{ try {{ return {script}; }} catch {{ return false; }} }})()")
            if found not in (False, None, 0, ""):
                return found
            assert time.monotonic() < end, f"this never became true: {script}; errors: {self.errors}"
            time.sleep(0.03)

    def open(self, url):
        """Open an address, and wait until it is loaded."""
        self.call("Page.navigate", url=str(url))
        self.wait("document.readyState === 'complete'")

    def size(self, width, height, dark=False):
        """Set the size of the window, and whether the user prefers dark pages."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def press(self, key, code=0):
        """Press a key: its name, such as Enter, or its letter."""
        codes = {"Enter": 13, "Escape": 27, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}
        about = {"key": key, "windowsVirtualKeyCode": codes.get(key, ord(key[0].upper()))}
        text = {"text": key} if len(key) == 1 else {"text": "\r"} if key == "Enter" else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", **about, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", **about)

    def click(self, selector, shift=False):
        """Click in the middle of the first element that a selector finds."""
        box = f"document.querySelector({json.dumps(selector)}).getBoundingClientRect()"
        x, y = self.do(f"(b => [b.x + b.width / 2, b.y + b.height / 2])({box})")
        about = {"x": x, "y": y, "button": "left", "clickCount": 1, "modifiers": 8 if shift else 0}
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, **about)

    def memory(self):
        """Bytes of main memory that the process of the page has, images and all."""
        session, self.session = self.session, None
        processes = self.call("SystemInfo.getProcessInfo")["processInfo"]
        self.session = session
        ids = [one["id"] for one in processes if one["type"] == "renderer"]
        # The second number of statm is the resident pages.
        pages = [int(Path(f"/proc/{one}/statm").read_text().split()[1]) for one in ids]
        return max(pages) * os.sysconf("SC_PAGESIZE")

    def screenshot(self, path):
        """Write what the window shows as PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))


@contextlib.contextmanager
def chromium(folder):
    """A browser with one page; without Chromium, the test is skipped.

    Args:
        folder: for the profile of the browser.

    Yields:
        `Page`.
    """
    if not (program := shutil.which("chromium")):
        pytest.skip("chromium is not installed")
    # Chromium reads its orders from the file descriptor 3, and answers to 4.
    to_read, to_write = os.pipe()
    from_read, from_write = os.pipe()
    command = 'exec "$@" 3<&"$IN" 4>&"$OUT"'
    process = subprocess.Popen(
        ["bash", "-c", command, "bash", program, *FLAGS, f"--user-data-dir={folder}", "about:blank"],
        env={**os.environ, "IN": str(to_read), "OUT": str(from_write)},
        pass_fds=(to_read, from_write),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(to_read)
    os.close(from_write)
    try:
        yield Page(to_write, from_read)
    finally:
        os.close(to_write)
        process.terminate()
        process.wait(10)
        os.close(from_read)
