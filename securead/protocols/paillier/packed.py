"""Many integers in one plaintext, in slots that cannot overflow however many sites add up (AGGREGATION.md, section 3).

Guarantee: for at most `sites` arrays that `Packing.pack` accepted, slots of the sum of plaintexts are the sums of
slots, as integers; `unpack` gives the sum of the arrays bit for bit, or nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from securead.data.schema import Array
from securead.errors import FixConfigurationError, FixInputError

SPARE_BITS = 64
"""Bits of a plaintext that stay free, so that what is no sum shows but for 2^-64."""
_SUM_BOUND, _WHOLE = 2**62, 64
_MAX_VALUES = 2**26


@dataclass(frozen=True)
class Packing:
    """How `count` values of `bits` signed bits lie in plaintexts below a modulus of `key_bits`, for sums of `sites`."""

    sites: int
    bits: int
    count: int
    key_bits: int

    def __post_init__(self) -> None:
        if self.sites < 2 or not 2 <= self.bits <= _WHOLE or not 1 <= self.count <= _MAX_VALUES:
            raise FixConfigurationError(
                f"a packed sum is of 2 sites or more and 1 to 2**26 values of 2 to {_WHOLE} bits",
                value=(self.sites, self.count, self.bits),
            )
        if self.slots < 1:
            raise FixConfigurationError(
                "a plaintext holds no value of this width", value=f"{self.width} bits", remedy="Use a larger key."
            )

    @property
    def bound(self) -> int:
        """Values are in [-bound, bound): what the clipping bound says, and what int64 holds the sum of."""
        return min(1 << (self.bits - 1), _SUM_BOUND // self.sites)

    @property
    def width(self) -> int:
        """Bits of a slot: a value's, and guard bits for the sum of all sites."""
        return (self.sites * (2 * self.bound - 1)).bit_length()

    @property
    def slots(self) -> int:
        """Values in a plaintext."""
        return (self.key_bits - 1 - SPARE_BITS) // self.width

    @property
    def plaintexts(self) -> int:
        """How many plaintexts hold all values."""
        return math.ceil(self.count / self.slots)

    def check(self, values: Array) -> None:
        """Raise `FixInputError` unless these are the values: int64, so many, within the bound. Never names a value."""
        if values.dtype != np.int64 or values.size != self.count:
            raise FixInputError(
                f"an update here is {self.count:,} values of int64, not {values.size:,} of {values.dtype}",
                remedy="Round it to the grid first.",
            )
        if not (-self.bound <= int(values.min()) and int(values.max()) < self.bound):
            raise FixInputError(
                f"an update has a value that does not fit {self.bits} signed bits, or of which {self.sites} overflow"
                " a sum of int64",
                remedy="Clip it to the bound that the detector states, or use a coarser grid.",
            )

    def pack(self, values: Array) -> list[int]:
        """Plaintexts below 2**(slots * width). Raises as `check` does."""
        self.check(values)
        # Whole numbers of Python: bound + value has up to 63 bits, and a slot begins anywhere.
        lifted = [value + self.bound for value in values.reshape(-1).tolist()]
        return [self._joined(lifted[at : at + self.slots]) for at in range(0, self.count, self.slots)]

    def unpack(self, sums: Sequence[int], participants: int) -> Array | None:
        """The sum of the values of `participants` sites, int64 `(count,)`, from the sums of their plaintexts.

        None where no such values have these sums: a message of another set, round or key is in them, or one is missing.
        """
        if not 1 <= participants <= self.sites:
            raise ValueError("a sum is of the run's sites")
        highest, mask = participants * (2 * self.bound - 1), (1 << self.width) - 1
        found = list[int]()
        for plaintext in sums:
            slots = [(plaintext >> at) & mask for at in range(0, self.slots * self.width, self.width)]
            if not 0 <= plaintext < 1 << (self.slots * self.width) or max(slots) > highest:
                return None
            found += slots
        if len(sums) != self.plaintexts or any(found[self.count :]):
            return None
        lowered = participants * self.bound
        return np.array([slot - lowered for slot in found[: self.count]], dtype=np.int64)

    def _joined(self, slots: Sequence[int]) -> int:
        joined = 0
        for slot in reversed(slots):
            joined = joined << self.width | slot
        return joined
