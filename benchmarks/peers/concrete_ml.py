"""Concrete ML (TFHE), client and server apart as its manual deploys them. NOT TESTED HERE.

Written from Concrete ML's documentation (1.5 and later: `FHEModelDev`, `FHEModelClient`, `FHEModelServer`,
`compile_torch_model`). It needs a Python of its own, which `--peer-env concrete-ml=PATH` names; nobody has run it where
this was written, so check its first results. Networks and quadratic scores are compiled from torch in 6 bits. Trees of
Concrete ML learn from labels; it has no isolation forest, so a forest of its own is fitted to the scores of ours.
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

    class Score(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.layers = torch.nn.ModuleList()
            for weight, offset in layers:
                layer = torch.nn.Linear(weight.shape[1], weight.shape[0])
                layer.weight.data = torch.tensor(weight, dtype=torch.float32)
                layer.bias.data = torch.tensor(offset, dtype=torch.float32)
                self.layers.append(layer)

        def forward(self, x: Any) -> Any:
            hidden = x
            for at, layer in enumerate(self.layers):
                hidden = layer(hidden)
                if at < len(self.layers) - 1:
                    hidden = _activated(hidden, units)
            gap = hidden if form == "quadratic" else x - hidden
            return (gap * gap).sum(dim=1, keepdim=True)

    def _activated(hidden: Any, units: str) -> Any:
        if units == "relu":
            return torch.relu(hidden)
        if units == "square":
            return hidden * hidden
        linear = (hidden.shape[1] + 1) // 2
        return torch.cat([hidden[:, :linear], hidden[:, linear:] * hidden[:, linear:]], dim=1)

    exchange.notes.append(f"quantised to {_BITS} bits, accumulators rounded to {_ROUNDING}")
    return compile_torch_model(Score(), train, n_bits=_BITS, rounding_threshold_bits=_ROUNDING)


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
    exchange.notes.append(f"the first {len(Z)} records; a script that nobody could test where it was written")
    exchange.answer(scores, "concrete-ml")


if __name__ == "__main__":
    measure(asked())
