"""Masks made ahead of their use: each used once, by threads and after a fork, too."""

from __future__ import annotations

import hashlib
import os
import threading

import numpy as np
import pytest
from bfv_setting import small

from securead.protocols.bfv import blind
from securead.protocols.seal import objects
from securead.protocols.seal.publickeys import EvaluationKey


def fresh_key() -> EvaluationKey[object]:
    setting = small("same")
    return blind.read_evaluation_key(setting.plan, setting.public.to_bytes())


def name_of(mask: object) -> bytes:
    return hashlib.sha256(objects.residues(mask)[0].tobytes()).digest()


def test_no_mask_is_seen_twice_while_threads_fill_and_take() -> None:
    key, seen = fresh_key(), list[bytes]()

    def take() -> None:
        seen.extend(name_of(key.mask()) for _ in range(40))

    def fill() -> None:
        for _ in range(60):
            key.refill(1 << 20)

    threads = [threading.Thread(target=work) for work in (fill, take, fill, take)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == len(set(seen)) == 80


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a system without fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_shares_no_mask_with_its_parent() -> None:
    key = fresh_key()
    key.refill()
    key.refill()
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(write, bytes([key.held_bytes > 0]) + name_of(key.mask()) + name_of(key.mask()))
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    told = os.read(read, 65)
    os.close(read)
    os.close(write)
    assert told[0] == 0, "the child holds what its parent made"
    ours = {name_of(key.mask()) for _ in range(3)}
    assert len(ours | {told[1:33], told[33:]}) == 5


def test_what_it_holds_is_counted_as_it_weighs() -> None:
    key, plan = fresh_key(), small("same").plan
    words, _ = objects.residues(key.mask())
    assert key.refill() == words.nbytes == 16 * len(plan.data_primes) * plan.ring_dimension


def test_full_chunks_use_a_mask_for_each_group(rng: np.random.Generator) -> None:
    setting, key = small("same"), fresh_key()
    rows = setting.plan.rows_per_chunk
    groups = len(setting.plan.groups(rows))
    for _ in range(groups + 1):
        key.refill()
    queries = setting.random_queries(rng, rows)
    answer = setting.evaluator.evaluate(setting.encryptor.encrypt(queries), key)
    exact = setting.program.public.decode(setting.integers(queries))
    assert (setting.decryptor.decrypt(answer, rows) == exact).all()
    left = key.held_bytes
    assert left == key.refill(), "one was left"
