"""What `from_torch` gives scores as the network does; what no program carries is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from sklearn.preprocessing import StandardScaler
from torch import nn

from securead.data.schema import Column, Schema
from securead.errors import FixInputError
from securead.models import Square, bundle, from_torch
from securead.models.imported.distance import ImportedDistance


@pytest.fixture
def X(rng: np.random.Generator) -> np.ndarray:
    return rng.normal(size=(500, 5)) @ rng.normal(size=(5, 5)) * [1, 10, 0.1, 3, 1] + 4


class Squared(nn.Module):
    """Somebody else's square."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.square(x)


def network(*middle: nn.Module, hidden: int = 3, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, hidden), *middle, nn.Linear(hidden, 5))


def batch_norm() -> nn.BatchNorm1d:
    layer = nn.BatchNorm1d(3)
    layer.running_mean, layer.running_var = torch.tensor([0.1, -0.2, 0.3]), torch.tensor([0.5, 1.0, 2.0])
    return layer


def errors(model: nn.Module, Z: np.ndarray) -> np.ndarray:
    model = model.double().eval()
    with torch.no_grad():
        back = model(torch.from_numpy(Z)).numpy()
    return ((Z - back) ** 2).sum(axis=1)


@pytest.mark.parametrize(
    "model",
    [
        network(Square()),
        network(nn.Dropout(0.5), Squared(), nn.Identity()),
        network(batch_norm(), Square()),
        network(Square(), batch_norm(), nn.Linear(3, 2), nn.Linear(2, 3)),
        network(Square(), hidden=8),
        network(),
        network(nn.ReLU()),
        network(nn.Sequential(nn.ReLU(), nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 3)), nn.ReLU()),
        network(Square(), nn.Linear(3, 3), Square()),
    ],
    ids=lambda model: ", ".join(type(layer).__name__ for layer in model),
)
def test_scores_are_the_networks(X: np.ndarray, model: nn.Module) -> None:
    scaler = StandardScaler().fit(X)
    detector = from_torch(model, scaler=scaler, X=X, square=(Squared,))
    exact = errors(model, scaler.transform(X))
    assert detector.anomaly_score(X) == pytest.approx(exact, rel=1e-6)
    scores = detector.compile().score(X)
    bound = detector.error_bound(X)
    assert (np.abs(scores - exact) <= bound).all()
    assert np.median(bound) < np.median(exact)  # worth stating
    assert np.median(np.abs(scores - exact)) < 0.01 * np.median(exact)
    assert spearmanr(scores, exact).statistic > 0.999
    assert (detector.predict(X) == -1).mean() == pytest.approx(0.1, abs=0.01)


def test_what_engines_are_asked_for(X: np.ndarray) -> None:
    scaler = StandardScaler().fit(X)
    square = from_torch(network(Square()), scaler=scaler, X=X)
    program = bundle.make(square, "square").public.program
    assert program.operations == {"input", "affine", "product"}
    assert program.degree == 4
    assert "truncate" in square.compile(ring_bits=62).public.operations
    assert "relu" in from_torch(network(nn.ReLU()), scaler=scaler, X=X).compile().public.operations
    assert isinstance(from_torch(network(), X=X), ImportedDistance)


def test_the_network_stays_as_it_was(X: np.ndarray) -> None:
    model = network(nn.Dropout(0.5), Square()).train()
    model[1].eval()
    from_torch(model, scaler=StandardScaler().fit(X), X=X)
    assert model.training
    assert not model[1].training


class Skip(nn.Sequential):
    """A Sequential whose forward is another."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + super().forward(x)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (network(nn.Tanh()), "a network with Tanh"),
        (Skip(nn.Linear(5, 5)), "a network with Skip"),
        (nn.Sequential(nn.Linear(5, 2)), "does not reconstruct its input"),
        (nn.Sequential(nn.Linear(5, 5), Square()), "does not end in a linear layer"),
        (nn.Sequential(Square(), nn.Linear(5, 5)), "without a linear layer before it"),
        (network(Square(), nn.Linear(3, 3), nn.ReLU()), "units of several kinds"),
        (network(nn.BatchNorm1d(3, track_running_stats=False), Square()), "without running statistics"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_carried_is_refused(X: np.ndarray, model: nn.Module, words: str) -> None:
    with pytest.raises(FixInputError, match=words) as refused:
        from_torch(model, X=X)
    assert "Nearest: " in str(refused.value)


def test_further_refusals(X: np.ndarray) -> None:
    schema = Schema(tuple(Column(f"c{i}", -50, 50) for i in range(5)))
    with pytest.raises(FixInputError, match="no threshold of its own"):
        from_torch(network(Square()), schema=schema)
    assert from_torch(network(Square()), schema=schema, threshold=3.0).threshold_ == 3.0
    with pytest.raises(FixInputError, match="reach far"):
        from_torch(network(Square()), X=1000 * X)
