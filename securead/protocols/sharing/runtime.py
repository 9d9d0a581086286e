"""CrypTen in this process: importable on today's torch, with our communicator and our source of correlations.

CrypTen's state is global, so a process computes one thing at a time: `start`, compute, `stop`, and again.
"""

from __future__ import annotations

import functools
import importlib
import sys
import warnings
from typing import Any

import torch

from securead.errors import InstallExtraError


class _Current:
    """Stands in CrypTen for its class of communicators, and yields the one that `start` was given."""

    communicator: Any = None

    @classmethod
    def is_initialized(cls) -> bool:
        return cls.communicator is not None

    @classmethod
    def get(cls) -> Any:
        return cls.communicator

    @classmethod
    def initialize(cls, *_: object, **__: object) -> None:
        raise TypeError("CrypTen is started by securead.protocols.sharing.runtime.start")

    @classmethod
    def shutdown(cls) -> None:
        cls.communicator = None


@functools.cache
def crypten() -> Any:
    """The package, imported once; `InstallExtraError` where it is missing."""
    name = "torch.onnx._internal.registration"
    try:
        importlib.import_module(name)
    except ImportError:  # torch moved it in 2.9
        sys.modules[name] = importlib.import_module("torch.onnx._internal.torchscript_exporter.registration")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about torch's types that CrypTen still names
            return importlib.import_module("crypten")
    except ImportError as error:
        raise InstallExtraError(
            f"secret sharing needs a package that is not installed: {error.name}",
            remedy="Run: pip install 'securead[mpc]'.",
        ) from error


def start(rank: int, communicator: Any, provider: Any) -> None:
    """Make CrypTen compute as party `rank` through `communicator`, with correlations from `provider`.

    Key the generators next (`randomness.key_session`). Raises `RuntimeError` when it runs already.
    """
    from securead.protocols.sharing import randomness

    package = crypten()
    if _Current.is_initialized():
        raise RuntimeError("CrypTen runs already in this process: stop it first")
    if communicator.get_rank() != rank or communicator.get_world_size() != 2:
        raise ValueError("a communicator of another party")
    randomness.install()
    package.communicator.DistributedCommunicator = _Current
    package.mpc.get_default_provider = lambda: provider
    _Current.communicator = communicator
    # Every integer here is exact: there is no scale to divide by, and no gradient to keep.
    package.cfg.encoder.precision_bits = 0
    torch.set_grad_enabled(False)


def stop() -> None:
    """Forget communicator, provider and all keys; harmless when nothing runs."""
    from securead.protocols.sharing import randomness

    _Current.communicator = None
    package = crypten()
    package.mpc.get_default_provider = _none
    randomness.forget()


def _none() -> Any:
    raise TypeError("no correlations: CrypTen was stopped")
