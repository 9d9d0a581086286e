"""TenSEAL as `tenseal_batch` writes it, on the rows and with the weights that our own engine has: same parameters."""

from __future__ import annotations

import numpy as np
from exchange import Exchange, asked, chunks, passes
from tenseal_batch import RING_DIMENSION, make_autoencoder_peer, make_peer


def measure(exchange: Exchange) -> None:
    Z, arrays = exchange.arrays["Z"], exchange.arrays
    if exchange.form == "quadratic":
        peer = exchange.time("client", "make keys", lambda: make_peer(arrays["A"], arrays["b"]))
        rows, public = RING_DIMENSION // 2, peer.context
    elif exchange.form == "network" and exchange.order["layers"] == 2 and exchange.order["units"] != "relu":
        (E, b), (D, c) = exchange.layers
        linear = (len(b) + 1) // 2 if exchange.order["units"] == "linear_square" else 0
        peer = exchange.time("client", "make keys", lambda: make_autoencoder_peer(E, b, D, c, linear=linear))
        rows, public = peer.rows, peer.server
    else:
        exchange.refuse("CKKS adds and multiplies: TenSEAL has no look-up and no ReLU, nor the depth for more layers")
    exchange.sent("client", "server", "keys", len(public.serialize(save_secret_key=False)))
    parts = chunks(len(Z), rows)
    for _ in range(passes(len(parts))):
        scores = []
        for part in parts:
            chunk = Z[part]
            request = exchange.time("client", "encrypt", lambda: peer.encrypt(chunk), rows=len(chunk))  # noqa: B023
            answer = exchange.time("server", "evaluate", lambda: peer.evaluate(request), rows=len(chunk))  # noqa: B023
            scores.append(exchange.time("client", "decrypt", lambda: peer.decrypt(answer), rows=len(chunk)))  # noqa: B023
    # Of the last chunk; one that is not full weighs as much, and is only one of many.
    share = len(Z) / len(parts)
    exchange.sent("client", "server", "records", sum(map(len, request)), rows=share)
    exchange.sent("server", "client", "scores", len(answer), rows=share)
    exchange.facts["security_bits"] = 128
    if len(parts) * rows > len(Z):
        exchange.notes.append(
            f"the last of {len(parts)} chunks of {rows:,} slots is not full: as few rows cost as much"
        )
    exchange.answer(np.concatenate(scores), "tenseal")


if __name__ == "__main__":
    measure(asked())
