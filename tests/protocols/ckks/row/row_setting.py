"""What the tests of this engine share: settings, exact polynomials, and an owner's view of ciphertexts."""

from __future__ import annotations

import math
import struct
from functools import cache
from typing import Any

import numpy as np
import tenseal.sealapi as seal

from securead.checks import programs
from securead.program.builder import ProgramBuilder
from securead.program.polynomial import Affine, Input, Product, SecretPolynomial
from securead.program.program import Program
from securead.protocols.ckks.row import blind, messages, owner, requests
from securead.protocols.ckks.row.context import context_for
from securead.protocols.ckks.row.plan import RowPlan, make_plan
from securead.protocols.engine import Role
from securead.protocols.residues.transforms import transform_for
from securead.protocols.seal import objects

ROLES: tuple[Role, ...] = ("same", "split")
Polynomial = dict[tuple[int, ...], int]


class Setting:
    """One program in one role with keys and both halves."""

    def __init__(self, program: Program, role: Role) -> None:
        self.program, self.role = program, role
        self.plan: RowPlan = make_plan(program.public, role)
        self.secret, self.public = owner.generate_keys(self.plan)
        self.key = blind.read_evaluation_key(self.plan, self.public.to_bytes())
        self.evaluator = blind.make_evaluator(self.plan, program)
        self.encryptor = owner.make_encryptor(self.plan, self.secret if role == "same" else self.public)
        self.decryptor = owner.make_decryptor(self.plan, self.secret)

    def answer(self, Z: np.ndarray) -> bytes:
        return self.evaluator.evaluate(self.encryptor.encrypt(Z), self.key, rows=len(Z))

    def score(self, Z: np.ndarray) -> np.ndarray:
        return self.decryptor.decrypt(self.answer(Z), len(Z))

    def records(self, rng: np.random.Generator, rows: int) -> np.ndarray:
        bound = self.program.public.encoder.bound
        return rng.integers(-bound, bound + 1, (rows, self.plan.width))

    def integers(self, Z: np.ndarray) -> np.ndarray:
        """The exact integers that an answer holds: in role `same` without the public terms."""
        exact = self.program.evaluate(Z)
        return exact - self.program.public.public_term(Z) if self.role == "same" else exact

    def exact(self, Z: np.ndarray) -> np.ndarray:
        return self.program.public.decode(self.integers(Z))


@cache
def small(role: Role, seed: int = 0) -> Setting:
    return Setting(programs.small_quadratic(seed=seed), role)


@cache
def network(role: Role) -> Setting:
    """Degree 4 in nine features: 714 monomials, so that eleven rows share a ciphertext."""
    return Setting(programs.autoencoder(9, 3), role)


def of_degree(degree: int, *, features: int = 3, tolerance: float = 1e-2, seed: int = 0) -> Program:
    """A product of so many random linear forms, and a linear form of the record, twice from one source."""
    rng = np.random.default_rng(seed)
    build = ProgramBuilder(programs.encoder(features, limit=2.0, fraction_bits=6))

    def form(bits: int) -> int:
        return build.affine([(rng.normal(size=(2, features)), build.input)], rng.normal(size=2), fraction_bits=bits)

    value = form(10)
    for _ in range(degree - 1):
        value = build.product(value, form(10))
    linear = (rng.normal(size=(1, features)), build.input)
    build.affine(
        [(np.array([[1.0, -1.0]]), value), linear, linear],
        np.array([0.25]),
        fraction_bits=build.fraction_bits(value) + 8,
    )
    return build.finish(tolerance=tolerance, honest_extraction_rows=math.comb(features + degree, degree))


def polynomial(program: Program, role: Role) -> Polynomial:
    """The program as exact integers by monomial, worked out one term at a time."""
    public, secret, known = program.public, program.secret, list[list[Polynomial]]()
    assert isinstance(secret, SecretPolynomial)

    def plus(a: Polynomial, b: Polynomial, factor: int) -> Polynomial:
        return {m: a.get(m, 0) + factor * b.get(m, 0) for m in a.keys() | b.keys()}

    for at, step in enumerate(public.steps):
        match step:
            case Input():
                known.append([{(i,): 1} for i in range(step.width)])
            case Affine():
                weights, values = secret.weights[at], []
                for row in range(step.width):
                    total: Polynomial = {(): int(weights.offset[row])}
                    for source, matrix in zip(step.sources, weights.matrices, strict=True):
                        for factor, value in zip(matrix[row], known[source], strict=True):
                            total = plus(total, value, int(factor))
                    values.append(total)
                known.append(values)
            case Product():
                products = []
                for a, b in zip(known[step.left], known[step.right], strict=True):
                    result: Polynomial = {}
                    for m, x in a.items():
                        for n, y in b.items():
                            both = tuple(sorted(m + n))
                            result[both] = result.get(both, 0) + x * y
                    products.append(result)
                known.append(products)
    (score,) = known[-1]
    for term in public.public_terms if role == "split" else ():
        score = plus(score, {(i, i): 1 for i in range(public.encoder.width)}, term.multiplier)
    return score


# An owner's view.


def signed(values: Any, modulus: int) -> np.ndarray:
    """Python integers, centred."""
    values = np.asarray(values, dtype=object) % modulus
    return np.where(values > modulus // 2, values - modulus, values)


@cache
def secret_residues(setting: Setting) -> np.ndarray:
    """The secret in SEAL's transformed order, int64 `(primes, N)`: what an owner knows."""
    plan = setting.plan
    words = objects.plaintext_residues(owner._load_secret(plan, setting.secret)).reshape(len(plan.chain), -1)
    return words[: len(plan.data_primes)].view(np.int64)


def phases(setting: Setting, words: np.ndarray) -> np.ndarray:
    """c0 + c1 s of residues int64 `(primes, 2, N)` in coefficients, modulo all data primes: centred, `(N,)`."""
    plan, total = setting.plan, np.zeros(setting.plan.ring_dimension, dtype=object)
    q = math.prod(plan.data_primes)
    for prime, both, s in zip(plan.data_primes, words, secret_residues(setting), strict=True):
        transform = transform_for(prime, plan.ring_dimension)
        masked = (transform.forward(both[1]).astype(object) * s % prime).astype(np.int64)
        phase = (both[0] + transform.inverse(masked)) % prime
        total += phase.astype(object) * (q // prime * pow(q // prime, -1, prime))
    return signed(total, q)


def read(setting: Setting, request: bytes) -> list[np.ndarray]:
    """A request's ciphertexts as its sender knows them, in coefficients: int64 `(primes, 2, N)` each."""
    (rows,) = struct.unpack_from("<I", request)
    return list(requests.residues(setting.plan, request, 0, setting.plan.ciphertexts(rows)).swapaxes(0, 1))


def in_coefficients(setting: Setting, value: Any) -> np.ndarray:
    """SEAL's ciphertext as residues int64 `(primes, 2, N)`, its seed expanded by SEAL."""
    evaluator = seal.Evaluator(context_for(setting.plan))
    evaluator.transform_to_ntt_inplace(value)
    evaluator.transform_from_ntt_inplace(value)
    words, _ = objects.residues(value)
    return np.ascontiguousarray(words.view(np.int64).swapaxes(0, 1))


def request_from(setting: Setting, ciphertexts: list[np.ndarray], rows: int) -> bytes:
    """A request of ciphertexts int64 `(primes, 2, N)` of the sender's own making, role `split`."""
    body = [messages.pack_ciphertext(setting.plan, words.swapaxes(0, 1).view(np.uint64), b"") for words in ciphertexts]
    return messages.preamble(rows, setting.key.key_id) + b"".join(body)
