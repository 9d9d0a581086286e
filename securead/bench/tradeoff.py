"""The trade-off of a smaller model for people and programs: rows of a table, a file of them, a picture."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path
from typing import Any

from securead import files
from securead.bench.shrinking import Candidate, Shrinking
from securead.bench.wording import number
from securead.errors import FixConfigurationError, InstallExtraError

TABLE_KINDS, PICTURE_KINDS = (".csv", ".json"), (".svg", ".png")
_MOST_ROWS = 16


def check_kind(path: Path, kinds: tuple[str, ...], what: str) -> None:
    """Raise `FixConfigurationError` unless a file's name ends as one of `kinds`."""
    if path.suffix.lower() not in kinds:
        raise FixConfigurationError(
            f"{what} is written as {' or '.join(kinds)}", value=path.name, remedy="Name the file so."
        )


def shown(found: Shrinking) -> tuple[Candidate, ...]:
    """The front, thinned where it is long: the whole program, the chosen one and the cheapest stay."""
    front = list(found.front)
    while len(front) > _MOST_ROWS:
        # What lies closest to its neighbour says least.
        gaps = [
            (abs(a.auroc - b.auroc) + abs(math.log(_cost(a, found) / _cost(b, found))), at)
            for at, (a, b) in enumerate(zip(front[1:], front, strict=False), start=1)
            if a not in (found.whole, found.chosen) and at < len(front) - 1
        ]
        del front[min(gaps)[1]]
    return tuple(front)


def plain(candidate: Candidate, found: Shrinking) -> dict[str, Any]:
    """A candidate as a row of plain values."""
    cost = candidate.cost
    return {
        found.part: candidate.parts,
        "bits": candidate.bits,
        "auroc": candidate.auroc,
        "loss": candidate.loss,
        "loss_low": candidate.low,
        "loss_high": candidate.high,
        "upload_bytes_per_row": None if cost is None else cost.up,
        "download_bytes_per_row": None if cost is None else cost.down,
        "between_parties_bytes_per_row": None if cost is None else cost.between,
        "key_bytes": None if cost is None else cost.key,
        "ring_dimension": None if cost is None else cost.ring_dimension,
        "modulus_bits": None if cost is None else cost.modulus_bits,
        "multiplications_per_row": None if cost is None else cost.work,
        "honest_extraction_rows": candidate.rows,
        "on_front": candidate in found.front,
        "whole": candidate is found.whole,
        "chosen": candidate is found.chosen,
    }


def summary(found: Shrinking) -> dict[str, Any]:
    """All of a search in plain values."""
    return {
        "engine": found.engine,
        "role": found.role,
        "by": found.by,
        "max_loss": found.max_loss,
        "criterion": "upper end of the loss's 95 % interval" if found.sure else "loss",
        "records": found.records,
        "anomalies": found.anomalies,
        "auroc_norm_baseline": found.norm,
        "average_precision": found.precision[1],
        "average_precision_whole": found.precision[0],
        "chosen": plain(found.chosen, found),
        "whole": plain(found.whole, found),
    }


def write_table(found: Shrinking, path: Path) -> None:
    """All candidates as CSV or JSON."""
    check_kind(path, TABLE_KINDS, "a table")
    rows = [plain(candidate, found) for candidate in found.candidates]
    if path.suffix.lower() == ".json":
        text = json.dumps({**summary(found), "candidates": rows}, indent=2, allow_nan=False) + "\n"
    else:
        lines = io.StringIO()
        writer = csv.DictWriter(lines, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        text = lines.getvalue()
    files.write_atomic(path, text.encode())


def write_picture(found: Shrinking, path: Path) -> None:
    """AUROC over cost as SVG or PNG: every candidate, the front with intervals, the limit, what was chosen."""
    check_kind(path, PICTURE_KINDS, "a picture")
    try:
        from matplotlib import style
        from matplotlib.figure import Figure
        from matplotlib.ticker import LogLocator
    except ImportError as error:
        raise InstallExtraError("drawing needs matplotlib", remedy="Run: pip install 'securead[bench]'.") from error
    priced = [c for c in found.candidates if c.cost is not None]
    front = [c for c in shown(found) if c.cost is not None]
    with style.context(["default", {"svg.hashsalt": "securead", "font.size": 10}], after_reset=True):
        figure = Figure(figsize=(7.2, 4.6), layout="constrained")
        axes = figure.add_subplot()
        points = axes.scatter(
            [_cost(c, found) for c in priced],
            [c.auroc for c in priced],
            c=[c.bits for c in priced],
            s=[14 + 70 * c.parts / found.whole.parts for c in priced],
            cmap="viridis",
            alpha=0.75,
            linewidths=0,
        )
        figure.colorbar(points, ax=axes, label="bits of a weight" if found.part == "units" else "bits of an entry")
        # An interval is the loss's, so hung from the whole program's AUROC.
        area = found.whole.auroc
        axes.errorbar(
            [_cost(c, found) for c in front],
            [c.auroc for c in front],
            yerr=[[c.high - c.loss for c in front], [c.loss - c.low for c in front]],
            color="0.35",
            linewidth=0.8,
            linestyle=":",
            elinewidth=0.7,
            capsize=2,
            zorder=1,
            label="best for its cost, 95 % interval of its loss",
        )
        axes.axhline(area - found.max_loss, color="tab:red", linewidth=1, linestyle="--", label="the loss allowed")
        for one, colour, name in ((found.whole, "black", "as trained"), (found.chosen, "tab:red", "chosen")):
            what = f"{name}: {one.parts} of {found.whole.parts} {found.part}"
            what += f", {one.bits} of {found.whole.bits} bits" if one.bits else ""
            where = ([_cost(one, found)], [one.auroc])
            axes.plot(*where, "o", markersize=11, markerfacecolor="none", markeredgecolor=colour, label=what)
        if max(_cost(c, found) for c in priced) > 5 * min(_cost(c, found) for c in priced):
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        lowest = min(min(c.auroc for c in front), area - 2 * found.max_loss)
        top = max(max(area - c.low for c in front), max(c.auroc for c in priced))
        margin = 0.05 * (top - lowest) + 1e-3
        axes.set_ylim(min(lowest, min(area - c.high for c in front)) - margin, top + margin)
        axes.xaxis.set_major_formatter(lambda value, _position: number(value))
        axes.xaxis.set_minor_formatter(lambda _value, _position: "")
        axes.set_xlabel(
            f"bytes a record in all directions ({found.engine}, role {found.role})"
            if found.by == "bytes"
            else f"estimated multiplications a record ({found.engine}, role {found.role})"
        )
        axes.set_ylabel(f"AUROC on {found.records:,} records, {found.anomalies:,} anomalies")
        axes.set_title(f"{found.bundle.public.name}: what fewer {found.part} and bits cost (larger dots: more)")
        axes.grid(color="0.9")
        axes.set_axisbelow(True)
        axes.legend(loc="best", fontsize=8)
        canvas = io.BytesIO()
        kind = path.suffix.lower()[1:]
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type")) if kind == "svg" else {"Software": None}
        figure.savefig(canvas, format=kind, dpi=150, metadata=nothing)
    files.write_atomic(path, canvas.getvalue())


def _cost(candidate: Candidate, found: Shrinking) -> float:
    cost = candidate.cost
    if cost is None:
        return math.inf
    return cost.traffic if found.by == "bytes" else max(cost.work, 1.0)
