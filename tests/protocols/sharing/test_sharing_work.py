"""What requests on shares are said to cost: bytes are those of real payloads, ways those of the link's prediction."""

from __future__ import annotations

import numpy as np
import pytest

from securead.bench.sharing_case import ways_of
from securead.checks import programs
from securead.program.program import Program
from securead.protocols.sharing import owner
from securead.protocols.sharing.plan import make_plan, work


@pytest.mark.parametrize("make", [programs.relu_network, programs.small_quadratic, programs.small_tables])
@pytest.mark.parametrize("rows", [1, 5, 64])
def test_bytes_and_ways_are_the_protocols(make: type[Program], rows: int) -> None:
    program = make()
    public, plan = program.public, make_plan(program.public, "same")
    Z = np.random.default_rng(rows).integers(-9, 9, size=(rows, public.encoder.width))
    payloads = owner.split_queries(plan, owner.words_of(plan, public, Z))
    told = work(plan, public, rows)
    assert told.up_bytes == sum(map(len, payloads))
    assert told.down_bytes == 2 * 8 * rows
    assert (told.between_bytes, told.offline_bytes) == (plan.online_bytes(rows, False), plan.offline_bytes(rows, False))
    assert told.ways == ways_of(plan)
    assert told.server["rounds"] == plan.rounds(False)
    assert 8 * told.server["opened"] == told.between_bytes


def test_computing_is_for_the_next_power_of_two_sharing_for_the_records() -> None:
    public = programs.relu_network().public
    plan = make_plan(public, "same")
    few, more, most = (work(plan, public, rows) for rows in (33, 64, 65))
    assert few.server == more.server
    assert few.client["shared"] < more.client["shared"]
    assert 1.9 < most.server["opened"] / more.server["opened"] <= 2.0  # weights are opened once, whatever the rows
