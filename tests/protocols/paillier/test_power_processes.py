"""Powers without gmpy2: by processes that share the cores, the same numbers, whatever becomes of a process."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from securead.protocols.paillier import power_processes, powers
from securead.protocols.paillier.keys import PrivateKey

RANDOM = random.Random(1)
MODULUS = RANDOM.getrandbits(1024) | 1
EXPONENT = RANDOM.getrandbits(700) | 1 << 699
BASES = [RANDOM.getrandbits(1023) for _ in range(40)]
EXPECTED = [pow(base, EXPONENT, MODULUS) for base in BASES]


@pytest.fixture(autouse=True)
def without_gmpy2(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(powers, "gmpy2", None)
    monkeypatch.setattr(powers, "cores", lambda: 3)
    yield
    while power_processes._idle:
        power_processes._idle.pop().end()


def pids() -> set[int]:
    return {helper._process.pid for helper in power_processes._idle}


def test_threads_have_a_process_each_and_give_the_same_numbers_in_order() -> None:
    found = [
        power
        for piece in powers.spread(lambda bases: powers.powers(bases, EXPONENT, MODULUS), BASES, size=4)
        for power in piece
    ]
    assert found == EXPECTED
    assert 1 <= len(pids()) <= 3
    before = pids()
    assert powers.powers(BASES[:2], EXPONENT, MODULUS) == EXPECTED[:2]
    assert pids() == before  # used again


def test_short_exponents_and_one_core_need_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    assert powers.powers(BASES, 65537, MODULUS) == [pow(base, 65537, MODULUS) for base in BASES]
    monkeypatch.setattr(powers, "cores", lambda: 1)
    assert powers.powers(BASES, EXPONENT, MODULUS) == EXPECTED
    assert pids() == set()


@pytest.mark.parametrize("executable", [None, "/nonexistent"])
def test_a_helper_that_dies_or_cannot_start_costs_time_alone(
    executable: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if executable is not None:
        monkeypatch.setattr(sys, "executable", executable)
    else:
        powers.powers(BASES[:1], EXPONENT, MODULUS)
        (helper,) = power_processes._idle
        helper._process.kill()
        helper._process.wait()
    assert powers.powers(BASES, EXPONENT, MODULUS) == EXPECTED
    assert pids() == set()


def test_numbers_are_in_no_argument_and_in_no_environment() -> None:
    powers.powers(BASES[:1], EXPONENT, MODULUS)
    (pid,) = pids()
    if os.path.isdir("/proc"):
        with open(f"/proc/{pid}/environ", "rb") as stream:
            assert stream.read() == b""
        with open(f"/proc/{pid}/cmdline", "rb") as stream:
            assert f"{EXPONENT:x}"[:12].encode() not in stream.read()


def test_encryption_is_that_of_gmpy2(monkeypatch: pytest.MonkeyPatch) -> None:
    gmpy2 = pytest.importorskip("gmpy2")
    key = PrivateKey.generate()
    units = [key.random() for _ in range(5)]
    slow = key.nth_powers(units)
    monkeypatch.setattr(powers, "gmpy2", gmpy2)
    assert key.nth_powers(units) == slow


def test_helpers_end_with_the_process_that_started_them() -> None:
    program = (
        "from securead.protocols.paillier import power_processes\n"
        f"power_processes.powers([3], {EXPONENT}, {MODULUS})\n"
        "import os; print(power_processes._idle[0]._process.pid, flush=True); os._exit(9)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 9, done.stderr
    end = time.monotonic() + 10
    while _lives(int(done.stdout)) and time.monotonic() < end:
        time.sleep(0.05)
    assert not _lives(int(done.stdout))


def _lives(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stream:
            return stream.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
