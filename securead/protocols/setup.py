"""Setups: what a service makes once for a program whose engine asks for it, and publishes before the first request.

An engine whose specification says `setup` has more in its halves than `securead.protocols.engine` lists:

* its plan has `setup_bytes`, the exact length of what is published;
* `blind.make_setup(plan, program)` makes a `Setup`, `blind.check_setup(plan, program, setup)` refuses any other's, and
  `blind.make_evaluator(plan, program, secret)` needs its secret;
* `owner.make_encryptor(plan, key, published)` needs the rest, and refuses what is damaged, foreign or unsound.

A setup is made once and kept: owners cache what is published under its SHA-256, and a request says which one it used.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, cast, runtime_checkable

from securead.program.program import Program
from securead.protocols import registry
from securead.protocols.engine import BlindModule, Encryptor, Evaluator, OwnerModule, Plan, PublicKey, SecretKey

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Setup:
    """`published` is for everybody. `secret` stays with the service, sealed as its model's weights are."""

    published: bytes = field(repr=False)
    secret: bytes = field(repr=False)

    @property
    def digest(self) -> str:
        """SHA-256 of what is published: its name."""
        return hashlib.sha256(self.published).hexdigest()


@runtime_checkable
class SetupPlan(Plan, Protocol):
    """A plan under which something is published."""

    @property
    def setup_bytes(self) -> int: ...


class _SetupBlindModule(BlindModule, Protocol):
    def make_setup(self, plan: Plan, program: Program, *, progress: Progress | None = None) -> Setup: ...
    def make_evaluator(self, plan: Plan, program: Program, secret: bytes = b"") -> Evaluator: ...
    def check_setup(self, plan: Plan, program: Program, setup: Setup) -> None: ...


class _SetupOwnerModule(OwnerModule, Protocol):
    def make_encryptor(self, plan: Plan, key: SecretKey | PublicKey, published: bytes = b"") -> Encryptor: ...


def setup_bytes(plan: Plan) -> int:
    """The exact length of what is published under a plan; 0 where nothing is."""
    return plan.setup_bytes if registry.spec(plan.engine).setup and isinstance(plan, SetupPlan) else 0


def make_setup(plan: Plan, program: Program, *, progress: Progress | None = None) -> Setup | None:
    """A fresh setup for a plan, or None where its engine asks for none. `progress(done, of)` is told how far it is."""
    if not registry.spec(plan.engine).setup:
        return None
    blind = cast(_SetupBlindModule, registry.blind_module(plan.engine))
    return blind.make_setup(plan, program, progress=progress)


def check(plan: Plan, program: Program, made: Setup) -> None:
    """Raise `FixInputError` or `UseOtherKeyError` unless a stored setup is this plan's and of one piece."""
    cast(_SetupBlindModule, registry.blind_module(plan.engine)).check_setup(plan, program, made)


def make_evaluator(plan: Plan, program: Program, secret: bytes | None) -> Evaluator:
    """The evaluator for a plan; `secret` is its setup's, and None where there is none."""
    if not registry.spec(plan.engine).setup:
        return registry.blind_module(plan.engine).make_evaluator(plan, program)
    return cast(_SetupBlindModule, registry.blind_module(plan.engine)).make_evaluator(plan, program, secret or b"")


def make_encryptor(plan: Plan, key: SecretKey | PublicKey, published: bytes | None) -> Encryptor:
    """The encryptor for a plan; `published` is what its service publishes, and None where that is nothing."""
    if not registry.spec(plan.engine).setup:
        return registry.owner_module(plan.engine).make_encryptor(plan, key)
    return cast(_SetupOwnerModule, registry.owner_module(plan.engine)).make_encryptor(plan, key, published or b"")
