"""The models a service holds: bundles checked at start, plans for every engine and role, evaluators made once."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from securead.errors import FixConfigurationError, FixProgramError, PrivacyRefusedError, UseOtherKeyError
from securead.models import bundle as bundles
from securead.models.bundle import Bundle
from securead.protocols import registry, setup, wire
from securead.protocols.choice import carriers, remedy_for_none
from securead.protocols.engine import Evaluator, Plan
from securead.protocols.setup import Setup
from securead.serving import setups

ENVELOPE_BYTES = wire.MAX_HEADER_BYTES + 64
_REMEDY = "Fetch the model again (`securead keygen` makes keys for what is served now) and encrypt again."


@dataclass(frozen=True)
class Offer:
    """A model as `GET /v1/models` lists it."""

    name: str
    digest: str
    program: str


@dataclass(frozen=True)
class Offers:
    """The reply to `GET /v1/models`."""

    models: tuple[Offer, ...]


class LoadedModel:
    """One bundle, ready to score.

    `engines`: offer it by these only. `plans`: those that were made of it before, where they were. `engine_secrets`:
    what engines hold secret for this model beside its weights, by engine; their own bytes. `setups`: what engines
    publish once of this model, by engine; those without theirs are not offered. Raises `PrivacyRefusedError`
    for a bundle whose noise came from a known seed, and `FixProgramError` for one that no registered engine carries in
    any role.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        engines: Sequence[str] | None = None,
        plans: Mapping[tuple[str, str], Plan] | None = None,
        engine_secrets: Mapping[str, bytes] | None = None,
        setups: Mapping[str, Setup] | None = None,
    ) -> None:
        self.public, self.secret = bundle.public, bundle.secret
        self.setups: Mapping[str, Setup] = setups or {}
        self.engine_secrets: dict[str, bytes] = {engine: made.secret for engine, made in self.setups.items()}
        self.engine_secrets |= engine_secrets or {}
        if bundle.public.privacy.noise_source == "seeded-study":
            raise PrivacyRefusedError(
                f"model {bundle.public.name!r} was trained with noise from a known seed, for a study",
                remedy="Anyone can subtract such noise, so it is not served: train again with the system's noise.",
            )
        self._program = bundle.program
        self.plans: Mapping[tuple[str, str], Plan] = plans or self._make_plans(engines)
        self._evaluators: dict[tuple[str, str], Evaluator] = {}
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """The name under which clients ask for it."""
        return self.public.name

    @property
    def offer(self) -> Offer:
        """Its entry in the list of models."""
        return Offer(self.name, self.public.digest, self.public.program.digest)

    @property
    def unsanitised(self) -> tuple[str, ...]:
        """The engines it is served by whose answers tell a key holder more than scores."""
        return tuple(sorted({engine for engine, _ in self.plans if not registry.spec(engine).sanitised}))

    @property
    def max_message_bytes(self) -> int:
        """No honest request message is larger."""
        return max(plan.max_request_bytes for plan in self.plans.values()) + ENVELOPE_BYTES

    @property
    def max_key_bytes(self) -> int:
        """No honest evaluation key, in its message, is larger; 0 where no engine of this model needs one."""
        largest = max(plan.evaluation_key_bytes for plan in self.plans.values())
        return largest + ENVELOPE_BYTES if largest else 0

    def _make_plans(self, engines: Sequence[str] | None) -> dict[tuple[str, str], Plan]:
        plans: dict[tuple[str, str], Plan] = {}
        problem: FixProgramError | None = None
        able = carriers(self.public.program)
        for spec in able:
            if engines is not None and spec.name not in engines:
                continue
            if spec.setup and spec.name not in self.engine_secrets:
                if engines is not None:
                    raise FixConfigurationError(
                        f"nothing is published of the model {self.name!r} for the engine {spec.name!r}",
                        remedy=f"Run: securead publish BUNDLE --engine {spec.name}.",
                    )
                continue
            for role in spec.roles:
                try:
                    plans[spec.name, role] = registry.plan_module(spec.name).make_plan(self.public.program, role)
                except FixProgramError as error:
                    problem = error
        if not plans and not problem and able:
            raise FixProgramError(
                f"none of the engines that were named carries the model {self.name!r}",
                value=", ".join(engines or ()),
                remedy="Engines that do: " + ", ".join(spec.name for spec in able) + ".",
            )
        if not plans:
            raise problem or FixProgramError(
                f"no registered engine carries the model {self.name!r}",
                remedy=remedy_for_none(self.public.program),
            )
        return plans

    def plan(self, header: wire.Header) -> Plan:
        """The plan that a message follows, or `UseOtherKeyError` when the message is not for what is served."""
        if header.program != self.public.program.digest:
            raise UseOtherKeyError(
                f"the request is for another model than the {self.name!r} that is served now", remedy=_REMEDY
            )
        plan = self.plans.get((header.engine, header.role))
        if plan is None:
            offered = ", ".join(f"{engine}/{role}" for engine, role in self.plans)
            raise UseOtherKeyError(
                "the model is not served by this engine in this role",
                value=f"{header.engine}/{header.role}"[:100],
                remedy=f"Served: {offered}.",
            )
        if header.plan != plan.digest:
            raise UseOtherKeyError("the request was made with other parameters than are served now", remedy=_REMEDY)
        return plan

    def evaluator(self, plan: Plan) -> Evaluator:
        """The evaluator for one of this model's plans, made at its first use."""
        with self._lock:
            where = (plan.engine, plan.role)
            if where not in self._evaluators:
                secret = self.engine_secrets.get(plan.engine)
                self._evaluators[where] = setup.make_evaluator(plan, self._program, secret)
            return self._evaluators[where]


def load(
    sources: Iterable[Bundle | Path | str], *, passphrase: str | None = None, engines: Sequence[str] | None = None
) -> tuple[LoadedModel, ...]:
    """Load bundles for serving, by `engines` only where some are named; every problem shows here and not later."""
    for name in engines or ():
        if registry.spec(name).parties != 1:
            raise FixConfigurationError(
                f"the engine {name!r} computes among several parties, not at a scoring service",
                remedy="Serve by it with: securead split, securead dealer and securead party.",
            )
    sources = tuple(sources)
    read = [item if isinstance(item, Bundle) else bundles.load(item, passphrase=passphrase) for item in sources]
    models = [
        LoadedModel(bundle, engines=engines, setups=_setups(item, bundle, passphrase, engines))
        for item, bundle in zip(sources, read, strict=True)
    ]
    _check_names(models)
    return tuple(models)


def _setups(
    item: Bundle | Path | str, bundle: Bundle, passphrase: str | None, engines: Sequence[str] | None
) -> dict[str, Setup]:
    """What was published beside a bundle for the engines that it is offered by."""
    if isinstance(item, Bundle):
        return {}
    return setups.read(item, bundle.program, passphrase=passphrase, engines=engines)


def _check_names(models: Sequence[LoadedModel]) -> None:
    if not models:
        raise FixConfigurationError("there is nothing to serve", remedy="Give at least one bundle.")
    names = [model.name for model in models]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise FixConfigurationError(f"two bundles are called {twice!r}", remedy="Serve them from two services.")
