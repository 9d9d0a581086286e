"""Parts by themselves: a release, a private step, a mask, a product of residues, a look-up, keys. One case each.

| detector | what | parameters |
|---|---|---|
| gaussian-release | values released with exact discrete Gaussian noise | values |
| dp-sgd-step | a step of private training of an autoencoder | rows, width, hidden |
| masking | a site's part in a masked sum among `sites`, signatures included | values |
| residue-product | a product of two vectors of residues modulo 40-bit primes | ring, primes |
| bfv-lookup | an encrypted look-up, masked, in batches of `batch` rows | trees, depth |
| key-generation | a key pair of `engine` in `role` | features |
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from securead.bench.engine_case import CLIENT, SERVER
from securead.bench.fitting import provenance
from securead.bench.processes import own_peak
from securead.bench.records import Case, Record, Timing, Traffic
from securead.bench.repeats import once, repeat, timing
from securead.data.encoder import Encoder
from securead.data.schema import Array, Column, Schema
from securead.errors import FixConfigurationError
from securead.privacy.mechanisms import GRID_BITS, GaussianMechanism, SystemNoise
from securead.privacy.randomness import SystemStream
from securead.privacy.site import Kept
from securead.program.builder import ProgramBuilder, table_program
from securead.program.geometry import Trees
from securead.program.program import Program
from securead.protocols import registry
from securead.protocols.engine import Role
from securead.protocols.masking.identity import Identity, Known
from securead.protocols.masking.masker import Masker
from securead.protocols.masking.masks import unmask

SITE = "site"
Given = Mapping[str, int]
Spent = tuple[float, float]


@dataclass(frozen=True)
class _Found:
    timings: tuple[Timing, ...]
    traffic: tuple[Traffic, ...] = ()
    rows: int = 0
    columns: int = 0
    rounds: int | None = None
    security_bits: float | None = None
    notes: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()


def mechanism(case: Case, data_dir: Path | None) -> Record:
    """The record of a case. Raises `FixConfigurationError` for a mechanism or a parameter that there is not."""
    if case.detector not in _MECHANISMS:
        raise FixConfigurationError(
            "no such mechanism", value=case.detector, remedy="One of: " + ", ".join(_MECHANISMS)
        )
    measure, defaults = _MECHANISMS[case.detector]
    given = {**defaults}
    for name, value in case.parameters:
        if name not in defaults or not isinstance(value, int) or value < 1:
            raise FixConfigurationError(
                f"{case.detector} takes whole numbers: {', '.join(defaults)}", value=(name, value)
            )
        given[name] = value
    found = measure(case, given)
    return Record(
        case=case,
        provenance=provenance(""),
        peak_bytes=(("process", own_peak()),),
        **{field.name: getattr(found, field.name) for field in dataclasses.fields(found)},
    )


def _spent(call: Callable[[], object]) -> Callable[[], Spent]:
    def timed() -> Spent:
        cpu, wall = time.process_time(), time.perf_counter()
        call()
        return time.process_time() - cpu, time.perf_counter() - wall

    return timed


def _gaussian_release(case: Case, given: Given) -> _Found:
    mechanism, source = GaussianMechanism(1 << GRID_BITS, 1.0), SystemNoise()
    exact = np.zeros(given["values"], dtype=np.int64)
    spent = repeat(_spent(lambda: mechanism.release(exact, source, purpose="benchmark")))
    note = "a row is a released value; exact discrete Gaussian noise from the system's generator"
    return _Found((timing(SITE, "release", case.threads, spent, rows=len(exact)),), rows=len(exact), notes=(note,))


def _dp_sgd_step(case: Case, given: Given) -> _Found:
    from securead.models.network import Descent, Shape, initial_parameters, train_privately

    width, rows = given["width"], given["rows"]
    shape = Shape((width, given["hidden"], width), "linear_square")
    theta, Z = initial_parameters(shape, 0), np.random.default_rng(case.seed).normal(size=(rows, width))
    descent = Descent(steps=4, sampling_prob=1.0, learning_rate=0.005, weight_decay=1e-4, weight_limit=1.0)

    def steps() -> None:
        train_privately(
            shape,
            theta,
            Z,
            descent,
            noise_multiplier=1.0,
            l2_clip_norm=1.0,
            expected_records=float(rows),
            stream=SystemStream(),
        )

    spent = [(cpu / descent.steps, wall / descent.steps) for cpu, wall in repeat(_spent(steps))]
    note = "a row is a record of a batch: its gradient is computed and clipped, and the batch's is noised"
    found = timing(SITE, "step", case.threads, spent, rows=rows)
    return _Found((found,), rows=rows, columns=width, notes=(note,))


def _masking(case: Case, given: Given) -> _Found:
    names = [f"site-{at}" for at in range(case.sites)]
    identities = {name: Identity.generate(name) for name in names}
    roster = Known({name: identity.credential for name, identity in identities.items()})
    maskers = {name: Masker("benchmark", identities[name], roster, Kept(), minimum=2, attempts=3) for name in names}
    adverts, rng, numbers = [each.advert() for each in maskers.values()], np.random.default_rng(case.seed), [0]
    sums: list[bool] = []

    def one_round() -> None:
        number = numbers[0] = numbers[0] + 1
        updates = {name: rng.integers(-(2**40), 2**40, given["values"]) for name in names}
        signed = {name: each.agree(number, 1, adverts, updates[name]) for name, each in maskers.items()}
        masked = {name: each.mask(number, 1, signed, updates[name]) for name, each in maskers.items()}
        sums.append(np.array_equal(unmask(masked, names), sum(updates.values())))

    first = _spent(one_round)()
    later = repeat(_spent(one_round))
    per_site = [(cpu / len(names), wall / len(names)) for cpu, wall in later]
    timings = (
        timing(SITE, "agree and mask", case.threads, per_site, rows=given["values"]),
        once(SITE, "first round", case.threads, [(first[0] / len(names), first[1] / len(names))]),
    )
    traffic = (Traffic(SITE, "coordinator", "updates, a round", bytes_once=8 * given["values"]),)
    failures = () if all(sums) else ("sums: a masked sum is not the sum",)
    note = f"a row is a value; {len(names)} sites, each verifying all the others"
    return _Found(timings, traffic, rows=given["values"], notes=(note,), failures=failures)


def _residue_product(case: Case, given: Given) -> _Found:
    from securead.protocols.residues.layers import ProductSum
    from securead.protocols.residues.numba_form import NumbaForm
    from securead.protocols.seal import primes

    ring, count = given["ring"], given["primes"]
    chain = primes.choose(min(ring, 8192), (40,) * count)
    if chain is None:
        raise FixConfigurationError("there are not so many primes", value=count)
    rng = np.random.default_rng(case.seed)
    work = []
    for prime in chain:
        product = ProductSum.compile(np.ones(1, dtype=int), (2, 2), prime)
        work.append((NumbaForm(prime), product, rng.integers(0, prime, (2, 1, 2, ring))))

    def products() -> None:
        for form, product, (left, right) in work:
            form.sum_of_products(product, left, right)

    spent = repeat(_spent(products), seconds=1.0)
    note = f"a row is a slot: two polynomials by two, modulo {count} primes of 40 bits, in transformed form"
    return _Found((timing(SERVER, "product", case.threads, spent, rows=ring),), rows=ring, notes=(note,))


def _bfv_lookup(case: Case, given: Given) -> _Found:
    program = _forest(given["trees"], given["depth"])
    role: Role = "split" if case.role == "split" else "same"
    plan = registry.plan_module("bfv").make_plan(program.public, role)
    owner, blind = registry.owner_module("bfv"), registry.blind_module("bfv")
    secret, public = owner.generate_keys(plan)
    rows = min(case.batch or plan.rows_per_chunk, plan.rows_per_chunk)
    bound, width = program.public.encoder.bound, program.public.encoder.width
    Z = np.random.default_rng(case.seed).integers(-bound, bound + 1, (rows, width))
    encryptor = owner.make_encryptor(plan, secret if role == "same" else public)
    request = encryptor.encrypt(program.public.queries(Z))
    key, evaluator = blind.read_evaluation_key(plan, public.to_bytes()), blind.make_evaluator(plan, program)
    answers: list[bytes] = []
    spent = repeat(_spent(lambda: answers.append(evaluator.evaluate(request, key, rows=rows))))
    scores = owner.make_decryptor(plan, secret).decrypt(answers[-1], rows)
    exact = program.public.decode(program.evaluate(Z))
    return _Found(
        (timing(SERVER, "look up and mask", case.threads, spent, rows=rows),),
        (
            Traffic(CLIENT, SERVER, "records", bytes_per_row=len(request) / rows),
            Traffic(SERVER, CLIENT, "scores", bytes_per_row=len(answers[-1]) / rows),
            Traffic(CLIENT, SERVER, "keys", bytes_once=len(public.to_bytes())),
        ),
        rows=rows,
        columns=width,
        rounds=1,
        security_bits=float(plan.security_bits),
        notes=("masks are made when they are needed, not ahead",),
        failures=() if np.array_equal(scores, exact) else ("scores: a look-up is not exact",),
    )


def _key_generation(case: Case, given: Given) -> _Found:
    engine = case.engine if case.engine in registry.engines() else "ckks"
    program = _forest(50, 6) if "lookup" in registry.spec(engine).operations else _quadratic(given["features"])
    role: Role = "split" if case.role == "split" else "same"
    plan, owner = registry.plan_module(engine).make_plan(program.public, role), registry.owner_module(engine)
    made: list[int] = []
    spent = repeat(_spent(lambda: made.append(len(owner.generate_keys(plan)[1].to_bytes()))))
    return _Found(
        (once(CLIENT, "make keys", case.threads, spent),),
        (Traffic(CLIENT, SERVER, "keys", bytes_once=made[-1]),),
        security_bits=float(plan.security_bits),
        notes=(f"keys of {engine}, role {role}",),
    )


def _encoder(features: int) -> Encoder:
    return Encoder(Schema(tuple(Column(f"x{i}", -60.0, 60.0, center=0.0, spread=1.0) for i in range(features))))


def _forest(trees: int, depth: int) -> Program:
    """Complete trees with random splits and entries, in six features."""
    rng, grid = np.random.default_rng(0), _encoder(6)
    nodes = trees * ((1 << depth) - 1)
    splits = rng.integers(-grid.bound // 4, grid.bound // 4, nodes)
    geometry = Trees(depth, tuple(rng.integers(0, 6, nodes).tolist()), (1,) * nodes, tuple(splits.tolist()))
    tables: list[Array] = [rng.random(1 << depth) for _ in range(trees)]
    return table_program(grid, geometry, tables, entry_bits=8, honest_extraction_rows=nodes + 1)


def _quadratic(features: int) -> Program:
    """|A z|^2 with a random triangular A."""
    rng, build = np.random.default_rng(0), ProgramBuilder(_encoder(features))
    A = np.triu(rng.normal(size=(features, features)) * 0.3 + 2 * np.eye(features))
    h = build.affine([(A, build.input)], fraction_bits=24)
    build.affine([(np.ones((1, features)), build.product(h, h))], fraction_bits=48)
    return build.finish(tolerance=1e-3, honest_extraction_rows=(features + 1) * (features + 2) // 2)


_MECHANISMS: Mapping[str, tuple[Callable[[Case, Given], _Found], Given]] = {
    "gaussian-release": (_gaussian_release, {"values": 1000}),
    "dp-sgd-step": (_dp_sgd_step, {"rows": 480, "width": 29, "hidden": 12}),
    "masking": (_masking, {"values": 2000}),
    "residue-product": (_residue_product, {"ring": 8192, "primes": 4}),
    "bfv-lookup": (_bfv_lookup, {"trees": 50, "depth": 6}),
    "key-generation": (_key_generation, {"features": 29}),
}
