"""The operations centre's live page: one file, drawn by the key holder, that needs no server and loads nothing.

It holds plaintext scores, so it is 0600 like the record behind it, and forbids itself every connection.
"""

from __future__ import annotations

import datetime
import html
import math
from pathlib import Path

from securead import files
from securead.client import drift
from securead.client.record import Alarm, Point, Record, Stream
from securead.models.bundle import PublicModel

REFRESH_SECONDS, POINTS, ALARMS = 2, 720, 40
_WIDTH, _HEIGHT = 720, 120
_STYLE = """
:root { color-scheme: light dark; --page: #f7f6f3; --card: #fff; --ink: #1d2430; --quiet: #5b6472; --line: #e2e0da;
  --normal: #2b7bb9; --bad: #9c3a06; --bad-page: #fbeadf; --good: #0b6b57; }
@media (prefers-color-scheme: dark) { :root { --page: #10141a; --card: #181e26; --ink: #e7eaee; --quiet: #a0a9b6;
  --line: #2a323d; --normal: #6db6ec; --bad: #f7a978; --bad-page: #3a2318; --good: #6fd6b9; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1120px; padding: 24px; background: var(--page); color: var(--ink);
  font: 16px/1.5 ui-sans-serif, system-ui, sans-serif; }
h1 { font-size: 1.7rem; margin: 0; } h2 { font-size: 1.15rem; margin: 1.6em 0 .5em; }
.quiet { color: var(--quiet); } .bad { color: var(--bad); } .good { color: var(--good); }
.note { border-left: 5px solid var(--bad); background: var(--bad-page); padding: 10px 14px; border-radius: 8px; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 12px 16px;
  margin: 14px 0; }
section h3 { margin: 0; font-size: 1rem; display: flex; flex-wrap: wrap; gap: 4px 16px; align-items: baseline; }
section h3 small { font-weight: 400; color: var(--quiet); }
svg { display: block; width: 100%; height: 120px; margin-top: 6px; }
polyline { fill: none; stroke: var(--normal); stroke-width: 1.4; vector-effect: non-scaling-stroke; }
line { stroke: var(--quiet); stroke-dasharray: 5 4; vector-effect: non-scaling-stroke; }
rect { fill: var(--bad); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 4px 10px; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } th { color: var(--quiet); font-weight: 560; }
"""


def write_page(path: Path, record: Record, model: PublicModel) -> None:
    """Draw what the record holds now and put it in place of the page that stands there."""
    files.write_atomic(path, draw(record, model).encode(), mode=0o600)


def draw(record: Record, model: PublicModel) -> str:
    """The page as HTML."""
    streams, alarms = record.streams(), record.alarms(ALARMS)
    warning = drift.in_words(record.drift())
    now = datetime.datetime.now(datetime.UTC).isoformat(sep=" ", timespec="seconds").removesuffix("+00:00")
    missing = sum(stream.missing for stream in streams)
    rejected = sum(stream.rejected for stream in streams)
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="refresh" content="{REFRESH_SECONDS}">',
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">",
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{html.escape(model.name)}: {len(alarms)} alarms</title><style>{_STYLE}</style></head><body>",
        f"<h1>{html.escape(model.name)}</h1>",
        f'<p class="quiet">Drawn at {now} UTC by the key holder, from scores that nobody else can read. '
        f"{sum(s.windows for s in streams):,} windows of {len({s.gateway for s in streams})} gateways; "
        f"threshold {model.threshold.value:.4g}.</p>",
    ]
    if warning is not None:
        parts.append(f'<p class="note">{html.escape(warning)}</p>')
    if missing:
        parts.append(f'<p class="note">{missing:,} messages are missing: numbered, and not come.</p>')
    if rejected:
        parts.append(f'<p class="note">{rejected:,} answers could not be decrypted.</p>')
    parts.append("<h2>Gateways</h2>")
    parts += [_section(stream, record.latest(stream.stream, POINTS), model) for stream in streams]
    parts.append(_alarm_table(alarms) if alarms else '<h2>Alarms</h2><p class="good">None.</p>')
    return "".join([*parts, "</body></html>\n"])


def _section(stream: Stream, points: tuple[Point, ...], model: PublicModel) -> str:
    counts = f"{stream.taken:,} messages, {stream.windows:,} windows, {stream.flagged:,} above the threshold"
    counts += f", {stream.missing:,} missing" if stream.missing else ", none missing"
    counts += f", {stream.again:,} came twice" if stream.again else ""
    until = f"until {html.escape(moment(points[-1].reading, points[-1].time))}" if points else ""
    return (
        f"<section><h3>{html.escape(stream.gateway)} <small>{counts}</small><small>{until}</small></h3>"
        f"{_chart(points, model.threshold.value)}</section>"
    )


def _chart(points: tuple[Point, ...], threshold: float) -> str:
    """Scores over readings; the height is logarithmic beyond the threshold, so that one fault hides nothing."""
    if not points:
        return ""
    unit = abs(threshold) or 1.0
    heights = [_compressed((point.score - threshold) / unit) for point in points]
    low, high = min(-1.0, *heights), max(1.0, *heights)
    first, span = points[0].reading, max(points[-1].reading - points[0].reading, 1)

    def place(at: int) -> tuple[float, float]:
        x = _WIDTH * (points[at].reading - first) / span
        return round(x, 1), round(_HEIGHT * (high - heights[at]) / (high - low), 1)

    runs: list[list[tuple[float, float]]] = [[]]
    for at, point in enumerate(points):
        if at and point.reading - points[at - 1].reading > 5 * span / len(points):
            runs.append([])  # a gap is drawn as one
        runs[-1].append(place(at))
    lines = "".join(f'<polyline points="{" ".join(f"{x},{y}" for x, y in run)}"/>' for run in runs)
    level = round(_HEIGHT * high / (high - low), 1)
    flagged = (place(at) for at, point in enumerate(points) if point.flagged)
    marks = "".join(f'<rect x="{x - 1:.1f}" y="{y - 3:.1f}" width="3" height="6"/>' for x, y in flagged)
    return (
        f'<svg viewBox="0 -4 {_WIDTH} {_HEIGHT + 8}" preserveAspectRatio="none" role="img" '
        f'aria-label="scores of the latest {len(points)} windows">'
        f'<line x1="0" x2="{_WIDTH}" y1="{level}" y2="{level}"/>{lines}{marks}</svg>'
    )


def _compressed(value: float) -> float:
    return math.copysign(math.log1p(abs(value)), value) if value > 0 else max(value, -1.5)


def _alarm_table(alarms: tuple[Alarm, ...]) -> str:
    rows = "".join(
        f"<tr><td>{html.escape(alarm.gateway)}</td><td>{html.escape(moment(alarm.first, alarm.first_time))}</td>"
        f"<td>{html.escape(moment(alarm.last, alarm.last_time))}</td><td>{alarm.windows:,}</td>"
        f'<td class="bad">{alarm.peak:.4g}</td></tr>'
        for alarm in alarms
    )
    head = "<tr><th>gateway</th><th>first window ends</th><th>last</th><th>windows</th><th>highest score</th></tr>"
    return f'<h2>Alarms, the latest first</h2><div class="wide"><table>{head}{rows}</table></div>'


def moment(reading: int, time: float | None) -> str:
    """When a window ended: a date from 1973 on, else seconds, else the number of its last reading."""
    if time is None:
        return f"reading {reading:,}"
    if 1e8 <= time < 1e11:
        return datetime.datetime.fromtimestamp(time, datetime.UTC).isoformat(sep=" ", timespec="seconds")[:19]
    return f"{time:,g} s"
