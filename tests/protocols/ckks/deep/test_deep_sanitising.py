"""What an answer tells: the flood covers everything that depends on weights, and masks every other polynomial."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from deep_setting import ROLES, Party, records, small

from securead.checks import programs
from securead.errors import RejectMessageError
from securead.program.polynomial import SecretPolynomial, Weights
from securead.program.program import Program
from securead.program.ranges import commit
from securead.protocols.engine import FloodReader, Role
from securead.protocols.residues.transforms import transform_for
from securead.protocols.seal.noise import LARGEST_ERROR, public_error

Z_9999 = 3.89  # 99.99 % of a normal distribution lie within so many deviations


@pytest.mark.parametrize("role", ROLES)
def test_the_flood_covers_whatever_is_not_the_score(role: Role) -> None:
    """2**40 N / 2 times the stated bound, and the bound is above what is measured in every slot."""
    party = small(role)
    plan = party.plan
    Z = records(party.program, plan.rows_per_chunk)
    bare = party.slots(party.bare(party.encryptor.encrypt(Z)))
    some = slice(4000, 4400)
    measured = np.abs(bare[some] - party.exact(Z[some])).max()
    flood = math.ldexp(1.0, plan.flood_bits) / plan.score_scale
    assert measured <= plan.hidden_error + 2.0**-50
    assert flood >= 2.0**40 * plan.ring_dimension / 2 * plan.hidden_error


def test_masks_are_encryptions_of_zero_within_their_bound() -> None:
    """Without its flood, a mask decrypts to noise below `mask_bound`, in every coefficient; and it is not nothing."""
    party = small()
    plan, masks = party.plan, party.key.masks
    mask = masks.make()
    nothing = np.zeros((plan.last_primes, plan.ring_dimension), np.int64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(masks, "flood", lambda digits: nothing)
        quiet = masks.make()
    for one, bound in ((quiet, float(plan.mask_bound)), (mask, math.ldexp(1.0, plan.flood_bits + 1))):
        slots = np.abs(party.slots(one)) * plan.score_scale
        assert 0 < slots.max() <= bound * plan.ring_dimension
    assert public_error(plan.ring_dimension, plan.mask_prime) >= LARGEST_ERROR
    for place in range(plan.answer_size):
        counts, _ = np.histogram(quiet[0, place], bins=16, range=(0, plan.data_primes[0]))
        assert ((counts - plan.ring_dimension / 16) ** 2).sum() / (plan.ring_dimension / 16) < 66.3, "not uniform"


def test_the_flood_is_uniform_over_its_whole_range() -> None:
    """Its coefficients as integers: bounds, mean and spread; two thirds or three halves of it would not pass."""
    party = small()
    plan, masks = party.plan, party.key.masks
    digits = masks.draw()
    values = np.zeros(plan.ring_dimension, dtype=object)
    for at, row in enumerate(digits):
        values = values + row.astype(object) * (1 << masks._digit * at)
    assert 0 <= values.min()
    assert values.max() < 1 << plan.flood_bits + 1
    unit = np.array([float(v) for v in values]) / 2.0 ** (plan.flood_bits + 1)
    n = plan.ring_dimension
    assert abs(unit.mean() - 0.5) < Z_9999 * math.sqrt(1 / 12 / n)
    # The variance of a squared deviation of a uniform number is 1/180.
    assert abs(((unit - 0.5) ** 2).mean() - 1 / 12) < Z_9999 * math.sqrt(1 / 180 / n)
    for factor in (2 / 3, 3 / 2):
        assert abs(((unit - 0.5) ** 2).mean() * factor**2 - 1 / 12) > Z_9999 * math.sqrt(1 / 180 / n)
    # Its residues are those of the integers less F.
    residues = masks.flood(digits)
    for prime, row in zip(plan.data_primes[: plan.last_primes], residues, strict=True):
        exact = (values - (1 << plan.flood_bits)) % prime
        assert (transform_for(prime, n).inverse(row).astype(object) == exact).all()


@pytest.mark.parametrize("role", ROLES)
def test_answers_spread_as_their_floods_do(role: Role) -> None:
    """Two answers to one request differ by two floods: in deviations of one, with a variance of two."""
    party = small(role)
    assert isinstance(party.decryptor, FloodReader)
    rows = party.plan.rows_per_chunk
    request = party.encryptor.encrypt(records(party.program, rows))
    one, two = (party.evaluator.evaluate(request, party.key) for _ in range(2))
    variance = (party.decryptor.in_floods(one, two, rows) ** 2).mean() / 2
    # A mean of `rows` nearly independent squares of normal variables, each of variance 2.
    assert abs(variance - 1) < Z_9999 * math.sqrt(2 / rows)
    for factor in (2 / 3, 3 / 2):
        assert abs(variance * factor**2 - 1) > Z_9999 * math.sqrt(2 / rows)


def test_what_weights_leave_in_an_answer_is_drowned() -> None:
    """Two programs with equal scores and other weights: bare scores can be told apart, sanitised ones differ by floods.

    Flipping the signs of a square's weights changes no score, but every ciphertext on the way.
    """
    program = programs.small_deep()
    weights = dict(program.secret.weights)
    first = weights[1]
    weights[1] = Weights(tuple(-m for m in first.matrices), -first.offset)
    key = program.secret.commitment_key
    public = dataclasses.replace(program.public, commitment=commit(weights, key))
    flipped = Program(public, SecretPolynomial(weights, key))
    one, two = Party(program), Party(flipped)
    Z = records(program, 64)
    assert (one.exact(Z) == two.exact(Z)).all()
    slots = [party.slots(party.bare(party.encryptor.encrypt(Z))) for party in (one, two)]
    apart = np.abs(slots[0] - slots[1]).max()
    flood = math.ldexp(1.0, one.plan.flood_bits) / one.plan.score_scale
    assert apart < flood * 2.0**-40


def test_no_mask_is_used_twice_and_none_is_shared_between_keys() -> None:
    party, other = small(), small(seed=1)
    assert party.key.refill() > 0
    first, second = party.key.mask(), party.key.mask()
    assert not (first == second).all(axis=(0, 2)).any()
    assert party.key.held_bytes == 0
    request = party.encryptor.encrypt(records(party.program, 4))
    with pytest.raises(RejectMessageError, match="public key"):
        party.evaluator.evaluate(request, other.key)
