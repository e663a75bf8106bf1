"""A page of a running server in headless Chromium, driven through its debugging pipe: no driver, no web sockets."""

import base64
import json
import os
import select
import shlex
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from helpers.browser import BROWSER, FLAGS


class LivePage:
    """One tab. `complaints` are errors and warnings of its console and failed requests; `requests` are all URLs."""

    def __init__(self, to_browser: int, from_browser: int):
        self._to, self._from, self._buffer, self._id = to_browser, from_browser, b"", 0
        self._session: dict[str, str] = {}
        self.complaints: list[str] = []
        self.requests: list[str] = []
        target = self.command("Target.createTarget", url="about:blank")["targetId"]
        attached = self.command("Target.attachToTarget", targetId=target, flatten=True)
        self._session = {"sessionId": attached["sessionId"]}
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.command(f"{domain}.enable")

    def command(self, method: str, **params: Any) -> dict[str, Any]:
        """Sends a command of the DevTools protocol, and waits for its result."""
        self._id += 1
        sent = {"id": self._id, "method": method, "params": params, **self._session}
        os.write(self._to, json.dumps(sent).encode() + b"\0")
        while (received := self._receive()).get("id") != self._id:
            self._note(received)
        assert "error" not in received, received
        return received["result"]

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            assert select.select([self._from], [], [], 60)[0], "Chromium does not answer"
            part = os.read(self._from, 2**16)
            assert part, "Chromium has ended"
            self._buffer += part
        one, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(one)

    def _note(self, event: dict[str, Any]) -> None:
        method, params = event.get("method"), event.get("params", {})
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Network.loadingFailed" and not params.get("canceled"):
            self.complaints.append(f"request: {params['errorText']}")
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(params["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.complaints.append(json.dumps(params["args"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.complaints.append(json.dumps(params["entry"]))

    def width(self, width: int, height: int = 844) -> None:
        self.command(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 700
        )

    def open(self, url: str) -> None:
        self.command("Page.navigate", url=url)

    def evaluate(self, expression: str) -> Any:
        """The value of an expression in the page; a promise is awaited."""
        done = self.command("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in done, done
        return done["result"].get("value")

    def wait_for(self, expression: str, seconds: float = 30) -> Any:
        """The value of an expression as soon as it is true."""
        end = time.monotonic() + seconds
        while not (value := self.evaluate(expression)):
            assert time.monotonic() < end, f"not in {seconds} s: {expression}; {self.complaints}"
            time.sleep(0.05)
        return value

    def screenshot(self, path: Path) -> None:
        size = self.command("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        shot = self.command("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        path.write_bytes(base64.b64decode(shot["data"]))


@contextmanager
def live_page() -> Iterator[LivePage]:
    """A tab of a browser of its own, which ends with it."""
    assert BROWSER is not None
    (read_theirs, to_browser), (from_browser, write_theirs) = os.pipe(), os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        argv = [BROWSER, *FLAGS, f"--user-data-dir={profile}", "--remote-debugging-pipe", "about:blank"]
        command = f"exec {shlex.join(argv)} 3<&{read_theirs} 4>&{write_theirs}"  # the numbers that Chromium expects
        with subprocess.Popen(
            ["bash", "-c", command], pass_fds=(read_theirs, write_theirs), stderr=subprocess.DEVNULL
        ) as browser:
            os.close(read_theirs)
            os.close(write_theirs)
            try:
                yield LivePage(to_browser, from_browser)
            finally:
                browser.terminate()
                os.close(to_browser)
                os.close(from_browser)
