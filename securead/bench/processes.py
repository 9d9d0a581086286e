"""The commands of a demonstration as the separate processes that they are in life."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from securead.errors import SecureadError


class CommandFailedError(SecureadError):
    """A command that the demonstration ran did not succeed; its own message is part of this one's."""


def run_command(*arguments: str | Path) -> dict[str, Any]:
    """Run `securead ARGUMENTS --json` in a process of its own and return what it printed for programs."""
    said = [str(argument) for argument in arguments]
    done = subprocess.run(
        [sys.executable, "-m", "securead", *said, "--json"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise CommandFailedError(
            f"`securead {' '.join(said)}` failed: {done.stderr.strip()[-1500:]}",
            remedy="Run that command by itself to see more.",
        )
    plain: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return plain
