"""Masks made ahead of their use: each used once, by threads and after a fork, too."""

from __future__ import annotations

import hashlib
import os
import threading

import numpy as np
import pytest
from row_setting import network, small

from securead.protocols.ckks.row import blind
from securead.protocols.ckks.row.sanitise import Mask, switched
from securead.protocols.seal import primes
from securead.protocols.seal.publickeys import EvaluationKey


def fresh_key() -> EvaluationKey[Mask]:
    setting = small("same")
    return blind.read_evaluation_key(setting.plan, setting.public.to_bytes())


def name_of(mask: Mask) -> bytes:
    return hashlib.sha256(mask.c0.tobytes() + mask.c1.tobytes()).digest()


def test_no_mask_is_seen_twice_while_threads_fill_and_take() -> None:
    key, seen = fresh_key(), list[bytes]()

    def take() -> None:
        seen.extend(name_of(key.mask()) for _ in range(25))

    def fill() -> None:
        for _ in range(40):
            key.refill(1 << 20)

    threads = [threading.Thread(target=work) for work in (fill, take, fill, take)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == len(set(seen)) == 50


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
    """Two arrays that own their memory: nothing larger is kept alive behind them."""
    key = fresh_key()
    mask = key.mask()
    assert key.refill() == mask.c0.nbytes + mask.c1.nbytes
    assert mask.c1.base is None
    assert mask.c0.base is None


def test_a_chunk_uses_a_mask_for_each_group(rng: np.random.Generator) -> None:
    setting = network("same")
    key = blind.read_evaluation_key(setting.plan, setting.public.to_bytes())
    groups = len(setting.plan.groups(13))
    for _ in range(groups + 1):
        key.refill()
    Z = setting.records(rng, 13)
    answer = setting.evaluator.evaluate(setting.encryptor.encrypt(Z), key)
    assert np.abs(setting.decryptor.decrypt(answer, 13) - setting.exact(Z)).max() <= setting.plan.error_bound
    left = key.held_bytes
    assert left == key.refill(), "one was left"


def test_switching_down_rounds_each_coefficient(rng: np.random.Generator) -> None:
    """Against integers of any size: one prime at a time from the last, centred remainders."""
    chain = primes.choose(4096, (40, 45, 50, 23))
    assert chain is not None
    q = int(np.prod(np.array(chain, dtype=object)))
    values = [0, 1, q - 1, q // 2, *(int.from_bytes(rng.bytes(24), "little") % q for _ in range(200))]
    residues = np.array([[v % p for v in values] for p in chain], dtype=np.int64)
    for kept in (1, 2, 3, 4):
        expected, modulus = values, q
        for prime in chain[: kept - 1 if kept else None : -1]:
            modulus //= prime
            expected = [((v - ((v + prime // 2) % prime - prime // 2)) // prime) % modulus for v in expected]
        found = switched(residues, chain, kept)
        assert found.tolist() == [[v % p for v in expected] for p in chain[:kept]]
