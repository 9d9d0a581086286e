"""Owner and blind halves together: three worlds, both roles, and the bound against measured errors."""

from __future__ import annotations

import itertools
import time
from functools import cache
from typing import Any, Literal

import numpy as np
import pytest
from scipy.stats import spearmanr

from securead.checks import programs
from securead.errors import FixInputError, FixProgramError, RejectMessageError
from securead.program.builder import ProgramBuilder
from securead.program.polynomial import Affine, Input, Product
from securead.program.program import Program
from securead.protocols.ckks import blind, owner, requests
from securead.protocols.ckks.context import context_for
from securead.protocols.ckks.plan import CkksPlan, make_plan
from securead.protocols.ckks.propagate import tails_for
from securead.protocols.seal import objects

Role = Literal["same", "split"]
CASES = list(itertools.product(("mahalanobis", "autoencoder"), ("same", "split")))


@cache
def setting(name: str, role: Role, features: int = 8) -> tuple[Program, CkksPlan, owner.SecretKey, owner.PublicKey]:
    program = programs.mahalanobis(features) if name == "mahalanobis" else programs.autoencoder(features, 4)
    plan = make_plan(program.public, role)
    return program, plan, *owner.generate_keys(plan)


def encrypted_scores(program: Program, plan: CkksPlan, keys: tuple[Any, Any], Z: np.ndarray) -> np.ndarray:
    secret, public = keys
    request = owner.make_encryptor(plan, secret if plan.role == "same" else public).encrypt(Z)
    key = blind.read_evaluation_key(plan, public.to_bytes())
    answer = blind.make_evaluator(plan, program).evaluate(request, key)
    scores = owner.make_decryptor(plan, secret).decrypt(answer, len(Z))
    return scores + program.public.decode(program.public.public_term(Z)) if plan.role == "same" else scores


def float_scores(program: Program, Z: np.ndarray) -> np.ndarray:
    """The program in floating point: what the detector means, before any integer."""
    public, values = program.public, list[np.ndarray]()
    for at, step in enumerate(public.steps):
        match step:
            case Input():
                values.append(Z / 2.0**step.fraction_bits)
            case Affine():
                weights = program.secret.weights[at]
                total = weights.offset.astype(float) / 2.0**step.fraction_bits
                for matrix, source in zip(weights.matrices, step.sources, strict=True):
                    bits = step.fraction_bits - public.steps[source].fraction_bits
                    total = total + values[source] @ (matrix.astype(float) / 2.0**bits).T
                values.append(total)
            case Product():
                values.append(values[step.left] * values[step.right])
    norm = sum(term.multiplier for term in public.public_terms) / 2.0 ** (
        public.score_fraction_bits - 2 * public.encoder.fraction_bits
    )
    return values[-1][:, 0] + norm * (values[0] ** 2).sum(axis=1)


def ordinary(program: Program, rng: np.random.Generator, rows: int) -> np.ndarray:
    encoder = program.public.encoder
    Z = np.rint(rng.normal(size=(rows, encoder.width)) * 2**encoder.fraction_bits)
    return np.clip(Z, -encoder.bound, encoder.bound).astype(np.int64)


@pytest.mark.parametrize(("name", "role"), CASES)
def test_three_worlds(name: str, role: Role, rng: np.random.Generator) -> None:
    program, plan, *keys = setting(name, role)
    Z = ordinary(program, rng, 500)
    clear, integer = float_scores(program, Z), program.public.decode(program.evaluate(Z))
    encrypted = encrypted_scores(program, plan, (keys[0], keys[1]), Z)
    np.testing.assert_allclose(np.stack([integer, encrypted]), np.stack([clear, clear]), rtol=1e-4)


@pytest.mark.parametrize(("name", "role"), CASES)
def test_error_bound_holds(name: str, role: Role, rng: np.random.Generator) -> None:
    """On ordinary records, and on those at the clipping limit that are chosen to make values large."""
    program, plan, *keys = setting(name, role)
    bound = program.public.encoder.bound
    signs = np.sign(program.secret.weights[1].matrices[0]).astype(np.int64)
    extreme = np.where(signs == 0, 1, signs) * bound
    corners = rng.choice([-bound, bound], size=(plan.rows_per_chunk - 2 * len(extreme), extreme.shape[1]))
    for Z in (ordinary(program, rng, plan.rows_per_chunk), np.vstack([extreme, -extreme, corners])):
        exact = program.public.decode(program.evaluate(Z))
        error = np.abs(encrypted_scores(program, plan, (keys[0], keys[1]), Z) - exact).max()
        assert 0 < error <= plan.error_bound <= program.public.tolerance


@pytest.mark.parametrize(("name", "role"), CASES)
def test_full_width(name: str, role: Role, rng: np.random.Generator) -> None:
    """29 features: relative error below 1e-4, ranks kept, and in role `same` the traffic that the project promises."""
    program, plan, *keys = setting(name, role, 29)
    Z = ordinary(program, rng, plan.rows_per_chunk)
    exact = program.public.decode(program.evaluate(Z))
    scores = encrypted_scores(program, plan, (keys[0], keys[1]), Z)
    assert (np.abs(scores - exact) / np.abs(exact)).max() < 1e-4
    assert spearmanr(scores, exact).statistic >= 0.9999
    if role == "same":
        assert plan.max_request_bytes / len(Z) <= 1500
        assert plan.max_answer_bytes / len(Z) <= 80
        assert plan.evaluation_key_bytes <= 250_000


def test_fresh_errors_are_within_their_tails(rng: np.random.Generator) -> None:
    """Encrypt, decrypt at once: the error of both encryptions is below its bound, and not absurdly so."""
    import tenseal.sealapi as seal

    for role in ("same", "split"):
        program, plan, secret, _ = setting("mahalanobis", role)
        tails = tails_for(program.public, plan.ring_dimension)
        context = context_for(plan)
        generator = seal.KeyGenerator(context)
        public = seal.PublicKey()
        generator.create_public_key(public)
        encryptor = seal.Encryptor(context, public, generator.secret_key())
        zero, result, encrypted = seal.Plaintext(), seal.Plaintext(), seal.Ciphertext()
        encoder = seal.CKKSEncoder(context)
        encoder.encode([0.0] * plan.rows_per_chunk, 2.0**30, zero)
        (encryptor.encrypt_symmetric if role == "same" else encryptor.encrypt)(zero, encrypted)
        seal.Decryptor(context, generator.secret_key()).decrypt(encrypted, result)
        error = np.abs(np.array(encoder.decode_complex(result))).max() * 2.0**30
        bound = tails.fresh(role, plan.special_prime)
        assert bound / 100 < error < bound
        assert secret.key_id


def test_role_same_sends_no_public_term() -> None:
    program, same, *_ = setting("autoencoder", "same")
    _, split, *_ = setting("autoencoder", "split")
    assert same.columns == program.public.encoder.width
    assert split.columns == same.columns + 1
    assert not setting("mahalanobis", "split")[1].has_public_column


def constant_rows() -> Program:
    """A hidden unit whose weights are all zero after rounding, in a sum, a square and a product."""
    build = ProgramBuilder(programs.encoder(3, limit=2.0, fraction_bits=6))
    h = build.affine(
        [(np.array([[1.0, 0, 0], [0, 0, 0], [0, -2.0, 1.0]]), build.input)], np.array([0.5, 3, 0]), fraction_bits=10
    )
    mixed = build.affine(
        [(np.array([[0, 0, 1.0], [0, 2.0, 0], [0, 0, 0]]), h)], np.array([0, 1.0, 0]), fraction_bits=12
    )
    products = build.product(h, mixed)
    build.affine([(np.ones((1, 3)), products)], np.array([-1.0]), fraction_bits=24)
    return build.finish(tolerance=1e-2, honest_extraction_rows=1)


@pytest.mark.parametrize("role", ["same", "split"])
def test_rows_of_zero_weights_are_constants(role: Role, rng: np.random.Generator) -> None:
    program = constant_rows()
    plan = make_plan(program.public, role)
    Z = ordinary(program, rng, 50)
    scores = encrypted_scores(program, plan, owner.generate_keys(plan), Z)
    assert np.abs(scores - program.public.decode(program.evaluate(Z))).max() <= plan.error_bound


def test_a_constant_score_is_refused() -> None:
    build = ProgramBuilder(programs.encoder(2))
    build.affine([(np.zeros((1, 2)), build.input)], np.array([1.0]), fraction_bits=16)
    program = build.finish(tolerance=0.1, honest_extraction_rows=1)
    with pytest.raises(FixProgramError, match="does not depend"):
        blind.make_evaluator(make_plan(program.public, "same"), program)


def test_service_can_answer_again_after_a_bad_request(rng: np.random.Generator) -> None:
    program, plan, secret, public = setting("mahalanobis", "same")
    evaluator, Z = blind.make_evaluator(plan, program), ordinary(program, rng, 3)
    key = blind.read_evaluation_key(plan, public.to_bytes())
    request = owner.make_encryptor(plan, secret).encrypt(Z)
    first = evaluator.evaluate(request, key)
    with pytest.raises(RejectMessageError):
        evaluator.evaluate(request[: len(request) // 2], key)
    again = evaluator.evaluate(request, key)
    assert again != first  # every answer is masked afresh
    decryptor = owner.make_decryptor(plan, secret)
    np.testing.assert_allclose(decryptor.decrypt(again, 3), decryptor.decrypt(first, 3), atol=2 * plan.error_bound)


def test_a_plan_of_another_program_is_refused() -> None:
    with pytest.raises(FixInputError, match="another program"):
        blind.make_evaluator(setting("mahalanobis", "same")[1], setting("autoencoder", "same")[0])


def test_sizes_are_exactly_what_the_plan_says(rng: np.random.Generator) -> None:
    for name, role in CASES:
        program, plan, *keys = setting(name, role)
        key = keys[0] if role == "same" else keys[1]
        held = blind.read_evaluation_key(plan, keys[1].to_bytes())
        request = owner.make_encryptor(plan, key).encrypt(ordinary(program, rng, 2))
        assert len(request) == plan.max_request_bytes
        assert len(blind.make_evaluator(plan, program).evaluate(request, held)) == plan.max_answer_bytes
        assert len(keys[1].to_bytes()) == plan.evaluation_key_bytes


def test_seals_ciphertext_is_moved_to_the_seeds_half(rng: np.random.Generator) -> None:
    """c0 + a s has SEAL's error and no other: the move is exact; and two requests share no seed."""
    import tenseal.sealapi as seal

    program, plan, secret, _ = setting("mahalanobis", "same")
    Z = ordinary(program, rng, plan.rows_per_chunk)
    request, again = (owner.make_encryptor(plan, secret).encrypt(Z) for _ in range(2))
    seeds = {r[36 + i * plan.column_bytes :][:32] for r in (request, again) for i in range(plan.columns)}
    assert len(seeds) == 2 * plan.columns
    residues = requests.columns(plan, request, plan.ring_dimension)[:, 0]
    context = context_for(plan)
    words = residues[:, 0].swapaxes(0, 1).view(np.uint64)
    encrypted = objects.ciphertext_from_residues(context, context.first_parms_id(), words, ntt=True)
    encrypted.scale = plan.input_scale
    plaintext = seal.Plaintext()
    seal.Decryptor(context, owner._load_secret(plan, secret)).decrypt(encrypted, plaintext)
    found = np.array(seal.CKKSEncoder(context).decode_double(plaintext))
    error = np.abs(found - Z[:, 0] / 2.0**plan.input_fraction_bits).max() * plan.input_scale
    tails = tails_for(program.public, plan.ring_dimension)
    assert error < tails.fresh("same", plan.special_prime) + plan.ring_dimension / 2


def test_kernels_agree_with_seals_own_evaluator(rng: np.random.Generator) -> None:
    """A weighted sum and a square of ciphertexts, bit for bit what SEAL computes before masks."""
    import tenseal.sealapi as seal

    program, plan, secret, _ = setting("mahalanobis", "same", 3)
    request = owner.make_encryptor(plan, secret).encrypt(ordinary(program, rng, 5))
    context = context_for(plan)
    first, evaluator, encoder = context.first_parms_id(), seal.Evaluator(context), seal.CKKSEncoder(context)
    residues = requests.columns(plan, request, plan.ring_dimension)[:, 0]
    columns = [
        objects.ciphertext_from_residues(context, first, residues[:, i].swapaxes(0, 1).view(np.uint64), ntt=True)
        for i in range(3)
    ]
    weights = program.secret.weights[1]
    total: Any = None
    for row, offset in zip(weights.matrices[0], weights.offset, strict=True):
        layer = seal.Ciphertext()
        constant = seal.Plaintext()
        for at, (column, weight) in enumerate(zip(columns, row, strict=True)):
            if weight == 0:
                continue
            encoder.encode(float(weight), first, 1.0, constant)
            product = seal.Ciphertext()
            evaluator.multiply_plain(column, constant, product)
            if at == min(np.flatnonzero(row)):
                layer = product
            else:
                evaluator.add_inplace(layer, product)
        encoder.encode(float(offset), first, 2.0**plan.excess_bits, constant)
        layer.scale = constant.scale
        evaluator.add_plain_inplace(layer, constant)
        evaluator.square_inplace(layer)
        total = layer if total is None else evaluator.add_inplace(total, layer) or total
    expected, _ = objects.residues(total)
    score = blind.make_evaluator(plan, program)._score(requests.columns(plan, request, blind.BLOCK_SLOTS))
    assert (score.swapaxes(0, 1).view(np.uint64) == expected).all()


def test_stages_are_where_the_time_goes(rng: np.random.Generator) -> None:
    """All five grow with every request, their sum is an evaluation's time, and a refused request adds no answer's."""
    program, plan, secret, public = setting("autoencoder", "same")
    evaluator = blind.make_evaluator(plan, program)
    key = blind.read_evaluation_key(plan, public.to_bytes())
    request = owner.make_encryptor(plan, secret).encrypt(ordinary(program, rng, 2))
    assert set(evaluator.stages.values()) == {0.0}, "a warm-up is no request"
    evaluator.evaluate(request, key)
    before, start = evaluator.stages, time.thread_time()
    evaluator.evaluate(request, key)
    spent, after = time.thread_time() - start, evaluator.stages
    grown = {name: after[name] - before[name] for name in after}
    assert list(grown) == ["parse", "linear", "products", "sanitise", "pack"]
    assert min(grown.values()) > 0
    assert 0.8 * spent < sum(grown.values()) <= spent


@pytest.mark.parametrize("sparse", [False, True])
def test_maps_of_one_source_are_evaluated_together_or_apart(sparse: bool, rng: np.random.Generator) -> None:
    """Two steps read the input, one of them twice; where their columns differ, their maps are not stacked."""
    build = ProgramBuilder(programs.encoder(6))
    A, B, C = (rng.normal(size=(3, 6)) for _ in range(3))
    if sparse:
        A[:, 3:], B[:, :3], C[:, :3] = 0, 0, 0
    left = build.affine([(A, build.input)], rng.normal(size=3), fraction_bits=24)
    right = build.affine([(B, build.input), (C, build.input)], fraction_bits=24)
    build.affine([(np.ones((1, 3)), build.product(left, right))], fraction_bits=48)
    program = build.finish(tolerance=1e-3, honest_extraction_rows=28)
    plan = make_plan(program.public, "same")
    Z = ordinary(program, rng, 40)
    scores = encrypted_scores(program, plan, owner.generate_keys(plan), Z)
    assert np.abs(scores - program.public.decode(program.evaluate(Z))).max() <= plan.error_bound
    circuit = blind.make_evaluator(plan, program)._circuits[0]
    assert len(circuit._stacks[0]) == (2 if sparse else 1)
