"""A headless Chromium, driven by the DevTools protocol over a pipe: no driver, no socket, no port.

https://chromedevtools.github.io/devtools-protocol/; each message is JSON that ends in a zero byte.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# To start quickly and do nothing but show pages.
_OPTIONS = (
    "--headless=new",
    "--remote-debugging-pipe",
    "--no-startup-window",  # it would show pages of the browser's own
    "--no-sandbox",  # it needs a user of its own, which a container has not
    "--no-zygote",
    "--disable-gpu",
    "--in-process-gpu",
    "--disable-software-rasterizer",
    "--disable-site-isolation-trials",
    "--disable-features=Translate,MediaRouter,OptimizationHints",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-sync",
    "--no-first-run",
    "--no-default-browser-check",
    "--password-store=basic",
    "--hide-scrollbars",
)
PATIENCE_S = 30.0


def executable() -> str | None:
    """The Chromium of this machine; None if it has none, or cannot give it a pipe."""
    return next(filter(None, map(shutil.which, _NAMES)), None) if os.name == "posix" else None


class ChromiumError(AssertionError):
    """What a page threw, or the browser did not do."""


class Browser:
    """A running Chromium. What happens in its pages is in `events`, oldest first."""

    def __init__(self, program: str, profile: Path) -> None:
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        # Not among the small numbers, where Chromium wants them: 3 to read from, 4 to write to.
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (theirs_in, theirs_out)]
        moves = f"os.dup2({ends[0]}, 3); os.dup2({ends[1]}, 4)"
        run = f"import os, sys; {moves}; os.execv(sys.argv[1], sys.argv[1:])"
        self._process = subprocess.Popen(
            [sys.executable, "-SEc", run, program, *_OPTIONS, f"--user-data-dir={profile}"],
            pass_fds=ends,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        for end in (theirs_in, theirs_out, *ends):
            os.close(end)
        self._read = b""
        self._number = 0
        self.events: list[dict[str, Any]] = []

    def answers(self) -> bool:
        """Whether it runs, and speaks over the pipe."""
        try:
            return bool(self.call("Browser.getVersion"))
        except (ChromiumError, OSError):
            return False

    def call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """Call a method of the protocol; what else comes meanwhile is kept in `events`."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if session is not None:
            message["sessionId"] = session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while (answer := self._message()).get("id") != self._number:
            self.events.append(answer)
        if "error" in answer:
            raise ChromiumError(f"{method}: {answer['error']}")
        result: dict[str, Any] = answer["result"]
        return result

    def _message(self) -> dict[str, Any]:
        while b"\0" not in self._read:
            ready, _, _ = select.select([self._in], [], [], PATIENCE_S)
            data = os.read(self._in, 1 << 20) if ready else b""
            if not data:
                raise ChromiumError("Chromium does not answer")
            self._read += data
        first, _, self._read = self._read.partition(b"\0")
        message: dict[str, Any] = json.loads(first)
        return message

    def close(self) -> None:
        """End it and all of its processes."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._in)
        os.close(self._out)


class Page:
    """A page with a storage of its own."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self._context = browser.call("Target.createBrowserContext")["browserContextId"]
        made = browser.call(
            "Target.createTarget", url="about:blank", browserContextId=self._context
        )
        attached = browser.call("Target.attachToTarget", targetId=made["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method of the protocol for this page."""
        return self._browser.call(method, self._session, **params)

    def events(self, method: str) -> list[dict[str, Any]]:
        """What happened of this kind, as far as it was not forgotten."""
        return [
            event["params"]
            for event in self._browser.events
            if event.get("method") == method and event.get("sessionId") == self._session
        ]

    def forget(self) -> None:
        """Forget what happened so far."""
        self._browser.events.clear()

    def open(self, url: str) -> None:
        """Go to an address and wait until its scripts have run."""
        self.call("Page.navigate", url=url)
        self.until(f"document.readyState === 'complete' && location.href === {json.dumps(url)}")

    def run(self, script: str) -> Any:
        """The value of an expression; a promise is waited for."""
        options = {"awaitPromise": True, "returnByValue": True, "userGesture": True}
        result = self.call("Runtime.evaluate", expression=script, **options)
        if details := result.get("exceptionDetails"):
            raise ChromiumError(details.get("exception", {}).get("description", str(details)))
        return result["result"].get("value")

    def keep_downloads_in(self, folder: Path) -> None:
        """Save what is downloaded there, without asking."""
        where = {"browserContextId": self._context, "downloadPath": str(folder)}
        self._browser.call("Browser.setDownloadBehavior", behavior="allow", **where)

    def choose_file(self, selector: str, file: Path) -> None:
        """Choose a file in a field for files."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        field = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", files=[str(file)], nodeId=field)

    def until(self, condition: str) -> None:
        """Wait until an expression is true."""
        self.wait_until(lambda: bool(self.run(f"Boolean({condition})")), condition)

    def wait_until(self, holds: Callable[[], bool], condition: str = "") -> None:
        """Wait until something holds; fails after a generous time."""
        deadline = time.monotonic() + PATIENCE_S
        while not holds():
            if time.monotonic() > deadline:
                seen = self.run("document.body.innerText")
                raise ChromiumError(f"still not: {condition}; the page says:\n{seen}")
            time.sleep(0.03)

    def type(self, text: str) -> None:
        """Type a text where the focus is."""
        self.call("Input.insertText", text=text)

    def press(self, key: str, code: str = "", modifiers: int = 0) -> None:
        """Press a key; of the modifiers 1 is Alt, 2 Control, 8 Shift."""
        text = {"Enter": "\r"}.get(key, "")
        number = {"Enter": 13, "Escape": 27, "Tab": 9, "ArrowUp": 38}.get(key, 0)
        common = {"key": key, "code": code or key, "modifiers": modifiers}
        for kind in ("keyDown", "keyUp"):
            shown = {"text": text} if text and kind == "keyDown" else {}
            self.call(
                "Input.dispatchKeyEvent", type=kind, windowsVirtualKeyCode=number, **common, **shown
            )

    def resize(self, width: int, height: int, *, phone: bool = False, dark: bool = False) -> None:
        """Show the page on a screen of this size, as a phone has it or a desk."""
        shown = {"width": width, "height": height, "deviceScaleFactor": 2 if phone else 1}
        self.call("Emulation.setDeviceMetricsOverride", mobile=phone, **shown)
        self.call("Emulation.setTouchEmulationEnabled", enabled=phone)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        still = {"name": "prefers-reduced-motion", "value": "reduce"}  # each picture costs time
        self.call("Emulation.setEmulatedMedia", features=[scheme, still])

    def screenshot(self, file: Path) -> None:
        """Write what is seen into a PNG file."""
        file.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))

    def close(self) -> None:
        """Close it and forget what it stored."""
        self._browser.call("Target.disposeBrowserContext", browserContextId=self._context)


@contextmanager
def chromium(program: str, profile: Path) -> Iterator[Browser]:
    """A Chromium that runs while the block does."""
    browser = Browser(program, profile)
    try:
        yield browser
    finally:
        browser.close()
