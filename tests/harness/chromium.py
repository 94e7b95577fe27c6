"""A headless Chromium at the other end of a pipe: pages are opened, clicked and typed at.

Speaks the DevTools protocol over `--remote-debugging-pipe`: JSON messages that end in a zero byte.
"""

import base64
import json
import os
import shutil
import subprocess
from contextlib import contextmanager
from time import monotonic, sleep

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
_QUIET = ("background-networking", "component-update", "sync", "quic", "gpu", "extensions")
_KEYS = {"Escape": 27, "Enter": 13, "Tab": 9}


class Page:
    """One tab."""

    def __init__(self, to, back):
        self.complaints = []  # errors and warnings of the console, exceptions
        self._to, self._back, self._rest, self._id, self._events = to, back, b"", 0, []
        self._session = None
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        attached = self._call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self._call(f"{domain}.enable")

    def open(self, path, fragment="", *, width=1400, height=900, dark=False, media="", script=True):
        self._call("Emulation.setDeviceMetricsOverride", width=width, height=height,
                   deviceScaleFactor=1, mobile=False)  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", media=media, features=[scheme])
        self._call("Emulation.setScriptExecutionDisabled", value=not script)
        self._call("Page.navigate", url="about:blank")  # a new fragment alone would not reload
        self._wait("Page.loadEventFired")
        self._call("Page.navigate", url=f"{path.as_uri()}#{fragment}")
        self._wait("Page.loadEventFired")

    def ask(self, expression):
        """The value of a JavaScript expression."""
        answer = self._call("Runtime.evaluate", expression=expression, returnByValue=True,
                            awaitPromise=True, userGesture=True)  # fmt: skip
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def becomes(self, expression, value, seconds=5):
        """Whether the expression has the value within so many seconds."""
        end = monotonic() + seconds
        while (found := self.ask(expression)) != value and monotonic() < end:
            sleep(0.02)
        return found == value

    def press(self, key):
        """Press and release a key, as the keyboard does."""
        known = {"key": key, "code": key, "windowsVirtualKeyCode": _KEYS[key]}
        text = {"text": "\r"} if key == "Enter" else {}
        self._call("Input.dispatchKeyEvent", type="keyDown", **known, **text)
        self._call("Input.dispatchKeyEvent", type="keyUp", **known)

    def screenshot(self, path):
        path.write_bytes(base64.b64decode(self._call("Page.captureScreenshot")["data"]))

    def _call(self, method, **params):
        self._id += 1
        message = {"id": self._id, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self._id:
            self._note(answer)
        assert "error" not in answer, answer["error"]
        return answer["result"]

    def _wait(self, method):
        while method not in self._events:
            self._note(self._next())
        self._events.clear()

    def _note(self, message):
        method, params = message.get("method"), message.get("params", {})
        self._events.append(method)
        loud = method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning")
        if loud or method in ("Runtime.exceptionThrown", "Log.entryAdded"):
            self.complaints.append(params)

    def _next(self):
        while b"\0" not in self._rest:
            more = os.read(self._back, 65_536)
            assert more, "Chromium has gone"
            self._rest += more
        message, self._rest = self._rest.split(b"\0", 1)
        return json.loads(message)


@contextmanager
def chromium(profile):
    """A page in a browser of its own, which is ended afterwards."""
    (ours_in, theirs_out), (theirs_in, ours_out) = os.pipe(), os.pipe()
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--no-first-run", "--remote-debugging-pipe",
        *(f"--disable-{feature}" for feature in _QUIET), f"--user-data-dir={profile}",
    ]  # fmt: skip
    move = f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}'  # where Chromium looks for the pipe
    process = subprocess.Popen(
        ["bash", "-c", move, "bash", *command], pass_fds=(theirs_in, theirs_out),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    for end in (theirs_in, theirs_out):
        os.close(end)
    try:
        yield Page(ours_out, ours_in)
    finally:
        process.terminate()
        process.wait(timeout=30)
        for end in (ours_in, ours_out):
            os.close(end)
