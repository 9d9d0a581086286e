"""The store of owners' keys: what it holds, what it forgets first, and that threads do not upset its counts."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np
import pytest

from securead.errors import RegisterKeyError
from securead.serving.registered import MAX_BYTES, MAX_KEYS, UNPACKED, RegisteredKeys


@dataclass(frozen=True)
class Plan:
    digest: str = "p"
    evaluation_key_bytes: int = 100


@dataclass(frozen=True)
class Key:
    key_id: str


PLAN = Plan()


def held(keys: RegisteredKeys, names: str, plan: Plan = PLAN) -> str:
    """Which of the keys are there; asking for them counts as use, the last one last."""
    found = ""
    for name in names:
        try:
            assert keys.get("m", plan, name).key_id == name
            found += name
        except RegisterKeyError:
            pass
    return found


def test_a_key_is_for_one_model_and_one_plan() -> None:
    keys = RegisteredKeys()
    keys.put("m", PLAN, Key("a"))
    assert keys.get("m", PLAN, "a") == Key("a")
    for model, plan, name in (("other", PLAN, "a"), ("m", Plan("q"), "a"), ("m", PLAN, "b")):
        with pytest.raises(RegisterKeyError, match="does not hold this key") as refused:
            keys.get(model, plan, name)
        assert "public.key" in refused.value.remedy


def test_the_least_recently_used_goes_first() -> None:
    keys = RegisteredKeys(max_keys=3)
    for name in "abc":
        keys.put("m", PLAN, Key(name))
    keys.get("m", PLAN, "a")  # b is now the oldest,
    keys.put("m", PLAN, Key("c"))  # and to be sent again is to be used
    keys.put("m", PLAN, Key("d"))
    assert held(keys, "abcd") == "acd"
    keys.put("m", PLAN, Key("e"))
    assert held(keys, "acde") == "cde"
    assert len(keys) == 3


def test_bytes_are_bounded_too() -> None:
    keys = RegisteredKeys(max_bytes=1000 * UNPACKED)
    for name in "abcdefghij":
        keys.put("m", PLAN, Key(name))
    assert len(keys) == 10
    keys.put("m", Plan("q", 250), Key("x"))
    assert held(keys, "abcdefghij") == "defghij"
    assert held(keys, "x", Plan("q", 250)) == "x"


def test_plans_may_tell_what_a_key_takes() -> None:
    @dataclass(frozen=True)
    class Telling(Plan):
        held_key_bytes: int = 140

    keys = RegisteredKeys(max_bytes=300)
    for name in "abc":
        keys.put("m", Telling(), Key(name))
    assert held(keys, "abc", Telling()) == "bc"
    messages = RegisteredKeys(max_bytes=300, weigh=lambda plan: plan.evaluation_key_bytes)
    for name in "abcd":
        messages.put("m", Telling(), Key(name))
    assert held(messages, "abcd", Telling()) == "bcd"


def test_the_same_key_again_is_counted_once() -> None:
    keys = RegisteredKeys(max_bytes=200 * UNPACKED)
    for _ in range(100):
        keys.put("m", PLAN, Key("a"))
    keys.put("m", PLAN, Key("b"))
    assert held(keys, "ab") == "ab"


def test_a_key_beyond_all_bounds_stands_alone() -> None:
    """Otherwise its owner would be asked for it for ever."""
    keys = RegisteredKeys(max_bytes=1000 * UNPACKED)
    keys.put("m", PLAN, Key("a"))
    keys.put("m", Plan("q", 5000), Key("x"))
    assert len(keys) == 1
    keys.put("m", PLAN, Key("b"))
    assert (len(keys), held(keys, "ab")) == (1, "b")


def test_the_bounds_are_sensible() -> None:
    assert 100 <= MAX_KEYS <= 10_000
    assert 64 << 20 <= MAX_BYTES <= 1 << 30


def test_threads_do_not_upset_it() -> None:
    keys = RegisteredKeys(max_keys=8, max_bytes=800 * UNPACKED)
    failed: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            for name in np.random.default_rng(seed).integers(0, 20, 3000):
                keys.put("m", PLAN, Key(str(name)))
                held(keys, str(name))
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert len(keys) == 8
    assert keys._bytes == 800 * UNPACKED, "bytes are what the keys held weigh"
