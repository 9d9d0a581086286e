"""The fuzz targets, without a fuzzer: honest messages are accepted, mended mutations refused or used; and with one."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fuzz_targets import TARGETS

SLOW = {"decrypted-file": 6}


@pytest.mark.parametrize("name", TARGETS)
def test_honest_messages_are_accepted_and_mutated_ones_do_no_harm(name: str) -> None:
    target, rng = TARGETS[name], random.Random(0)
    seeds = target.seeds()
    assert all(target.run(seed) for seed in seeds)
    assert max(map(len, seeds)) <= target.max_bytes()
    found = [target.run(target.mutate(rng.choice(seeds), rng)) for _ in range(SLOW.get(name, 25))]
    assert not all(found), "mutations that change nothing find nothing"


@pytest.mark.parametrize("name", TARGETS)
def test_mending_gets_past_the_first_checks(name: str) -> None:
    """What a mend makes of an honest message's own bytes is refused for its content if at all, and sometimes not."""
    target, rng = TARGETS[name], random.Random(1)
    seed = target.seeds()[0]
    assert any(target.run(target.mend(seed, rng)) for _ in range(SLOW.get(name, 25)))


@pytest.mark.parametrize("name", ["codec", "public-model"])
def test_most_mutations_of_values_are_values(name: str) -> None:
    """What is not JSON tests Python's reader, not ours."""
    target, rng, values = TARGETS[name], random.Random(2), 0
    for _ in range(200):
        with contextlib.suppress(ValueError):
            json.loads(target.mutate(target.seeds()[0], rng))
            values += 1
    assert values > 100


@pytest.mark.skipif(shutil.which("make") is None, reason="a system without make")
@pytest.mark.parametrize(("lists", "code"), [("exit 1", 2), ("echo a b", 0)])
def test_make_fuzz_runs_all_targets_or_fails(tmp_path: Path, lists: str, code: int) -> None:
    """Where the fuzzer cannot be loaded there is no list of targets, and to try none of them is no success."""
    (tmp_path / "bin").mkdir()
    for name, does in (("pip", ":"), ("python", f'case "$*" in *--list*) {lists};; *) echo "ran $2";; esac')):
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    (tmp_path / ".installed").touch()
    root = Path(__file__).resolve().parents[2]
    run = subprocess.run(["make", "-s", "fuzz", f"VENV={tmp_path}"], capture_output=True, text=True, cwd=root)
    assert run.returncode == code
    assert run.stdout.split() == (["ran", "a", "ran", "b"] if code == 0 else [])


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", TARGETS)
def test_a_fuzzer_finds_nothing_in_seconds(name: str, tmp_path: Path) -> None:
    if importlib.util.find_spec("atheris") is None:
        pytest.skip("needs atheris, which has builds for CPython 3.11 to 3.13 on Linux: pip install 'securead[fuzz]'")
    script = Path(__file__).with_name("fuzz.py")
    command = [sys.executable, str(script), name, "--seconds", "5", "--corpus", str(tmp_path / "corpus")]
    run = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert run.returncode == 0, run.stderr[-3000:]
