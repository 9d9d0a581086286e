"""The gateway's disk: what is accepted goes with the encoder's state, and messages stay until they are confirmed."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from stations import LENGTH, readings, windowed_bundle

from securead.client.spool import Held, Spool
from securead.data.streaming import StreamingEncoder
from securead.data.windows import WindowedSchema
from securead.errors import FixInputError, RetryLaterError, UseOtherKeyError

KEY = "a" * 64
X = readings(40)
TIMES = np.arange(40) * 60.0


def encoder() -> StreamingEncoder:
    schema = windowed_bundle().public.program.encoder.schema
    assert isinstance(schema, WindowedSchema)
    return StreamingEncoder(schema)


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    with Spool(tmp_path / "spool", gateway="pump-1", key=KEY) as found:
        yield found


def accept(spool: Spool, work: StreamingEncoder, part: slice, place: int) -> None:
    spool.accept(work.push(X[part], TIMES[part]), work.state, place)


def test_state_and_windows_come_back_together(spool: Spool, tmp_path: Path) -> None:
    assert spool.recall() == (None, 0)
    first = encoder()
    accept(spool, first, slice(0, 2), 17)  # completes no window, and is remembered all the same
    accept(spool, first, slice(2, 9), 91)
    spool.close()
    with Spool(tmp_path / "spool", gateway="pump-1", key=KEY) as again:
        state, place = again.recall()
        assert (state, place) == (first.state, 91)
        second = encoder()
        assert state is not None
        second.restore(state)
        accept(again, second, slice(9, 40), 400)
        pending = again.pending(100)
    assert pending is not None
    whole = encoder().push(X, TIMES)
    np.testing.assert_array_equal(pending.X, whole.X)
    assert pending.readings == tuple(range(LENGTH - 1, 40))
    assert pending.times == tuple(float(60 * at) for at in pending.readings)


def test_messages_are_numbered_sent_in_order_and_kept_to_the_byte(spool: Spool, tmp_path: Path) -> None:
    accept(spool, encoder(), slice(0, 40), 1)
    contents = [os.urandom(300_000 + at) for at in range(3)]
    labels = []
    for content in contents:
        pending = spool.pending(10)
        assert pending is not None
        labels.append(spool.seal(pending, content))
    assert [label.sequence for label in labels] == [0, 1, 2]
    assert {label.stream for label in labels} == {spool.stream}
    assert spool.held() == Held(8, 3, 8 * 6 * 8 + sum(map(len, contents)), 3)
    spool.close()
    with Spool(tmp_path / "spool", gateway="pump-1", key=KEY) as again:
        for label, content in zip(labels, contents, strict=True):
            for _ in range(2):
                found = again.first()
                assert found is not None
                assert (found.label, len(found), b"".join(found), b"".join(found)) == (
                    label,
                    len(content),
                    *2 * [content],
                )
            again.confirmed(label)
        assert again.first() is None
        pending = again.pending(10)
        assert pending is not None
        assert again.seal(pending, b"x").sequence == 3  # never used again


def test_windows_are_encrypted_once(spool: Spool) -> None:
    accept(spool, encoder(), slice(0, 40), 1)
    pending = spool.pending(10)
    assert pending is not None
    spool.seal(pending, b"x")
    with pytest.raises(FixInputError, match="encrypted before"):
        spool.seal(pending, b"x")
    assert spool.held().messages == 1


def test_a_full_spool_accepts_nothing_and_drops_nothing(tmp_path: Path) -> None:
    with Spool(tmp_path / "spool", gateway="pump-1", key=KEY, most_bytes=1000) as spool:
        work = encoder()
        accept(spool, work, slice(0, 30), 5)
        before = spool.held()
        with pytest.raises(RetryLaterError, match="its most"):
            accept(spool, work, slice(30, 40), 9)
        assert (spool.held(), spool.recall()[1]) == (before, 5)
        spool.insist_on_room_to_seal()  # windows alone must not forbid what makes room for others
        pending = spool.pending(100)
        assert pending is not None
        label = spool.seal(pending, bytes(1000))
        with pytest.raises(RetryLaterError, match="its most"):
            spool.insist_on_room_to_seal()
        spool.confirmed(label)
        spool.insist_on_room_to_seal()
        spool.accept(encoder().push(X, TIMES), work.state, 9)
        assert spool.recall()[1] == 9


def test_a_full_disk_accepts_nothing_and_drops_nothing(
    spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = encoder()
    accept(spool, work, slice(0, 20), 5)
    before = spool.held()
    pending = spool.pending(10)
    assert pending is not None

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(RetryLaterError, match="No space left"):
            spool.seal(pending, bytes(100_000))
    assert spool.held() == before
    assert not list((tmp_path / "spool.messages").iterdir())
    assert spool.seal(pending, bytes(100_000)).sequence == 0


def test_a_kill_between_a_file_and_its_row_is_made_good(spool: Spool, tmp_path: Path) -> None:
    accept(spool, encoder(), slice(0, 20), 5)
    first = spool.pending(5)
    assert first is not None
    spool.seal(first, b"first")
    second = spool.pending(5)
    assert second is not None
    spool.seal(second, b"second")
    spool.close()
    folder = tmp_path / "spool.messages"
    (folder / f"{0:016d}").unlink()  # confirmed, its row not yet deleted
    (folder / f"{2:016d}").write_bytes(b"written, and its row not yet")
    (folder / ".half").write_bytes(b"being written")
    with Spool(tmp_path / "spool", gateway="pump-1", key=KEY) as again:
        found = again.first()
        assert found is not None
        assert (found.label.sequence, b"".join(found), again.held().messages) == (1, b"second", 1)
        assert [path.name for path in folder.iterdir()] == [f"{1:016d}"]
        assert folder.stat().st_mode & 0o077 == 0


def test_a_spool_belongs_to_one_gateway_and_key(spool: Spool, tmp_path: Path) -> None:
    with pytest.raises(RetryLaterError, match="another process"):
        Spool(tmp_path / "spool", gateway="pump-1", key=KEY)
    spool.close()
    for gateway, key in (("pump-2", KEY), ("pump-1", "b" * 64)):
        with pytest.raises(UseOtherKeyError, match="another gateway or for another key"):
            Spool(tmp_path / "spool", gateway=gateway, key=key)
    Spool(tmp_path / "spool", gateway="pump-1", key=KEY).close()
