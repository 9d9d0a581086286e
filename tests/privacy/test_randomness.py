"""The stream's draws have the right law, with power, and never repeat."""

from __future__ import annotations

import multiprocessing
import os

import numpy as np
import pytest
from scipy import stats

from securead.privacy.randomness import SystemStream

ALPHA = 1e-6  # draws are the system's: a false alarm once in a million runs of each test
DRAWS = 20_000


def rejects(sample: np.ndarray, law: str, *parameters: float) -> bool:
    return bool(stats.kstest(sample, law, args=parameters).pvalue < ALPHA)


def test_uniform() -> None:
    sample = SystemStream().uniform(DRAWS)
    assert not rejects(sample, "uniform")
    assert rejects(sample**1.1, "uniform")
    assert 0 < sample.min() < sample.max() < 1


@pytest.mark.parametrize("deviation", [1.0, 0.003, 50.0])
def test_normal_with_power(deviation: float) -> None:
    sample = SystemStream().normal((DRAWS // 4, 4), deviation).ravel()
    assert not rejects(sample, "norm", 0.0, deviation)
    assert rejects(sample, "norm", 0.0, deviation * 2 / 3)
    assert rejects(sample, "norm", 0.0, deviation * 3 / 2)


@pytest.mark.parametrize("probability", [0.0, 0.01, 0.5, 1.0])
def test_bernoulli_with_power(probability: float) -> None:
    draws = 20 * DRAWS
    hits = int(SystemStream().bernoulli(draws, probability).sum())
    if 0 < probability < 1:
        assert stats.binomtest(hits, draws, probability).pvalue > ALPHA
        assert stats.binomtest(hits, draws, probability * 2 / 3).pvalue < ALPHA
    else:
        assert hits == probability * draws


def test_bits_are_balanced_and_fresh() -> None:
    first, second = SystemStream(), SystemStream()
    a, b, c = first.bits64(DRAWS), first.bits64(DRAWS), second.bits64(DRAWS)
    for sample in (a, b, c):
        ones = np.unpackbits(sample.view(np.uint8)).reshape(-1, 64).sum(axis=0)
        assert stats.binomtest(int(ones.sum()), 64 * DRAWS, 0.5).pvalue > ALPHA
    assert len(np.unique(np.concatenate([a, b, c]))) == 3 * DRAWS


def test_a_forked_stream_refuses() -> None:
    stream = SystemStream()
    pipe, child_end = multiprocessing.Pipe()
    child = os.fork()
    if child == 0:
        try:
            stream.bits64(1)
            child_end.send("repeated")
        except RuntimeError as error:
            child_end.send(str(error))
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert "forked" in pipe.recv()
