"""Encrypted scores against the integer program: every degree, ring, role and number of rows."""

from __future__ import annotations

import numpy as np
import pytest
from row_setting import ROLES, Setting, network, of_degree, small

from securead.checks import programs
from securead.protocols import choice, registry
from securead.protocols.engine import Role


def check(setting: Setting, Z: np.ndarray) -> np.ndarray:
    error = np.abs(setting.score(Z) - setting.exact(Z))
    assert error.max() <= setting.plan.error_bound <= setting.program.public.tolerance
    return error


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("degree", [1, 2, 3, 4])
def test_every_degree(degree: int, role: Role, rng: np.random.Generator) -> None:
    setting = Setting(of_degree(degree), role)
    assert setting.plan.degree == degree
    check(setting, setting.records(rng, 5))


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("make", [small, network], ids=["quadratic", "network"])
def test_corners_of_the_record_space(make: object, role: Role) -> None:
    setting = make(role)  # type: ignore[operator]
    bound, width = setting.program.public.encoder.bound, setting.plan.width
    corners = np.array([np.full(width, bound), np.full(width, -bound), np.resize([bound, -bound], width)])
    check(setting, np.vstack([np.zeros((1, width), dtype=np.int64), corners]))


@pytest.mark.parametrize("role", ROLES)
def test_every_number_of_rows(role: Role, rng: np.random.Generator) -> None:
    """Groups of every layout, full and not: a record's score does not depend on its neighbours."""
    setting = network(role)
    assert len(setting.plan.layouts) >= 2
    Z = setting.records(rng, setting.plan.rows_per_chunk)
    for rows in {1, 2, 3, 7, 17, 31, setting.plan.rows_per_chunk}:
        check(setting, Z[:rows])


@pytest.mark.parametrize("role", ROLES)
def test_many_ciphertexts_a_row(role: Role, rng: np.random.Generator) -> None:
    """Degree four in 14 features: 3,059 monomials, so that rows in shared ciphertexts are cut into pieces."""
    setting = Setting(programs.autoencoder(14, 3), role)
    assert max(layout.pieces for layout in setting.plan.layouts) > 8
    check(setting, setting.records(rng, 9))


@pytest.mark.parametrize(
    ("make", "role", "ring"),
    [
        (lambda: of_degree(1, features=2), "same", 4096),
        (lambda: of_degree(2, features=2), "same", 8192),
        (lambda: programs.autoencoder(12, 12, tolerance=1e-10), "split", 16384),
    ],
)
def test_all_three_rings(make: object, role: Role, ring: int, rng: np.random.Generator) -> None:
    setting = Setting(make(), role)  # type: ignore[operator]
    assert setting.plan.ring_dimension == ring
    check(setting, setting.records(rng, 3))


def test_more_products_than_are_added_up_at_once(rng: np.random.Generator) -> None:
    """More than sixteen pieces: 40 rows of 29 features share ciphertexts of the widest primes."""
    setting = Setting(programs.autoencoder(18, 2), "same")
    assert max(layout.pieces for layout in setting.plan.layouts) > 16
    check(setting, setting.records(rng, setting.plan.rows_per_chunk))


def test_errors_are_a_flood_wide_and_no_more(rng: np.random.Generator) -> None:
    """Nearly all of an error is flood: on average half of the bound, whatever the score."""
    setting = small("same")
    errors = np.concatenate([check(setting, setting.records(rng, 32)) for _ in range(8)])
    flood = 2.0 ** (setting.plan.flood_bits - setting.plan.scale_bits - setting.plan.score_fraction_bits)
    assert 0.4 * flood < errors.mean() < 0.6 * flood
    assert setting.plan.error_bound < setting.program.public.tolerance / 64


def test_the_batch_engine_stays_the_default() -> None:
    public = programs.small_quadratic().public
    assert [spec.name for spec in choice.carriers(public)][:2] == ["ckks", "ckks-row"]
    for role in ROLES:
        assert choice.choose(public, role).name == "ckks"
        assert choice.choose(public, role, engine="ckks-row").name == "ckks-row"
    assert not registry.spec("ckks-row").whole_chunks
    assert registry.spec("ckks-row").sanitised
