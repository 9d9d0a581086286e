"""How one round's updates are laid out: how many records stand behind one, and what a record can add to it.

Sums need none of this. Whoever compares contributions of sites of different sizes must put them on one footing first,
and whoever bounds them must know what an honest one looks like. Layouts follow from public state alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from securead.data.schema import Array


@dataclass(frozen=True, eq=False)
class Layout:
    """What the integers of an update mean.

    kind: "table" of counts; "weighted" sums, whose last entry is the weight that all the others were multiplied with;
        "votes", one at most in each row of a site's table; "opaque", of which nothing is known but that it adds up.
    unit: what one record adds to an entry of a table that it falls into, or to the last entry of weighted sums.
    rows: of a table, or of votes.
    per_row: entries of a table's row that a record falls into.
    one_row: whether a record falls into one row of the table, not into each.
    l2_per_record: the largest L2 norm of what a record adds to weighted sums; None where they are no sum over records.
    reference: of weighted averages `(p - 1,)`, what they were before the round.
    scale: what one of the averages' units is in the model's own unit.
    """

    kind: Literal["table", "weighted", "votes", "opaque"]
    unit: float = 1.0
    rows: int = 1
    per_row: int = 1
    one_row: bool = False
    l2_per_record: float | None = None
    reference: Array | None = None
    scale: float = 1.0

    @property
    def per_record(self) -> float:
        """What one record adds to the sum of all entries of a table."""
        return self.unit * self.per_row * (1 if self.one_row else self.rows)


OPAQUE = Layout("opaque")
"""A sound default: such updates can be added up, and a rule compares them per site; nothing bounds them."""
