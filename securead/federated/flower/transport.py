"""`federated.coordinator.Transport` over any of Flower's grids."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping

from flwr.app import Message
from flwr.serverapp import Grid

from securead.errors import RejectMessageError
from securead.federated.flower.apps import MESSAGE_TYPE, unwrap, wrap
from securead.federated.messages import Answer, Ask, from_bytes, to_bytes
from securead.observe import event

_PAUSE, _LOOK = 0.02, 0.5  # seconds between two looks for replies, and for those who are gone
_SPARE_TTL = 3600.0  # Flower compares the clocks of two institutions; what is late is forgotten by our own


class FlowerTransport:
    """Asks sites by Flower's messages.

    `name` tells the certified name of a node, where the grid knows one; `forget` is told of messages that nobody waits
    for any more; `trouble` is told, with the address, of replies that are none (a site whose app failed).
    """

    def __init__(
        self,
        grid: Grid,
        *,
        name: Callable[[int], str | None] = lambda node: None,
        forget: Callable[[Iterable[str]], None] = lambda ids: None,
        trouble: Callable[[str, str], None] = lambda address, text: None,
    ) -> None:
        self._grid, self._name, self._forget, self._trouble = grid, name, forget, trouble
        self._nodes: dict[str, int] = {}
        self._sent, self._received = Counter[str](), Counter[str]()

    def present(self) -> Collection[str]:
        """Addresses that can be asked now."""
        nodes = {node: self._name(node) for node in self._grid.get_node_ids()}
        self._nodes = {f"{name}#{node}" if name else f"#{node}": node for node, name in nodes.items()}
        return tuple(self._nodes)

    def certified(self, address: str) -> str | None:
        """The site at an address, as its certificate names it; None where nothing vouches for it."""
        return address.partition("#")[0] or None

    def exchange(self, asks: Mapping[str, Ask], *, seconds: float, answered: Callable[[str, Answer], None]) -> None:
        """Ask, and call `answered` for each answer as it comes; return when all came, or will not, or time is over.

        An address that is not there does not answer. What is no answer of ours is told to `trouble` and counts as none.
        """

        def arrived(address: str, content: bytes) -> None:
            try:
                answer = from_bytes(Answer, content, where=f"the answer of {address}")
            except (RejectMessageError, ValueError) as error:
                self._failed(address, str(error))
                return
            answered(address, answer)

        self.exchange_bytes({each: to_bytes(ask) for each, ask in asks.items()}, seconds=seconds, arrived=arrived)

    def exchange_bytes(
        self, bodies: Mapping[str, bytes], *, seconds: float, arrived: Callable[[str, bytes], None]
    ) -> None:
        """The same, whatever the messages are."""
        deadline = time.monotonic() + seconds
        here = {address: self._nodes[address] for address in bodies if address in self._nodes}
        messages = [
            Message(wrap(bodies[address]), node, MESSAGE_TYPE, ttl=seconds + _SPARE_TTL)
            for address, node in here.items()
        ]
        ids = self._grid.push_messages(messages)
        waited = {each: address for each, address in zip(ids, here, strict=True) if each}
        self._sent.update({address: len(bodies[address]) for address in waited.values()})
        look, gone = time.monotonic() + _LOOK, set[str]()
        try:
            while waited and time.monotonic() < deadline:
                for reply in self._grid.pull_messages(list(waited)):
                    self._take(waited.pop(reply.metadata.reply_to_message_id), reply, arrived)
                if waited and time.monotonic() >= look:
                    look = time.monotonic() + _LOOK
                    nodes, before = set(self._grid.get_node_ids()), gone
                    gone = {each for each, address in waited.items() if here[address] not in nodes}
                    for each in gone & before:  # at the first look, its answer may just have come
                        event("federation.gone", address=waited.pop(each))
                        self._forget([each])
                if waited:
                    time.sleep(_PAUSE)
        finally:
            self._forget(list(waited))

    def traffic(self, address: str) -> tuple[int, int]:
        """Bytes of messages to and from an address so far; a message that was sent again counts once."""
        return self._sent[address], self._received[address]

    def _take(self, address: str, reply: Message, arrived: Callable[[str, bytes], None]) -> None:
        if reply.has_error():
            self._failed(address, f"its app failed: {str(reply.error.reason)[:100]}")
            return
        try:
            content = unwrap(reply)
        except RejectMessageError as error:
            self._failed(address, str(error))
            return
        self._received[address] += len(content)
        arrived(address, content)

    def _failed(self, address: str, text: str) -> None:
        event("federation.trouble", address=address, what=text[:200])
        self._trouble(address, text)
