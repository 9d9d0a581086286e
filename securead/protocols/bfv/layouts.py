"""How rows share an answer: which coefficient of which ciphertext holds which position of which row.

The entries of all tables stand in one line of D. A layout with R slots gives each of R rows a stretch of S = N // R
coefficients, cuts the line into ceil(D / S) pieces of S entries, and needs one ciphertext a piece: in ciphertext j,
coefficient r S + i is 1 where row r looks up entry j S + i. All ciphertexts of a group together give one answer, in
which coefficient r S is row r's score (the protocol's SPEC.md, section 3, has the proof).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from fractions import Fraction

MAX_SLOTS = 32


@dataclass(frozen=True)
class Layout:
    """`slots` rows share an answer and need `pieces` ciphertexts."""

    slots: int
    pieces: int

    def stride(self, ring_dimension: int) -> int:
        """Coefficients between two rows, and entries in a piece."""
        return ring_dimension // self.slots

    @property
    def weight(self) -> int:
        """What a group costs: an answer counts as one ciphertext (it takes more time and fewer bytes)."""
        return self.pieces + 1


@dataclass(frozen=True)
class Group:
    """Rows `first` to `first + rows - 1` of a chunk, in the first slots of a layout."""

    layout: Layout
    first: int
    rows: int


def choose(ring_dimension: int, entries: int, rows: int) -> tuple[Layout, ...]:
    """Up to three layouts by rising slots, for chunks of up to `rows` rows.

    A layout is worth considering when no other has more slots and as few pieces. Of these: the smallest; the one that
    costs least a row; and the one that costs least a row with at most the geometric mean of their slots.
    """
    layouts = [Layout(slots, -(-entries // (ring_dimension // slots))) for slots in range(1, min(rows, MAX_SLOTS) + 1)]
    front = [a for a, b in zip(layouts, [*layouts[1:], None], strict=True) if b is None or a.pieces < b.pieces]

    def a_row(layout: Layout) -> tuple[Fraction, int]:
        return Fraction(layout.weight, layout.slots), layout.slots

    one, many = front[0], min(front, key=a_row)
    some = min((layout for layout in front if layout.slots**2 <= one.slots * many.slots), key=a_row)
    return tuple(sorted({one, some, many}, key=lambda layout: layout.slots))


def groups(layouts: tuple[Layout, ...], rows: int) -> tuple[Group, ...]:
    """How a chunk of rows is cut: full groups of the largest layout, and the rest so that its weights sum to the least.

    Both sides derive it from the number of rows alone.
    """
    largest, cut, first = layouts[-1], list[Group](), 0
    while first < rows:
        left = rows - first
        layout = largest if left >= largest.slots else _next(layouts, left)[1]
        cut.append(Group(layout, first, min(layout.slots, left)))
        first += layout.slots
    return tuple(cut)


@functools.cache
def _next(layouts: tuple[Layout, ...], rows: int) -> tuple[int, Layout]:
    """The least sum of weights for so many rows, and the layout of its first group: of equals, that of fewest slots."""
    best: tuple[int, Layout] | None = None
    for layout in layouts:
        after = rows - layout.slots
        weight = layout.weight + (_next(layouts, after)[0] if after > 0 else 0)
        if best is None or weight < best[0]:
            best = weight, layout
    assert best is not None  # noqa: S101  (a plan has a layout)
    return best
