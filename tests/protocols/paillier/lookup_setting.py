"""What tests of blind lookups share: a program, what its service published, an owner, and a bad service's tools."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from functools import cache
from typing import Any

import gmpy2
import numpy as np

from securead.checks import programs
from securead.program.program import Program
from securead.protocols.paillier import blind, messages, owner, published
from securead.protocols.paillier.blind import Evaluator
from securead.protocols.paillier.keys import PrivateKey
from securead.protocols.paillier.messages import Request
from securead.protocols.paillier.owner import Encryptor
from securead.protocols.paillier.plan import PaillierPlan, make_plan
from securead.protocols.paillier.published import Published


class Lookup:
    """A service that published, and an owner."""

    def __init__(self, program: Program) -> None:
        self.program, self.plan = program, make_plan(program.public, "same")
        self.setup = blind.make_setup(self.plan, program)
        self.secret, self.public = owner.generate_keys(self.plan)
        self.encryptor = owner.make_encryptor(self.plan, self.secret, self.setup.published)
        self.decryptor = owner.make_decryptor(self.plan, self.secret)
        self.evaluator = blind.make_evaluator(self.plan, program, self.setup.secret)
        self.name, self.key = messages.secret_from_bytes(self.plan, self.setup.secret)
        self.tables = published.read(self.plan, self.setup.published)

    def queries(self, rows: int, seed: int = 0) -> np.ndarray:
        return queries(self.plan, rows, seed)

    def exact(self, positions: np.ndarray) -> np.ndarray:
        """The scores of positions, from the tables."""
        return scores_of(self.program, positions)

    def crafted(self, ciphertext: int, rows: int = 1) -> bytes:
        """A request that holds this ciphertext."""
        return Request(rows, bytes.fromhex(self.secret.key_id), self.name, bytes(32), int(ciphertext)).to_bytes(
            self.plan
        )

    def low_bits(self, ciphertext: int, rows: int = 1) -> int:
        """What the service answers to it."""
        return messages.read_answer(self.plan, self.evaluator.evaluate(self.crafted(ciphertext, rows))).low


@cache
def lookup() -> Lookup:
    """Five trees of eight leaves."""
    return Lookup(programs.small_tables())


def queries(plan: PaillierPlan, rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, plan.sizes, (rows, len(plan.sizes)))


def scores_of(program: Program, positions: np.ndarray) -> np.ndarray:
    integers = sum(table[positions[:, at]] for at, table in enumerate(program.secret.tables))
    return program.public.decode(integers)


@cache
def service_key() -> PrivateKey:
    return PrivateKey.generate()


def quickly_published(plan: PaillierPlan, key: PrivateKey, values: Sequence[int]) -> Published:
    """Tables under a key with randomness good enough for attacks on what is answered: powers of one factor."""
    n, square = key.n, key.n**2
    step = factor = key.nth_power(key.random())
    entries = []
    for value in values:
        entries.append((1 + value * n) * factor % square)
        factor = factor * step % square
    return Published(bytes(32), n, entries)


def served(plan: PaillierPlan, key: PrivateKey) -> Evaluator:
    """A service whose publication is called by 32 zero bytes."""
    return Evaluator(plan, bytes(32), key)


def submitter(plan: PaillierPlan, tables: Published) -> Encryptor:
    """An owner that did not check what it was given."""
    return Encryptor(plan, owner.generate_keys(plan)[0], tables)


def ciphertext_of(plan: PaillierPlan, request: bytes) -> int:
    return messages.read_request(plan, request).ciphertext


def packed(tables: Published, places: Sequence[int], width: int) -> Any:
    """Entries side by side in one plaintext, `width` bits each, the first lowest: what a curious owner asks for."""
    product = gmpy2.mpz(1)
    for place in reversed(places):
        product = gmpy2.powmod(product, 1 << width, tables.square) * tables.entries[place] % tables.square
    return product


def name_of(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


@cache
def related_primes() -> tuple[int, int]:
    """p and q with p | q - 1, whose product has 3,072 bits."""
    while True:
        p = int(gmpy2.next_prime(secrets.randbits(1024) | 3 << 1022))
        k = secrets.randbits(1023) | 3 << 1021
        while not gmpy2.is_prime(q := 2 * k * p + 1):
            k += 1
        if (p * q).bit_length() == 3072:
            return p, q
