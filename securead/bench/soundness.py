"""The suite's own checks of an engine that is measured: what makes a figure worthless is found before it is told.

Each check returns what is wrong, in words, and nothing where nothing is; a record with such words is a failed one.
Wrong scores, records in what should hide them, answers that a stranger opens, bytes that nobody counted, answers that
are not made afresh, and floods that are not as wide as promised. None of them proves security: they find an engine that
is broken or was built without its protection, not one that is broken cleverly.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from securead.data.schema import Array
from securead.protocols.engine import Plan

_NEEDLE_BYTES, _LINES, _WINDOWS = 16, 2, 2
_FLOATS, _INTEGERS = ("<f8", ">f8", "<f4", ">f4"), ("<i8", ">i8", "<i4", ">i4", "<i2")
_DISTINCT = 5  # bytes: an empty stretch of a message looks like values that are 0
_DEVIATIONS, _RUN = 8.0, 8
FLOODS = 320  # values with which a flood's deviation is told from 2/3 and 3/2 of it
_FLOOD_LEVEL, _MOST_ANSWERS = 1e-6, 65


def wrong_scores(scores: Array, exact: Array, plan: Plan, tolerance: float) -> list[str]:
    """Scores `(n,)` that differ from the integer program's by more than the plan promises."""
    if scores.shape != exact.shape or not np.isfinite(scores).all():
        return ["scores: not one finite number a record"]
    error = float(np.abs(scores - exact).max())
    rounding = 1e-9 * float(np.abs(exact).max())  # of float64, where an engine is exact
    if error <= min(plan.error_bound, tolerance) + rounding:
        return []
    return [
        f"scores: off by {error:.3g}, where the plan promises {plan.error_bound:.3g} and the program tolerates "
        f"{tolerance:.3g}: a wrong scale, or another program"
    ]


def plaintext(payload: bytes, what: str, **values: Array) -> list[str]:
    """Values `(n, d)` or `(n,)` that stand in a payload as they are, by name."""
    return [
        f"{what}: holds {name} as they are"
        for name, array in values.items()
        if any(needle in payload for needle in _needles(array))
    ]


def _needles(values: Array) -> Iterator[bytes]:
    """Neighbours in a row or in a column, in every usual type, as bytes long enough to occur nowhere by chance."""
    table = np.atleast_2d(np.asarray(values))
    whole = np.array_equal(table, np.rint(table))
    for line in (*table[:_LINES], *table.T[:_LINES]):
        for kind in _FLOATS + (_INTEGERS if whole else ()):
            dtype = np.dtype(kind)
            if dtype.kind == "i" and np.abs(table).max() > np.iinfo(dtype).max:
                continue
            step = _NEEDLE_BYTES // dtype.itemsize
            found = [line[at : at + step].astype(dtype).tobytes() for at in range(0, len(line) - step + 1, step)]
            yield from [needle for needle in found if len(set(needle)) >= _DISTINCT][:_WINDOWS]


def told_by(payloads: Sequence[bytes], what: str, why: str) -> list[str]:
    """What two payloads made of the same share beyond what the first shares with a third, made of something else.

    Where all three are drawn afresh, which two agree at a place is chance, whatever the distribution: so many more
    places of one kind, or many in one stretch, say that something is not drawn afresh but follows from what is hidden.
    """
    lengths = [len(content) for content in payloads]
    if len(set(lengths)) > 1:
        return [f"{what}: the length depends on what should be hidden: {lengths}"]
    a, b, c = (np.frombuffer(content, dtype=np.uint8) for content in payloads)
    same, control = (a == b) & (a != c), (a == c) & (a != b)
    stretch, usual = _most_in_a_run(a == b, same), _most_in_a_run(a == c, control)
    excess, total = int(same.sum()) - int(control.sum()), int(same.sum()) + int(control.sum())
    if excess <= _DEVIATIONS * total**0.5 + _RUN and stretch < max(_RUN, 2 * usual):
        return []
    return [f"{what}: {int(same.sum()):,} of {len(a):,} bytes are the same twice: {why}"]


def _most_in_a_run(agreeing: Array, telling: Array) -> int:
    """The most telling places in a stretch without a place that does not agree: zeros between them hide nothing."""
    return int(np.bincount(np.cumsum(~agreeing)[telling]).max(initial=0))


def flooded(values: Array) -> list[str]:
    """What is wrong with the floods of answers to one request, `(answers, rows)` in deviations of the promised one.

    All may be off by the same, as differences from one answer more are. Their variance over the answers, all rows
    together, has to be 1: the test's level is 1e-6, and with `FLOODS` values it finds 2/3 and 3/2 of the promised
    deviation in 99 of 100 cases, and no flood at all always. Its quantiles are a normal distribution's; floods that are
    uniform vary less, which errs on the side of no false alarm.
    """
    from scipy.stats import chi2

    answers, rows = values.shape
    freedom = (answers - 1) * rows
    share = float(values.var(axis=0, ddof=1).mean())
    low, high = (float(chi2.ppf(level, freedom)) / freedom for level in (_FLOOD_LEVEL / 2, 1 - _FLOOD_LEVEL / 2))
    if low <= share <= high:
        return []
    much = "none or hardly any" if share < 1e-3 else f"{share**0.5:.2g} times its deviation"
    return [f"answers: the flood that the plan promises is not there, but {much}: masks alone do not hide the model"]


def answers_for_flood(rows: int) -> int:
    """How many answers to one request of so many rows `flooded` needs."""
    return min(1 + -(-FLOODS // rows), _MOST_ANSWERS)


def opened(scores: Array | None, exact: Array, tolerance: float) -> list[str]:
    """What a stranger's key made of an answer: None where it was refused, as it should be."""
    if scores is None or scores.shape != exact.shape:
        return []
    close = np.abs(scores - exact) <= 10 * tolerance + 1e-6 * np.abs(exact)
    return ["answers: another key opens them"] if close.mean() > 0.5 else []


def uncounted(reported: int, crossed: int, most: int, what: str) -> list[str]:
    """Bytes that are not as told: `reported` by the half, `crossed` at the connection, at `most` by the plan."""
    found = []
    if reported != crossed:
        found.append(f"bytes: {what} crossed in {crossed:,} bytes, {reported:,} were reported")
    if crossed > most:
        found.append(f"bytes: {what} took {crossed:,} bytes, the plan says {most:,} at most")
    return found


def elsewhere(opened: int, what: str) -> list[str]:
    """Files and connections that a half opens in every call, where there is nothing that it needs."""
    return [f"bytes: {opened} files or connections are opened beside {what}: nobody counts those"] if opened else []


def uncounted_traffic(reported: int, written: int, what: str, *, frames: int) -> list[str]:
    """Bytes that processes report and those that the system saw them write: TLS and logs add some, nothing is less."""
    most = 1.1 * reported + 600 * frames + (1 << 16)
    if written and not reported <= written <= most:
        return [f"bytes: {what} reported {reported:,} bytes, the system saw {written:,}"]
    return []
