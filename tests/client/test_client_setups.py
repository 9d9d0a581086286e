"""What a service publishes, fetched in parts: resumed, kept, and believed only with its digest and length."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path
from typing import Any

import pytest
from asking_engine import table_bundle

from securead.client import setups
from securead.client.keys import load_submitter, make_keys
from securead.client.setups import fetch
from securead.errors import FixInputError, RejectMessageError, RetryLaterError
from securead.protocols.bfv.plan import make_plan as make_bfv_plan
from securead.protocols.paillier.plan import make_plan

PUBLIC = table_bundle().public
PLAN = make_plan(PUBLIC.program, "same")
CONTENT = random.Random(0).randbytes(PLAN.setup_bytes)
PART = 5000


class Script:
    """A service that publishes `content`, and breaks off before its `breaks`-th part."""

    url = "http://service"

    def __init__(self, content: bytes = CONTENT, *, breaks: int = 0, **offer: Any) -> None:
        self.content, self.breaks, self.asked = content, breaks, list[str]()
        self.offer = {"digest": hashlib.sha256(content).hexdigest(), "bytes": len(content)} | offer

    def read(self, path: str, *, limit: int, part: str = "") -> bytes:
        if not part:
            return json.dumps(self.offer).encode()
        self.asked.append(part)
        if len(self.asked) == self.breaks:
            raise RetryLaterError("gave up")
        first, last = map(int, part.split("-"))
        assert last + 1 - first <= limit
        return self.content[first : last + 1]


class Seen:
    def __init__(self) -> None:
        self.told: list[tuple[str, int, int]] = []

    def rows(self, phase: str, done: int, total: int) -> None:
        self.told.append((phase, done, total))

    def waiting(self, what: str) -> None: ...


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setups, "PART_BYTES", PART)


def fetched(script: Script, folder: Path, **options: Any) -> bytes | None:
    return fetch(script, "table", PLAN, folder=folder, **options)  # type: ignore[arg-type]


def test_an_engine_that_publishes_nothing_asks_for_nothing(tmp_path: Path) -> None:
    script = Script()
    plan = make_bfv_plan(PUBLIC.program, "same")
    assert fetch(script, "table", plan, folder=tmp_path) is None  # type: ignore[arg-type]
    assert not script.asked


def test_it_comes_in_parts_with_progress_and_is_kept(tmp_path: Path) -> None:
    script, seen = Script(), Seen()
    assert fetched(script, tmp_path, watch=seen) == CONTENT
    assert script.asked[:2] == ["0-4999", "5000-9999"]
    assert [done for _, done, _ in seen.told] == [*range(PART, len(CONTENT), PART), len(CONTENT)]
    assert [path.name for path in tmp_path.iterdir()] == [script.offer["digest"]]
    again = Script()
    assert fetched(again, tmp_path) == CONTENT
    assert not again.asked


def test_an_interrupted_fetch_goes_on_where_it_stopped(tmp_path: Path) -> None:
    with pytest.raises(RetryLaterError):
        fetched(Script(breaks=3), tmp_path)
    (part,) = tmp_path.iterdir()
    assert part.read_bytes() == CONTENT[: 2 * PART]
    script = Script()
    assert fetched(script, tmp_path) == CONTENT
    assert script.asked[0] == "10000-14999"


def test_a_part_that_was_damaged_on_disk_costs_one_call(tmp_path: Path) -> None:
    digest = hashlib.sha256(CONTENT).hexdigest()
    (tmp_path / f"{digest}.part").write_bytes(bytes(7))
    with pytest.raises(RejectMessageError, match="another digest"):
        fetched(Script(), tmp_path)
    assert fetched(Script(), tmp_path) == CONTENT


def test_a_kept_file_that_was_damaged_is_fetched_again(tmp_path: Path) -> None:
    digest = hashlib.sha256(CONTENT).hexdigest()
    (tmp_path / digest).write_bytes(CONTENT[:-1] + b"\0")
    assert fetched(Script(), tmp_path) == CONTENT
    assert (tmp_path / digest).read_bytes() == CONTENT
    (tmp_path / digest).write_bytes(CONTENT * 2)
    assert fetched(Script(), tmp_path) == CONTENT


@pytest.mark.parametrize(
    ("offer", "words"),
    [
        ({"bytes": len(CONTENT) + 1}, "are due"),
        ({"bytes": 1 << 60}, "are due"),
        ({"digest": "../../x"}, "names no digest"),
        ({"digest": "0" * 64}, "another digest"),
        ({"bytes": "many"}, "ill-formed"),
        ({"more": 1}, "ill-formed"),
    ],
)
def test_a_service_that_tells_something_else_is_not_believed(tmp_path: Path, offer: Any, words: str) -> None:
    script = Script(**offer)
    with pytest.raises(RejectMessageError, match=words):
        fetched(script, tmp_path)
    assert bool(script.asked) == (words == "another digest")
    assert not list(tmp_path.glob("*"))


def test_a_short_part_is_refused(tmp_path: Path) -> None:
    script = Script()
    script.content = CONTENT[: PART + 100]
    with pytest.raises(RejectMessageError, match="another part"):
        fetched(script, tmp_path)


def test_without_a_folder_to_write_to_it_is_kept_in_memory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert fetched(Script(), tmp_path / "file" / "below") == CONTENT


def test_keys_without_the_tables_say_what_to_do(tmp_path: Path) -> None:
    keys = make_keys(PUBLIC, "same", engine="paillier")
    with pytest.raises(FixInputError, match="securead keygen"):
        keys.submitter.encryptor()
    directory = keys.save(tmp_path / "keys")
    with pytest.raises(FixInputError, match=r"setup\.bin"):
        load_submitter(directory)
