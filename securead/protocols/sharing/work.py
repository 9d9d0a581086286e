"""What requests on shares cost: words of 64 bits and rounds. Imports no cryptography."""

from __future__ import annotations

from typing import TYPE_CHECKING

from securead.protocols.engine import Plan, Work
from securead.protocols.sharing.correlations import MatrixTriple, party_words, size

if TYPE_CHECKING:
    from securead.program.program import PublicProgram


def work(plan: Plan, public: PublicProgram, rows: int) -> Work:
    """What a request of `rows` records takes without a verdict; the parties compute with the next power of two.

    `client` is all that the submitter does: it shares, sends and joins. `offline` is the dealer's work.
    """
    from securead.protocols.sharing.plan import SEED_BYTES, WORD_BYTES, SharingPlan

    if not isinstance(plan, SharingPlan):
        raise TypeError(plan)
    correlations = plan.correlations(rows, False)
    # Each of two products with an opened matrix; a third is of both.
    multiplied = sum(3 * size(each.left) * each.right[1] for each in correlations if isinstance(each, MatrixTriple))
    opened = sum(each.opened for each in correlations)
    dealt = sum(party_words(each, 0) + party_words(each, 1) + size(each.result) for each in correlations)
    return Work(
        client={"request": 1, "shared": rows * plan.input_width, "joined": rows},
        server={"request": 1, "rounds": plan.rounds(False), "opened": opened, "multiplied": multiplied},
        holder={},
        offline={"set": 1, "dealt": dealt},
        up_bytes=plan.request_bytes(rows) + SEED_BYTES,
        down_bytes=2 * WORD_BYTES * rows,
        between_bytes=plan.online_bytes(rows, False),
        offline_bytes=plan.offline_bytes(rows, False),
        ways=plan.rounds(False) + 3,
    )
