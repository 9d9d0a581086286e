"""The secret half as bytes: JSON with exact integers of any size, nothing executable."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from securead.data.schema import Array
from securead.errors import FixInputError
from securead.program.polynomial import SecretPolynomial, Weights
from securead.program.program import SecretProgram
from securead.program.table import SecretTable


def secret_to_bytes(secret: SecretProgram) -> bytes:
    """Serialise the weights or tables and the commitment key. The result is a secret."""
    plain: dict[str, Any] = {"commitment_key": secret.commitment_key.hex()}
    match secret:
        case SecretPolynomial():
            plain["weights"] = {
                str(at): {"matrices": [m.tolist() for m in w.matrices], "offset": w.offset.tolist()}
                for at, w in secret.weights.items()
            }
        case SecretTable():
            plain["tables"] = [entries.tolist() for entries in secret.tables]
    return json.dumps(plain).encode()


def secret_from_bytes(content: bytes) -> SecretProgram:
    """Invert `secret_to_bytes`; anything else is a `FixInputError`."""
    try:
        plain = json.loads(content)
        key = bytes.fromhex(plain["commitment_key"])
        if "tables" in plain:
            tables = tuple(_integers(entries, 1) for entries in plain["tables"])
            if not tables or any(entries.dtype == object or not len(entries) for entries in tables):
                raise ValueError("not tables")
            return SecretTable(tables, key)
        weights = {
            int(at): Weights(tuple(_integers(m, 2) for m in item["matrices"]), _integers(item["offset"], 1))
            for at, item in plain["weights"].items()
        }
        return SecretPolynomial(weights, key)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FixInputError(
            "this is not the secret half of a program", remedy="The file is damaged or foreign."
        ) from error


def _integers(plain: Any, dimensions: int) -> Array:
    rows = plain if dimensions == 2 else [plain]
    flat = [value for row in rows for value in row]
    if not all(type(value) is int for value in flat) or len({len(row) for row in rows}) > 1:
        raise ValueError("not a matrix of integers")
    fits = all(-(2**62) < value < 2**62 for value in flat)
    array = np.empty(len(flat), dtype=np.int64 if fits else object)
    array[:] = flat
    return array.reshape((len(rows), -1)) if dimensions == 2 else array
