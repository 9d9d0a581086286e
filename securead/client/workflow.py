"""Encrypt, submit, decrypt, score: over arrays and over files, chunk by chunk.

Every function takes a `Watch` and hands back what was done. Nothing of a record is kept but what the caller holds.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from securead.client import drift, messages
from securead.client.keys import HolderKeys, Keys, SubmitterKeys
from securead.client.messages import LocalHead, LocalPart
from securead.client.positions import WINDOWS_SUFFIX, Positions, find_positions, read_windows
from securead.client.results import Scores, Summary, Timings, named, write_header, write_rows
from securead.client.watch import Silent, Watch
from securead.data.readers import Table, read_table
from securead.data.schema import Array, Schema
from securead.data.windows import WindowedSchema, Windows
from securead.errors import FixInputError, RejectMessageError, UseOtherKeyError
from securead.models.bundle import PublicModel
from securead.observe import span
from securead.protocols import registry, wire
from securead.protocols.engine import Decryptor, Plan

if TYPE_CHECKING:
    from securead.client.service import Service

_WITHOUT_POSITIONS = (
    "Rows count windows in the order they were encrypted; which readings they end with stands in the submitter's "
    f"{WINDOWS_SUFFIX} file, which is not beside the answer."
)


@dataclass(frozen=True, eq=False)
class Sealed:
    """One chunk, ready to send; `local` stays with the submitter."""

    envelope: wire.Envelope
    local: LocalPart


def read_records(path: Path, schema: Schema, *, reorder: bool = False) -> Array:
    """The records of a `.npz`, `.csv` or `.parquet` file, float64 `(n, d)`, in the schema's column order.

    A label column is left out unless the schema has a column of that name. An `.npz` without column names is taken
    in the schema's order when its number of columns fits. Raises `FixInputError` for columns that are not the
    schema's: missing, unknown, doubled, or in another order without `reorder`. Where records are windows, the file is
    of readings: `positions.read_windows` tells also which.
    """
    if isinstance(schema, WindowedSchema):
        return read_windows(path, schema, reorder=reorder).X
    return read_labelled(path, schema, reorder=reorder)[0]


def read_labelled(
    path: Path, schema: Schema, *, label: str | None = None, reorder: bool = False
) -> tuple[Array, Array | None]:
    """As `read_records` of single records, and their labels `(n,)`, 1 for anomalies, where the file has any."""
    table = read_table(path, label=label, features=schema.names)
    order = _positions(table, schema, reorder=reorder, unnamed=path.suffix.lower() == ".npz")
    return table.X[:, order], table.y


def _positions(table: Table, schema: Schema, *, reorder: bool, unnamed: bool) -> list[int]:
    names = table.columns
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise FixInputError(f"{table.source} has the column {twice!r} twice", remedy="Give each column its own name.")
    generated = tuple(f"x{i}" for i in range(len(names)))
    if unnamed and names == generated and len(names) == len(schema.names):
        return list(range(len(names)))
    return schema.order(names, reorder=reorder)


def seal(keys: SubmitterKeys, X: Array) -> Iterator[Sealed]:
    """Encrypt records `(n, d)` chunk by chunk, under one fresh request id.

    All records are checked before the first chunk is made, so a bad value costs nothing and is named by its row.
    """
    encoder, plan = keys.model.program.encoder, keys.plan
    encoder.schema.bounded(X)
    if not len(X):
        raise FixInputError("there is no record to encrypt", value=X.shape, remedy="Give at least one row.")
    encryptor, request = keys.encryptor(), wire.new_request_id()
    chunks = math.ceil(len(X) / plan.rows_per_chunk)
    for chunk in range(chunks):
        start = chunk * plan.rows_per_chunk
        Z, outside = encoder.encode(X[start : start + plan.rows_per_chunk])
        header = wire.Header(
            kind="request",
            engine=plan.engine,
            role=plan.role,
            program=plan.program_digest,
            plan=plan.digest,
            key=keys.record.key,
            request=request,
            chunk=chunk,
            chunks=chunks,
            rows=len(Z),
        )
        terms = keys.model.program.public_term(Z) if needs_local(keys.model, plan) else ()
        local = LocalPart(chunk, tuple(map(int, terms)), tuple(map(int, outside)))
        yield Sealed(wire.Envelope(header, encryptor.encrypt(keys.model.program.queries(Z))), local)


def key_message(keys: SubmitterKeys, request: wire.Header) -> wire.Envelope | None:
    """The owner's public key as the service is sent it with this request, where the plan asks for one."""
    if keys.evaluation_key is None:
        return None
    return wire.Envelope(replace(request, kind="key", chunk=0, chunks=1, rows=0), keys.evaluation_key)


def needs_local(model: PublicModel, plan: Plan) -> bool:
    """Whether the submitter keeps a part of the score to itself, to be added at decryption."""
    return plan.role == "same" and bool(model.program.public_terms)


def unseal(keys: HolderKeys, decryptor: Decryptor, answer: wire.Envelope, terms: tuple[int, ...]) -> Array:
    """Scores float64 `(rows,)` of one answer chunk, the public terms added where the role leaves them to us."""
    header = answer.header
    if header.rows > keys.plan.rows_per_chunk:
        raise RejectMessageError(f"chunk {header.chunk} claims more rows than one can hold", value=header.rows)
    scores = decryptor.decrypt(answer.payload, header.rows)
    if not needs_local(keys.model, keys.plan):
        return scores
    if len(terms) != header.rows:
        raise RejectMessageError(
            f"the answer to chunk {header.chunk} is for {header.rows} rows, {len(terms)} were sent",
            remedy="The answer or the local notes belong to another request.",
        )
    exact = np.empty(len(terms), dtype=object)
    exact[:] = terms
    total: Array = scores + keys.model.program.decode(exact)
    return total


def encrypt_file(
    X: Array, keys: SubmitterKeys, out: Path, *, watch: Watch | None = None, windows: Windows | None = None
) -> Summary:
    """Encrypt records into a request file and, where needed, the local notes `<out>.local` (mode 0600).

    Where the service needs the owner's public key, the file opens with it. With `windows`, where `X` comes from, their
    positions are noted in `<out>.windows` (mode 0600).
    """
    start, watch, done = time.perf_counter(), watch or Silent(), 0
    clipped = np.zeros(keys.model.program.encoder.width, dtype=int)
    local = out.with_name(out.name + messages.LOCAL_SUFFIX)
    keep = needs_local(keys.model, keys.plan)
    with (
        span("client.encrypt", rows=len(X)),
        messages.fresh_file(out) as stream,
        # Put in place before the request is, so that no request stands without its notes.
        messages.fresh_file(local, mode=0o600) if keep else contextlib.nullcontext() as notes,
    ):
        for sealed in seal(keys, X):
            header = sealed.envelope.header
            if header.chunk == 0 and (key := key_message(keys, header)) is not None:
                stream.write(key.to_bytes())
            if notes and header.chunk == 0:
                messages.write_local_line(notes, LocalHead(header.request, header.program, header.chunks))
            if notes:
                messages.write_local_line(notes, sealed.local)
            stream.write(sealed.envelope.to_bytes())
            done, clipped = done + header.rows, clipped + sealed.local.clipped
            watch.rows("encrypt", done, len(X))
        size = stream.tell()
        if windows is not None:
            Positions.of(windows, header.request).write(out.with_name(out.name + WINDOWS_SUFFIX))
    return Summary(
        rows=done,
        chunks=header.chunks,
        seconds=time.perf_counter() - start,
        bytes=size,
        clipped=named(keys.model.program.encoder.schema.names, clipped) if windows is None else windows.clipped,
        request=header.request,
        notes=(f"Keep {local}: decrypting needs it.",) if keep else (),
    )


def submit_file(request: Path, service: Service, out: Path, *, watch: Watch | None = None) -> Summary:
    """Have a request file answered, into `out`. Interrupted, the same call goes on where it stopped."""
    start, watch, done, up, down, seconds = time.perf_counter(), watch or Silent(), 0, 0, 0, 0.0
    if request.resolve() == out.resolve():
        raise FixInputError("the answer would overwrite the request", value=str(out), remedy="Choose another --out.")
    # A first pass over the file: nothing of a damaged or incomplete request is sent.
    with messages.existing_file(request) as stream:
        headers = [envelope.header for envelope in messages.checked(stream, "request", where=request)]
    total = sum(header.rows for header in headers)
    name, plan = find_model(service, headers[0])
    with (
        span("client.submit", rows=total),
        messages.existing_file(request) as stream,
        messages.AnswerFile(out, headers[0]) as answers,
    ):
        resumed, key = answers.done, messages.leading_key(stream, where=request)
        up += service.ensure_key(name, key) if key is not None and resumed < len(headers) else 0
        for envelope in messages.checked(stream, "request", where=request):
            if envelope.header.chunk >= resumed:
                answered = service.score(name, envelope, plan, key)
                answers.append(answered.message)
                up, down = up + answered.sent, down + len(answered.message)
                seconds += answered.server_seconds
            done += envelope.header.rows
            watch.rows("submit", done, total)
        answers.finish()
    return Summary(
        rows=done,
        chunks=len(headers),
        seconds=time.perf_counter() - start,
        bytes=up + down,
        bytes_up=up,
        bytes_down=down,
        server_seconds=seconds,
        request=headers[0].request,
        notes=(f"{resumed} of {len(headers)} chunks were answered before and not sent again.",) if resumed else (),
    )


def find_model(service: Service, header: wire.Header) -> tuple[str, Plan]:
    """The service's name for the model of a request, and the plan both sides follow."""
    offers = service.models()
    name = next((offer.name for offer in offers if offer.program == header.program), None)
    if name is None:
        raise UseOtherKeyError(
            "the service does not offer the model that this request is for",
            where=service.url,
            value=header.program,
            remedy="It offers " + (", ".join(o.name for o in offers) or "none") + ": fetch the model again with "
            "`securead keygen`, then encrypt with the new keys.",
        )
    plan = registry.plan_module(header.engine).make_plan(service.model(name).program, header.role)
    if plan.digest != header.plan:
        raise UseOtherKeyError(
            "the request was made with other parameters than this release derives",
            value=header.plan,
            remedy="Make new keys with `securead keygen` and encrypt again.",
        )
    return name, plan


def decrypt_file(
    answer: Path,
    keys: HolderKeys,
    out: Path,
    *,
    local: Path | None = None,
    request: str | None = None,
    history: Path | None = None,
    watch: Watch | None = None,
) -> Summary:
    """Decrypt an answer file into CSV lines row,score,anomaly (mode 0600: scores are what encryption protects).

    Where records are windows and the submitter's notes of their positions lie beside the answer, also reading,time.

    `request`: the request id to insist on, for key holders whom the submitter tells it; an older answer that is
    replayed to them has another. `local`: the request's local notes, looked for beside `answer` by default.
    `history`: where scores are remembered (see `drift`); a warning is among the summary's notes.
    """
    start, watch, done, flagged, size = time.perf_counter(), watch or Silent(), 0, 0, 0
    schema, decryptor = keys.model.program.encoder.schema, keys.decryptor()
    messages.refuse_overwriting(out, answer, *([] if local is None else [local]))
    clipped = np.zeros(len(schema.names), dtype=int)
    with messages.existing_file(answer) as stream:
        header = next(messages.checked(stream, "answer", where=answer)).header
    messages.refuse_foreign(header, keys.record, where=answer)
    if request is not None and header.request != request:
        raise RejectMessageError(
            "this is the answer to another request",
            where=str(answer),
            value=header.request,
            remedy=f"Wanted was {request}: give its answer, or ask the submitter for the request's id.",
        )
    windowed = isinstance(schema, WindowedSchema)
    positions = find_positions(answer, header.request) if windowed else None
    every: list[Array] = []
    parts: Iterator[LocalPart] | None = None
    if needs_local(keys.model, keys.plan):
        parts = messages.read_local(local or messages.find_local(answer, header.request), header)
    with (
        span("client.decrypt"),
        messages.existing_file(answer) as stream,
        messages.fresh_file(out, mode=0o600) as lines,
    ):
        write_header(lines, positions)
        for envelope in messages.checked(stream, "answer", where=answer):
            terms: tuple[int, ...] = ()
            if parts is not None:
                part = next(parts)
                terms, clipped = part.terms, clipped + _counts(part, schema)
            scores = unseal(keys, decryptor, envelope, terms)
            flags = keys.model.is_anomaly(scores)
            write_rows(lines, done, scores, flags, positions)
            every.append(scores)
            done, flagged, size = done + len(scores), flagged + int(flags.sum()), size + len(envelope.payload)
            watch.rows("decrypt", done, header.chunks * keys.plan.rows_per_chunk)
    notes: tuple[str, ...] = (_WITHOUT_POSITIONS,) if windowed and positions is None else ()
    if history is not None:
        notes += drift.noted(history, keys.model, np.concatenate(every), source=header.request)
    return Summary(
        rows=done,
        chunks=header.chunks,
        seconds=time.perf_counter() - start,
        bytes=size,
        clipped=None if parts is None else named(schema.names, clipped),
        anomalies=flagged,
        request=header.request,
        notes=notes,
    )


def score_records(service: Service, keys: Keys, X: Array, *, watch: Watch | None = None) -> Scores:
    """Encrypt, submit and decrypt records `(n, d)`, one chunk at a time."""
    watch, model = watch or Silent(), keys.model
    submitter, holder, decryptor = keys.submitter, keys.holder, keys.holder.decryptor()
    parts: list[Array] = []
    times, up, down, done = Timings(), 0, 0, 0
    clipped = np.zeros(model.program.encoder.width, dtype=int)
    sealed_chunks = seal(submitter, X)
    with span("client.score", rows=len(X)):
        while True:
            start = time.perf_counter()
            sealed = next(sealed_chunks, None)
            sent = time.perf_counter()
            if sealed is None:
                break
            key = key_message(submitter, sealed.envelope.header)
            if key is not None and sealed.envelope.header.chunk == 0:
                up += service.ensure_key(model.name, key)
            answered = service.score(model.name, sealed.envelope, keys.plan, key)
            got = time.perf_counter()
            parts.append(unseal(holder, decryptor, answered.envelope, sealed.local.terms))
            times = replace(
                times,
                encrypt=times.encrypt + sent - start,
                submit=times.submit + got - sent,
                decrypt=times.decrypt + time.perf_counter() - got,
                server=times.server + answered.server_seconds,
            )
            up, down = up + answered.sent, down + len(answered.message)
            clipped, done = clipped + sealed.local.clipped, done + sealed.envelope.header.rows
            watch.rows("score", done, len(X))
    scores = np.concatenate(parts)
    return Scores(scores, model.is_anomaly(scores), named(model.program.encoder.schema.names, clipped), times, up, down)


def _counts(part: LocalPart, schema: Schema) -> Array:
    if len(part.clipped) != len(schema.names):
        raise FixInputError("the local notes are for other columns", remedy="Give the .local file of the request.")
    return np.array(part.clipped)
