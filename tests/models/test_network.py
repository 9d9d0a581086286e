"""The network and its private training: the bound on a record's influence, the noise, the sampling, the generators."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from torch.utils._python_dispatch import TorchDispatchMode

from securead.data.schema import Schema
from securead.errors import FixConfigurationError
from securead.federated.embedded import train
from securead.federated.participant import Site
from securead.models import network
from securead.models.autoencoder import AutoEncoder
from securead.models.network import Descent, Shape
from securead.privacy.plan import PrivacyPlan
from securead.privacy.randomness import SystemStream

ALPHA = 1e-6  # draws are the system's: a false alarm once in a million runs of each test
SHAPES = [
    Shape((5, 4, 5), "linear_square"),
    Shape((5, 3, 5), "square"),
    Shape((5, 4, 5), "relu"),
    Shape((5, 7, 3, 7, 5), "linear_square"),
    Shape((5, 4, 5), "linear_and_square"),
    Shape((5, 7, 3, 7, 5), "linear_and_square"),
]
SMALL = SHAPES[0]


class Everybody:
    """Takes every record and adds no noise."""

    def uniform(self, count: int) -> np.ndarray:
        raise AssertionError("training draws samples and noise, nothing else")

    def bernoulli(self, count: int, probability: float) -> np.ndarray:
        return np.ones(count, dtype=bool)

    def normal(self, shape: tuple[int, ...], deviation: float) -> np.ndarray:
        return np.zeros(shape)


class Nobody(SystemStream):
    """Takes no record, with the system's noise."""

    def bernoulli(self, count: int, probability: float) -> np.ndarray:
        return np.zeros(count, dtype=bool)


class Silent(SystemStream):
    """The system's samples, without noise."""

    def normal(self, shape: tuple[int, ...], deviation: float) -> np.ndarray:
        return np.zeros(shape)


@pytest.fixture
def plain_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps of plain descent at rate 1, so that what a step subtracts is the gradient that it was given."""
    prepare = network._prepare

    def plain(shape: Shape, theta: np.ndarray, descent: Descent) -> tuple[torch.nn.Sequential, torch.optim.Optimizer]:
        built, _ = prepare(shape, theta, descent)
        return built, torch.optim.SGD(built.parameters(), lr=1.0)

    monkeypatch.setattr(network, "_prepare", plain)


def descent(*, steps: int = 1, sampling_prob: float = 1.0, weight_limit: float = 1e30) -> Descent:
    return Descent(steps, sampling_prob, learning_rate=0.01, weight_decay=0.0, weight_limit=weight_limit)


def moved(shape: Shape, theta: np.ndarray, Z: np.ndarray, stream: object, *, sigma: float = 1.0, **changes: object):  # type: ignore[no-untyped-def]
    """What private training subtracts from the parameters; with plain steps, the noised sums of clipped gradients."""
    options = {"noise_multiplier": sigma, "l2_clip_norm": 1.0, "expected_records": 1.0, **changes}
    done = options.pop("descent", descent())
    return theta - network.train_privately(shape, theta, Z, done, stream=stream, **options)  # type: ignore[arg-type]


def parameters(shape: Shape, rng: np.random.Generator) -> np.ndarray:
    return network.initial_parameters(shape, 1) + 0.1 * rng.normal(size=shape.parameters)


def single_gradients(shape: Shape, theta: np.ndarray, Z: np.ndarray) -> np.ndarray:
    """Each record's gradient by itself, by torch alone, `(n, parameters)`."""
    rows = []
    for record in torch.from_numpy(Z).float():
        built, _ = network._prepare(shape, theta, descent())
        network._losses(built, record[None]).sum().backward()
        rows.append(torch.cat([p.grad.reshape(-1) for p in built.parameters()]).double().numpy())
    return np.array(rows)


# --- the network --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_numpy_and_torch_agree(shape: Shape, rng: np.random.Generator) -> None:
    theta, Z = parameters(shape, rng), rng.normal(size=(200, 5))
    built, _ = network._prepare(shape, theta, descent())
    with torch.no_grad():
        theirs = network._losses(built.double(), torch.from_numpy(Z)).numpy()
    # theta passes through float32 on its way into torch.
    assert network.reconstruction_errors(shape, theta, Z) == pytest.approx(theirs, rel=1e-4, abs=1e-5)
    assert len(theta) == shape.parameters == sum(p.numel() for p in built.parameters())
    assert network._flat(built.float()) == pytest.approx(theta, abs=1e-6)


def test_initial_parameters_are_public_and_repeat() -> None:
    first, again, other = (network.initial_parameters(SMALL, seed) for seed in (3, 3, 4))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


# --- one record's influence ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("l2_clip_norm", [0.3, 5.0])
@pytest.mark.usefixtures("plain_steps")
def test_a_step_is_the_sum_of_clipped_gradients(shape: Shape, l2_clip_norm: float, rng: np.random.Generator) -> None:
    theta, Z = parameters(shape, rng), rng.normal(size=(12, 5))
    singles = single_gradients(shape, theta, Z)
    norms = np.linalg.norm(singles, axis=1)
    expected = (singles * np.minimum(1.0, l2_clip_norm / norms)[:, None]).sum(axis=0)
    assert moved(shape, theta, Z, Everybody(), l2_clip_norm=l2_clip_norm) == pytest.approx(expected, abs=1e-4)
    # The scale of a gradient is public: the expected number of records, not the true one.
    few = moved(
        shape, theta, Z, Everybody(), l2_clip_norm=l2_clip_norm, expected_records=50, descent=descent(sampling_prob=0.5)
    )
    assert few == pytest.approx(expected / 25, abs=1e-4)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("extreme", [0.0, 1.0, 5.0, 1e3, 1e8, 1e15, 1e30, 3e38, np.inf, np.nan])
@pytest.mark.usefixtures("plain_steps")
def test_no_record_moves_a_step_by_more_than_the_clip_norm(
    shape: Shape, extreme: float, rng: np.random.Generator
) -> None:
    """Even where its gradient overflows float32: then it moves nothing at all."""
    theta, Z = parameters(shape, rng), rng.normal(size=(12, 5))
    Z[7] = extreme * np.array([1, -1, 1, 1, -1])
    whole = moved(shape, theta, Z, Everybody())
    assert np.isfinite(whole).all()
    for row in range(len(Z)):
        change = np.linalg.norm(whole - moved(shape, theta, np.delete(Z, row, axis=0), Everybody()))
        assert change <= 1 + 1e-4, f"record {row}"
        assert change > 1 - 1e-4 or np.linalg.norm(single_gradients(shape, theta, Z[[row]])) < 1 or row == 7
    if extreme == 5.0:
        # With power: unclipped, the same record moves the step much further.
        loose = moved(shape, theta, Z, Everybody(), l2_clip_norm=1e30)
        assert np.linalg.norm(loose - moved(shape, theta, np.delete(Z, 7, axis=0), Everybody(), l2_clip_norm=1e30)) > 2


# --- noise --------------------------------------------------------------------------------------------------------


def is_gaussian_of_scale(sample: np.ndarray, scale: float) -> bool:
    """Kolmogorov-Smirnov for the shape, a chi-square interval for the scale; each at ALPHA / 2."""
    shape = stats.kstest(sample / scale, "norm").pvalue > ALPHA / 2
    low, high = stats.chi2.ppf([ALPHA / 4, 1 - ALPHA / 4], df=len(sample))
    return bool(shape and low < ((sample / scale) ** 2).sum() < high)


@pytest.mark.parametrize(("sigma", "l2_clip_norm", "steps"), [(1.0, 1.0, 1), (0.6, 4.0, 1), (3.0, 0.5, 4)])
@pytest.mark.usefixtures("plain_steps")
def test_noise_scale_with_power(sigma: float, l2_clip_norm: float, steps: int, rng: np.random.Generator) -> None:
    shape = Shape((40, 30, 40), "linear_square")
    Z = rng.normal(size=(3, 40))

    def noise(theta: np.ndarray, Z: np.ndarray, stream: object) -> np.ndarray:
        return moved(
            shape,
            theta,
            Z,
            stream,
            sigma=sigma,
            l2_clip_norm=l2_clip_norm,
            expected_records=10.0,
            descent=descent(steps=steps, sampling_prob=0.5),
        )

    theta = network.initial_parameters(shape, 0)
    exact = 0.0 if steps > 1 else noise(theta, Z, Everybody())
    # With records the noise of one step; without any that of several, which adds up.
    sample = noise(theta, Z, _EverybodyNoised() if steps == 1 else Nobody()) - exact
    scale = sigma * l2_clip_norm / 5 * np.sqrt(steps)
    assert is_gaussian_of_scale(sample, scale)
    assert not is_gaussian_of_scale(sample, scale * 2 / 3)
    assert not is_gaussian_of_scale(sample, scale * 3 / 2)


class _EverybodyNoised(SystemStream):
    def bernoulli(self, count: int, probability: float) -> np.ndarray:
        return np.ones(count, dtype=bool)


def test_an_empty_batch_takes_its_noised_step(rng: np.random.Generator) -> None:
    theta = network.initial_parameters(SMALL, 0)
    for Z in (np.empty((0, 5)), rng.normal(size=(9, 5))):
        found = [theta]
        for steps in (1, 2, 3):
            change = moved(SMALL, theta, Z, Nobody(), descent=descent(steps=steps))
            assert (change != 0).all()
            found.append(theta - change)
        # Adam moves by about the learning rate in each step, whatever the size of the gradient.
        assert np.abs(found[1] - theta).max() == pytest.approx(0.01, rel=0.01)


def test_weights_stay_within_their_limit(rng: np.random.Generator) -> None:
    theta, Z = network.initial_parameters(SMALL, 0), rng.normal(size=(200, 5)) * 3
    for limit in (0.05, 0.5):
        done = descent(steps=60, sampling_prob=0.5, weight_limit=limit)
        private = theta - moved(SMALL, theta, Z, SystemStream(), sigma=5.0, descent=done)
        exact = network.train_exactly(SMALL, theta, Z, done, seed=0)
        for trained in (private, exact):
            assert np.abs(trained).max() <= limit * (1 + 1e-6)
        assert np.abs(private).max() == pytest.approx(limit)


def test_what_diverges_names_the_remedy(rng: np.random.Generator) -> None:
    theta, Z = network.initial_parameters(SMALL, 0), rng.normal(size=(50, 5))
    wild = Descent(30, 0.5, learning_rate=1e30, weight_decay=0.0, weight_limit=1e38)
    with pytest.raises(FixConfigurationError, match=r"diverged.*learning_rate"):
        network.train_exactly(SMALL, theta, Z, wild, seed=0)


# --- sampling -----------------------------------------------------------------------------------------------------


def batch_sizes(monkeypatch: pytest.MonkeyPatch, records: int, sampling_prob: float, steps: int) -> np.ndarray:
    """The sizes of the batches that gradients were really taken of, empty ones among them."""
    sizes: list[int] = []
    losses = network._losses

    def counting(built: Callable[[torch.Tensor], torch.Tensor], batch: torch.Tensor) -> torch.Tensor:
        sizes.append(len(batch))
        return losses(built, batch)

    monkeypatch.setattr(network, "_losses", counting)
    shape = Shape((2, 2, 2), "square")
    done = descent(steps=steps, sampling_prob=sampling_prob, weight_limit=1.0)
    moved(shape, network.initial_parameters(shape, 0), np.ones((records, 2)), Silent(), descent=done)
    return np.array(sizes + [0] * (steps - len(sizes)))


def is_binomial(sizes: np.ndarray, records: int, probability: float) -> bool:
    """A chi-square test of the sizes' frequencies, over bins that expect ten or more each, at ALPHA."""
    edges = np.unique(stats.binom.ppf(np.linspace(0, 1, 9)[1:-1], records, probability))
    expected = np.diff(np.concatenate([[0.0], stats.binom.cdf(edges, records, probability), [1.0]])) * len(sizes)
    found = np.bincount(np.searchsorted(edges, sizes), minlength=len(expected))
    kept = expected >= 10
    observed = np.append(found[kept], found[~kept].sum())
    wanted = np.append(expected[kept], max(expected[~kept].sum(), 1e-9))
    if observed[-1] == 0 and wanted[-1] < 1e-6:
        observed, wanted = observed[:-1], wanted[:-1]
    return bool(stats.chisquare(observed, wanted * observed.sum() / wanted.sum()).pvalue > ALPHA)


@pytest.mark.parametrize(("records", "probability"), [(400, 0.05), (60, 0.02)])
def test_batches_are_poisson_samples(monkeypatch: pytest.MonkeyPatch, records: int, probability: float) -> None:
    steps = 800
    sizes = batch_sizes(monkeypatch, records, probability, steps)
    assert is_binomial(sizes, records, probability)
    # With power: neither another rate nor shuffled batches of a fixed size pass.
    assert not is_binomial(sizes, records, probability * 2 / 3)
    assert not is_binomial(sizes, records, probability * 3 / 2)
    assert not is_binomial(np.full(steps, round(records * probability)), records, probability)


def test_each_record_is_sampled_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two records are taken together as often as independent coins say, not always and not never."""
    seen: list[np.ndarray] = []
    losses = network._losses

    def watching(built: Callable[[torch.Tensor], torch.Tensor], batch: torch.Tensor) -> torch.Tensor:
        seen.append(batch[:, 0].numpy().copy())
        return losses(built, batch)

    monkeypatch.setattr(network, "_losses", watching)
    shape, steps = Shape((1, 1, 1), "square"), 600
    done = descent(steps=steps, sampling_prob=0.5, weight_limit=1.0)
    moved(shape, np.zeros(shape.parameters), np.arange(4.0)[:, None], Silent(), descent=done)
    together = sum(bool({0.0, 1.0} <= set(batch)) for batch in seen)
    assert stats.binomtest(together, steps, 0.25).pvalue > ALPHA
    assert stats.binomtest(together, steps, 0.5).pvalue < ALPHA


# --- no other generator -------------------------------------------------------------------------------------------


class _Draws(TorchDispatchMode):
    """Notes every operation of torch that draws, from its own generator or from any other."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        # A tensor without storage, of torch's "meta" device, is drawn in name only.
        stored = not any(isinstance(value, torch.Tensor) and value.is_meta for value in args)
        if torch.Tag.nondeterministic_seeded in func.tags and stored:
            self.found.append(str(func))
        return func(*args, **(kwargs or {}))


@contextmanager
def predictable_draws() -> Iterator[list[str]]:
    """What was drawn meanwhile from generators that can be predicted: torch's, NumPy's global one, Python's."""
    found: list[str] = []
    before = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
    with _Draws() as draws:
        yield found
    found += draws.found
    if not torch.equal(before[0], torch.get_rng_state()):
        found.append("torch's generator")
    if any(not np.array_equal(a, b) for a, b in zip(before[1], np.random.get_state(), strict=True)):  # noqa: NPY002
        found.append("NumPy's global generator")
    if before[2] != random.getstate():
        found.append("Python's generator")


def train_once() -> AutoEncoder:
    rng = np.random.default_rng(5)
    X = rng.normal(size=(9000, 4)) @ rng.normal(size=(4, 4))
    detector = AutoEncoder(hidden=2, rounds=2, sampling_prob=0.1, scaling="private", threshold="private")
    plan = PrivacyPlan(epsilon=3.0, delta=1e-6)
    return train(detector, [Site("a", X[:6000]), Site("b", X[6000:])], Schema.observed(X, widen=0.1), privacy=plan)


def test_private_training_draws_from_no_predictable_generator() -> None:
    train_once()  # what packages draw when they are first imported is not training
    with predictable_draws() as found:
        trained = train_once()
    assert not found
    assert trained.statement_.private
    # Nor does it depend on their seeds.
    models = []
    for _ in range(2):
        torch.manual_seed(0)
        models.append(train_once().values_["theta"])
    assert not np.array_equal(models[0], models[1])


DRAWS: dict[str, Callable[[], object]] = {
    "torch's own": lambda: torch.randn(3),
    "torch, in place": lambda: torch.empty(3).normal_(),
    "torch, of another generator": lambda: torch.randn(3, generator=torch.Generator().manual_seed(1)),
    "a torch permutation": lambda: torch.randperm(5),
    "torch's dropout": lambda: torch.nn.functional.dropout(torch.ones(9), 0.5),
    "a torch layer's own initialisation": lambda: torch.nn.Linear(3, 3),
    "NumPy": lambda: np.random.normal(),  # noqa: NPY002
    "Python": random.random,
}


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_a_predictable_draw_would_be_found(draw: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    add_noise = network._SystemNoiseOptimizer.add_noise

    def careless(self: network._SystemNoiseOptimizer) -> None:
        add_noise(self)
        draw()

    monkeypatch.setattr(network._SystemNoiseOptimizer, "add_noise", careless)
    theta = network.initial_parameters(SMALL, 0)
    with predictable_draws() as found:
        moved(SMALL, theta, np.ones((3, 5)), SystemStream())
    assert found


# --- held to where the round began --------------------------------------------------------------------------------


@pytest.mark.parametrize("exactly", [True, False], ids=["exact", "private"])
def test_the_proximal_gradient_is_added_to_the_records(
    exactly: bool, rng: np.random.Generator, plain_steps: None
) -> None:
    """Two plain steps by hand: the second subtracts mu times the first, too; clipping and noise see nothing of it."""
    theta, Z, mu = 0.3 * parameters(SMALL, rng), 0.1 * rng.normal(size=(50, 5)), 0.7

    def after(start: np.ndarray, done: Descent) -> np.ndarray:
        if exactly:
            return network.train_exactly(SMALL, start, Z, done, 0)
        return start - moved(SMALL, start, Z, Everybody(), descent=done, expected_records=50.0)

    first = after(theta, descent(steps=1))
    expected = after(first, descent(steps=1)) - mu * (first - theta)
    assert np.abs(first - theta).max() > 1e-3
    assert after(theta, replace(descent(steps=1), proximal=mu)) == pytest.approx(first, abs=1e-6)
    assert after(theta, replace(descent(steps=2), proximal=mu)) == pytest.approx(expected, abs=1e-6)


def test_no_record_s_gradient_holds_the_proximal_one(rng: np.random.Generator, plain_steps: None) -> None:
    """An enormous mu: were it clipped together with records, a step would be no longer than the norm allows."""
    theta, Z = parameters(SMALL, rng), rng.normal(size=(50, 5))
    first = theta - moved(SMALL, theta, Z, Everybody(), descent=descent(steps=1))
    far = theta - moved(SMALL, theta, Z, Everybody(), descent=replace(descent(steps=2), proximal=1e3))
    assert np.linalg.norm(far - first) > 0.9e3 * np.linalg.norm(first - theta)
