"""Keys for one model, in memory and in directories.

    DIR/public/    for whoever encrypts in role `split`: model.json, plan.json, key.json, public.key
    DIR/secret/    for the key holder alone (0700): the same three, and secret.key (0600, sealed on request)
    setup.bin      in the half that encrypts: what the service publishes once, where the engine asks for it

Each half stands by itself, so `public/` can be handed over as it is. In role `same` the submitter holds the secret
half and encrypts with it, which halves the upload. Where the service needs the public key to mask answers, whoever
encrypts has it: in role `same` DIR/secret/ holds a copy of public.key.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import secrets
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from securead import codec, files
from securead.errors import FixInputError, RetryLaterError, UseOtherKeyError
from securead.models.bundle import MAX_PUBLIC_BYTES, PublicModel
from securead.protocols import registry, setup
from securead.protocols.choice import choose
from securead.protocols.engine import Decryptor, Encryptor, Plan, PublicKey, Role, SecretKey

MODEL_FILE, PLAN_FILE, KEY_FILE = "model.json", "plan.json", "key.json"
PUBLIC_KEY_FILE, SECRET_KEY_FILE, SETUP_FILE = "public.key", "secret.key", "setup.bin"
MAX_KEY_BYTES = 1 << 30


@dataclass(frozen=True)
class KeyRecord:
    """What a key directory says about its key: `key` names it, digests say what it is for."""

    key: str
    engine: str
    role: Role
    model: str
    program: str
    plan: str
    created: str
    format: int = 1


@dataclass(frozen=True, eq=False)
class SubmitterKeys:
    """What it takes to encrypt: in role `split` a public key, in role `same` the secret one.

    `evaluation_key`: the public key as the service is sent it, where the plan asks for one. `published`: what the
    service publishes, where the engine needs it.
    """

    model: PublicModel
    plan: Plan
    record: KeyRecord
    key: SecretKey | PublicKey = field(repr=False)
    evaluation_key: bytes | None = field(default=None, repr=False)
    published: bytes | None = field(default=None, repr=False)

    def encryptor(self) -> Encryptor:
        """An encryptor for the plan. Raises what the engine raises where what is published is missing or unsound."""
        return setup.make_encryptor(self.plan, self.key, self.published)


@dataclass(frozen=True, eq=False)
class HolderKeys:
    """What it takes to decrypt."""

    model: PublicModel
    plan: Plan
    record: KeyRecord
    key: SecretKey = field(repr=False)

    def decryptor(self) -> Decryptor:
        """A decryptor for the plan."""
        return registry.owner_module(self.plan.engine).make_decryptor(self.plan, self.key)


@dataclass(frozen=True, eq=False)
class Keys:
    """Both sides, as they are when keys are made; `save` parts them."""

    model: PublicModel
    plan: Plan
    record: KeyRecord
    secret: SecretKey = field(repr=False)
    public: PublicKey = field(repr=False)
    published: bytes | None = field(default=None, repr=False)

    @property
    def submitter(self) -> SubmitterKeys:
        """The encrypting side."""
        key = self.secret if self.record.role == "same" else self.public
        evaluation = _evaluation_key(self.plan, self.public)
        return SubmitterKeys(self.model, self.plan, self.record, key, evaluation, self.published)

    @property
    def holder(self) -> HolderKeys:
        """The decrypting side."""
        return HolderKeys(self.model, self.plan, self.record, self.secret)

    def save(self, directory: Path | str, *, passphrase: str | None = None) -> Path:
        """Write both halves to a directory that must not exist yet, or be empty; all of it appears at once."""
        directory = Path(directory)
        refuse_existing(directory)
        fresh = directory.parent / f".{directory.name}.{secrets.token_hex(6)}"
        try:
            fresh.mkdir(parents=True)
            public, secret = fresh / "public", fresh / "secret"
            public.mkdir()
            files.make_secret_directory(secret)
            for half in (public, secret):
                files.write_json(half / MODEL_FILE, codec.to_plain(self.model))
                files.write_json(half / PLAN_FILE, codec.to_plain(self.plan))
                files.write_json(half / KEY_FILE, codec.to_plain(self.record))
            files.write_atomic(public / PUBLIC_KEY_FILE, self.public.to_bytes())
            if self.published is not None:
                files.write_atomic((secret if self.record.role == "same" else public) / SETUP_FILE, self.published)
            if self.plan.evaluation_key_bytes and self.record.role == "same":
                files.write_atomic(secret / PUBLIC_KEY_FILE, self.public.to_bytes())
            files.write_secret(secret / SECRET_KEY_FILE, self.secret.to_bytes(), passphrase=passphrase)
            os.rename(fresh, directory)
        except OSError as error:
            raise RetryLaterError(
                f"cannot write {directory}: {error.strerror}", remedy="Free space or fix the permission; call again."
            ) from error
        finally:
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(fresh)
        return directory


def refuse_existing(directory: Path) -> None:
    """Raise `FixInputError` unless keys can be written to `directory`: it does not exist, or is empty."""
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise FixInputError(
            f"{directory} exists already", remedy="Keys are never overwritten: choose another directory."
        )


def make_keys(model: PublicModel, role: Role, *, engine: str | None = None) -> Keys:
    """Fresh keys for a model. Raises `FixProgramError` when no engine carries it."""
    spec = choose(model.program, role, engine=engine)
    plan = registry.plan_module(spec.name).make_plan(model.program, role)
    secret, public = registry.owner_module(spec.name).generate_keys(plan)
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    record = KeyRecord(secret.key_id, spec.name, role, model.name, model.program.digest, plan.digest, now)
    return Keys(model, plan, record, secret, public)


def load_submitter(directory: Path | str, *, passphrase: str | None = None) -> SubmitterKeys:
    """The encrypting side from a key directory, or from one of its halves.

    Raises `UseOtherKeyError` when the half that the role encrypts with is not there.
    """
    directory = Path(directory)
    record = read_record(directory)
    if record.role == "split":
        half = _half(directory, "public")
        if half is None:
            raise UseOtherKeyError(
                f"{directory} holds no public key", remedy="In role split, encrypt with the directory DIR/public."
            )
        model, plan = _read_common(half, record)
        public = _read_public(half, record, plan)
        return SubmitterKeys(model, plan, record, public, _evaluation_key(plan, public), _read_published(half, plan))
    holder = load_holder(directory, passphrase=passphrase)
    if not holder.plan.evaluation_key_bytes:
        published = _read_published(secret_half(directory), holder.plan)
        return SubmitterKeys(holder.model, holder.plan, holder.record, holder.key, None, published)
    half = _half(directory, "public") or _half(directory / "secret", "public")
    if half is None:
        raise UseOtherKeyError(
            f"{directory} holds no public key, which the service needs to mask its answers",
            remedy="Give the whole key directory, or copy DIR/public/public.key into DIR/secret.",
        )
    _read_common(half, holder.record)
    evaluation = _evaluation_key(holder.plan, _read_public(half, holder.record, holder.plan))
    published = _read_published(secret_half(directory), holder.plan)
    return SubmitterKeys(holder.model, holder.plan, holder.record, holder.key, evaluation, published)


def load_holder(directory: Path | str, *, passphrase: str | None = None) -> HolderKeys:
    """The decrypting side from a key directory, or from its secret half."""
    record, half = read_record(directory), secret_half(directory)
    model, plan = _read_common(half, record)
    content = files.read_secret(half / SECRET_KEY_FILE, limit=MAX_KEY_BYTES, passphrase=passphrase)
    secret = registry.owner_module(plan.engine).secret_key_from_bytes(plan, content)
    _check_key_id(half, record, secret.key_id)
    return HolderKeys(model, plan, record, secret)


def secret_half(directory: Path | str) -> Path:
    """Where the secret half of a key directory is, DIR/secret or DIR itself, or `UseOtherKeyError`."""
    directory = Path(directory)
    half = _half(directory, "secret")
    if half is None:
        same = read_record(directory).role == "same"
        doing = "In role same, encrypting and decrypting both need" if same else "This needs"
        raise UseOtherKeyError(f"{directory} holds no secret key", remedy=f"{doing} the key holder's DIR/secret.")
    return half


def load_keys(directory: Path | str, *, passphrase: str | None = None) -> Keys:
    """Both sides from a whole key directory, as `Keys.save` wrote it."""
    directory = Path(directory)
    holder, half = load_holder(directory, passphrase=passphrase), _half(directory, "public")
    if half is None:
        raise UseOtherKeyError(f"{directory} lacks its half public/", remedy="Give the whole key directory.")
    _read_common(half, holder.record)
    public = _read_public(half, holder.record, holder.plan)
    published = _read_published(secret_half(directory) if holder.record.role == "same" else half, holder.plan)
    return Keys(holder.model, holder.plan, holder.record, holder.key, public, published)


def read_record(directory: Path | str) -> KeyRecord:
    """What a key directory, or one of its halves, says about its key."""
    directory = Path(directory)
    for half in (directory, directory / "public", directory / "secret"):
        if (half / KEY_FILE).is_file():
            path = half / KEY_FILE
            return codec.from_plain(KeyRecord, files.read_json(path, limit=1 << 16), where=str(path))
    raise FixInputError(
        f"{directory} is no key directory", remedy="Make one with: securead keygen --server URL --model NAME --out DIR"
    )


def read_plan(directory: Path | str) -> tuple[PublicModel, Plan]:
    """The model and the plan that a key directory's key is for."""
    directory = Path(directory)
    record = read_record(directory)
    half = _half(directory, "public") or _half(directory, "secret")
    if half is None:
        raise FixInputError(f"{directory} holds no key", remedy="Make the keys again.")
    return _read_common(half, record)


def _half(directory: Path, name: str) -> Path | None:
    file = PUBLIC_KEY_FILE if name == "public" else SECRET_KEY_FILE
    return next((half for half in (directory, directory / name) if (half / file).is_file()), None)


def _read_common(half: Path, record: KeyRecord) -> tuple[PublicModel, Plan]:
    where = str(half / MODEL_FILE)
    model = codec.from_plain(PublicModel, files.read_json(half / MODEL_FILE, limit=MAX_PUBLIC_BYTES), where=where)
    plan = registry.plan_module(record.engine).plan_from_plain(files.read_json(half / PLAN_FILE))
    found = (model.program.digest, plan.program_digest, plan.digest, plan.role, plan.engine, read_record(half))
    if found != (record.program, record.program, record.plan, record.role, record.engine, record):
        raise FixInputError(
            f"the files of {half} do not belong together", remedy="They were mixed up or changed: make new keys."
        )
    return model, plan


def _read_public(half: Path, record: KeyRecord, plan: Plan) -> PublicKey:
    content = files.read_bytes(half / PUBLIC_KEY_FILE, limit=MAX_KEY_BYTES)
    public = registry.owner_module(plan.engine).public_key_from_bytes(plan, content)
    _check_key_id(half, record, public.key_id)
    return public


def _read_published(half: Path, plan: Plan) -> bytes | None:
    """What the service publishes, from the half that encrypts; the engine checks it when it is used."""
    size = setup.setup_bytes(plan)
    return files.read_bytes(half / SETUP_FILE, limit=size) if size else None


def _evaluation_key(plan: Plan, public: PublicKey) -> bytes | None:
    return public.to_bytes() if plan.evaluation_key_bytes else None


def _check_key_id(half: Path, record: KeyRecord, key_id: str) -> None:
    if key_id != record.key:
        raise UseOtherKeyError(
            f"{half} holds another key than its {KEY_FILE} says",
            value=key_id,
            remedy="They were mixed up or changed: make new keys.",
        )
