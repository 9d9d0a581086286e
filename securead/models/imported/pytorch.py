"""`from_torch`: autoencoders of linear layers with squares or ReLUs between them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import nn

from securead.data.schema import Array, Schema
from securead.models.imported.detector import ImportedDetector, Origin, refuse
from securead.models.imported.distance import ImportedDistance
from securead.models.imported.networks import ImportedNetwork, Layers, plain_layers
from securead.models.imported.records import Given, Scaling, make_schema
from securead.models.imported.scikit import scalers

_IGNORED = (nn.Identity, nn.Dropout)
_SCALE_SAID = "centre and scale of every column, as the network's scaler has them, and a power of two above each value"


class Square(nn.Module):
    """x * x, elementwise: the unit that encryption carries."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The squares of `x`."""
        return x * x


def from_torch(
    network: nn.Module,
    *,
    scaler: Any = None,
    square: tuple[type[nn.Module], ...] = (),
    schema: Schema | None = None,
    X: Any = None,
    threshold: float | None = None,
    contamination: float | None = None,
) -> ImportedDetector:
    """A detector of ours from an autoencoder in PyTorch; the score is the squared reconstruction error.

    Scores equal the network's up to `error_bound`, and its own rounding in float32, for records within bounds. There is
    no differential-privacy guarantee. The schema and the scaler become public.

    network: a `Sequential` (or nested ones) of `Linear`, `BatchNorm1d` as in evaluation, and units of one kind:
        `securead.models.Square`, modules of the classes that `square` names, or `ReLU`. Linear layers in a row are
        multiplied. One layer of squares compiles for encryption; more, and ReLUs, for secret sharing only.
    scaler: fitted scalers of scikit-learn that records pass first, as `from_sklearn` knows them.
    schema, X, threshold, contamination: as in `from_sklearn`. A network has no threshold of its own.

    Raises `FixInputError` for what cannot be carried, with the reason and the nearest alternative.
    """
    given = Given(schema, X, threshold, contamination)
    maps, kinds = read_network(network, square)
    scaling = Scaling.of(scalers(scaler), maps[0][0].shape[1])
    names = getattr(scaler, "feature_names_in_", None)
    return import_network(
        plain_layers(maps, kinds),
        kinds,
        scaling,
        None if names is None else tuple(map(str, names)),
        given,
        Origin(f"PyTorch {torch.__version__} (a network)", lambda X: _reconstruction_error(network, scaling.apply(X))),
    )


def import_network(
    maps: Layers,
    kinds: list[str],
    scaling: Scaling,
    names: tuple[str, ...] | None,
    given: Given,
    origin: Origin,
    *,
    root: bool = False,
) -> ImportedDetector:
    """A network in normal form behind `scaling`; without units between its layers it is a quadratic detector."""
    schema, disclosed = make_schema(given, scaling, names)
    imported: ImportedDetector
    if kinds:
        units = cast(Literal["square", "relu"], kinds[0])
        imported = ImportedNetwork(maps, units, scaling, schema, root=root)
    else:
        ((weight, offset),) = maps
        imported = ImportedDistance(np.eye(len(offset)) - weight, -offset, scaling, schema, root=root)
    imported.finish(origin, given, (_SCALE_SAID, *disclosed))
    return imported


def read_network(network: nn.Module, square: tuple[type[nn.Module], ...] = ()) -> tuple[Layers, list[str]]:
    """Affine maps in float64 and the kinds of units between them."""
    maps, kinds = list[tuple[Array, Array]](), list[str]()
    open_map: tuple[Array, Array] | None = None
    for module in _modules(network):
        kind = type(module)
        if kind in _IGNORED:
            continue
        if kind is nn.Linear:
            open_map = _after(open_map, *_linear(cast(nn.Linear, module)))
        elif kind is nn.BatchNorm1d:
            open_map = _after(open_map, *_batch_norm(cast(nn.BatchNorm1d, module)))
        elif kind in (Square, nn.ReLU, *square):
            if open_map is None:
                raise refuse(
                    f"a {kind.__name__} without a linear layer before it", "units follow layers", "AutoEncoder"
                )
            maps.append(open_map)
            kinds.append("relu" if kind is nn.ReLU else "square")
            open_map = None
        else:
            raise refuse(
                f"a network with {kind.__name__}",
                "programs have linear layers, squares and ReLUs",
                "train it with securead.models.Square (for encryption) or ReLU (for secret sharing) in its place, or "
                "AutoEncoder; a module that squares can be named in square=",
            )
    if open_map is None:
        raise refuse("a network that does not end in a linear layer", "its output is no reconstruction", "AutoEncoder")
    return [*maps, open_map], kinds


def _modules(module: nn.Module) -> Iterator[nn.Module]:
    if type(module) is nn.Sequential:
        for inner in module:
            yield from _modules(inner)
    else:
        yield module


def _after(open_map: tuple[Array, Array] | None, weight: Array, offset: Array) -> tuple[Array, Array]:
    return (weight, offset) if open_map is None else (weight @ open_map[0], weight @ open_map[1] + offset)


def _linear(module: nn.Linear) -> tuple[Array, Array]:
    weight = _array(module.weight)
    bias = getattr(module, "bias", None)
    return weight, np.zeros(len(weight)) if bias is None else _array(bias)


def _batch_norm(module: nn.BatchNorm1d) -> tuple[Array, Array]:
    if module.running_mean is None or module.running_var is None:
        raise refuse(
            "a BatchNorm1d without running statistics", "a record's score would depend on others", "track_running_stats"
        )
    factor = 1 / np.sqrt(_array(module.running_var) + module.eps)
    if module.affine:
        factor = factor * _array(module.weight)
    shift = -_array(module.running_mean) * factor
    return np.diag(factor), shift + _array(module.bias) if module.affine else shift


def _array(tensor: torch.Tensor) -> Array:
    return np.asarray(tensor.detach().cpu().double().numpy())


def _reconstruction_error(network: nn.Module, X: Array) -> Array:
    """The network's own, in evaluation, in its own precision; it is left in the mode that it was in."""
    training = [(module, module.training) for module in network.modules()]
    weight = next(network.parameters())
    network.eval()
    try:
        with torch.no_grad():
            inputs = torch.from_numpy(X).to(weight)
            return _array(((inputs - network(inputs)) ** 2).sum(dim=1))
    finally:
        for module, mode in training:
            module.training = mode
