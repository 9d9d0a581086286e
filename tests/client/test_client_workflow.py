"""Encrypt, answer, decrypt over files, without a network: the service is a function here."""

from __future__ import annotations

import contextlib
import io
import json
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_model import COLUMNS, read_scores, records, small_bundle, write_csv

from securead.client import messages, workflow
from securead.client.keys import HolderKeys, Keys, make_keys
from securead.client.service import Answered, Offer, Service
from securead.errors import FixInputError, RejectMessageError, RetryLaterError, SecureadError, UseOtherKeyError
from securead.models.bundle import Bundle, PublicModel
from securead.protocols import registry, wire
from securead.protocols.engine import EvaluationKey, Plan

BUNDLE = small_bundle()
ROWS = 9000  # three chunks of 4096
X = records(ROWS)
EXPECTED = BUNDLE.program.score(X)


class Direct(Service):
    """The service as a function call; `fail_at` breaks the connection for good before that chunk."""

    def __init__(self, bundle: Bundle, plan: Plan, fail_at: int | None = None) -> None:
        self.url, self.bundle, self.fail_at = "direct", bundle, fail_at
        self.evaluator = registry.blind_module("ckks").make_evaluator(plan, bundle.program)
        self.chunks: list[int] = []
        self.plan, self.keys = plan, dict[str, EvaluationKey]()

    def models(self) -> tuple[Offer, ...]:
        public = self.bundle.public
        return (Offer(public.name, public.digest, public.program.digest),)

    def model(self, name: str) -> PublicModel:
        return self.bundle.public

    def ensure_key(self, name: str, key: wire.Envelope) -> int:
        self.keys[key.header.key] = registry.blind_module("ckks").read_evaluation_key(self.plan, key.payload)
        return 0

    def score(self, name: str, request: wire.Envelope, plan: Plan, key: wire.Envelope | None = None) -> Answered:
        assert key is not None, "this engine masks answers"
        if request.header.chunk == self.fail_at:
            raise RetryLaterError("gave up")
        self.chunks.append(request.header.chunk)
        answer = wire.Envelope(
            replace(request.header, kind="answer"),
            self.evaluator.evaluate(request.payload, self.keys[request.header.key]),
        )
        return Answered(answer, answer.to_bytes(), len(request.to_bytes()), 0.1)


class Case:
    """A request and its answer on disk."""

    def __init__(self, keys: Keys, folder: Path) -> None:
        self.keys, self.service = keys, Direct(BUNDLE, keys.plan)
        self.request, self.answer = folder / "request", folder / "answer"
        self.encrypted = workflow.encrypt_file(X, keys.submitter, self.request)
        self.submitted = workflow.submit_file(self.request, self.service, self.answer)

    @property
    def answers(self) -> list[wire.Envelope]:
        with self.answer.open("rb") as stream:
            return list(wire.read_all(stream, max_payload=1 << 30))


@pytest.fixture(scope="module")
def same(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case(make_keys(BUNDLE.public, "same"), tmp_path_factory.mktemp("same"))


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case(make_keys(BUNDLE.public, "split"), tmp_path_factory.mktemp("split"))


def write(path: Path, envelopes: list[wire.Envelope]) -> Path:
    path.write_bytes(b"".join(e.to_bytes() for e in envelopes))
    return path


@pytest.mark.parametrize("role", ["same", "split"])
def test_scores_are_the_programs(role: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    case: Case = request.getfixturevalue(role)
    summary = workflow.decrypt_file(case.answer, case.keys.holder, tmp_path / "scores.csv")
    scores, flags = read_scores(tmp_path / "scores.csv")
    np.testing.assert_allclose(scores, EXPECTED, atol=BUNDLE.public.program.tolerance)
    assert (flags == (scores > 6.0)).all()
    assert summary.rows == case.encrypted.rows == case.submitted.rows == ROWS
    assert summary.chunks == 3
    assert summary.anomalies == flags.sum() > 0
    assert summary.request == case.encrypted.request
    assert case.encrypted.bytes == case.request.stat().st_size
    assert stat.S_IMODE((tmp_path / "scores.csv").stat().st_mode) == 0o600


def test_local_notes_are_for_the_owner_of_role_same_only(same: Case, split: Case) -> None:
    local = same.request.with_name("request.local")
    assert stat.S_IMODE(local.stat().st_mode) == 0o600
    head, *parts = map(json.loads, local.read_text().splitlines())
    assert head["request"] == same.encrypted.request
    Z, _ = BUNDLE.public.program.encoder.encode(X)
    assert [t for part in parts for t in part["terms"]] == list(BUNDLE.public.program.public_term(Z))
    assert not split.request.with_name("request.local").exists()


def test_a_program_without_public_terms_needs_no_notes(tmp_path: Path) -> None:
    bundle = small_bundle(public_term=False)
    keys = make_keys(bundle.public, "same")
    workflow.encrypt_file(X[:10], keys.submitter, tmp_path / "request")
    assert [p.name for p in tmp_path.iterdir()] == ["request"]
    workflow.submit_file(tmp_path / "request", Direct(bundle, keys.plan), tmp_path / "answer")
    workflow.decrypt_file(tmp_path / "answer", keys.holder, tmp_path / "scores.csv")
    np.testing.assert_allclose(read_scores(tmp_path / "scores.csv")[0], bundle.program.score(X[:10]), atol=1e-4)


def test_decrypt_without_or_with_foreign_notes(same: Case, tmp_path: Path) -> None:
    answer = write(tmp_path / "answer", same.answers)
    out = tmp_path / "scores.csv"
    with pytest.raises(FixInputError, match="--local"):
        workflow.decrypt_file(answer, same.keys.holder, out)
    workflow.encrypt_file(X, same.keys.submitter, tmp_path / "later")
    with pytest.raises(FixInputError, match="another request"):
        workflow.decrypt_file(answer, same.keys.holder, out, local=tmp_path / "later.local")
    local = same.request.with_name("request.local").read_text()
    for damaged in ("", local[: len(local) // 2], "{}\n" + local, local.replace('"chunk":1', '"chunk":2')):
        (tmp_path / "damaged").write_text(damaged)
        with pytest.raises(FixInputError):
            workflow.decrypt_file(answer, same.keys.holder, out, local=tmp_path / "damaged")
    assert not out.exists()
    assert not list(tmp_path.glob(".*"))


def test_decrypt_refuses_another_key_and_model(same: Case, split: Case, tmp_path: Path) -> None:
    strangers: list[tuple[HolderKeys, str]] = [
        (make_keys(BUNDLE.public, "same").holder, "another key"),
        (split.keys.holder, "another plan"),
        (make_keys(small_bundle(seed=5).public, "same").holder, "another model"),
    ]
    for keys, reason in strangers:
        with pytest.raises(UseOtherKeyError, match=reason):
            workflow.decrypt_file(same.answer, keys, tmp_path / "scores.csv")
    with pytest.raises(RejectMessageError, match="another request"):
        workflow.decrypt_file(split.answer, split.keys.holder, tmp_path / "scores.csv", request="0" * 32)


TAMPERINGS: dict[str, tuple[Callable[[list[wire.Envelope]], list[wire.Envelope]], str]] = {
    "missing first": (lambda e: e[1:], "chunk 0 of 3 is missing"),
    "missing middle": (lambda e: [e[0], e[2]], "chunk 1 of 3 is missing"),
    "missing last": (lambda e: e[:2], "chunk 2 of 3 is missing"),
    "doubled": (lambda e: [e[0], e[0], e[1], e[2]], "chunk 0 occurs twice"),
    "swapped": (lambda e: [e[1], e[0], e[2]], "chunk 0 of 3 is missing"),
    "appended": (lambda e: [*e, e[2]], "chunk 2 occurs twice"),
    "another request's chunk": (
        lambda e: [e[0], replace(e[1], header=replace(e[1].header, request="0" * 32)), e[2]],
        "belongs to another request",
    ),
    "fewer rows": (lambda e: [replace(e[0], header=replace(e[0].header, rows=7)), *e[1:]], "another number of rows"),
    "too many rows": (lambda e: [replace(e[0], header=replace(e[0].header, rows=5000)), *e[1:]], "more rows"),
    "a request": (lambda e: [replace(x, header=replace(x.header, kind="request")) for x in e], "kind 'request'"),
    "empty": (lambda e: [], "empty"),
}


@pytest.mark.parametrize("name", TAMPERINGS)
def test_decrypt_refuses_tampered_answers(name: str, same: Case, tmp_path: Path) -> None:
    tamper, reason = TAMPERINGS[name]
    answer = write(tmp_path / "answer", tamper(same.answers))
    local = same.request.with_name("request.local")
    with pytest.raises(RejectMessageError, match=reason):
        workflow.decrypt_file(answer, same.keys.holder, tmp_path / "scores.csv", local=local)
    assert not (tmp_path / "scores.csv").exists()


@pytest.mark.parametrize("cut", [1, 40, 5000, -1, -100])
def test_truncated_and_damaged_files_are_refused(cut: int, same: Case, tmp_path: Path) -> None:
    for path in (same.answer, same.request):
        content = path.read_bytes()
        (tmp_path / "short").write_bytes(content[:cut])
        flipped = bytearray(content)
        flipped[cut] ^= 1
        (tmp_path / "flipped").write_bytes(flipped)
        for bad in (tmp_path / "short", tmp_path / "flipped"):
            local = same.request.with_name("request.local")
            with pytest.raises(RejectMessageError):
                workflow.decrypt_file(bad, same.keys.holder, tmp_path / "scores.csv", local=local)
            before = len(same.service.chunks)
            with pytest.raises(RejectMessageError):
                workflow.submit_file(bad, same.service, tmp_path / "answer")
            assert len(same.service.chunks) == before, "part of a damaged request was sent"


def test_an_interrupted_submission_goes_on_where_it_stopped(same: Case, tmp_path: Path) -> None:
    out, part = tmp_path / "answer", tmp_path / "answer.part"
    with pytest.raises(RetryLaterError):
        workflow.submit_file(same.request, Direct(BUNDLE, same.keys.plan, fail_at=2), out)
    assert part.exists()
    assert not out.exists()
    part.write_bytes(part.read_bytes()[:-50])  # the power went while the second chunk was written
    service = Direct(BUNDLE, same.keys.plan)
    summary = workflow.submit_file(same.request, service, out)
    assert service.chunks == [1, 2]
    assert "1 of 3" in summary.notes[0]
    assert not part.exists()
    assert summary.rows == ROWS
    local = same.request.with_name("request.local")
    workflow.decrypt_file(out, same.keys.holder, tmp_path / "scores.csv", local=local)
    np.testing.assert_allclose(read_scores(tmp_path / "scores.csv")[0], EXPECTED, atol=1e-4)


def test_a_part_file_of_another_request_is_not_touched(same: Case, split: Case, tmp_path: Path) -> None:
    part = write(tmp_path / "answer.part", split.answers[:1])
    before = part.read_bytes()
    with pytest.raises(FixInputError, match="another request"):
        workflow.submit_file(same.request, same.service, tmp_path / "answer")
    assert part.read_bytes() == before


def test_two_submissions_do_not_share_a_file(same: Case, tmp_path: Path) -> None:
    with messages.existing_file(same.request) as stream:
        header = next(messages.checked(stream, "request", where=same.request)).header
    with (
        messages.AnswerFile(tmp_path / "answer", header),
        pytest.raises(RetryLaterError, match="another submission"),
    ):
        workflow.submit_file(same.request, same.service, tmp_path / "answer")


def test_submit_names_a_model_that_is_not_offered(same: Case, tmp_path: Path) -> None:
    other = small_bundle(name="other", seed=8)
    with pytest.raises(UseOtherKeyError, match="It offers other"):
        workflow.submit_file(same.request, Direct(other, make_keys(other.public, "same").plan), tmp_path / "answer")
    with pytest.raises(FixInputError, match="overwrite"):
        workflow.submit_file(same.request, same.service, same.request)


def test_a_payload_that_is_no_ciphertext_is_refused(same: Case, tmp_path: Path) -> None:
    first, second, third = same.answers
    answer = write(tmp_path / "answer", [first, second, replace(third, payload=third.payload[:-10])])
    with pytest.raises(SecureadError):
        workflow.decrypt_file(
            answer, same.keys.holder, tmp_path / "scores.csv", local=same.request.with_name("request.local")
        )


def test_clipped_values_are_counted_by_column(tmp_path: Path) -> None:
    wild = X[:50].copy()
    wild[:7, 1], wild[3, 4] = 99.0, -99.0
    keys = make_keys(BUNDLE.public, "same")
    summary = workflow.encrypt_file(wild, keys.submitter, tmp_path / "request")
    assert summary.clipped == {"age": 7, "count": 1}
    scores = workflow.score_records(Direct(BUNDLE, keys.plan), keys, wild)
    assert scores.clipped == {"age": 7, "count": 1}
    np.testing.assert_allclose(scores.scores, BUNDLE.program.score(wild.clip(-4, 4)), atol=1e-4)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_a_bad_value_is_named_before_anything_is_written(wrong: float, same: Case, tmp_path: Path) -> None:
    bad = X.copy()
    bad[8123, 2] = wrong
    with pytest.raises(FixInputError, match="row 8123, column 'hour'"):
        workflow.encrypt_file(bad, same.keys.submitter, tmp_path / "request")
    assert list(tmp_path.iterdir()) == []


def test_out_of_bounds_is_refused_where_the_schema_says_so(tmp_path: Path) -> None:
    keys = make_keys(small_bundle(out_of_bounds="refuse").public, "same")
    bad = X[:10].copy()
    bad[4, 0] = 17.0
    with pytest.raises(FixInputError, match=r"row 4, column 'amount'.*17"):
        workflow.encrypt_file(bad, keys.submitter, tmp_path / "request")


def test_progress_is_told(same: Case, tmp_path: Path) -> None:
    class Told:
        def __init__(self) -> None:
            self.steps: list[tuple[str, int, int]] = []

        def rows(self, phase: str, done: int, total: int) -> None:
            self.steps.append((phase, done, total))

        def waiting(self, what: str) -> None: ...

    told = Told()
    workflow.submit_file(same.request, same.service, tmp_path / "answer", watch=told)
    assert told.steps == [("submit", 4096, ROWS), ("submit", 8192, ROWS), ("submit", ROWS, ROWS)]


# Reading records.

SCHEMA = BUNDLE.public.program.encoder.schema


def test_a_label_column_is_left_out(tmp_path: Path) -> None:
    labelled = np.column_stack([X[:20], np.arange(20) % 2])
    path = write_csv(tmp_path / "a.csv", labelled, (*COLUMNS, "Class"))
    np.testing.assert_array_equal(workflow.read_records(path, SCHEMA), X[:20])


def test_a_label_name_in_the_schema_is_a_feature(tmp_path: Path) -> None:
    names = ("amount", "target", "hour", "distance", "count")
    path = write_csv(tmp_path / "a.csv", X[:20], names)
    schema = small_bundle(columns=names).public.program.encoder.schema
    np.testing.assert_array_equal(workflow.read_records(path, schema), X[:20])


def test_columns_in_another_order(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", X[:20, ::-1], COLUMNS[::-1])
    with pytest.raises(FixInputError, match="--reorder"):
        workflow.read_records(path, SCHEMA)
    np.testing.assert_array_equal(workflow.read_records(path, SCHEMA, reorder=True), X[:20])


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        (COLUMNS[:4], "missing.*count"),
        ((*COLUMNS, "weight"), "unknown.*weight"),
        ((*COLUMNS, "count"), "'count' twice"),
        (("a", "b", "c", "d", "e"), "missing"),
    ],
)
def test_columns_that_do_not_fit(columns: tuple[str, ...], reason: str, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", records(3, columns=len(columns)), columns)
    with pytest.raises(FixInputError, match=reason):
        workflow.read_records(path, SCHEMA)


def test_npz_without_names_is_taken_when_its_width_fits(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", X=X[:20], y=np.zeros(20))
    np.testing.assert_array_equal(workflow.read_records(tmp_path / "a.npz", SCHEMA), X[:20])
    np.savez(tmp_path / "b.npz", X=X[:20, :4])
    with pytest.raises(FixInputError):
        workflow.read_records(tmp_path / "b.npz", SCHEMA)


@pytest.mark.parametrize("content", ["", ",".join(COLUMNS) + "\n", "a,b\n1,x\n"])
def test_empty_and_wordy_files(content: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(FixInputError):
        workflow.read_records(tmp_path / "a.csv", SCHEMA)


def test_nothing_to_encrypt(same: Case, tmp_path: Path) -> None:
    for nothing in (np.empty((0, 5)), np.empty((5, 0)), np.zeros(5)):
        with pytest.raises(FixInputError):
            workflow.encrypt_file(nothing, same.keys.submitter, tmp_path / "request")


def test_a_fresh_file_vanishes_with_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("before")
    with contextlib.suppress(KeyError), messages.fresh_file(tmp_path / "a") as stream:
        stream.write(b"after")
        raise KeyError
    assert (tmp_path / "a").read_text() == "before"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    with pytest.raises(RetryLaterError, match="cannot write"), messages.fresh_file(tmp_path / "a" / "b"):
        pass


def test_request_ids_and_ciphertexts_are_fresh(same: Case) -> None:
    streams = [next(workflow.seal(same.keys.submitter, X[:5])) for _ in range(2)]
    assert streams[0].envelope.header.request != streams[1].envelope.header.request
    assert streams[0].envelope.payload != streams[1].envelope.payload
    assert io.BytesIO(streams[0].envelope.to_bytes()).read(4) == wire.MAGIC
