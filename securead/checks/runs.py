"""What the checks of an engine run it on: sample programs that it carries, its halves, keys and records."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from securead.checks import programs
from securead.data.schema import Array
from securead.program.program import Program
from securead.protocols import registry, setup
from securead.protocols.engine import Plan, Role
from securead.protocols.setup import Setup

# A sample for each kind of capability, by seed: an engine is held to those whose operations it declares.
SAMPLES: tuple[Callable[[int], Program], ...] = (
    lambda seed: programs.small_quadratic(seed=seed),
    lambda seed: programs.small_tables(seed=seed),
    lambda seed: programs.small_deep(seed=seed),
)
ALL: dict[str, Callable[[], Program]] = {
    "a polynomial": programs.small_quadratic,
    "tables": programs.small_tables,
    "a deep polynomial": programs.small_deep,
    "a ReLU": programs.with_relu,
    "a truncation": programs.with_truncation,
}


@dataclasses.dataclass(frozen=True)
class Run:
    """One engine in one role on a sample program, with its keys and what its service published."""

    plan: Plan
    program: Program
    owner: Any
    blind: Any
    secret: Any
    public: Any
    setup: Setup | None

    @property
    def encryptor(self) -> Any:
        return self.encryptor_with(self.secret if self.plan.role == "same" else self.public)

    def encryptor_with(self, key: Any) -> Any:
        return setup.make_encryptor(self.plan, key, self.setup.published if self.setup else None)

    def evaluator_of(self, program: Program) -> Any:
        return setup.make_evaluator(self.plan, program, self.setup.secret if self.setup else None)

    @property
    def key(self) -> Any:
        """What the service holds of this owner, if anything."""
        if not self.plan.evaluation_key_bytes:
            return None
        return self.blind.read_evaluation_key(self.plan, self.public.to_bytes())

    @property
    def evaluate(self) -> Callable[[bytes], bytes]:
        evaluator, key = self.evaluator_of(self.program), self.key
        return lambda request: bytes(evaluator.evaluate(request, key))

    def encrypt(self, Z: Array) -> bytes:
        return bytes(self.encryptor.encrypt(self.program.public.queries(Z)))

    def score(self, Z: Array) -> Array:
        request = self.encrypt(Z)
        answer = self.evaluate(request)
        assert len(request) <= self.plan.max_request_bytes, "a request is larger than the plan says"
        assert len(answer) <= self.plan.max_answer_bytes, "an answer is larger than the plan says"
        scores = self.owner.make_decryptor(self.plan, self.secret).decrypt(answer, len(Z))
        assert scores.shape == (len(Z),) and scores.dtype == np.float64, "scores are float64 of shape (rows,)"
        if self.plan.role == "same":
            scores = scores + self.program.public.decode(self.program.public.public_term(Z))
        return np.asarray(scores)


def carried(name: str) -> tuple[Callable[[int], Program], ...]:
    """The samples that the engine declares that it carries."""
    spec = registry.spec(name)
    found = tuple(sample for sample in SAMPLES if spec.carries(sample(0).public))
    assert found, f"no sample program has operations of {sorted(spec.operations)}: add one to securead.checks"
    return found


def runs(name: str, *, seed: int = 0) -> Iterator[Run]:
    """Every declared role on every sample that the engine carries."""
    owner, blind = registry.owner_module(name), registry.blind_module(name)
    for role in registry.spec(name).roles:
        for sample in carried(name):
            plan, program, made = _prepared(name, role, sample, seed)
            yield Run(plan, program, owner, blind, *owner.generate_keys(plan), made)


@functools.cache
def _prepared(name: str, role: Role, sample: Callable[[int], Program], seed: int) -> tuple[Plan, Program, Setup | None]:
    """A sample program with its plan and, where the engine publishes something, what a service publishes once."""
    program = sample(seed)
    plan = registry.plan_module(name).make_plan(program.public, role)
    return plan, program, setup.make_setup(plan, program)


def records(program: Program, rows: int) -> Array:
    """Encoded records: extremes first, then uniform ones."""
    bound, width = program.public.encoder.bound, program.public.encoder.width
    rng = np.random.default_rng(rows)
    Z = rng.integers(-bound, bound, size=(rows, width), endpoint=True)
    extremes = min(rows, 8)
    Z[:extremes] = rng.choice([-bound, bound], size=(extremes, width))
    return Z


def refused(kind: type[Exception], call: Callable[[], object], otherwise: str) -> Exception:
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"{otherwise}: {kind.__name__} was expected")
