"""What service and workers say to each other: every frame there and back, and nothing else."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import threading
from collections.abc import Iterator
from typing import get_args

import pytest
from small_model import small_bundle

from securead import errors
from securead.errors import FixInputError, RegisterKeyError, RejectMessageError, SecureadError
from securead.protocols import wire
from securead.serving import frames
from securead.serving.evaluation import TooLargeError
from securead.serving.frames import Channel, EndedError

PUBLIC = small_bundle().public
HEADER = wire.Header("request", "ckks", "same", "0" * 64, "1" * 64, "2" * 64, "3" * 32, 0, 1, 5)
PARTS = frames.ModelParts(PUBLIC, (frames.PlanText("ckks", "same", "{}"),), 7, (frames.SecretSize("paillier", 3),))
EXAMPLES: dict[type, frames.Frame] = {
    type(each): each
    for each in (
        frames.Start((PARTS,), 2, True),
        frames.Ready(),
        frames.Score("tiny", 1 << 33),
        frames.Register("tiny", "a" * 64, 100),
        frames.Begun(HEADER, True),
        frames.Go(5),
        frames.Stop(),
        frames.Answered(0.25),
        frames.Kept(),
        frames.Refused("RejectMessageError", "no", "do"),
        frames.Failed("ZeroDivisionError"),
        frames.Hold(),
        frames.Release(),
        frames.Made(0.5),
        frames.Said(20, "{}"),
    )
}


@pytest.fixture
def pair() -> Iterator[tuple[Channel, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Channel(ours), theirs


@pytest.mark.parametrize("kind", get_args(frames.Frame), ids=lambda kind: kind.__name__)
def test_every_frame_arrives_as_it_was_sent(kind: type) -> None:
    ours, theirs = socket.socketpair()
    content = bytes(range(256)) * 9000  # more than a socket holds at once
    with ours, theirs:
        sender = threading.Thread(target=Channel(ours).send, args=(EXAMPLES[kind], content))
        sender.start()
        assert Channel(theirs).receive() == (EXAMPLES[kind], content)
        sender.join()


def test_content_may_be_empty(pair: tuple[Channel, socket.socket]) -> None:
    channel, other = pair
    other.sendall(frames.head(frames.Stop()))
    assert channel.receive() == (frames.Stop(), b"")


def framed(text: bytes, content: bytes = b"") -> bytes:
    return frames.PREFIX.pack(len(text), len(content), False) + text + content


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"\x00" * 5,
        framed(b"no JSON"),
        framed(b"[" * 100_000),
        framed(b'{"frame":{"type":"unheard of"}}'),
        framed(b'{"frame":{"type":"go"}}'),
        framed(b'{"frame":{"type":"go","limit":"much"}}'),
        framed(b'{"frame":{"type":"stop","more":1}}'),
        frames.PREFIX.pack((1 << 32) - 1, 0, False),
        frames.PREFIX.pack(10, 1 << 60, False),
        frames.head(frames.Stop(), b"four")[:-1],
        frames.head(frames.Stop(), b"four") + b"fou",
        frames.head(frames.Stop(), b"four", elsewhere=True),
    ],
    ids=range(13),
)
def test_what_is_no_frame_ends_the_conversation(pair: tuple[Channel, socket.socket], sent: bytes) -> None:
    channel, other = pair
    other.sendall(sent)
    other.shutdown(socket.SHUT_WR)
    with pytest.raises(EndedError):
        channel.receive()


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="this system has no memory without a name")
def test_large_messages_stand_elsewhere_in_memory_that_is_used_again(pair: tuple[Channel, socket.socket]) -> None:
    channel, other = pair
    place, opened = frames.Place(), len(os.listdir("/proc/self/fd"))
    # Of sizes that grow, shrink, and grow within what there is: memory is made anew for the largest so far only.
    for size, made in ((300_000, True), (5_000_000, True), (400_000, False), (4_999_999, False)):
        content, frame = os.urandom(size), frames.Score("m", 10**7)
        assert frames.stands_elsewhere(frame, content)
        head, descriptor = frames.head(frame, content, elsewhere=True), place.put(content)
        assert (descriptor is not None) == made
        if descriptor is None:
            other.sendall(head)
        else:
            socket.send_fds(other, [head], [descriptor])
            os.close(descriptor)
        got, view = channel.receive()
        assert (got, bytes(view)) == (frame, content)
        with pytest.raises(TypeError):
            view[0] = 1  # type: ignore[index]
    assert len(os.listdir("/proc/self/fd")) <= opened + 2  # those of the memory that is mapped on both sides
    # A frame that claims more than stands there.
    other.sendall(frames.head(frames.Score("m", 1), memoryview(bytes(5_000_001)), elsewhere=True))
    with pytest.raises(EndedError):
        channel.receive()


def test_small_messages_and_what_else_is_said_go_with_their_frames() -> None:
    assert not frames.stands_elsewhere(frames.Score("m", 1), bytes(1000))
    assert not frames.stands_elsewhere(frames.Go(0), bytes(10**6))  # it comes while a message stands in the place


def test_nobody_there(pair: tuple[Channel, socket.socket]) -> None:
    channel, other = pair
    other.close()
    with pytest.raises(EndedError):
        channel.receive()
    with pytest.raises(EndedError):
        channel.send(frames.Ready(), b"x" * 1_000_000)


ALL = [
    kind
    for kind in (*vars(errors).values(), TooLargeError)
    if isinstance(kind, type) and issubclass(kind, SecureadError)
]


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_errors_keep_their_class_and_words(kind: type[SecureadError]) -> None:
    error = kind("it is odd", where="here", value=(1, "two"), remedy="Mend it.")
    again = frames.raised(frames.refused(error))
    assert type(again) is kind
    assert str(again) == str(error)
    assert again.remedy == "Mend it."


def test_an_error_of_an_engines_own_becomes_the_nearest_of_ours() -> None:
    class OddlyShapedError(RejectMessageError):
        pass

    class OthersRegisterKeyError(RegisterKeyError):
        pass

    assert type(frames.raised(frames.refused(OddlyShapedError("odd")))) is RejectMessageError
    assert type(frames.raised(frames.refused(OthersRegisterKeyError("odd")))) is RegisterKeyError
    assert type(frames.raised(frames.Refused("unheard of", "odd", ""))) is SecureadError
    assert type(frames.raised(frames.refused(FixInputError("odd")))) is FixInputError


def test_frames_are_plain_values() -> None:
    """JSON of values that `codec` knows: nothing that a reader would have to execute."""
    for example in EXAMPLES.values():
        assert dataclasses.is_dataclass(example)
        head = frames.head(example)
        json.loads(head[frames.PREFIX.size :])
