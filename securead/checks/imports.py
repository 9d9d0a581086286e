"""What an engine's halves load: part of `check_engine`."""

from __future__ import annotations

import json
import subprocess
import sys

from securead.protocols import registry

_CRYPTOGRAPHY = ("tenseal", "phe", "crypten", "torch", "numba")


def check_imports(name: str) -> None:
    """What each half loads, measured in a fresh interpreter."""
    package = registry.spec(name).package
    forbidden = {
        "plan": (*_CRYPTOGRAPHY, f"{package}.owner", f"{package}.blind"),
        "owner": ("torch", "numba", f"{package}.blind"),
        "blind": (f"{package}.owner",),
    }
    if registry.spec(name).parties != 1:
        del forbidden["blind"]
    for half, modules in forbidden.items():
        script = f"import json, sys, {package}.{half}\nprint(json.dumps([m for m in {modules!r} if m in sys.modules]))"
        run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
        assert run.returncode == 0, f"`import {package}.{half}` fails:\n{run.stderr}"
        loaded = json.loads(run.stdout)
        assert not loaded, f"`import {package}.{half}` loads {loaded}"
