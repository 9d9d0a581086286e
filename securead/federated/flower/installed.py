"""That Flower is installed, and that it keeps to itself: import this before any other module of the package."""

from __future__ import annotations

import importlib.util
import logging
import os

from securead.errors import InstallExtraError

# Telemetry, the check for a newer version and installing what an app asks for are for others to switch on.
_SILENCE = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
}


def require() -> None:
    """Raise `InstallExtraError` where Flower is not installed; else make it tell nobody of this process."""
    if importlib.util.find_spec("flwr") is None:
        raise InstallExtraError(
            "training between institutions needs a package that is not installed: flwr",
            remedy="Run: pip install 'securead[flower]'.",
        )
    os.environ.update(_SILENCE)
    # What it prints is of nodes and ids; what matters of it comes back as errors and events of ours.
    import flwr.supercore.logger as theirs  # which sets it up

    theirs.FLOWER_LOGGER.handlers[:] = [logging.NullHandler()]
    theirs.FLOWER_LOGGER.setLevel(logging.CRITICAL)
    theirs.FLOWER_LOGGER.propagate = False
