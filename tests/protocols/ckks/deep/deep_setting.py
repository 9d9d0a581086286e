"""Programs, keys and halves of the engine that its tests share; made once."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import tenseal.sealapi as seal

from securead.checks import programs
from securead.program.program import Program
from securead.protocols.ckks.deep import blind, embedding, owner, requests
from securead.protocols.ckks.deep.context import context_for, level_of, transformed
from securead.protocols.ckks.deep.plan import DeepPlan, make_plan
from securead.protocols.engine import Role
from securead.protocols.seal import objects

ROLES: tuple[Role, ...] = ("same", "split")


class Party:
    """A program, an owner's keys and both halves, and what the key holder could see of a score before it is masked."""

    def __init__(self, program: Program, role: Role = "same") -> None:
        self.program, self.role = program, role
        self.plan: DeepPlan = make_plan(program.public, role)
        self.secret, self.public = owner.generate_keys(self.plan)
        self.evaluator = blind.make_evaluator(self.plan, program)
        self.key = blind.read_evaluation_key(self.plan, self.public.to_bytes())
        self.encryptor = owner.make_encryptor(self.plan, self.secret if role == "same" else self.public)
        self.decryptor = owner.make_decryptor(self.plan, self.secret)

    def exact(self, Z: np.ndarray) -> np.ndarray:
        """What an answer to these records should decrypt to."""
        public = self.program.public
        own = public.public_term(Z) if self.role == "same" else 0
        return public.decode(self.program.evaluate(Z) - own)

    def scores(self, Z: np.ndarray) -> np.ndarray:
        return self.decryptor.decrypt(self.evaluator.evaluate(self.encryptor.encrypt(Z), self.key), len(Z))

    def bare(self, request: bytes) -> np.ndarray:
        """The score before masks, residues int64 `(primes, polynomials, N)`."""
        return self.evaluator._score(requests.columns(self.plan, request), self.key)

    def slots(self, score: np.ndarray) -> np.ndarray:
        """What a score on the last level decrypts to, over its scale."""
        plan, context = self.plan, context_for(self.plan)
        words = score.swapaxes(0, 1).view(np.uint64)
        level = level_of(context, plan.last_primes)
        encrypted = objects.ciphertext_from_residues(context, level, words, ntt=True)
        plaintext = seal.Plaintext()
        seal.Decryptor(context, owner._load_secret(plan, self.secret)).decrypt(encrypted, plaintext)
        phase = np.array(objects.plaintext_residues(plaintext)).reshape(1, plan.last_primes, -1)
        primes = plan.data_primes[: plan.last_primes]
        return embedding.to_slots(transformed(context, phase, back=True)[0], plan.score_scale, primes)


def small(role: Role = "same", seed: int = 0) -> Party:
    """Degree 8 at N = 16384."""
    return _small(role, seed)


@cache
def _small(role: Role, seed: int) -> Party:
    return Party(programs.small_deep(seed=seed), role)


def records(program: Program, rows: int, seed: int = 0) -> np.ndarray:
    """Normal ones, behind some with every value at the clipping limit."""
    encoder, rng = program.public.encoder, np.random.default_rng(seed)
    Z = np.rint(rng.normal(size=(rows, encoder.width)) * 2**encoder.fraction_bits)
    Z[: rows // 4] = rng.choice([-encoder.bound, encoder.bound], size=(rows // 4, encoder.width))
    return np.clip(Z, -encoder.bound, encoder.bound).astype(np.int64)


def any_dag(seed: int, *, tolerance: float = 64.0) -> Program:
    """A random program of degree 5 to 16 with sums of steps of different depths, and products of them."""
    from securead.program.builder import ProgramBuilder

    rng = np.random.default_rng(seed)
    build = ProgramBuilder(programs.encoder(2, limit=1.0, fraction_bits=4))
    steps, degrees = [build.input], [1]
    while degrees[-1] < 5:
        other: Any = int(rng.integers(0, len(steps)))
        if rng.random() < 0.5 and degrees[-1] + degrees[other] <= 8:
            steps.append(build.product(steps[-1], steps[other]))
            degrees.append(degrees[-1] + degrees[other])
        elif degrees[-1] <= 4:
            terms = [(rng.choice([-0.5, 0.25, 0.5], size=(2, 2)), step) for step in sorted({steps[-1], steps[other]})]
            fraction = max(build.fraction_bits(step) for _, step in terms) + 2
            steps.append(build.affine(terms, rng.choice([0.0, 0.125], size=2), fraction_bits=fraction))
            degrees.append(max(degrees[-1], degrees[other]))
    fraction = build.fraction_bits(steps[-1]) + 1
    build.affine([(np.array([[1.0, -0.5]]), steps[-1]), (np.array([[0.5, 0.5]]), build.input)], fraction_bits=fraction)
    squared_norm = 1.0 if seed % 2 else None
    return build.finish(tolerance=tolerance, honest_extraction_rows=1, squared_norm=squared_norm)
