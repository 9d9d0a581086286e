"""Bit packing, against one large integer."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from securead.protocols.seal import packing


@settings(max_examples=200)
@given(st.integers(1, packing.MAX_WIDTH), st.integers(1, 200), st.integers(0, 2**32 - 1))
def test_values_stand_side_by_side(width: int, count: int, seed: int) -> None:
    values = np.random.default_rng(seed).integers(0, 1 << width, count, dtype=np.uint64)
    packed = packing.pack(values, width)
    whole = sum(int(value) << (width * at) for at, value in enumerate(values))
    assert packed == whole.to_bytes(packing.packed_bytes(count, width), "little")
    assert (packing.unpack(packed, count, width) == values).all()


@pytest.mark.parametrize("width", range(1, packing.MAX_WIDTH + 1))
@pytest.mark.parametrize("count", [1, 64, 4096])
def test_every_width_at_its_extremes(width: int, count: int) -> None:
    for value in (0, (1 << width) - 1):
        values = np.full(count, value, dtype=np.uint64)
        packed = packing.pack(values, width)
        assert len(packed) == packing.packed_bytes(count, width)
        assert (packing.unpack(packed, count, width) == values).all()


@pytest.mark.parametrize(("count", "width"), [(0, 8), (8, 0), (8, 63), (-1, 8)])
def test_absurd_shapes_are_errors(count: int, width: int) -> None:
    with pytest.raises(ValueError, match=str(width)):
        packing.unpack(b"", count, width)
