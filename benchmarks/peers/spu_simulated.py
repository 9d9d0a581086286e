"""SPU (SecretFlow's): two parties of SEMI2K in its simulator, where parties are threads.

Run with spu 0.9.5, jax 0.4.34 and NumPy 1.26 on Python 3.11 (`pip install spu==0.9.5 jax==0.4.34 jaxlib==0.4.34
"numpy==1.26.*"` in an environment of its own, which `--peer-env spu=PATH` names: about 1 GB). The simulator sends
nothing over a network, so there are neither bytes nor rounds, and processor time is of both parties.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from exchange import REPEATS, Exchange, asked


def measure(exchange: Exchange) -> None:
    import jax.numpy as jnp
    import spu.utils.simulation as simulation

    try:
        from spu.libspu import FieldType, ProtocolKind
    except ImportError:  # before 0.9.4
        from spu.spu_pb2 import FieldType, ProtocolKind
    form, units = exchange.form, exchange.order.get("units", "")
    if form not in ("quadratic", "network"):
        exchange.refuse("SPU would compare every entry of every table: nobody writes a look-up that way")
    layers = [(exchange.arrays["A"], exchange.arrays["b"])] if form == "quadratic" else exchange.layers

    def score(x: Any, *weights: Any) -> Any:
        hidden = x
        for at in range(0, len(weights), 2):
            hidden = jnp.matmul(hidden, weights[at].T) + weights[at + 1]
            if at + 2 < len(weights):
                hidden = _activated(hidden)
        gap = hidden if form == "quadratic" else x - hidden
        return jnp.sum(gap * gap, axis=1)

    def _activated(hidden: Any) -> Any:
        if units == "relu":
            return jnp.maximum(hidden, 0)
        linear = 0 if units == "square" else (hidden.shape[1] + 1) // 2
        return jnp.concatenate([hidden[:, :linear], hidden[:, linear:] * hidden[:, linear:]], axis=1)

    run = simulation.sim_jax(simulation.Simulator.simple(2, ProtocolKind.SEMI2K, FieldType.FM64), score)
    Z = exchange.arrays["Z"].astype(np.float32)
    flat = [part.astype(np.float32) for layer in layers for part in layer]
    run(Z, *flat)  # the first one compiles
    for _ in range(REPEATS):
        scores = exchange.time("both parties", "score", lambda: run(Z, *flat), rows=len(Z))
    exchange.notes.append("parties are threads of one process that shares, scores and opens")
    exchange.answer(scores, "spu")


if __name__ == "__main__":
    measure(asked())
