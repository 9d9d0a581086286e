"""The suite's own checks of two parties: deployments that are broken on purpose are caught, the honest one is not.

Parties and client are processes; what is broken in them is patched as they start, by the module that Python itself
imports first (`sitecustomize`).
"""

from __future__ import annotations

import functools
import os
from pathlib import Path

import numpy as np
import pytest

from securead.bench import sharing_case
from securead.bench.engine_case import Measured
from securead.bench.records import Case
from securead.bench.repeats import repeat
from securead.checks import programs
from securead.models.bundle import Bundle, PublicModel, Threshold
from securead.privacy.statement import PrivacyStatement
from securead.protocols.sharing import owner

CLIENT, PARTY = "securead.client.rehearsal", "party"
# What is broken, in which processes, how, and the beginning of what is found.
PLANTED = {
    "honest": (CLIENT, "", ""),
    "wrong-scale": (
        CLIENT,
        """
import dataclasses
from securead.client.parties import Parties
honest = Parties.score
def score(self, X):
    found = honest(self, X)
    return dataclasses.replace(found, scores=2.0 * found.scores)
Parties.score = score
""",
        "scores: off by",
    ),
    "bytes-not-counted": (
        PARTY,
        """
from securead.protocols.sharing.channel import Channel
Channel.bytes_sent = property(lambda self: 0, lambda self, value: None)
""",
        "bytes: the parties reported",
    ),
}


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """One repeat: times do not matter here."""
    monkeypatch.setattr(sharing_case, "repeat", functools.partial(repeat, least=1, most=1, seconds=0.0))


def measured(folder: Path) -> Measured:
    program = programs.square_network((8, 16, 8))
    statement = PrivacyStatement(private=False)
    public = PublicModel("b", "b", program.public, Threshold(1.0, "by hand"), statement, "2026-01-01", "0")
    case = Case("t", "score", "random", "none", engine="sharing", role="same", batch=2000)
    X = np.random.default_rng(5).normal(size=(100, program.public.encoder.width)).clip(-4, 4)
    folder.mkdir()
    return sharing_case.run(case, Bundle(public, program.secret), X, folder)


def plant(monkeypatch: pytest.MonkeyPatch, folder: Path, name: str) -> None:
    """Have the processes that are meant begin with what breaks them."""
    who, patch, _ = PLANTED[name]
    (folder / "sitecustomize.py").write_text(f"import sys\nif {who!r} in sys.orig_argv:\n    exec({patch!r})\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")])))


@pytest.mark.long
@pytest.mark.parametrize("name", PLANTED)
def test_a_broken_deployment_is_caught_and_the_honest_one_is_not(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch, tmp_path, name)
    found, wanted = measured(tmp_path / "run"), PLANTED[name][2]
    assert [failure[: len(wanted)] for failure in found.failures] == ([wanted] if wanted else []), found.failures


@pytest.mark.long
def test_requests_that_are_not_shared_are_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def in_the_clear(plan: object, words: np.ndarray) -> tuple[bytes, bytes]:
        return words.tobytes(), bytes(words.nbytes)

    monkeypatch.setattr(owner, "split_queries", in_the_clear)
    assert any(failure.startswith("requests to party 0: ") for failure in measured(tmp_path / "run").failures)
