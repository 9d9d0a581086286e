"""Autoencoder networks that encryption can carry, and their training, with and without privacy.

A hidden unit is linear, a square or a ReLU; the loss of a record is its squared reconstruction error. Private
training is DP-SGD (Abadi et al. 2016) with Poisson sampling: Opacus computes and clips per-record gradients, and both
the samples and the noise are drawn from a `Stream`, never from torch's generator.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from opacus.grad_sample.utils import wrap_model
from opacus.optimizers import DPOptimizer
from torch import nn

from securead.data.schema import Array
from securead.errors import FixConfigurationError
from securead.privacy.randomness import Stream

Units = Literal["linear_square", "linear_and_square", "square", "relu"]
# The fastest in a one-off measurement on 29-12-29, one core, 480 records a step: 1.7 ms; hooks 2.1, functorch 4.0.
_GRAD_SAMPLE_MODE = "ew"
_DTYPE = torch.float32


@dataclass(frozen=True)
class Shape:
    """A network: layer widths from the input's to the output's, and the kind of hidden units.

    "linear_square": the first half of each hidden layer (rounded up) is linear, the rest squares. "linear_and_square":
    every hidden unit is given on twice, as it is and squared.
    """

    widths: tuple[int, ...]
    units: Units

    @property
    def parameters(self) -> int:
        """The number of weights and offsets."""
        return sum((a + 1) * b for a, b in self.fans)

    @property
    def fans(self) -> list[tuple[int, int]]:
        """Inputs and outputs of each layer."""
        twice = 2 if self.units == "linear_and_square" else 1
        return [(a if at == 0 else twice * a, b) for at, (a, b) in enumerate(itertools.pairwise(self.widths))]


@dataclass(frozen=True)
class Descent:
    """How a site trains in one round. `weight_limit` bounds every weight, so that ranges stay small.

    `proximal` mu adds mu/2 |w - w_0|^2 to the loss, w_0 being the weights that the round began with (FedProx, Li et al.
    2020): its gradient is of no record, so private training adds it after the noise.
    """

    steps: int
    sampling_prob: float
    learning_rate: float
    weight_decay: float
    weight_limit: float
    proximal: float = 0.0


class _Activation(nn.Module):
    def __init__(self, units: Units, width: int) -> None:
        super().__init__()
        self.units, self.linear = units, (width + 1) // 2

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        if self.units == "relu":
            return torch.relu(h)
        if self.units == "square":
            return h * h
        if self.units == "linear_and_square":
            return torch.cat([h, h * h], dim=1)
        return torch.cat([h[:, : self.linear], h[:, self.linear :] ** 2], dim=1)


def build(shape: Shape) -> nn.Sequential:
    """The network, with parameters to be set."""
    layers: list[nn.Module] = []
    for at, (a, b) in enumerate(shape.fans):
        # Its own initialisation would draw from torch's generator.
        layers.append(nn.utils.skip_init(nn.Linear, a, b, dtype=_DTYPE))  # type: ignore[no-untyped-call]
        if at < len(shape.widths) - 2:
            layers.append(_Activation(shape.units, b))
    return nn.Sequential(*layers)


def initial_parameters(shape: Shape, seed: int) -> Array:
    """Public initial parameters, flat: Glorot-uniform weights, square units' a little smaller, zero offsets."""
    rng = np.random.default_rng(seed)
    parts = []
    for at, (a, b) in enumerate(shape.fans):
        bound = np.sqrt(6.0 / (a + b)) * (0.5 if at < len(shape.widths) - 2 and shape.units != "relu" else 1.0)
        parts += [rng.uniform(-bound, bound, a * b), np.zeros(b)]
    return np.concatenate(parts)


def layers(shape: Shape, theta: Array) -> list[tuple[Array, Array]]:
    """Weights `(out, in)` and offsets `(out,)` of each layer of flat parameters.

    Of "linear_and_square" units those of the equal network of "linear_square" units, twice as many.
    """
    found = _own_layers(shape, theta)
    if shape.units == "linear_and_square":
        found[:-1] = [(np.vstack([weight] * 2), np.tile(offset, 2)) for weight, offset in found[:-1]]
    return found


def _own_layers(shape: Shape, theta: Array) -> list[tuple[Array, Array]]:
    found, at = [], 0
    for a, b in shape.fans:
        found.append((theta[at : at + a * b].reshape(b, a), theta[at + a * b : at + (a + 1) * b]))
        at += (a + 1) * b
    return found


def reconstruction_errors(shape: Shape, theta: Array, Z: Array) -> Array:
    """Squared reconstruction errors `(n,)` of standardised records, in float64."""
    h = Z
    *hidden, (last, offset) = layers(shape, theta)
    for weight, bias in hidden:
        h = h @ weight.T + bias
        linear = (h.shape[1] + 1) // 2
        if shape.units == "relu":
            h = np.maximum(h, 0)
        else:
            h = h * h if shape.units == "square" else np.hstack([h[:, :linear], h[:, linear:] ** 2])
    errors: Array = ((Z - h @ last.T - offset) ** 2).sum(axis=1)
    return errors


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Keep torch to one thread: on batches this small two gain a tenth, and cost twentyfold on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@_one_thread()
def train_exactly(shape: Shape, theta: Array, Z: Array, descent: Descent, seed: int) -> Array:
    """Parameters after `descent.steps` steps of Adam on sampled batches; repeatable under `seed`, not private."""
    rng = np.random.default_rng(seed)
    network, optimizer = _prepare(shape, theta, descent)
    pull = _Pull(network, descent.proximal)
    records = torch.from_numpy(np.ascontiguousarray(Z)).to(_DTYPE)
    for _ in range(descent.steps):
        batch = records[rng.random(len(Z)) < descent.sampling_prob]
        if len(batch):
            optimizer.zero_grad()
            _losses(network, batch).mean().backward()  # type: ignore[no-untyped-call]
            pull()
            optimizer.step()
            _bound(network, descent.weight_limit)
    return _flat(network)


@_one_thread()
def train_privately(
    shape: Shape,
    theta: Array,
    Z: Array,
    descent: Descent,
    *,
    noise_multiplier: float,
    l2_clip_norm: float,
    expected_records: float,
    stream: Stream,
) -> Array:
    """Parameters after `descent.steps` steps of DP-SGD.

    Guarantee: the sequence of noised gradients, hence the result, is `steps` compositions of the Poisson-sampled
    Gaussian mechanism with `sampling_prob` and `noise_multiplier` (add or remove one). `expected_records` is a public
    or noised number of records: the true one must not scale a gradient.
    """
    network, optimizer = _prepare(shape, theta, descent)
    wrapped = wrap_model(network, grad_sample_mode=_GRAD_SAMPLE_MODE, loss_reduction="sum")
    private = _SystemNoiseOptimizer(
        optimizer,
        noise_multiplier=noise_multiplier,
        max_grad_norm=l2_clip_norm,
        expected_batch_size=None,
        loss_reduction="sum",
        stream=stream,
        scale=1.0 / max(descent.sampling_prob * expected_records, 1.0),
        pull=_Pull(network, descent.proximal),
    )
    records = torch.from_numpy(np.ascontiguousarray(Z)).to(_DTYPE)
    for _ in range(descent.steps):
        batch = records[torch.from_numpy(stream.bernoulli(len(Z), descent.sampling_prob))]
        private.zero_grad()
        if len(batch):
            _losses(wrapped, batch).sum().backward()  # type: ignore[no-untyped-call]
        else:
            # An empty batch takes its step, too: skipping it would tell that it was empty.
            for parameter in private.params:
                parameter.grad_sample = torch.zeros((0, *parameter.shape), dtype=parameter.dtype)
        private.step()
        _bound(network, descent.weight_limit)
    return _flat(network)


class _SystemNoiseOptimizer(DPOptimizer):  # type: ignore[misc]
    """Opacus's optimiser with noise from a `Stream`, a public gradient scale, and what pulls back to the start."""

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        *,
        stream: Stream,
        scale: float,
        pull: Callable[[], None],
        **options: object,
    ) -> None:
        super().__init__(optimizer, **options)
        self._stream, self._scale, self._pull = stream, scale, pull

    def clip_and_accumulate(self) -> None:
        """Opacus's sums of clipped gradients, where a gradient that overflows counts as zero.

        No clip factor makes infinity finite: one extreme record would decide on the whole sum.
        """
        for parameter in self.params:
            if not torch.isfinite(parameter.grad_sample.sum()):
                parameter.grad_sample.nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)
        super().clip_and_accumulate()

    def add_noise(self) -> None:
        """The clipped sums plus Gaussian noise of the clip norm times the noise multiplier, scaled.

        Added in float64, for which the noise is made (`randomness.Stream.normal`), and rounded afterwards.
        """
        deviation = self.noise_multiplier * self.max_grad_norm
        for parameter in self.params:
            noise = torch.from_numpy(self._stream.normal(tuple(parameter.shape), deviation))
            noised = parameter.summed_grad.view_as(parameter).double() + noise
            parameter.grad = (noised * self._scale).to(parameter.dtype)
        self._pull()


class _Pull:
    """Adds the proximal term's gradient, mu times the way from the weights that were there at first."""

    def __init__(self, network: nn.Module, proximal: float) -> None:
        self._pairs = [(parameter, parameter.detach().clone()) for parameter in network.parameters()]
        self._proximal = proximal

    def __call__(self) -> None:
        if self._proximal:
            for parameter, start in self._pairs:
                if parameter.grad is not None:
                    parameter.grad.add_(parameter.detach() - start, alpha=self._proximal)


def _prepare(shape: Shape, theta: Array, descent: Descent) -> tuple[nn.Sequential, torch.optim.Optimizer]:
    network = build(shape)
    with torch.no_grad():
        for parameter, values in zip(network.parameters(), itertools.chain(*_own_layers(shape, theta)), strict=True):
            parameter.copy_(torch.from_numpy(np.array(values)))
    optimizer = torch.optim.AdamW(network.parameters(), lr=descent.learning_rate, weight_decay=descent.weight_decay)
    return network, optimizer


def _losses(network: Callable[[torch.Tensor], torch.Tensor], batch: torch.Tensor) -> torch.Tensor:
    return ((batch - network(batch)) ** 2).sum(dim=1)


def _bound(network: nn.Module, limit: float) -> None:
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.clamp_(-limit, limit)


def _flat(network: nn.Module) -> Array:
    theta = torch.cat([parameter.detach().reshape(-1) for parameter in network.parameters()]).double().numpy()
    if not np.isfinite(theta).all():
        raise diverged("a weight is not finite")
    return np.array(theta)


def diverged(how: str) -> FixConfigurationError:
    """The error of a training that ran away."""
    return FixConfigurationError(
        f"training diverged: {how}", remedy="Use a smaller learning_rate or weight_limit, or fewer layers."
    )
