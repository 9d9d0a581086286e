"""Who works and who sends how much, for one row: stacked bars by role, online and offline apart."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from securead.bench.drawing import COLOURS, HUES, Child, Pictures, printable
from securead.bench.measured import ROLES, Setting, again, by_role, engine_name, role_words, told_apart
from securead.bench.scaling import seconds_words
from securead.bench.signs import LABEL_SIZE, line_sign, plate
from securead.bench.wording import counted, size

_MOST = 12
_WIDTH = 4.0
_LONGEST = 30


def time_figure(found: Sequence[Setting], pictures: Pictures, command: str) -> ET.Element | None:
    """Microseconds a row by role; what can be done before there is a row is fainter. None without times."""
    shown = [one for one in _cheapest(found) if one.seconds is not None]
    if not shown:
        return None
    parts: list[dict[tuple[str, str], float]] = []
    for one in shown:
        own: dict[tuple[str, str], float] = {}
        per_role: dict[tuple[str, tuple[str, str]], float] = {}
        for offline in (False, True):
            for record in one.records:
                for role in by_role(record, offline=offline):
                    values = [by_role(each, offline=offline).get(role, 0.0) for each in one.records]
                    key = role_words(role), "offline" if offline else ""
                    # Two parties of one record add up; further records of the setting do not.
                    per_role[role, key] = median(values)
        for (_, key), value in per_role.items():
            own[key] = own.get(key, 0.0) + value
        parts.append(own)
    title, about = "Who works", "Shares of a row's processor time by role, beside what is spent online in all."
    if any(key[1] for own in parts for key in own):
        about += " Fainter: offline, before there is a row."
    totals = [seconds_words(sum(value for key, value in own.items() if not key[1])) for own in parts]
    return _figure(shown, parts, totals, "time a row", (title, about), pictures, command, shares=True)


def bytes_figure(found: Sequence[Setting], pictures: Pictures, command: str) -> ET.Element | None:
    """Bytes a row by who sends them to whom; None without any."""
    shown = [one for one in _cheapest(found) if one.bytes]
    if not shown:
        return None
    parts: list[dict[tuple[str, str], float]] = []
    for one in shown:
        own: dict[tuple[str, str], float] = {}
        for traffic in one.records[0].traffic:
            if traffic.bytes_per_row:
                key = role_words(traffic.sender), ""
                own[key] = own.get(key, 0.0) + traffic.bytes_per_row
        parts.append(own)
    totals = [size(sum(own.values())) for own in parts]
    about = "Bytes a row by sender; keys and one-time material are in the table."
    return _figure(shown, parts, totals, "bytes a row", ("Who sends", about), pictures, command)


def _cheapest(found: Sequence[Setting]) -> list[Setting]:
    """Settings that differ in more than epsilon, which costs no time; of too many the quickest of each engine."""
    kept: dict[object, Setting] = {}
    for one in found:
        case = one.case
        kept.setdefault((engine_name(case), case.detector, case.role, case.batch, case.rows, case.parameters), one)
    shown = sorted(kept.values(), key=lambda one: one.seconds or 0.0)
    if len(shown) <= _MOST:
        return shown
    first: dict[tuple[str, str, str], Setting] = {}
    for one in shown:
        first.setdefault((engine_name(one.case), one.case.detector, one.case.role), one)
    return sorted(first.values(), key=lambda one: one.seconds or 0.0)[:_MOST]


def _figure(
    shown: Sequence[Setting],
    parts: Sequence[Mapping[tuple[str, str], float]],
    totals: Sequence[str],
    unit: str,
    heading: tuple[str, str],
    pictures: Pictures,
    command: str,
    *,
    shares: bool = False,
) -> ET.Element:
    segments = list(dict.fromkeys(key for own in parts for key in own))
    owners = sorted(dict.fromkeys(key[0] for key in segments), key=_rank)
    # A role has the same colour in every figure.
    order = [*ROLES, *(owner for owner in owners if owner not in ROLES)]
    hues = {owner: HUES[order.index(owner) % len(HUES)] for owner in owners}
    segments.sort(key=lambda key: (bool(key[1]), owners.index(key[0])))
    names = told_apart([one.case for one in shown], without=("epsilon", "sites"), always=("engine", "detector"))
    names = [name or engine_name(one.case) for name, one in zip(names, shown, strict=True)]
    most = max(sum(own.values()) for own in parts)
    if shares:
        parts, most = [{key: value / sum(own.values()) for key, value in own.items()} for own in parts], 1.0
    title, about = heading

    def draw(axes: Any) -> None:
        axes.grid(visible=False)
        for place, (own, total, name) in enumerate(zip(parts, totals, names, strict=True)):
            left = 0.0
            for key in segments:
                value = own.get(key, 0.0)
                colour = COLOURS[hues[key[0]]]
                pale = 0.35 if key[1] else 1.0
                gid = f"bar-{place}-{segments.index(key)}"
                axes.barh([place], [value], left=left, height=0.32, color=colour, alpha=pale, linewidth=0, gid=gid)
                left += value
            for text, where, align in ((name, 0.0, "left"), (total, most, "right")):
                axes.annotate(
                    printable(text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"),
                    (where, place),
                    xytext=(0, 13),
                    textcoords="offset points",
                    ha=align,
                    va="center",
                    fontsize=LABEL_SIZE,
                    fontweight="normal" if align == "left" else "bold",
                    color=COLOURS["ink"],
                    annotation_clip=False,
                    parse_math=False,
                )
        axes.set_xlim(0, most or 1.0)
        axes.set_ylim(len(parts) - 0.55, -0.9)
        axes.set_yticks([])
        axes.set_xticks([])
        axes.spines["bottom"].set_visible(False)

    said = [f"{name}: {total}" for name, total in zip(names, totals, strict=True)]
    text = f"{title}: {unit} by role, of {counted(len(shown), 'setting')}. {'; '.join(said)}."
    height = 0.3 + 0.45 * len(parts)
    picture = pictures.picture(draw, title, text, size=(_WIDTH, height))
    key: list[tuple[Child, str]] = [(line_sign(f"block {hue}"), owner) for owner, hue in hues.items()]
    return plate(title, about, picture, key, again(command, [one.case for one in shown]))


def _rank(owner: str) -> tuple[int, str]:
    return (ROLES.index(owner) if owner in ROLES else len(ROLES)), owner
