"""What all tests share: where real data lies, and seeds that a failure can be replayed with."""

from __future__ import annotations

import os
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

# Tests' matrices are small: a second thread gains nothing, and where cores are taken (by a worker of pytest-xdist, by
# a service under test) threads that wait for each other take several times as long. Processes inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from replay import SEED

ROOT = Path(__file__).resolve().parent.parent

# The same examples in every run: a test that fails for one of us fails for all. HYPOTHESIS_PROFILE=explore searches on.
settings.register_profile("repeatable", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("explore", deadline=None, max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))


def _data_folder() -> Path | None:
    named = os.environ.get("SECUREAD_DATA")
    if not named:
        return None
    folder = Path(named)
    if not folder.is_dir():
        raise pytest.UsageError(f"SECUREAD_DATA names {named!r}, which is no folder; correct it or unset it")
    return folder


def pytest_report_header() -> str:
    return f"SECUREAD_DATA: {_data_folder() or 'not set, tests marked data are skipped'}; SECUREAD_TEST_SEED: {SEED}"


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("data") and _data_folder() is None:
        pytest.skip("needs real data: set SECUREAD_DATA to the folder that holds it")


@pytest.fixture(scope="session")
def root() -> Path:
    """The root of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of real data sets; tests that ask for it carry `@pytest.mark.data`."""
    folder = _data_folder()
    if folder is None:
        pytest.skip("needs real data: set SECUREAD_DATA to the folder that holds it")
    return folder


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """The command line in this process: for many small cases, of which each would cost the start of a new one.

    An error that the command line does not turn into an exit code ends the test, as a traceback would.
    """
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("SECUREAD_PASSPHRASE", raising=False)

    def call(*arguments: object) -> subprocess.CompletedProcess[str]:
        from securead import cli

        words = ["securead", *map(str, arguments)]
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as caught:
            cli.main()
        out, err = capsys.readouterr()
        code = caught.value.code
        return subprocess.CompletedProcess(words, code if isinstance(code, int) else 0, out, err)

    return call


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """A generator seeded by the test's name and SECUREAD_TEST_SEED: repeatable, and different in each test."""
    return np.random.default_rng([SEED, zlib.crc32(request.node.nodeid.encode())])
