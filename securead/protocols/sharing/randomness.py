"""Every generator of CrypTen replaced by AES-256 in counter mode under fresh 32-byte keys.

As shipped CrypTen seeds mt19937 with 32 effective bits. After `install` nothing in it draws from torch, and a
generator that was not keyed, or is used after a fork, raises.
"""

from __future__ import annotations

import hashlib
import hmac
import importlib
from typing import Any

import numpy as np
import torch

from securead.protocols.sharing import runtime
from securead.protocols.sharing.shares import Words

_CPU = torch.device("cpu")
# Modules of CrypTen that hold the two functions that draw under names of their own.
_DRAWING = (
    "crypten.common.rng",
    "crypten.mpc.primitives.arithmetic",
    "crypten.mpc.primitives.binary",
    "crypten.mpc.primitives.replicated",
    "crypten.mpc.provider.tfp_provider",
    "crypten.mpc.provider.ttp_provider",
    "crypten.mpc.provider.homomorphic_provider",
)


def install() -> None:
    """Replace what draws. Nothing can be drawn before `key_session`."""
    crypten = runtime.crypten()
    for name in _DRAWING:
        module = importlib.import_module(name)
        for function in (generate_random_ring_element, generate_kbit_random_tensor):
            if hasattr(module, function.__name__):
                setattr(module, function.__name__, function)
    crypten._setup_prng = _refuse
    crypten._sync_seeds = _refuse
    crypten.manual_seed = _refuse
    forget()


def key_session(rank: int, ring_key: bytes, local_key: bytes) -> None:
    """Key all generators of this party: from `ring_key`, which both parties hold, and `local_key`, its own.

    The generator shared with the next party is keyed as the one that it shares with its previous.
    """
    first, second, common = (_derived(ring_key, name) for name in (b"0 to 1", b"1 to 0", b"global"))
    keys = {
        "next": first if rank == 0 else second,
        "prev": second if rank == 0 else first,
        "local": local_key,
        "global": common,
    }
    generators = runtime.crypten().generators
    for name, key in keys.items():
        generators[name] = {_CPU: Words(key)}


def forget() -> None:
    """Drop all generators: a session's keys die with it."""
    generators = runtime.crypten().generators
    for name in ("prev", "next", "local", "global"):
        generators[name] = {}


def generate_random_ring_element(
    size: Any, ring_size: int = 2**64, generator: Words | None = None, **_: Any
) -> torch.Tensor:
    """Uniform words in place of CrypTen's function of this name."""
    if ring_size != 2**64:
        raise ValueError(f"the ring has 2**64 elements, not {ring_size}")
    source = runtime.crypten().generators["local"][_CPU] if generator is None else generator
    if not isinstance(source, Words):
        raise TypeError("a generator that is not ours")
    shape = (size,) if isinstance(size, int) else tuple(size)
    return torch.from_numpy(source.draw(shape))


def generate_kbit_random_tensor(
    size: Any, bitlength: int | None = None, generator: Words | None = None, **_: Any
) -> torch.Tensor:
    """Uniform integers of `bitlength` bits in place of CrypTen's function of this name."""
    words = generate_random_ring_element(size, generator=generator)
    return words if bitlength in (None, 64) else words & ((1 << bitlength) - 1)


def as_tensor(words: np.ndarray) -> torch.Tensor:
    """Words as a tensor, without a copy where they may be written."""
    return torch.from_numpy(words if words.flags.writeable else words.copy())


def _derived(key: bytes, name: bytes) -> bytes:
    return hmac.new(key, b"securead.protocols.sharing.ring.v1\0" + name, hashlib.sha256).digest()


def _refuse(*_: object, **__: object) -> None:
    raise TypeError("CrypTen's own seeding is off: sessions are keyed by key_session")
