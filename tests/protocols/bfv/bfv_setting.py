"""What the tests of this engine share: settings, an owner's view of ciphertexts, and the attack on bare answers."""

from __future__ import annotations

import math
from functools import cache
from typing import Any, Literal

import numpy as np
import tenseal.sealapi as seal

from securead.checks import programs
from securead.program.program import Program
from securead.protocols.bfv import blind, owner
from securead.protocols.bfv.context import context_for
from securead.protocols.bfv.plan import BfvPlan, make_plan
from securead.protocols.seal import objects

Role = Literal["same", "split"]


class Setting:
    """One program in one role with keys and both halves."""

    def __init__(self, program: Program, role: Role) -> None:
        self.program, self.role = program, role
        self.plan: BfvPlan = make_plan(program.public, role)
        self.secret, self.public = owner.generate_keys(self.plan)
        self.key = blind.read_evaluation_key(self.plan, self.public.to_bytes())
        self.evaluator = blind.make_evaluator(self.plan, program)
        self.encryptor = owner.make_encryptor(self.plan, self.secret if role == "same" else self.public)
        self.decryptor = owner.make_decryptor(self.plan, self.secret)

    def score(self, queries: np.ndarray) -> np.ndarray:
        answer = self.evaluator.evaluate(self.encryptor.encrypt(queries), self.key)
        return self.decryptor.decrypt(answer, len(queries))

    def random_queries(self, rng: np.random.Generator, rows: int) -> np.ndarray:
        return rng.integers(0, np.array(self.plan.sizes), (rows, len(self.plan.sizes)))

    def integers(self, queries: np.ndarray) -> np.ndarray:
        """The exact scores of positions."""
        tables = self.program.secret.tables
        return np.array([sum(int(t[i]) for t, i in zip(tables, row, strict=True)) for row in queries], dtype=object)


@cache
def small(role: Role, seed: int = 0) -> Setting:
    return Setting(programs.small_tables(seed=seed), role)


@cache
def forest(role: Role) -> Setting:
    return Setting(programs.forest(50, 6), role)


def secret_coefficients(setting: Setting) -> np.ndarray:
    """The ternary secret, int64 `(N,)`: what an owner knows."""
    plan, context = setting.plan, context_for(setting.plan)
    words = objects.plaintext_residues(owner._load_secret(plan, setting.secret)).reshape(len(plan.chain), -1)[
        : len(plan.data_primes)
    ]
    both = objects.ciphertext_from_residues(context, context.first_parms_id(), np.stack([words, words]), ntt=True)
    seal.Evaluator(context).transform_from_ntt_inplace(both)
    residues, prime = objects.residues(both)[0][0, 0].astype(np.int64), plan.data_primes[0]
    return np.where(residues > prime // 2, residues - prime, residues)


def phases(setting: Setting, value: Any, places: np.ndarray) -> list[int]:
    """c0 + c1 s at some coefficients, modulo the product of the ciphertext's primes, exactly."""
    words, _ = objects.residues(value)
    primes = setting.plan.data_primes[: words.shape[1]]
    q, n = math.prod(primes), words.shape[2]
    lifts = [q // p * pow(q // p, -1, p) for p in primes]
    c0, c1 = (sum(row.astype(object) * lift for row, lift in zip(half, lifts, strict=True)) % q for half in words)
    s = secret_coefficients(setting)
    found = []
    for place in places.tolist():
        index = (place - np.arange(n)) % n
        sign = np.where(np.arange(n) > place, -1, 1)
        found.append(int((c0[place] + (c1 * (sign * s[index]).astype(object)).sum()) % q))
    return found


def errors(setting: Setting, value: Any, places: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """The distance of each phase from q / t times its score, rounded: Python integers."""
    q = math.prod(setting.plan.data_primes[: value.coeff_modulus_size()])
    t = 1 << setting.plan.plain_bits
    off = [(p - q * int(v) // t) % q for p, v in zip(phases(setting, value, places), scores, strict=True)]
    return np.array([v - q if v > q // 2 else v for v in off], dtype=object)


# The attack: c1 of a bare answer is c1 of the query times the table polynomial, and the owner knows both.


def transform(values: np.ndarray, prime: int, *, inverse: bool = False) -> np.ndarray:
    """The number-theoretic transform of a polynomial modulo X**N + 1 and a prime below 2**31, or its inverse."""
    n = len(values)
    generator = next(g for g in range(2, 1000) if pow(pow(g, (prime - 1) // (2 * n), prime), n, prime) == prime - 1)
    psi = pow(generator, (prime - 1) // (2 * n), prime)
    if inverse:
        psi = pow(psi, -1, prime)
    twist = np.array([pow(psi, i, prime) for i in range(n)], dtype=np.int64)
    bits = n.bit_length() - 1
    order = [int(f"{i:0{bits}b}"[::-1], 2) for i in range(n)]
    x = (values.astype(np.int64) * (1 if inverse else twist) % prime)[order]
    half = 1
    while half < n:
        roots = np.array([pow(psi, 2 * (n // (2 * half)) * i, prime) for i in range(half)], dtype=np.int64)
        pairs = x.reshape(-1, 2, half)
        odd = pairs[:, 1] * roots % prime
        x = np.stack([(pairs[:, 0] + odd) % prime, (pairs[:, 0] - odd) % prime], axis=1).ravel()
        half *= 2
    return x * pow(n, -1, prime) % prime * twist % prime if inverse else x


def solve_for_table(query: np.ndarray, answer: np.ndarray, prime: int) -> np.ndarray:
    """Entries of the table polynomial, from c1 of a query and of its answer modulo a prime, `(N,)` each."""
    quotient = [
        a * pow(b, -1, prime) % prime
        for a, b in zip(transform(answer, prime).tolist(), transform(query, prime).tolist(), strict=True)
    ]
    polynomial = transform(np.array(quotient, dtype=np.int64), prime, inverse=True)
    return np.concatenate([polynomial[:1], (-polynomial[:0:-1]) % prime])
