"""What an engine offers: three modules that three different roles import.

* `plan`: public parameters derived from a program's public half. Imports no cryptography.
* `owner`: keys, encryption, decryption. Only a data owner or a key holder imports it.
* `blind`: evaluation of what cannot be read. Only the scoring service imports it.

The protocols below are the whole contract; `securead.checks.check_engine` tests an engine against it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from securead.data.schema import Array
from securead.program.polynomial import Program, PublicProgram

Role = Literal["same", "split"]


@runtime_checkable
class Plan(Protocol):
    """Everything public about one program on one engine in one role; a frozen value with a digest.

    `rows_per_chunk`: records in one request. `error_bound`: worst absolute error of a score against the integer
    program, in score units, and the probability with which it may fail. `max_request_bytes`, `max_answer_bytes`:
    no honest payload is larger; readers refuse more before they parse.
    """

    @property
    def engine(self) -> str: ...
    @property
    def role(self) -> Role: ...
    @property
    def program_digest(self) -> str: ...
    @property
    def digest(self) -> str: ...
    @property
    def rows_per_chunk(self) -> int: ...
    @property
    def error_bound(self) -> float: ...
    @property
    def security_bits(self) -> int: ...
    @property
    def max_request_bytes(self) -> int: ...
    @property
    def max_answer_bytes(self) -> int: ...
    def describe(self) -> tuple[tuple[str, str], ...]:
        """Name and value pairs for people, in the order they are best read."""


class SecretKey(Protocol):
    """A key that decrypts. `to_bytes` is a secret."""

    @property
    def key_id(self) -> str: ...
    def to_bytes(self) -> bytes: ...


class PublicKey(Protocol):
    """A key that only encrypts."""

    @property
    def key_id(self) -> str: ...
    def to_bytes(self) -> bytes: ...


class Encryptor(Protocol):
    """Encrypts chunks of encoded records for one plan."""

    def encrypt(self, Z: Array) -> bytes:
        """The request payload for integers `(n, width)`, 1 <= n <= rows_per_chunk. Fresh randomness every time."""


class Decryptor(Protocol):
    """Decrypts answers for one plan."""

    def decrypt(self, answer: bytes, rows: int) -> Array:
        """Float64 scores `(rows,)`. In role `same` without the public terms, which the submitter adds."""


class Evaluator(Protocol):
    """Holds the secret half and scores requests it cannot read."""

    def evaluate(self, request: bytes) -> bytes:
        """The answer payload. Raises `RejectMessageError` for anything but a well-formed request."""


class PlanModule(Protocol):
    """`securead.protocols.<engine>.plan`."""

    def make_plan(self, public: PublicProgram, role: Role) -> Plan:
        """Derive parameters, or raise `FixProgramError` with the smallest change that would fit."""

    def plan_from_plain(self, plain: object) -> Plan:
        """Read back `codec.to_plain(plan)`, as key directories store it."""


class OwnerModule(Protocol):
    """`securead.protocols.<engine>.owner`."""

    def generate_keys(self, plan: Plan) -> tuple[SecretKey, PublicKey]: ...
    def secret_key_from_bytes(self, plan: Plan, content: bytes) -> SecretKey: ...
    def public_key_from_bytes(self, plan: Plan, content: bytes) -> PublicKey: ...
    def make_encryptor(self, plan: Plan, key: SecretKey | PublicKey) -> Encryptor:
        """A secret key for role `same`, a public key for role `split`; anything else is `UseOtherKeyError`."""

    def make_decryptor(self, plan: Plan, key: SecretKey) -> Decryptor: ...


class BlindModule(Protocol):
    """`securead.protocols.<engine>.blind`."""

    def make_evaluator(self, plan: Plan, program: Program) -> Evaluator: ...


@dataclass(frozen=True)
class EngineSpec:
    """Where an engine's halves live and what it can carry, known without importing any of them."""

    name: str
    package: str
    roles: tuple[Role, ...]
    program_kinds: tuple[str, ...]
    steps: tuple[str, ...]
    extra: str
    summary: str
