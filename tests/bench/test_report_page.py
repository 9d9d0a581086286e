"""The report in a real browser: nothing on the console, nothing fetched, nothing that overflows a phone.

Chromium runs headless and without the network's help; the test speaks its DevTools protocol over two pipes, because the
page itself has no scripts and, by its own policy, may have none.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")

from test_report import made, made_network, made_run

from securead.bench.report import write_report

PATIENCE = 60.0
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt-get install chromium")

# Of every figure: its title and the boxes of its picture, of the card around it, and of all text in it.
FIGURES = """
[...document.querySelectorAll('figure')].map(figure => {
  const box = node => { const b = node.getBoundingClientRect(); return [b.left, b.top, b.right, b.bottom]; };
  return [figure.querySelector('b').textContent, box(figure.querySelector('svg')), box(figure),
          [...figure.querySelectorAll('svg text')].map(box)];
})
"""
# Text whose contrast with what is painted behind it is under 4.5 (WCAG 2.2, 1.4.3), with the ratio.
FAINT = """
(() => {
  const parts = colour => (colour.match(/[\\d.]+/g) || []).map(Number);
  const linear = v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => [r, g, b].map(v => linear(v / 255))
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const behind = node => { for (; node; node = node.parentElement) {
    const c = parts(getComputedStyle(node).backgroundColor); if (c.length === 3 || c[3] === 1) return c; }
    return [255, 255, 255]; };
  return [...document.querySelectorAll('body *')].flatMap(node => {
    if (node.closest('svg') || ![...node.childNodes].some(c => c.nodeType === 3 && c.data.trim())) return [];
    const [a, b] = [parts(getComputedStyle(node).color), behind(node)].map(light).sort((x, y) => y - x);
    const ratio = (a + .05) / (b + .05);
    return ratio < 4.5 ? [[ratio, node.textContent.slice(0, 40)]] : [];
  });
})()
"""


class Browser:
    """Chromium with one empty page; `events` are all that it reported."""

    def __init__(self, folder: Path) -> None:
        assert CHROMIUM is not None
        their_input, ours_out = os.pipe()
        ours_in, their_output = os.pipe()
        # Out of the way of 3 and 4, where Chromium expects its ends.
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in (their_input, their_output)]

        def place() -> None:
            os.dup2(ends[0], 3)
            os.dup2(ends[1], 4)

        self._log = folder / "chromium.log"
        with self._log.open("wb") as log:
            # Its own session: its children are ended with it.
            self.process = subprocess.Popen(
                [CHROMIUM, *FLAGS, f"--user-data-dir={folder / 'profile'}", "about:blank"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                close_fds=False,
                start_new_session=True,
                preexec_fn=place,
            )
        for end in (their_input, their_output, *ends):
            os.close(end)
        self._out, self._in, self._rest, self._serial, self._session = ours_out, ours_in, b"", 0, ""
        self.events: list[dict[str, Any]] = []

    def start(self) -> None:
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._serial += 1
        message: dict[str, Any] = {"id": self._serial, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == message["id"]:
                assert "error" not in answer, (method, answer)
                result: dict[str, Any] = answer["result"]
                return result

    def _read(self) -> dict[str, Any]:
        end = time.monotonic() + PATIENCE
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._in], [], [], max(end - time.monotonic(), 0))
            piece = os.read(self._in, 1 << 16) if ready else b""
            if not piece:
                raise AssertionError(f"chromium says nothing:\n{self._log.read_text(errors='replace')[-2000:]}")
            self._rest += piece
        text, _, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        if "method" in message:
            self.events.append(message)
        return message

    def open(self, path: Path, *, width: int, dark: bool) -> None:
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        # Not "mobile": that would fit the page's overflow into the screen by zooming out.
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=844, deviceScaleFactor=1, mobile=False)
        self.events.clear()
        self.call("Page.navigate", url=path.resolve().as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self._read()

    def value(self, expression: str) -> Any:
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"]["value"]

    def picture(self, path: Path) -> None:
        """A PNG of the whole page, for whoever wants to look."""
        shown = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shown["data"]))

    @property
    def complaints(self) -> list[str]:
        """What a reader would find on the console: messages, exceptions, breaches of the page's policy."""
        kinds = ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown")
        return [json.dumps(event["params"]) for event in self.events if event["method"] in kinds]

    @property
    def fetched(self) -> set[str]:
        wanted = (event["params"] for event in self.events if event["method"] == "Network.requestWillBeSent")
        return {parameters["request"]["url"] for parameters in wanted}

    def close(self) -> None:
        with contextlib.suppress(OSError, AssertionError):
            self._session = ""
            self.call("Browser.close")
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=10)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(timeout=10)
        for end in (self._out, self._in):
            os.close(end)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    opened = Browser(tmp_path_factory.mktemp("chromium"))
    try:
        opened.start()
        yield opened
    finally:
        opened.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    long = tuple((f"a bank with quite a long name {i}", 10**i) for i in range(6))
    unlabelled = made_run(labels=False, name="an-extraordinarily-long-name-of-a-detector-that-goes-on", seed=5)
    write_report(made(made_network(), made_run(role="split"), unlabelled, sites=long), path)
    return path


@needs_chromium
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [320, 390, 1280])
def test_report_in_a_browser(browser: Browser, report: Path, width: int, dark: bool) -> None:
    browser.open(report, width=width, dark=dark)
    assert browser.value("[innerWidth, document.documentElement.scrollWidth]") == [width, width]
    figures = browser.value(FIGURES)
    assert len(figures) == 5 + 3 + 1 + 1
    for title, (left, top, right, bottom), card, texts in figures:
        assert right - left > 200, title
        assert bottom - top > 150, title
        assert 0 <= card[0] <= left
        assert right <= card[2] <= width
        for text in texts:
            assert text[2] > text[0], title
            assert card[0] <= text[0], (title, text, card)
            assert text[2] <= card[2], (title, text, card)
            assert text[3] <= card[3], (title, text, card)
    assert browser.value(FAINT) == []
    assert browser.value("getComputedStyle(document.body).backgroundColor") == (
        "rgb(16, 20, 26)" if dark else "rgb(247, 246, 243)"
    )
    assert browser.complaints == []
    assert {url for url in browser.fetched if not url.startswith("data:")} == {report.resolve().as_uri()}


@needs_chromium
def test_what_is_wrong_with_a_page_is_seen(browser: Browser, report: Path, tmp_path: Path) -> None:
    """The checks above can fail: a wide box, faint text and an address from outside are all found."""
    page = tmp_path / "broken.html"
    wrong = (
        '<div style="width: 600px">wide</div><p style="color: #999; background: #fff">faint</p>'
        '<img src="http://127.0.0.1:9/x.png" alt="">'
    )
    page.write_text(report.read_text(encoding="utf-8").replace("<main>", f"<main>{wrong}"), encoding="utf-8")
    browser.open(page, width=390, dark=False)
    assert browser.value("document.documentElement.scrollWidth") > 390
    assert any(text == "faint" for _, text in browser.value(FAINT))
    assert any("Content Security Policy" in complaint for complaint in browser.complaints)
