"""Two parties as two processes of this test run, joined by pipes, with correlations dealt by the dealer's function.

CrypTen's state is global to a process, hence processes. Only tests use this: there is no transport security here.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from securead.program.program import Program
from securead.protocols.sharing import dealing, owner, shares
from securead.protocols.sharing.plan import SharingPlan, make_plan

Task = Callable[..., Any]


class PipeCommunicator:
    """What the circuits need of a communicator: opening by sums and XORs, counted."""

    def __init__(self, rank: int, pipe: Connection) -> None:
        self.rank, self.pipe, self.rounds, self.bytes_sent = rank, pipe, 0, 0
        self.sent = hashlib.sha256()
        self.transcript: list[bytes] = []

    def get_rank(self) -> int:
        return self.rank

    def get_world_size(self) -> int:
        return 2

    def all_reduce(self, tensors: Any, op: Any = None, batched: bool = False) -> Any:
        import torch

        listed = tensors if batched else [tensors]
        own = b"".join(part.contiguous().numpy().tobytes() for part in listed)
        if self.rank == 0:
            self.pipe.send_bytes(own)
            other = self.pipe.recv_bytes()
        else:
            other = self.pipe.recv_bytes()
            self.pipe.send_bytes(own)
        assert len(own) == len(other)
        self.rounds += 1
        self.bytes_sent += len(own)
        self.sent.update(own)
        self.transcript.append(other)
        results, at = [], 0
        for part in listed:
            count = part.numel()
            theirs = torch.frombuffer(bytearray(other), dtype=part.dtype, count=count, offset=at).reshape(part.shape)
            at += count * part.element_size()
            xor = op is not None and "XOR" in str(op)
            results.append(part ^ theirs if xor else part + theirs)
        return results if batched else results[0]


def _party(rank: int, pipe: Connection, control: Connection) -> None:
    import torch

    from securead.protocols.sharing import randomness, runtime
    from securead.protocols.sharing.stock import Stock

    torch.set_num_threads(1)
    while True:
        message = control.recv()
        if message is None:
            return
        task, arguments, ring_key = message
        communicator, stock = PipeCommunicator(rank, pipe), Stock(rank)
        try:
            runtime.start(rank, communicator, stock)
            randomness.key_session(rank, ring_key, os.urandom(32))
            control.send((task(rank, communicator, stock, *arguments), None))
        except BaseException:
            control.send((None, traceback.format_exc()))
        finally:
            runtime.stop()


class TwoParties:
    """Runs a task at both parties: `task(rank, communicator, stock, *arguments)`, with arguments for each."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        ends, self._controls, self._processes = context.Pipe(), [], []
        for rank in (0, 1):
            ours, theirs = context.Pipe()
            process = context.Process(target=_party, args=(rank, ends[rank], theirs), daemon=True)
            process.start()
            self._controls.append(ours)
            self._processes.append(process)

    def run(
        self, task: Task, arguments: tuple[tuple[Any, ...], tuple[Any, ...]], *, ring_key: bytes | None = None
    ) -> list[Any]:
        ring_key = ring_key or os.urandom(32)
        for control, own in zip(self._controls, arguments, strict=True):
            control.send((task, own, ring_key))
        results = []
        for control in self._controls:
            assert control.poll(60), "a party hangs"
            result, problem = control.recv()
            assert problem is None, problem
            results.append(result)
        return results

    def close(self) -> None:
        for control, process in zip(self._controls, self._processes, strict=True):
            control.send(None)
            process.join(10)
            if process.is_alive():
                process.kill()
                process.join()


@contextmanager
def two_parties() -> Iterator[TwoParties]:
    parties = TwoParties()
    try:
        yield parties
    finally:
        parties.close()


def computed(
    rank: int,
    communicator: PipeCommunicator,
    stock: Any,
    plan: SharingPlan,
    model: shares.ModelShare,
    chunks: list[tuple[bytes, int, bytes, bytes | None]],
    verdict: bool,
) -> list[bytes]:
    """A party's answers to chunks of (payload, rows, set key, corrections)."""
    from securead.protocols.sharing.circuit import Circuit

    circuit, answers = Circuit(plan, model, stock), []
    for payload, rows, key, corrections in chunks:
        stock.load(plan.correlations(rows, verdict), key, corrections)
        share = owner.read_queries(plan, rank, payload, rows)
        before = communicator.rounds, communicator.bytes_sent
        answers.append((circuit.verdict if verdict else circuit.score)(share).tobytes())
        assert communicator.rounds - before[0] == plan.rounds(verdict)
        assert communicator.bytes_sent - before[1] == plan.online_bytes(rows, verdict)
    return answers


def run(
    parties: TwoParties, program: Program, Z: np.ndarray, *, threshold: float = 0.0, verdict: bool = False
) -> np.ndarray:
    """Integer scores, or verdicts, of encoded records."""
    return np.concatenate(answers(parties, program, [Z], threshold=threshold, verdict=verdict))


def answers(
    parties: TwoParties,
    program: Program,
    chunks: list[np.ndarray],
    *,
    threshold: float = 0.0,
    verdict: bool = False,
) -> list[np.ndarray]:
    plan = make_plan(program.public, "same")
    models = shares.split_model(program, threshold)
    sent: tuple[list[Any], list[Any]] = ([], [])
    for Z in chunks:
        payloads = owner.split_queries(plan, owner.words_of(plan, program.public, Z))
        keys = os.urandom(32), os.urandom(32)
        corrections = dealing.deal(plan.correlations(len(Z), verdict), *keys)
        assert len(corrections) == plan.offline_bytes(len(Z), verdict)
        for rank in (0, 1):
            sent[rank].append((payloads[rank], len(Z), keys[rank], None if rank else corrections))
    both = parties.run(computed, tuple((plan, models[rank], sent[rank], verdict) for rank in (0, 1)))
    join = owner.join_verdicts if verdict else owner.join_scores
    return [join(plan, *pair, len(Z)) for Z, pair in zip(chunks, zip(*both, strict=True), strict=True)]


def recorded(
    rank: int,
    communicator: PipeCommunicator,
    stock: Any,
    plan: SharingPlan,
    model: shares.ModelShare,
    chunk: tuple[bytes, int, bytes, bytes | None],
    verdict: bool,
) -> tuple[bytes, str]:
    """A party's answer to one chunk, and the SHA-256 of all that it sent the other."""
    (answer,) = computed(rank, communicator, stock, plan, model, [chunk], verdict)
    return answer, communicator.sent.hexdigest()
