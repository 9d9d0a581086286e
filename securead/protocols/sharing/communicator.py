"""CrypTen's communicator between two parties, over two links: what one sends on, the other only listens on.

Two TLS connections, because one is decrypted while the other is encrypted. What CrypTen calls is here with its
signatures (crypten/communicator/distributed_communicator.py); it is duck-typed, so that this module loads without
CrypTen. Beyond CrypTen's own: objects travel as JSON and never as pickles, `reduce` tells the result to nobody but its
receiver, tensors are int64 on the CPU, and a peer that fails raises `LinkError`, which is no `RuntimeError`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.distributed import ReduceOp

from securead.protocols.sharing.channel import Channel, LinkError

TENSORS, OBJECT = 64, 65  # kinds of frames; lower ones are the parties' and the dealer's
_MAX_OBJECT_BYTES = 1 << 16


@dataclass(frozen=True)
class Traffic:
    """What was communicated: rounds, bytes with frame headers and without TLS, seconds spent waiting for the peer."""

    rounds: int
    bytes_sent: int
    bytes_received: int
    seconds_waiting: float

    def __sub__(self, earlier: Traffic) -> Traffic:
        return Traffic(
            self.rounds - earlier.rounds,
            self.bytes_sent - earlier.bytes_sent,
            self.bytes_received - earlier.bytes_received,
            self.seconds_waiting - earlier.seconds_waiting,
        )


class _Request:
    """A transfer that `wait` completes."""

    def __init__(self, complete: Callable[[], None]) -> None:
        self._complete: Callable[[], None] | None = complete

    def is_completed(self) -> bool:
        return self._complete is None

    def wait(self) -> None:
        if self._complete is not None:
            self._complete()
            self._complete = None


class LinkCommunicator:
    """Party `rank` of two. It owns neither channel: between computations their user may send frames of its own."""

    BYTES_PER_ELEMENT = 8

    def __init__(self, rank: int, incoming: Channel, outgoing: Channel) -> None:
        if rank not in (0, 1):
            raise ValueError("there are two parties, 0 and 1")
        self.rank, self.rounds, self.seconds_waiting = rank, 0, 0.0
        self._incoming, self._outgoing = incoming, outgoing
        self._name = f"party{rank}"

    @property
    def traffic(self) -> Traffic:
        """Counted since the links began; take the difference of two."""
        return Traffic(self.rounds, self._outgoing.bytes_sent, self._incoming.bytes_received, self.seconds_waiting)

    # Who we are.

    def get_rank(self) -> int:
        return self.rank

    def get_world_size(self) -> int:
        return 2

    def get_name(self) -> str:
        return self._name

    def set_name(self, name: str) -> None:
        self._name = name

    # Both at once.

    def all_reduce(self, input: Any, op: Any = ReduceOp.SUM, batched: bool = False) -> Any:
        """The sum or XOR of both parties' tensors, at both: one round, one frame each way, however many tensors."""
        tensors = list(input) if batched else [input]
        results = self._combine(self._exchange(tensors), tensors, op)
        self._outgoing.flush()  # CrypTen may change its tensors in place from here on
        return results if batched else results[0]

    def all_gather(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        """Both parties' tensors, at both."""
        both = [tensor.detach().clone(), self._exchange([tensor])[0]]
        self._outgoing.flush()
        return both if self.rank == 0 else both[::-1]

    def barrier(self) -> None:
        """Wait for the other."""
        self._exchange([])

    # From one to the other.

    def reduce(self, input: Any, dst: int, op: Any = ReduceOp.SUM, batched: bool = False) -> Any:
        """The sum or XOR of both parties' tensors, at `dst` alone; `None` at the other, which receives nothing."""
        tensors = list(input) if batched else [input]
        if self._other(dst):
            self._send(tensors)
            return None
        results = self._combine(self._receive(tensors), tensors, op)
        return results if batched else results[0]

    def gather(self, tensor: torch.Tensor, dst: int) -> list[Any]:
        """Both parties' tensors, at `dst` alone."""
        if self._other(dst):
            self._send([tensor])
            return [None]
        both = [tensor.detach().clone(), self._receive([tensor])[0]]
        return both if self.rank == 0 else both[::-1]

    def scatter(self, scatter_list: Any, src: int, size: Any = None, device: Any = None) -> torch.Tensor:
        """Each party's tensor of the list that `src` has; `size`: of the tensor, at the other."""
        if self._other(src):
            shape = size if size is not None else scatter_list[self.rank].shape
            return self._receive([torch.empty(shape, dtype=torch.long)])[0]
        self._send([scatter_list[1 - self.rank]])
        own: torch.Tensor = scatter_list[self.rank].detach().clone()
        return own

    def broadcast(self, input: Any, src: int, group: Any = None, batched: bool = False) -> Any:
        """Overwrite the other's tensors with those of `src`."""
        tensors = list(input) if batched else [input]
        if self._other(src):
            for tensor, received in zip(tensors, self._receive(tensors), strict=True):
                tensor.detach().copy_(received)
        else:
            self._send(tensors)
        return input

    def send(self, tensor: torch.Tensor, dst: int) -> None:
        self._require_other(dst)
        self._send([tensor])

    def recv(self, tensor: torch.Tensor, src: int | None = None) -> torch.Tensor:
        self._require_other(src)
        return self._receive([tensor])[0]

    def isend(self, tensor: torch.Tensor, dst: int) -> _Request:
        """`send` in the background, of a copy: both may send before either receives."""
        self._require_other(dst)
        self.rounds += 1
        self._outgoing.post(TENSORS, memoryview(_words(tensor)).tobytes())
        return _Request(lambda: None)

    def irecv(self, tensor: torch.Tensor, src: int | None = None) -> _Request:
        """`recv` into the tensor when `wait` is called."""
        self._require_other(src)

        def complete() -> None:
            tensor.detach().copy_(self._receive([tensor])[0])

        return _Request(complete)

    # Objects: what JSON has, and no more.

    def send_obj(self, obj: Any, dst: int, group: Any = None) -> None:
        """Send what JSON can say; a `torch.Size` arrives as a list. Raises `TypeError` for anything else."""
        self._require_other(dst)
        self.rounds += 1
        self._outgoing.send(OBJECT, json.dumps(obj, allow_nan=False).encode())

    def recv_obj(self, src: int, group: Any = None) -> Any:
        self._require_other(src)
        self.rounds += 1
        body = self._waiting(lambda: self._incoming.receive(OBJECT, limit=_MAX_OBJECT_BYTES))
        try:
            return json.loads(body)
        except (ValueError, RecursionError) as error:
            raise LinkError(f"{self._incoming.peer} sent an object that is no JSON") from error

    def broadcast_obj(self, obj: Any, src: int, group: Any = None) -> Any:
        """The object that `src` has; at the other, a list comes as the `torch.Size` that CrypTen uses this for."""
        if not self._other(src):
            self.send_obj(obj, 1 - src)
            return obj
        received = self.recv_obj(src)
        return torch.Size(received) if isinstance(received, list) else received

    # CrypTen's statistics.

    def reset_communication_stats(self) -> None:
        """CrypTen's name; `traffic` goes on counting bytes."""
        self.rounds, self.seconds_waiting = 0, 0.0

    def get_communication_stats(self) -> dict[str, float]:
        traffic = self.traffic
        both = traffic.bytes_sent + traffic.bytes_received
        return {"rounds": traffic.rounds, "bytes": both, "time": traffic.seconds_waiting}

    # How.

    def _exchange(self, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        self._outgoing.post(TENSORS, *map(_words, tensors))
        return self._receive(tensors)

    def _send(self, tensors: Sequence[torch.Tensor]) -> None:
        self.rounds += 1
        self._outgoing.send(TENSORS, *map(_words, tensors))

    def _receive(self, like: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """The peer's tensors, which have the shapes of ours."""
        self.rounds += 1
        words = torch.empty(sum(tensor.numel() for tensor in like), dtype=torch.long)
        self._waiting(lambda: self._incoming.receive_into(TENSORS, words.numpy()))
        if len(like) == 1:
            return [words.view(like[0].shape)]
        parts = torch.split(words, [tensor.numel() for tensor in like])
        return [part.view(tensor.shape) for part, tensor in zip(parts, like, strict=True)]

    def _waiting(self, receive: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        try:
            return receive()
        finally:
            self.seconds_waiting += time.perf_counter() - start

    def _combine(self, theirs: list[torch.Tensor], ours: Sequence[torch.Tensor], op: Any) -> list[torch.Tensor]:
        for received, own in zip(theirs, ours, strict=True):
            if op == ReduceOp.SUM:
                received += own.detach()
            elif op == ReduceOp.BXOR:
                received ^= own.detach()
            else:
                raise ValueError(f"tensors are summed or XORed, not {op}")
        return theirs

    def _other(self, rank: int) -> bool:
        if rank not in (0, 1):
            raise ValueError("there are two parties, 0 and 1")
        return rank != self.rank

    def _require_other(self, rank: int | None) -> None:
        if rank is not None and not self._other(rank):
            raise ValueError("a party does not talk to itself")


def _words(tensor: torch.Tensor) -> Any:
    if tensor.dtype != torch.long or tensor.device.type != "cpu":
        raise TypeError("shares are int64 on the CPU")
    return tensor.detach().contiguous().numpy()
