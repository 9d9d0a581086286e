"""Engines are found by entry point, loaded only when asked for, and missing ones say what to install."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from types import ModuleType
from typing import Any

import pytest

from securead.errors import FixConfigurationError, InstallExtraError
from securead.protocols import registry
from securead.protocols.engine import EngineSpec

HALVES: dict[str, Callable[[str], object]] = {
    "plan": registry.plan_module,
    "owner": registry.owner_module,
    "blind": registry.blind_module,
}


def made_up(name: str, package: str = "made_up_engine") -> EngineSpec:
    return EngineSpec(name, package, ("same",), ("input", "affine"), "made-up", "for tests")


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Replace the installed engines by entry points of our own."""

    def install(*specs: EngineSpec) -> None:
        home = ModuleType("made_up_home")
        for spec in specs:
            setattr(home, spec.name, spec)
        monkeypatch.setitem(sys.modules, "made_up_home", home)
        points = [metadata.EntryPoint(s.name, f"made_up_home:{s.name}", registry.GROUP) for s in specs]

        def entry_points(**selected: Any) -> list[metadata.EntryPoint]:
            assert selected == {"group": "securead.engines"}
            return points

        monkeypatch.setattr(metadata, "entry_points", entry_points)
        registry.engines.cache_clear()

    yield install
    monkeypatch.undo()
    registry.engines.cache_clear()


def test_ckks_is_registered_and_names_itself() -> None:
    assert "ckks" in registry.engines()
    for name, spec in registry.engines().items():
        assert registry.spec(name) is spec
        assert spec.name == name, "the entry point and the specification agree"
        assert set(spec.roles) <= {"same", "split"}
        assert spec.roles


def test_a_third_party_engine_is_found_by_its_entry_point(register: Callable[..., None]) -> None:
    register(made_up("zeta"), made_up("alpha"))
    assert list(registry.engines()) == ["alpha", "zeta"], "sorted, so that listings are stable"
    assert registry.spec("zeta") == made_up("zeta")


def test_an_unknown_engine_is_refused_with_those_there_are(register: Callable[..., None]) -> None:
    register(made_up("zeta"), made_up("alpha"))
    for ask in (registry.spec, *HALVES.values()):
        with pytest.raises(FixConfigurationError, match=r"no engine is called 'ckks'.*engines: alpha, zeta\."):
            ask("ckks")
    register()
    with pytest.raises(FixConfigurationError, match="Registered engines: none"):
        registry.spec("ckks")


@pytest.mark.parametrize("half", HALVES)
def test_each_half_is_a_module_of_the_engines_package_loaded_when_asked_for(
    register: Callable[..., None], monkeypatch: pytest.MonkeyPatch, half: str
) -> None:
    register(made_up("zeta"))
    package = ModuleType("made_up_engine")
    package.__path__ = []
    modules = {h: ModuleType(f"made_up_engine.{h}") for h in HALVES}
    monkeypatch.setitem(sys.modules, "made_up_engine", package)
    monkeypatch.setitem(sys.modules, f"made_up_engine.{half}", modules[half])
    assert HALVES[half]("zeta") is modules[half]
    for other in set(HALVES) - {half}:
        with pytest.raises(InstallExtraError):
            HALVES[other]("zeta")


@pytest.mark.parametrize("half", HALVES)
def test_an_engine_whose_package_is_missing_names_package_and_extra(register: Callable[..., None], half: str) -> None:
    register(made_up("zeta", "no_such_package_anywhere"))
    with pytest.raises(
        InstallExtraError,
        match=r"engine 'zeta' needs a package.*: no_such_package_anywhere\..*'securead\[made-up(,serve)?\]'",
    ):
        HALVES[half]("zeta")


def test_listing_engines_and_planning_load_no_cryptography() -> None:
    """In a process of its own, because this one has loaded everything."""
    program = """
import sys
from securead.protocols import registry
registry.spec("ckks"); registry.plan_module("ckks")
print([m for m in sys.modules if m.split(".")[0] in ("tenseal", "torch", "numba", "cryptography")
       or m.endswith((".owner", ".blind"))])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
