"""phe (Paillier) as its manual has it: one ciphertext a number, 3,072-bit keys, no packing.

Paillier adds ciphertexts and multiplies them by plain numbers. So for a quadratic score the client encrypts every
product of two values, and for tables a one for the entry that it means and a zero for every other; the server adds up
with its weights. Only the first few rows are scored: three, or as many as some hundreds of ciphertexts are enough for.
"""

from __future__ import annotations

import numpy as np
from exchange import Exchange, asked
from phe import paillier

_CIPHERTEXTS = 500
_LEAST_ROWS = 3


def quadratic(arrays: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray, float]:
    """What each row encrypts `(rows, values)`, their weights, and the constant, of |A z + b|^2."""
    A, b, Z = arrays["A"], arrays["b"], arrays["Z"]
    first, second = np.triu_indices(Z.shape[1])
    M = A.T @ A
    weights = np.where(first == second, 1.0, 2.0) * M[first, second]
    return np.hstack([Z[:, first] * Z[:, second], Z]), np.append(weights, 2 * A.T @ b), float(b @ b)


def tables(arrays: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray, float]:
    """The same of a sum of table entries; the rows that are needed alone, because these are long."""
    starts = np.append(0, np.cumsum(arrays["sizes"])[:-1])
    positions = arrays["positions"][: _rows(len(arrays["tables"])) + 1] + starts
    ones = np.zeros((len(positions), len(arrays["tables"])), dtype=int)
    for row, found in enumerate(positions):
        ones[row, found] = 1
    return ones, arrays["tables"], 0.0


def _rows(values: int) -> int:
    return max(_LEAST_ROWS, _CIPHERTEXTS // values)


def measure(exchange: Exchange) -> None:
    if exchange.form not in ("quadratic", "tables"):
        exchange.refuse("Paillier adds ciphertexts and cannot multiply them: a network's score is of degree four")
    values, weights, constant = (quadratic if exchange.form == "quadratic" else tables)(exchange.arrays)
    public, secret = exchange.time("client", "make keys", lambda: paillier.generate_paillier_keypair(n_length=3072))
    kept = np.flatnonzero(weights)
    values, weights = values[: _rows(values.shape[1])], weights.tolist()
    exchange.sent("client", "server", "keys", public.n.bit_length() // 8)
    size, scores = public.nsquare.bit_length() // 8, []
    for row in values.tolist():
        sent = exchange.time("client", "encrypt", lambda: [public.encrypt(v) for v in row], rows=1)  # noqa: B023

        def evaluate(sent: list[paillier.EncryptedNumber] = sent) -> paillier.EncryptedNumber:
            total = public.encrypt(constant)  # a fresh encryption, so that the answer tells nothing but the score
            for at in kept:
                total = total + sent[at] * weights[at]
            return total

        answer = exchange.time("server", "evaluate", evaluate, rows=1)
        scores.append(exchange.time("client", "decrypt", lambda: secret.decrypt(answer), rows=1))  # noqa: B023
    exchange.sent("client", "server", "records", size * values.shape[1], rows=1)
    exchange.sent("server", "client", "scores", size, rows=1)
    exchange.facts["security_bits"] = 128
    exchange.notes.append(f"{values.shape[1]:,} ciphertexts a record; the first {len(values)} records")
    exchange.answer(scores, "phe", "gmpy2")


if __name__ == "__main__":
    measure(asked())
