"""A headless chromium for tests, driven over a pipe with nothing but the standard library."""

import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import time

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
    "--remote-debugging-pipe",
)  # fmt: skip


class Page:
    """A tab: what it logged and asked for, and the answers to JavaScript expressions."""

    def __init__(self, reading, writing, patience=60):
        self.reading, self.writing, self.end = reading, writing, time.monotonic() + patience
        self.events, self.last, self.session = [], 0, None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method, **params):
        """Send a command and return its result; keep the events that come before it."""
        self.last += 1
        message = {"id": self.last, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.writing, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self.last:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def _read(self):
        raw = bytearray()
        while not raw.endswith(b"\0"):
            assert time.monotonic() < self.end, "the browser does not answer"
            piece = os.read(self.reading, 1)
            assert piece, "the browser is gone"
            raw += piece
        return json.loads(raw[:-1])

    def open(self, url):
        """Go to a page and wait until it has loaded."""
        before = len(self.events)
        self.call("Page.navigate", url=url)
        while not any(e["method"] == "Page.loadEventFired" for e in self.events[before:]):
            self.events.append(self._read())

    def ask(self, expression):
        """Evaluate JavaScript in the page."""
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def complaints(self):
        """Console errors and exceptions so far."""
        bad = ("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled")
        return [e for e in self.events if e["method"] in bad]

    def requests(self):
        """Addresses asked for so far, other than data inside the page."""
        urls = [e["params"]["request"]["url"] for e in self.events if e["method"] == "Network.requestWillBeSent"]
        return [url for url in urls if not url.startswith("data:")]


@contextlib.contextmanager
def new_page(profile):
    """Start chromium with an empty profile folder and yield a ``Page``; end it afterwards."""
    to_browser, writing = os.pipe()
    reading, from_browser = os.pipe()

    def place():  # where --remote-debugging-pipe expects them
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (to_browser, from_browser)]
        for number, end in zip((3, 4), ends):
            os.dup2(end, number)

    process = subprocess.Popen(
        [CHROMIUM, *FLAGS, f"--user-data-dir={profile}"],
        preexec_fn=place, pass_fds=(3, 4), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(to_browser)
    os.close(from_browser)
    try:
        yield Page(reading, writing)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        os.close(reading)
        os.close(writing)
