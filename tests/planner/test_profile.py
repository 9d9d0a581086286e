"""Profiles: kept whole, found where the user keeps caches, and refused on another machine or with other packages."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from securead.errors import FixInputError
from securead.planner import profile as profiles
from securead.planner.profile import EngineCosts, Profile, UnitCost


def profile(**changes: object) -> Profile:
    costs = EngineCosts("ckks", (UnitCost("client", "request", 1e-3), UnitCost("client", "encoded", 2e-8)), 0.04, 9)
    made = Profile(profiles.machine(), profiles.versions(), "2026-01-01T00:00:00+00:00", (costs,))
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


def test_a_profile_survives_its_file(tmp_path: Path) -> None:
    path = tmp_path / "made" / "anew" / "profile.json"
    profiles.write(profile(), path)
    assert profiles.read(path) == profile()
    found = profiles.read(path).of("ckks")
    assert found is not None
    assert found.seconds("client", {"request": 1, "encoded": 1e6}) == pytest.approx(0.021)
    assert profiles.read(path).of("another") is None


def test_it_lies_in_the_users_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert profiles.default_path() == tmp_path / "securead" / "profile.json"
    monkeypatch.setenv("XDG_CACHE_HOME", "not/absolute")  # to be ignored, as the specification of XDG says
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert profiles.default_path() == tmp_path / "home" / ".cache" / "securead" / "profile.json"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"machine": "A Slower One, 1 cores, Linux x86_64"}, "another machine"),
        ({"versions": (("python", "2.7"), *profiles.versions()[1:])}, "other versions of python"),
        ({"versions": profiles.versions()[:-1]}, "other versions of"),
    ],
)
def test_anothers_profile_is_refused_with_the_reason(changes: dict[str, object], why: str, tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    profiles.write(profile(**changes), path)
    with pytest.raises(FixInputError, match=why) as refused:
        profiles.read(path)
    assert "securead plan --calibrate" in str(refused.value)


@pytest.mark.parametrize("seconds", [-1e-9, 1e7])
def test_an_absurd_cost_is_refused(seconds: float, tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    profiles.write(profile(), path)
    plain = json.loads(path.read_text())
    plain["engines"][0]["costs"][0]["seconds"] = seconds
    path.write_text(json.dumps(plain))
    with pytest.raises(FixInputError):
        profiles.read(path)


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    profiles.write(profile(), path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(FixInputError):
        profiles.read(path)


def test_it_names_no_host_user_or_folder() -> None:
    text = json.dumps([profiles.machine(), profiles.versions()])
    import getpass
    import socket

    assert socket.gethostname() not in text
    assert getpass.getuser() not in text
    assert "/" not in profiles.machine()
