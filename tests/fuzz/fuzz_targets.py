"""Every parser of bytes from strangers, as a fuzzer sees it: honest messages, a way to mend mutated ones, and a run.

A run returns whether the bytes were accepted. It may raise `SecureadError`, the documented refusals, which count as
refused; anything else is a bug. What is accepted is used: a request is evaluated, an answer decrypted.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import importlib
import io
import json
import random
import struct
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from small_model import records, small_bundle

from securead import codec
from securead.checks import programs
from securead.client import keys, messages, workflow
from securead.errors import SecureadError
from securead.federated import messages as training_messages
from securead.federated.messages import Answer, Ask
from securead.models import bundle
from securead.models.training import Total
from securead.protocols import parcel, registry, setup, wire
from securead.protocols.engine import Role
from securead.protocols.masking.adverts import Advert
from securead.protocols.paillier import sums
from securead.protocols.seal.keyfiles import PREFIX_BYTES, KeyFiles

ROWS = 2
ENGINES = ("ckks", "bfv", "ckks-row")  # that have targets of their own
Mend = Callable[[bytes, random.Random], bytes]


@dataclass(frozen=True)
class Target:
    """`seeds`: honest messages. `mend`: lets mutated bytes past lengths, digests and checksums, most of the time.

    `structured`: `mend` makes changes of its own, in JSON that changed bytes would leave ill-formed.
    """

    name: str
    seeds: Callable[[], list[bytes]]
    accepts: Callable[[bytes], bool]
    mend: Mend
    max_bytes: Callable[[], int]
    structured: bool = False

    def run(self, content: bytes) -> bool:
        """Whether the bytes were accepted; False for a documented refusal."""
        try:
            return self.accepts(content)
        except SecureadError as refusal:
            str(refusal)  # a message that cannot be shown is a bug, too
            return False

    def mutate(self, content: bytes, rng: random.Random) -> bytes:
        """Changes that need no fuzzer: bits, bytes, cuts, repeats and runs; then mended, nine times in ten.

        Three times in four, `mend` alone changes what is structured.
        """
        if self.structured and rng.random() < 0.75:
            return self.mend(content, rng)
        changed = bytearray(content or b"\0")
        for _ in range(rng.randint(1, 4)):
            at, size = rng.randrange(len(changed) + 1), rng.choice((1, 2, 8, 36, 300))
            match rng.randrange(6):
                case 0:
                    changed[at : at + 1] = rng.randbytes(1)
                case 1:
                    changed[at : at + size] = rng.randbytes(size)
                case 2:
                    del changed[at : at + size]
                case 3:
                    changed[at:at] = changed[at : at + size]
                case 4:
                    changed[at : at + size] = rng.choice((b"\0", b"\xff")) * size
                case _:
                    changed[at:] = changed[: len(changed) - at]
        return self.mend(bytes(changed), rng) if rng.random() < 0.9 else bytes(changed)


class Party:
    """One small program on one engine in one role, with keys, an honest request and its answer."""

    def __init__(self, engine: str, role: Role) -> None:
        polynomial = "lookup" not in registry.spec(engine).operations
        self.program = programs.small_quadratic() if polynomial else programs.small_tables()
        self.plan: Any = registry.plan_module(engine).make_plan(self.program.public, role)
        self.owner, self.blind = registry.owner_module(engine), registry.blind_module(engine)
        self.secret, self.public = self.owner.generate_keys(self.plan)
        keyed = self.plan.evaluation_key_bytes
        self.key = self.blind.read_evaluation_key(self.plan, self.public.to_bytes()) if keyed else None
        self.setup = setup.make_setup(self.plan, self.program)
        self.evaluator = setup.make_evaluator(self.plan, self.program, self.setup and self.setup.secret)
        self.decryptor = self.owner.make_decryptor(self.plan, self.secret)
        encryptor = self.encryptor(self.setup and self.setup.published)
        width = self.program.public.encoder.width if polynomial else len(self.plan.sizes)
        self.request = encryptor.encrypt(np.ones((ROWS, width), dtype=np.int64))
        self.answer = self.evaluator.evaluate(self.request, self.key)

    def encryptor(self, published: bytes | None) -> Any:
        """An encryptor from what a service published."""
        return setup.make_encryptor(self.plan, self.secret if self.plan.role == "same" else self.public, published)


@cache
def party(engine: str, role: Role) -> Party:
    return Party(engine, role)


def of_request(engine: str, role: Role) -> Target:
    """A request at the service: parsed, and evaluated where it is one."""

    def accepts(content: bytes) -> bool:
        one = party(engine, role)
        assert len(one.evaluator.evaluate(content, one.key)) <= one.plan.max_answer_bytes
        return True

    return Target(
        f"{engine}-request-{role}",
        lambda: [party(engine, role).request],
        accepts,
        lambda content, rng: _payload(party(engine, role), content, party(engine, role).request, rng),
        lambda: party(engine, role).plan.max_request_bytes + 64,
    )


def of_answer(engine: str, role: Role) -> Target:
    """An answer at the key holder."""

    def accepts(content: bytes) -> bool:
        assert party(engine, role).decryptor.decrypt(content, ROWS).shape == (ROWS,)
        return True

    return Target(
        f"{engine}-answer-{role}",
        lambda: [party(engine, role).answer],
        accepts,
        lambda content, rng: _payload(party(engine, role), content, party(engine, role).answer, rng),
        lambda: party(engine, role).plan.max_answer_bytes + 64,
    )


def _payload(one: Party, content: bytes, honest: bytes, rng: random.Random) -> bytes:
    """The honest length and key id, and a number of rows that is the honest one more often than not."""
    rows = rng.choice((ROWS, ROWS, ROWS, 1, one.plan.rows_per_chunk, 0, 1 << 31))
    body = content[36:].ljust(len(honest) - 36, b"\0")[: len(honest) - 36]
    return struct.pack("<I32s", rows, bytes.fromhex(one.secret.key_id)) + body


def of_key(engine: str) -> Target:
    """Key files: at the service, which masks with what it accepts, and at their owner."""

    def accepts(content: bytes) -> bool:
        one, accepted = party(engine, "split"), 0
        for read in (
            lambda: one.evaluator.evaluate(one.request, one.blind.read_evaluation_key(one.plan, content)),
            lambda: one.owner.public_key_from_bytes(one.plan, content),
            lambda: one.owner.secret_key_from_bytes(one.plan, content),
        ):
            try:
                read()
                accepted += 1
            except SecureadError as refusal:
                str(refusal)
        return accepted > 0

    def mend(content: bytes, rng: random.Random) -> bytes:
        one = party(engine, "split")
        secret, public = one.secret.to_bytes(), one.public.to_bytes()
        kind, honest = ("secret", secret) if content[:24] == secret[:24] else ("public", public)
        body, size = content[PREFIX_BYTES:], len(honest) - PREFIX_BYTES
        if kind == "public" or rng.random() < 0.5:
            body = body.ljust(size, b"\0")[:size]
        files: KeyFiles = importlib.import_module(f"{registry.spec(engine).package}.messages").KEY_FILES
        names = one.secret.key_id if kind == "secret" else files.key_id(one.plan.digest, body)
        return files.write(kind, one.plan.digest, names, body)  # type: ignore[arg-type]

    return Target(
        f"{engine}-key",
        lambda: [party(engine, "split").public.to_bytes(), party(engine, "split").secret.to_bytes()],
        accepts,
        mend,
        lambda: 2 * party(engine, "split").plan.evaluation_key_bytes,
    )


def of_published(engine: str) -> Target:
    """What a service publishes, at an owner that encrypts with what it accepts."""

    def accepts(content: bytes) -> bool:
        one = party(engine, "same")
        request = one.encryptor(content).encrypt(np.ones((1, len(one.plan.sizes)), dtype=np.int64))
        return len(request) <= one.plan.max_request_bytes

    def mend(content: bytes, rng: random.Random) -> bytes:
        """The right length and plan; and everything before the entries, more often than not."""
        honest = party(engine, "same").setup.published  # type: ignore[union-attr]
        kept = 64 if rng.random() < 0.3 else 64 + 11 * 384
        return honest[:kept] + content[kept : len(honest)].ljust(len(honest) - kept, b"\0")

    return Target(
        f"{engine}-published",
        lambda: [party(engine, "same").setup.published],  # type: ignore[union-attr]
        accepts,
        mend,
        lambda: setup.setup_bytes(party(engine, "same").plan) + 64,
    )


# --- envelopes and files of them ----------------------------------------------------------------------------------


@cache
def exchanged() -> tuple[keys.Keys, bytes, bytes, bytes]:
    """Keys for a small model, a request file of two chunks, its answer's file and its local notes."""
    made = small_bundle()
    own = keys.make_keys(made.public, "same")
    engine = registry.blind_module(own.plan.engine)
    assert own.submitter.evaluation_key is not None
    held = engine.read_evaluation_key(own.plan, own.submitter.evaluation_key)
    evaluator = engine.make_evaluator(own.plan, made.program)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "request"
        workflow.encrypt_file(records(own.plan.rows_per_chunk + 2), own.submitter, path)
        request, notes = path.read_bytes(), path.with_name("request" + messages.LOCAL_SUFFIX).read_bytes()
    answers = []
    for envelope in wire.read_all(io.BytesIO(request), max_payload=1 << 30):
        if envelope.header.kind == "request":
            payload = evaluator.evaluate(envelope.payload, held)
            header = dataclasses.replace(envelope.header, kind="answer")
            answers.append(wire.Envelope(header, payload).to_bytes())
    return own, request, b"".join(answers), notes


def _header(kind: str, chunk: int = 0) -> wire.Header:
    name = "ab" * 32
    counts = (0, 1, 0) if kind == "key" else (chunk, 2, 5)
    return wire.Header(kind, "ckks", "same", name, name, name, "cd" * 16, *counts)  # type: ignore[arg-type]


def short_file(kind: str) -> bytes:
    """A file that is sound as far as envelopes go, with payloads of a few bytes."""
    leading = wire.Envelope(_header("key"), b"key").to_bytes() if kind == "request" else b""
    return leading + b"".join(wire.Envelope(_header(kind, at), b"payload" * at).to_bytes() for at in range(2))


_PREFIX = struct.Struct("<4sHIQ")


def mend_envelopes(content: bytes, rng: random.Random) -> bytes:
    """Prefix, lengths and checksum of everything that begins like an envelope; headers are changed as JSON."""
    pieces = content.split(wire.MAGIC)[1:] or [content]
    return b"".join(_mended_envelope(wire.MAGIC + piece, rng) for piece in pieces[:8])


def _mended_envelope(content: bytes, rng: random.Random) -> bytes:
    content = content.ljust(_PREFIX.size + 32, b"\0")
    _, version, size, _ = _PREFIX.unpack_from(content)
    body = content[_PREFIX.size : -32]
    size = min(size, len(body))
    header, payload = body[:size], body[size:]
    if rng.random() < 0.5:
        header = mend_json(header, rng)
    version = wire.VERSION if rng.random() < 0.9 else version
    claimed = len(payload) if rng.random() < 0.9 else rng.choice((0, 1 << 40, (1 << 64) - 1))
    whole = _PREFIX.pack(wire.MAGIC, version, len(header), claimed) + header + payload
    return whole + hashlib.sha256(whole).digest()


def parsed_envelope(content: bytes) -> bool:
    envelope = wire.from_bytes(content, max_payload=1 << 16)
    assert wire.from_bytes(envelope.to_bytes(), max_payload=1 << 16) == envelope
    return True


def _stored(content: bytes) -> Iterator[Path]:
    """One file, in one folder a process: writing is most of the time that a run takes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "content"
        path.write_bytes(content)
        yield path


def read_file(kind: str) -> Callable[[bytes], bool]:
    def accepts(content: bytes) -> bool:
        for path in _stored(content):
            with messages.existing_file(path) as stream:
                messages.leading_key(stream, where=path)
                for _ in messages.checked(stream, kind, where=path):  # type: ignore[arg-type]
                    pass
        return True

    return accepts


def decrypted_file(content: bytes) -> bool:
    """An answer's file with its notes, as the key holder reads both; a NUL byte stands between them."""
    own, *_ = exchanged()
    answer, _, notes = content.rpartition(b"\0")
    for path in _stored(answer):
        path.with_name(path.name + messages.LOCAL_SUFFIX).write_bytes(notes)
        workflow.decrypt_file(path, own.holder, path.with_name("out"))
    return True


def mend_answers(content: bytes, rng: random.Random) -> bytes:
    answer, _, notes = content.rpartition(b"\0")
    lines = [mend_json(line, rng) if rng.random() < 0.3 else line for line in notes.splitlines()]
    return (mend_envelopes(answer, rng) if rng.random() < 0.5 else answer) + b"\0" + b"\n".join(lines)


# --- values in JSON -----------------------------------------------------------------------------------------------

_ODD: tuple[Any, ...] = (
    None, True, -1, 0, 1 << 62, 1 << 63, 1 << 200, -(1 << 1030), 0.5, -0.0, 1e308, "", "a" * 300, "\ud800", [], {},
    [[]],    {"type": "input"}, {"type": "product"}, "NaN", "../x", "0" * 64,
)  # fmt: skip


def mend_json(content: bytes, rng: random.Random) -> bytes:
    """Changes up to three places of a JSON value: another's value, an odd one, a place more or less."""
    try:
        plain = json.loads(content)
    except (ValueError, RecursionError):
        return content
    for _ in range(rng.randint(0, 3)):
        places = list(_places(plain))
        if not places:
            break
        holder, at = rng.choice(places)
        match rng.randrange(5):
            case 0:
                del holder[at]
            case 1:
                other, there = rng.choice(places)
                holder[at] = copy.deepcopy(other[there])
            case 2 if isinstance(holder, list):
                holder[at:at] = [copy.deepcopy(holder[at]) for _ in range(rng.choice((1, 3, 70)))]
            case 3 if isinstance(holder[at], int | float):
                holder[at] = rng.choice((holder[at] + 1, -holder[at], holder[at] * 2, float(holder[at] % 1000)))
            case _:
                holder[at] = copy.deepcopy(rng.choice(_ODD))
    return json.dumps(plain).encode()


def _places(plain: Any, depth: int = 0) -> Iterator[tuple[Any, Any]]:
    keys_of = plain.keys() if isinstance(plain, dict) else range(len(plain)) if isinstance(plain, list) else ()
    for at in list(keys_of)[:100]:
        yield plain, at
        if depth < 12:
            yield from _places(plain[at], depth + 1)


def read_values(content: bytes) -> bool:
    """A stored value as each of the classes that are read from files and messages."""
    try:
        plain = json.loads(content)
    except (ValueError, RecursionError):
        return False
    readers: tuple[Callable[[Any], Any], ...] = (
        lambda value: codec.from_plain(wire.Header, value, where="header"),
        lambda value: codec.from_plain(keys.KeyRecord, value, where="key record"),
        lambda value: codec.from_plain(bundle.PublicModel, value, where="model"),
        registry.plan_module("ckks").plan_from_plain,
        registry.plan_module("bfv").plan_from_plain,
        registry.plan_module("ckks-row").plan_from_plain,
    )
    accepted = 0
    for read in readers:
        try:
            value = read(plain)
        except SecureadError as refusal:
            str(refusal)
            continue
        accepted += 1
        assert read(json.loads(json.dumps(codec.to_plain(value)))) == value, "a value is read back as it was"
    return accepted > 0


def value_seeds() -> list[bytes]:
    own, *_ = exchanged()
    values = (
        _header("request"),
        own.record,
        own.model,
        own.plan,
        *(party(engine, "same").plan for engine in ("bfv", "ckks-row")),
    )
    return [json.dumps(codec.to_plain(value)).encode() for value in values]


def read_model(content: bytes) -> bool:
    """`public.json`, and what a reader of it does first: plans for the program."""
    for path in _stored(content):
        model = bundle.load_public(path)
        for engine in ("ckks", "bfv", "ckks-row"):
            try:
                registry.plan_module(engine).make_plan(model.program, "same").describe()
            except SecureadError as refusal:
                str(refusal)
    return True


def parcel_seeds() -> list[bytes]:
    label = parcel.Label("pump-1", "0" * 32, 3, (4, 5), (60.0, 120.5))
    return [parcel.to_bytes(each, b"message") for each in (label, dataclasses.replace(label, times=None))]


def parsed_parcel(content: bytes) -> bool:
    label, message = parcel.from_bytes(content)
    assert parcel.from_bytes(parcel.to_bytes(label, bytes(message))) == (label, message)
    return True


def mend_parcel(content: bytes, chance: random.Random) -> bytes:
    """The label changed as JSON, and its length put right."""
    told, end, message = content[8:].partition(b"}")
    told = mend_json(told + end, chance)
    return parcel.MAGIC + struct.pack("<I", len(told)) + told + message


_RUN_PREFIX = struct.Struct("<4sHI")
_MODULUS = (1 << 3071) + 1


def training_seeds() -> list[bytes]:
    totals = [Total("counts", np.arange(6).reshape(2, 3), 1.5, 3)]
    advert = Advert("a", "run", "00" * 32, "01", "02")
    numbers = {"round": 2, "attempt": 1, "adverts": (advert,), "signatures": (("a", "ff"),)}
    ask = Ask.with_totals("prepare", "run", totals, 0, **numbers)
    answer = Answer("send", "a", 1, 1, advert, "ff", 1.0, arrays={"values": np.arange(4, dtype=np.uint64)})
    packed = Answer("prepare", "a", 1, bits=12, arrays={"values": np.arange(6, dtype=np.uint8)})
    sent = {"ciphertexts": sums.to_array([5, 7]), "shape": np.array([90])}
    encrypted = Answer("send", "a", 1, 1, bits=32, group_key="ab" * 32, arrays=sent)
    opening = Ask("open", "run", 1, 1, signatures=(("a", "ff"),), arrays={"sum": sums.to_array([35])})
    return [training_messages.to_bytes(each) for each in (ask, answer, packed, encrypted, opening)]


def read_training(content: bytes) -> bool:
    """A message of a run is read whole, and says the same when it is written again."""
    kind = Ask if b'"signatures"' in content[:4096] else Answer
    read = training_messages.from_bytes(kind, content, where="fuzz")
    for name in ("ciphertexts", "sum"):
        if name in read.arrays:
            sums.from_array(read.arrays[name], _MODULUS, where="fuzz")
    if isinstance(read, Answer):
        _ = read.arrays and "ciphertexts" not in read.arrays and read.values
    elif isinstance(read, Ask):
        _ = read.totals
    return len(training_messages.to_bytes(read)) > 0


def mend_training(content: bytes, rng: random.Random) -> bytes:
    """Changes values in the header and keeps its length right."""
    if len(content) < _RUN_PREFIX.size:
        return content
    size = min(_RUN_PREFIX.unpack_from(content)[2], len(content) - _RUN_PREFIX.size)
    head = mend_json(content[_RUN_PREFIX.size : _RUN_PREFIX.size + size], rng)
    return (
        _RUN_PREFIX.pack(training_messages.MAGIC, training_messages.VERSION, len(head))
        + head
        + content[_RUN_PREFIX.size + size :]
    )


def model_seeds() -> list[bytes]:
    tables = codec.to_plain(small_bundle().public) | {"program": codec.to_plain(programs.small_tables().public)}
    return [json.dumps(value).encode() for value in (codec.to_plain(small_bundle().public), tables)]


TARGETS = {
    target.name: target
    for target in (
        *(of_request(engine, role) for engine in ENGINES for role in ("same", "split")),  # type: ignore[arg-type]
        *(of_answer(engine, "same") for engine in ENGINES),
        *(of_key(engine) for engine in ENGINES),
        *(of_request(engine, "same") for engine in ("paillier", "paillier-linear")),
        *(of_answer(engine, "same") for engine in ("paillier", "paillier-linear")),
        of_published("paillier"),
        Target(
            "envelope",
            lambda: [wire.Envelope(_header(kind), b"payload").to_bytes() for kind in ("request", "answer", "key")],
            parsed_envelope,
            mend_envelopes,
            lambda: 1 << 17,
            structured=True,
        ),
        *(
            Target(
                f"{kind}-file",
                lambda kind=kind: [short_file(kind)],  # type: ignore[misc]
                read_file(kind),
                mend_envelopes,
                lambda: 1 << 17,
                structured=True,
            )
            for kind in ("request", "answer")
        ),
        Target(
            "decrypted-file",
            lambda: [exchanged()[2] + b"\0" + exchanged()[3]],
            decrypted_file,
            mend_answers,
            lambda: len(exchanged()[2]) + len(exchanged()[3]) + 64,
            structured=True,
        ),
        Target("parcel", parcel_seeds, parsed_parcel, mend_parcel, lambda: 1 << 16, structured=True),
        Target("training-message", training_seeds, read_training, mend_training, lambda: 1 << 16, structured=True),
        Target("codec", value_seeds, read_values, mend_json, lambda: 1 << 16, structured=True),
        Target("public-model", model_seeds, read_model, mend_json, lambda: 1 << 16, structured=True),
    )
}
