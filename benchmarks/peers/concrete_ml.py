"""Concrete ML (TFHE), client and server apart as its manual deploys them.

Run with concrete-ml 1.9.0 on Python 3.11 (`pip install concrete-ml` in an environment of its own, which
`--peer-env concrete-ml=PATH` names: about 6 GB with its torch). Networks and quadratic scores are compiled from torch
in 6 bits. Trees of Concrete ML learn from labels; it has no isolation forest, so a forest of its own is fitted to the
scores of ours.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from exchange import Exchange, asked

_BITS, _ROUNDING = 6, 6
_ROWS = 5


def compiled(exchange: Exchange) -> Any:
    """A model of Concrete ML's, compiled on the rows that our detector was trained on."""
    train = exchange.arrays["Z_train"].astype(np.float32)
    if exchange.form == "tables":
        from concrete.ml.sklearn import RandomForestRegressor

        forest = RandomForestRegressor(n_bits=_BITS, n_estimators=20, max_depth=4, random_state=exchange.order["seed"])
        forest.fit(train, exchange.arrays["scores_train"].astype(np.float32))
        forest.compile(train)
        exchange.notes.append("20 trees of depth 4 in 6 bits that learned our forest's scores: another, smaller model")
        return forest
    import torch
    from concrete.ml.torch.compile import compile_torch_model

    form = exchange.form
    layers = [(exchange.arrays["A"], exchange.arrays["b"])] if form == "quadratic" else exchange.layers
    units = exchange.order.get("units", "")

    # Concrete ML joins no parts of different scales: units that stay linear and those that are squared go apart.
    parts = [_parts(len(offset), units, last=at == len(layers) - 1) for at, (_, offset) in enumerate(layers)]

    class Score(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.blocks = torch.nn.ModuleDict()
            for at, (weight, offset) in enumerate(layers):
                sources = [(0, weight.shape[1], "")] if at == 0 else parts[at - 1]
                for out, (start, stop, _) in enumerate(parts[at]):
                    for into, (first, end, _) in enumerate(sources):
                        block = torch.nn.Linear(end - first, stop - start, bias=into == 0)
                        block.weight.data = torch.tensor(weight[start:stop, first:end], dtype=torch.float32)
                        if into == 0:
                            block.bias.data = torch.tensor(offset[start:stop], dtype=torch.float32)
                        self.blocks[f"{at}-{out}-{into}"] = block

        def forward(self, x: Any) -> Any:
            hidden = [x]
            for at in range(len(layers)):
                sums = []
                for out, (_, _, unit) in enumerate(parts[at]):
                    total = self.blocks[f"{at}-{out}-0"](hidden[0])
                    for into in range(1, len(hidden)):
                        total = total + self.blocks[f"{at}-{out}-{into}"](hidden[into])
                    sums.append(torch.relu(total) if unit == "relu" else total * total if unit == "square" else total)
                hidden = sums
            gap = hidden[0] if form == "quadratic" else x - hidden[0]
            return (gap * gap).sum(dim=1, keepdim=True)

    exchange.notes.append(f"quantised to {_BITS} bits, accumulators rounded to {_ROUNDING}")
    return compile_torch_model(Score(), train, n_bits=_BITS, rounding_threshold_bits=_ROUNDING)


def _parts(width: int, units: str, *, last: bool) -> list[tuple[int, int, str]]:
    """Where the units of each kind of a layer begin and end, and what they do."""
    if last:
        return [(0, width, "")]
    if units != "linear_square":
        return [(0, width, units)]
    linear = (width + 1) // 2
    return [(0, linear, ""), (linear, width, "square")]


def measure(exchange: Exchange) -> None:
    from concrete.ml.deployment import FHEModelClient, FHEModelDev, FHEModelServer

    model = exchange.time("server", "compile", lambda: compiled(exchange))
    Z, scores = exchange.arrays["Z"][:_ROWS].astype(np.float32), []
    with tempfile.TemporaryDirectory() as folder:
        deployed = Path(folder) / "model"
        FHEModelDev(str(deployed), model).save()
        client = FHEModelClient(str(deployed), key_dir=str(Path(folder) / "keys"))
        server = FHEModelServer(str(deployed))
        server.load()
        exchange.time("client", "make keys", client.generate_private_and_evaluation_keys)
        keys = client.get_serialized_evaluation_keys()
        for at in range(len(Z)):
            row = Z[at : at + 1]
            request = exchange.time("client", "encrypt", lambda: client.quantize_encrypt_serialize(row), rows=1)  # noqa: B023
            answer = exchange.time("server", "evaluate", lambda: server.run(request, keys), rows=1)  # noqa: B023
            score = exchange.time("client", "decrypt", lambda: client.deserialize_decrypt_dequantize(answer), rows=1)  # noqa: B023
            scores.append(float(np.ravel(score)[0]))
    exchange.sent("client", "server", "keys", len(keys))
    exchange.sent("client", "server", "records", len(request), rows=1)
    exchange.sent("server", "client", "scores", len(answer), rows=1)
    exchange.facts["security_bits"] = 128
    exchange.notes.append(f"the first {len(Z)} records")
    exchange.answer(scores, "concrete-ml")


if __name__ == "__main__":
    measure(asked())
