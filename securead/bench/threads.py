"""What more threads gain: wall time with each number of them beside that of the fewest, where records hold several."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from securead.bench.drawing import COLOURS, HUES, Child, Pictures
from securead.bench.measured import Setting, again, by_role, engine_name, same_but, settings, told_apart
from securead.bench.records import Record
from securead.bench.scaling import SIZE, seconds_words
from securead.bench.signs import LABEL_SIZE, Mark, Sign, draw_marks, icon, line_sign, plate
from securead.bench.wording import counted, number

_MARKERS = ("o", "s", "^", "D", "v", "P")


@dataclass(frozen=True)
class Gain:
    """One setting with several numbers of threads: how many, and the wall seconds a row with each, online."""

    settings: tuple[Setting, ...]
    threads: tuple[int, ...]
    seconds: tuple[float, ...]

    @property
    def factors(self) -> tuple[float, ...]:
        """How many times as fast as with the fewest."""
        return tuple(self.seconds[0] / value for value in self.seconds)


def gains(records: Sequence[Record]) -> tuple[Gain, ...]:
    """Settings that were measured with two numbers of threads or more, and are equal otherwise; 0 is all cores."""
    groups: dict[Hashable, dict[int, tuple[Setting, float]]] = {}
    for one in settings(records, every_link=True):
        seconds = one.spread(_wall)
        if seconds is not None and seconds.median > 0:
            count = one.case.threads or one.records[0].provenance.cores
            groups.setdefault(same_but(one.case, "threads"), {}).setdefault(count, (one, seconds.median))
    found = []
    for own in groups.values():
        if len(own) > 1:
            counts = tuple(sorted(own))
            found.append(Gain(tuple(own[at][0] for at in counts), counts, tuple(own[at][1] for at in counts)))
    return tuple(found)


def _wall(record: Record) -> float | None:
    found = by_role(record, all_threads=True)
    return sum(found.values()) if found else None


def figure(
    records: Sequence[Record], signed: Mapping[str, Sign], pictures: Pictures, command: str
) -> ET.Element | None:
    """How many times as fast, by the number of threads; of too many settings those that gain most. None without any."""
    every = gains(records)
    if not every:
        return None
    drawn = sorted(every, key=lambda gain: -max(gain.factors))[: len(HUES)]
    cases = [gain.settings[0].case for gain in drawn]
    owners = [engine_name(case) for case in cases]
    names = told_apart(cases, without=("threads",), always=("engine", "detector"))
    names = [name or owner for name, owner in zip(names, owners, strict=True)]
    signs = [Sign(HUES[at], _MARKERS[at], bool(case.peer)) for at, case in enumerate(cases)]
    if len(set(owners)) == len(owners):
        signs = [signed[owner] for owner in owners]
    most = max(gain.threads[-1] for gain in drawn)
    best = max(max(gain.factors) for gain in drawn)
    marks = []
    for gain, name, sign in zip(drawn, names, signs, strict=True):
        for at, (count, factor) in enumerate(zip(gain.threads, gain.factors, strict=True)):
            label = f"{number(factor)} ×" if at == len(gain.threads) - 1 else ""
            note = f"{name}: {counted(count, 'thread')}, {seconds_words(gain.seconds[at])} a row, wall"
            marks.append(Mark(float(count), factor, sign, label, note))

    def draw(axes: Any) -> None:
        axes.set_xlim(0.8, most + 0.45 * max(most - 1, 1))
        axes.set_ylim(0, 1.15 * max(best, min(most, 1.5 * best)))
        axes.set_xticks(sorted({count for gain in drawn for count in gain.threads}))
        axes.tick_params(labelsize=LABEL_SIZE)
        axes.set_xlabel("threads", fontsize=LABEL_SIZE)
        axes.set_ylabel("times as fast, wall time", fontsize=LABEL_SIZE)
        axes.plot([1, most], [1, most], color=COLOURS["ink"], linewidth=1.2, linestyle=(0, (4, 2)), zorder=1)
        lines = [[(1.0, 1.0), (float(most), float(most))]]
        for gain, sign in zip(drawn, signs, strict=True):
            points = list(zip(map(float, gain.threads), gain.factors, strict=True))
            axes.plot(*zip(*points, strict=True), color=COLOURS[sign.hue], linewidth=1.5, zorder=2)
            lines.append(points)
        notes.update(draw_marks(axes, marks, lines))

    notes: dict[str, str] = {}
    said = [
        f"{name}: {number(gain.factors[-1])} × with {counted(gain.threads[-1], 'thread')}"
        for name, gain in zip(names, drawn, strict=True)
    ]
    title = "Gain by threads"
    picture = pictures.picture(draw, title, f"{title}, wall time online. {'; '.join(said)}.", size=SIZE, notes=notes)
    key: list[tuple[Child, str]] = [(icon(sign), words) for sign, words in zip(signs, said, strict=True)]
    key.append((line_sign("frontier"), "as many times as threads"))
    left_out = len(every) - len(drawn)
    about = "Wall time a row, all roles, online, beside that with the fewest threads."
    about += f" {left_out} further settings are in the table." if left_out else ""
    return plate(title, about, picture, key, again(command, [one.case for gain in drawn for one in gain.settings]))
