"""Flower's `Grid` over the state in this process: messages to sites and their replies, without a wire in between."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace

from flwr.app import Message, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.proto.node_pb2 import NodeInfo
from flwr.server.superlink.linkstate import InMemoryLinkState
from flwr.serverapp import Grid
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.object_store import NoObjectInStoreError
from flwr.supercore.run import Run

from securead.federated.flower.gate import Gate

_PAUSE = 0.02


class LinkGrid(Grid):
    """The sites behind a gate.

    A message that a site fetched and lost with its connection is there again when the same process comes back: what is
    asked twice is answered identically.
    """

    def __init__(self, state: InMemoryLinkState, gate: Gate) -> None:
        self._state, self._gate = state, gate
        self._run: Run | None = None
        self._sent: dict[str, tuple[Message, int]] = {}  # by id; how often its node had come back when it was sent
        self._arriving: dict[str, Message] = {}  # replies whose objects are not all here, by what they reply to

    def set_run(self, run: Run) -> None:
        """The run that messages belong to; what was sent in another one is not answered any more."""
        self._run, self._sent, self._arriving = run, {}, {}

    @property
    def run(self) -> Run:
        """Run information."""
        if self._run is None:
            raise RuntimeError("no run was begun")
        return replace(self._run)

    def name(self, node_id: int) -> str | None:
        """The site that a node is, certified by its connection's certificate; None for one that is gone."""
        return self._gate.present().get(node_id, (None, 0))[0]

    def get_node_ids(self) -> Iterable[int]:
        """The nodes that are there."""
        return list(self._gate.present())

    def get_nodes(self) -> Iterable[NodeInfo]:
        """The same, with what Flower knows of them."""
        return list(self._state.get_node_info(node_ids=list(self.get_node_ids())))

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """Deprecated by Flower: make a `Message`."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send messages to the nodes that they name; their ids, "" for one whose node is gone."""
        returns = {node: count for node, (_, count) in self._gate.present().items()}
        ids = []
        for message in messages:
            message.metadata.__dict__["_message_id"] = message.object_id
            stored = self._store(message)
            ids.append(message.metadata.message_id if stored else "")
            if stored:
                node = message.metadata.dst_node_id
                self._sent[message.metadata.message_id] = message, returns.get(node, 0)
        self._gate.wake({message.metadata.dst_node_id for message, _ in self._sent.values()})
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The replies that are here, whole; each is given once."""
        asked = {each for each in message_ids if each in self._sent}
        self._send_again(asked)
        # Not by `get_message_res`, which replaces the reply of a node that has gone since by an error of its own.
        with self._state.lock:
            for each in asked - self._arriving.keys():
                identity = self._state.message_ins_id_to_message_res_id.get(each)
                if identity is not None:
                    self._arriving[each] = self._state.message_res_store[identity]
        found = []
        for each in asked & self._arriving.keys():
            whole = self._whole(self._arriving[each])
            if whole is not None:
                found.append(whole)
                self.forget([each])
        return found

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Send messages and wait for the replies, or for `timeout` seconds."""
        waited = {each for each in self.push_messages(messages) if each}
        deadline = None if timeout is None else time.monotonic() + timeout
        found: list[Message] = []
        while waited and (deadline is None or time.monotonic() < deadline):
            for reply in self.pull_messages(waited):
                waited.discard(reply.metadata.reply_to_message_id)
                found.append(reply)
            time.sleep(_PAUSE)
        self.forget(waited)
        return found

    def forget(self, message_ids: Iterable[str]) -> None:
        """Nobody waits for the replies to these any more; what comes late is dropped."""
        for each in message_ids:
            self._sent.pop(each, None)
            reply = self._arriving.pop(each, None)
            self._state.delete_messages({each})
            self._state.object_store.delete(each)
            if reply is not None:
                self._state.object_store.delete(reply.metadata.message_id)

    def _store(self, message: Message) -> bool:
        state, run_id = self._state, self.run.run_id
        with no_object_id_recompute():
            tree, objects = get_object_tree(message), get_all_nested_objects(message)
            session = state.start_session(run_id)
            bare = remove_content_from_message(message)
            stored, missing = state.store_message_and_object_tree(bare, tree, session)
            for each in missing if stored else ():
                state.store_object(run_id, session, each, objects[each].deflate())
        return stored

    def _send_again(self, message_ids: Iterable[str]) -> None:
        present = self._gate.present()
        for each in message_ids:
            message, before = self._sent[each]
            node = message.metadata.dst_node_id
            _, now = present.get(node, ("", before))
            if now != before and each not in self._arriving:
                self._state.delete_messages({each})
                self._state.object_store.delete(each)
                self._sent[each] = message, now
                self._store(message)
                self._gate.wake({node})

    def _whole(self, reply: Message) -> Message | None:
        """The reply with its content, once all of that is here."""
        if reply.has_error():
            return reply
        store, identity = self._state.object_store, reply.metadata.message_id
        try:
            parts = [tree.object_id for tree in iterate_object_tree(store.get_object_tree(identity))]
        except NoObjectInStoreError:
            return None
        contents = {part: store.get(part) or b"" for part in parts}
        if not all(contents.values()):
            return None
        message = inflate_object_from_contents(identity, contents)
        if not isinstance(message, Message):
            return None
        message.metadata.__dict__["_message_id"] = identity
        return message
