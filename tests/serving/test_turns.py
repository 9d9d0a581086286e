"""Turns by name: one at a time each, names apart, nothing kept."""

from __future__ import annotations

import asyncio

import pytest

from securead.serving.turns import Turns


def test_one_at_a_time_by_name_and_names_apart() -> None:
    turns, inside, most, order = Turns(), dict[str, int](), dict[str, int](), list[int]()

    async def work(name: str, number: int) -> None:
        async with turns.turn(name):
            inside[name] = inside.get(name, 0) + 1
            most[name] = max(most.get(name, 0), inside[name])
            most["all"] = max(most.get("all", 0), sum(inside.values()))
            await asyncio.sleep(0.001)
            inside[name] -= 1
            if name == "a":
                order.append(number)

    async def play() -> None:
        await asyncio.gather(*(work(name, number) for number in range(5) for name in "ab"))

    asyncio.run(play())
    assert (most["a"], most["b"], most["all"]) == (1, 1, 2)
    assert order == list(range(5))
    assert len(turns) == 0


def test_a_turn_ends_with_its_block_however_that_ends() -> None:
    async def play() -> None:
        turns = Turns()
        with pytest.raises(ZeroDivisionError):
            async with turns.turn("a"):
                raise ZeroDivisionError
        async with turns.turn("a"):
            waiting = asyncio.create_task(turns.turn("a").__aenter__())
            await asyncio.sleep(0)
            assert len(turns) == 1
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        assert len(turns) == 0

    asyncio.run(play())
