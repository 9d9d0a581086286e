"""A suite's report in a real browser: nothing on the console, nothing that overflows or overlaps, tables that sort."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")

from suite_records import scored, suite
from test_report_page import FAINT, FIGURES, Browser, needs_chromium

from securead.bench.report_page import write_suite_report

COMMAND = "securead bench quick --out bench-output"


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
    long = "an-extraordinarily-long-name-of-a-detector-that-goes-on-and-on"
    extra = [scored(engine, "thyroid", long, auroc=0.93, role="split") for engine in ("bfv", "ckks")]
    records = [*suite(), *extra, replace(scored("bfv", "cardio", "subspace"), failures=("bytes were not counted",))]
    return write_suite_report(records, tmp_path_factory.mktemp("suite"), command=COMMAND)


# Texts of pictures as they stand on the screen: pixels of their type, and what they say.
TYPE = """
[...document.querySelectorAll('figure svg:not(.icon)')].flatMap(svg => {
  const scale = svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;
  return [...svg.querySelectorAll('text')].map(text => [scale * parseFloat(getComputedStyle(text).fontSize),
                                                        text.textContent]);
})
"""


@needs_chromium
@pytest.mark.parametrize("width", [320, 360, 390, 1280])
def test_words_in_pictures_can_be_read(browser: Browser, report: Path, width: int) -> None:
    browser.open(report, width=width, dark=False)
    found = browser.value(TYPE)
    assert len(found) > 100
    smallest, words = min(found)
    assert smallest >= (10 if width < 360 else 11), (smallest, words)


@needs_chromium
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [320, 1280])
def test_suite_report_in_a_browser(browser: Browser, report: Path, width: int, dark: bool) -> None:
    browser.open(report, width=width, dark=dark)
    assert browser.value("[innerWidth, document.documentElement.scrollWidth]") == [width, width]
    figures = browser.value(FIGURES)
    assert len(figures) > 15
    for title, (left, top, right, bottom), card, texts in figures:
        assert right - left > 200, title
        assert bottom - top > 60, title
        for text in texts:
            assert card[0] <= text[0] < text[2] <= card[2], (title, text, card)
            assert text[3] <= card[3], (title, text, card)
        for at, one in enumerate(texts):
            for other in texts[at + 1 :]:
                across = min(one[2], other[2]) - max(one[0], other[0])
                along = min(one[3], other[3]) - max(one[1], other[1])
                # Boxes of lines are taller than letters.
                assert min(across, along) < 3 or across < 1, (title, one, other)
    assert browser.value(FAINT) == []
    assert browser.complaints == []
    assert {url for url in browser.fetched if not url.startswith("data:")} == {report.resolve().as_uri()}
    picture = report.with_name(f"{width}-{'dark' if dark else 'light'}.png")
    browser.picture(picture)
    assert picture.stat().st_size > 50_000


COLUMN = """
(name => {
  const table = document.querySelector('table.sortable'), heads = [...table.tHead.rows[0].cells];
  const at = heads.findIndex(head => head.textContent === name);
  return [heads.map(head => head.getAttribute('aria-sort')).filter(Boolean).join(),
          [...table.tBodies[0].rows].map(row => row.cells[at].dataset.value ?? null)];
})
"""
PRESS = """
(name => [...document.querySelectorAll('table.sortable th')].find(head => head.textContent === name)
  .querySelector('button'))
"""


@needs_chromium
def test_a_table_sorts_by_click_and_by_key(browser: Browser, report: Path) -> None:
    browser.open(report, width=1280, dark=False)
    said, before = browser.value(f"{COLUMN}('Time a row')")
    assert said == ""
    browser.value(f"{PRESS}('Time a row').click(), 0")
    said, after = browser.value(f"{COLUMN}('Time a row')")
    assert said == "ascending"
    assert after != before
    assert [float(value) for value in after] == sorted(float(value) for value in before)
    browser.value(f"{PRESS}('Time a row').focus(), 0")
    for kind in ("keyDown", "keyUp"):
        browser.call(
            "Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", windowsVirtualKeyCode=13, text="\r"
        )
    said, after = browser.value(f"{COLUMN}('Time a row')")
    assert said == "descending"
    assert [float(value) for value in after] == sorted((float(value) for value in before), reverse=True)
    # What is absent is last either way.
    for _ in range(2):
        browser.value(f"{PRESS}('Keys, once').click(), 0")
        _, keys = browser.value(f"{COLUMN}('Keys, once')")
        absent = [value is None for value in keys]
        assert any(absent)
        assert absent == sorted(absent)
    browser.value(f"{PRESS}('Engine').click(), 0")
    said, names = browser.value(f"{COLUMN}('Engine')")
    assert names == sorted(names, key=str.lower)
    assert browser.complaints == []


@needs_chromium
def test_a_script_that_is_not_the_pages_does_not_run(browser: Browser, report: Path, tmp_path: Path) -> None:
    page = tmp_path / "changed.html"
    text = report.read_text(encoding="utf-8").replace("<main>", "<script>document.title = 'taken'</script><main>")
    page.write_text(text, encoding="utf-8")
    browser.open(page, width=1280, dark=False)
    assert browser.value("document.title") != "taken"
    assert any("Content Security Policy" in complaint for complaint in browser.complaints)
