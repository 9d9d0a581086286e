"""Stock SEAL, the obvious way: one query a row, one encryption of zero a row, SEAL's own files both ways.

No sharing of answers among rows, no flooding, nothing cleared, a public key of the owner's own making: less than what
`securead.protocols.bfv` promises, by the same library under the same parameters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import tenseal.sealapi as seal

from securead.protocols.bfv.context import context_for
from securead.protocols.bfv.plan import BfvPlan
from securead.protocols.seal import objects, sizes


@dataclass
class SealLookup:
    """Both sides, for queries `(tables,)` one at a time."""

    plan: BfvPlan
    tables: list[Any]
    encryptor: Any
    decryptor: Any
    key_bytes: int

    def encrypt(self, query: np.ndarray) -> list[bytes]:
        starts = np.cumsum(self.plan.sizes) - np.array(self.plan.sizes)
        places, n = starts + query, self.plan.ring_dimension
        parts = []
        for piece in range(len(self.tables)):
            degrees = sorted((int(k) - piece * n for k in places if k // n == piece), reverse=True)
            text = " + ".join(f"1x^{d}" if d else "1" for d in degrees) or "0"
            parts.append(objects.save(self.encryptor.encrypt_symmetric(seal.Plaintext(text))))
        return parts

    def evaluate(self, request: list[bytes]) -> bytes:
        context = context_for(self.plan)
        evaluator, total = seal.Evaluator(context), None
        body = objects.seeded(
            sizes.METADATA_BYTES + sizes.SEED_BYTES + 8 * self.plan.ring_dimension * len(self.plan.data_primes)
        )
        for content, table in zip(request, self.tables, strict=True):
            query = objects.load(seal.Ciphertext, context, content, body)
            evaluator.transform_to_ntt_inplace(query)
            evaluator.multiply_plain_inplace(query, table)
            if total is None:
                total = query
            else:
                evaluator.add_inplace(total, query)
        evaluator.transform_from_ntt_inplace(total)
        zero = seal.Ciphertext()
        self.encryptor.encrypt_zero(zero)
        evaluator.add_inplace(total, zero)
        evaluator.mod_switch_to_next_inplace(total)
        return objects.save(total)

    def decrypt(self, answer: bytes) -> int:
        body = objects.whole(sizes.METADATA_BYTES + 16 * self.plan.ring_dimension)
        value = objects.load(seal.Ciphertext, context_for(self.plan), answer, body)
        plaintext = seal.Plaintext()
        self.decryptor.decrypt(value, plaintext)
        return int(plaintext.data(0))


def make_peer(plan: BfvPlan, entries: np.ndarray) -> SealLookup:
    """The peer for all tables' entries in one line."""
    context, n = context_for(plan), plan.ring_dimension
    generator, public = seal.KeyGenerator(context), seal.PublicKey()
    generator.create_public_key(public)
    evaluator, tables = seal.Evaluator(context), []
    for start in range(0, len(entries), n):
        piece = entries[start : start + n].tolist()
        terms = [f"{(1 << plan.plain_bits) - v:X}x^{n - i}" for i, v in enumerate(piece) if i and v]
        table = seal.Plaintext(" + ".join(terms + [f"{v:X}" for v in piece[:1] if v]))
        evaluator.transform_to_ntt_inplace(table, context.first_parms_id())
        tables.append(table)
    encryptor = seal.Encryptor(context, public, generator.secret_key())
    decryptor = seal.Decryptor(context, generator.secret_key())
    return SealLookup(plan, tables, encryptor, decryptor, len(objects.save(public)))
