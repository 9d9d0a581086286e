"""CrypTen as a lane uses it: started for a session with fresh keys, stopped with it, one request at a time."""

from __future__ import annotations

import secrets
import time

import numpy as np
import torch

from securead.protocols.sharing import randomness, runtime
from securead.protocols.sharing.circuit import Circuit
from securead.protocols.sharing.communicator import LinkCommunicator
from securead.protocols.sharing.dealing import set_key
from securead.protocols.sharing.links import Address, Identity
from securead.protocols.sharing.meeting import KEY_BYTES, Cost, Pair
from securead.protocols.sharing.messages import Request
from securead.protocols.sharing.owner import read_queries
from securead.protocols.sharing.plan import SharingPlan
from securead.protocols.sharing.shares import ModelShare
from securead.protocols.sharing.stock import Stock
from securead.protocols.sharing.store import Dealt
from securead.protocols.sharing.supply import Supply


class CryptenMachine:
    """Starts computations of one party's share of a model; meets the dealer at `dealer` for each session."""

    def __init__(
        self, plan: SharingPlan, share: ModelShare, *, dealer: Address, identity: Identity, lane: int, silence: float
    ) -> None:
        self._plan, self._share, self._dealer, self._identity = plan, share, dealer, identity
        self._lane, self._silence = lane, silence
        runtime.crypten()
        torch.set_num_threads(1)  # lanes are what runs at once

    def supply(self, session: str) -> Supply:
        """Join a session at the dealer; does not wait for the other party."""
        return Supply(
            self._dealer,
            self._identity,
            index=self._share.index,
            session=session,
            lane=self._lane,
            plan=self._plan,
            timeout=self._silence,
        )

    def start(self, pair: Pair, ring_key: bytes, seed: bytes) -> CryptenComputing:
        """Compute over these links with these keys."""
        return CryptenComputing(self._plan, self._share, pair, ring_key, seed)


class CryptenComputing:
    """CrypTen, running in this process for one session."""

    def __init__(self, plan: SharingPlan, share: ModelShare, pair: Pair, ring_key: bytes, seed: bytes) -> None:
        self._plan, self._index, self._seed = plan, share.index, seed
        self._communicator = LinkCommunicator(share.index, pair.incoming, pair.outgoing)
        self._stock = Stock(share.index)
        runtime.start(share.index, self._communicator, self._stock)
        try:
            randomness.key_session(share.index, ring_key, secrets.token_bytes(KEY_BYTES))
            self._circuit = Circuit(plan, share, self._stock)
        except BaseException:
            runtime.stop()
            raise

    def compute(self, request: Request, payload: bytearray, number: int, dealt: Dealt | None) -> tuple[bytes, Cost]:
        """This party's share of the answer. After any error the session is of no more use."""
        start, before = time.perf_counter(), self._communicator.traffic
        queries = read_queries(self._plan, self._index, bytes(payload), request.rows)
        rows = self._plan.bucket(request.rows)
        self._stock.load(
            self._plan.correlations(rows, request.verdict),
            set_key(self._seed, number, rows, request.verdict),
            dealt.corrections if dealt is not None else None,
        )
        circuit = self._circuit
        share = circuit.verdict(queries) if request.verdict else circuit.score(queries)
        took = self._communicator.traffic - before
        cost = Cost(time.perf_counter() - start, took.rounds, took.bytes_sent, took.bytes_received)
        return np.ascontiguousarray(share, dtype="<i8").tobytes(), cost

    def stop(self) -> None:
        """Forget keys, correlations and state."""
        self._stock.drop()
        runtime.stop()
        self._seed = b""
