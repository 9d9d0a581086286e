"""The reported epsilon of DP-SGD beside independent accountants: PRV agrees, RDP lies above, GDP must not be used."""

from __future__ import annotations

import ast
import functools
import warnings
from pathlib import Path

import dp_accounting
import pytest
from dp_accounting import rdp
from opacus.accountants import GaussianAccountant, PRVAccountant

from securead.federated.recipe import load_recipe
from securead.models.registry import make_detector
from securead.privacy.plan import PrivacyPlan, Terms, epsilon_of, event_of

ROOT = Path(__file__).resolve().parents[2]
# (terms, delta, what dp_accounting's PLD gave when the design was measured, where it was)
SETTINGS: list[tuple[tuple[Terms, ...], float, float | None]] = [
    (((1.0, 256 / 50000, 977),), 1e-6, 1.043),
    (((0.9326668975, 0.02, 250),), 1e-6, None),
    (((1.2, 0.1, 20), (8.0, 0.1, 5)), 1e-5, None),
    (((0.8, 0.01, 500),), 1e-7, None),
]
NAMES = ["design", "payments", "two rates", "weak noise"]
settings = pytest.mark.parametrize(("terms", "delta", "measured"), SETTINGS, ids=NAMES)


def prv(terms: tuple[Terms, ...], delta: float) -> float:
    """Gopi, Lee and Wutschitz (2021), as Opacus has it."""
    accountant = PRVAccountant()
    accountant.history = list(terms)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(accountant.get_epsilon(delta, eps_error=0.005))


def renyi(terms: tuple[Terms, ...], delta: float) -> float:
    """Mironov, Talwar and Zhang (2019), as dp_accounting has it."""
    accountant = rdp.RdpAccountant()
    accountant.compose(dp_accounting.ComposedDpEvent([event_of(one) for one in terms]))
    return float(accountant.get_epsilon(delta))


@settings
def test_prv_agrees_within_two_percent(terms: tuple[Terms, ...], delta: float, measured: float | None) -> None:
    ours = epsilon_of(terms, delta)
    assert ours == pytest.approx(prv(terms, delta), rel=0.02)
    if measured is not None:
        assert ours == pytest.approx(measured, rel=0.005)


@settings
def test_two_percent_can_tell(terms: tuple[Terms, ...], delta: float, measured: float | None) -> None:
    """The check has power: a twentieth less noise, or a tenth more steps, and the accountants part."""
    theirs = prv(terms, delta)
    for wrong in (
        [(multiplier * 0.95, prob, steps) for multiplier, prob, steps in terms],
        [(multiplier, prob, round(steps * 1.1)) for multiplier, prob, steps in terms],
    ):
        assert epsilon_of(wrong, delta) != pytest.approx(theirs, rel=0.02)


@settings
def test_renyi_lies_above(terms: tuple[Terms, ...], delta: float, measured: float | None) -> None:
    assert epsilon_of(terms, delta) < renyi(terms, delta) < 2 * epsilon_of(terms, delta)


@functools.cache
def sampled_terms(path: Path) -> tuple[tuple[Terms, ...], float] | None:
    """The DP-SGD terms of a recipe of the zoo, or None where it has none."""
    recipe = load_recipe(path)
    assert isinstance(recipe.privacy, PrivacyPlan)
    stages = make_detector(recipe.detector, recipe.parameters).stages()
    if not any(stage.sampled for stage in stages.values()):
        return None
    multipliers = recipe.privacy.noise_multipliers(stages)
    terms = tuple(stage.event_terms(multipliers[name]) for name, stage in stages.items() if stage.sampled)
    return terms, recipe.privacy.delta


@pytest.mark.long
@pytest.mark.parametrize("path", sorted((ROOT / "models").glob("*/recipe.toml")), ids=lambda path: path.parent.name)
def test_the_zoo_s_recipes(path: Path) -> None:
    found = sampled_terms(path)
    if found is None:
        pytest.skip("no DP-SGD in this recipe")
    terms, delta = found
    assert epsilon_of(terms, delta) == pytest.approx(prv(terms, delta), rel=0.02)
    assert epsilon_of(terms, delta) < renyi(terms, delta)


# --- GDP ----------------------------------------------------------------------------------------------------------


def test_gdp_under_reports() -> None:
    """Its central limit theorem is no bound: here it claims a sixth less than PLD and PRV."""
    (terms,), delta, _ = SETTINGS[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        accountant = GaussianAccountant()
        accountant.history = [terms]
        claimed = accountant.get_epsilon(delta)
    assert claimed == pytest.approx(0.878, rel=0.01)
    assert claimed < 0.9 * min(epsilon_of([terms], delta), prv((terms,), delta))


def uses_gdp(source: str) -> list[int]:
    """Lines that import or name Opacus's GDP accountant, or make any accountant by the name "gdp"."""
    lines = []
    for node in ast.walk(ast.parse(source)):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        names += [node.attr] if isinstance(node, ast.Attribute) else []
        names += [node.id] if isinstance(node, ast.Name) else []
        names += [node.value] if isinstance(node, ast.Constant) and node.value == "gdp" else []
        if any("gdp" in name.split(".") or "GaussianAccountant" in name for name in names):
            lines.append(node.lineno)  # type: ignore[attr-defined]
    return lines


def test_gdp_is_used_nowhere() -> None:
    for folder in ("securead", "benchmarks", "examples", "protocols"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            assert not uses_gdp(path.read_text()), path


@pytest.mark.parametrize(
    "source",
    [
        "from opacus.accountants import GaussianAccountant",
        "from opacus.accountants.gdp import *",
        "import opacus.accountants.gdp",
        "import opacus.accountants as a\na.GaussianAccountant()",
        'create_accountant("gdp")',
    ],
)
def test_gdp_would_be_found(source: str) -> None:
    assert uses_gdp(source)
