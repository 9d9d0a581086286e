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
from securead.program.program import Program, PublicProgram

Role = Literal["same", "split"]


@runtime_checkable
class Plan(Protocol):
    """Everything public about one program on one engine in one role; a frozen value with a digest.

    `rows_per_chunk`: records in one request. `error_bound`: worst absolute error of a score against the integer
    program, in score units, and the probability with which it may fail. `max_request_bytes`, `max_answer_bytes`:
    no honest payload is larger; readers refuse more before they parse. `evaluation_key_bytes`: 0, or the most that an
    owner's public key may weigh, which the service then needs before it evaluates: it masks answers with it.
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
    @property
    def evaluation_key_bytes(self) -> int: ...
    def describe(self) -> tuple[tuple[str, str], ...]:
        """Name and value pairs for people, in the order they are best read."""


class SecretKey(Protocol):
    """A key that decrypts. `to_bytes` is a secret."""

    @property
    def key_id(self) -> str: ...
    def to_bytes(self) -> bytes: ...


class PublicKey(Protocol):
    """A key that only encrypts. Where a plan asks for an evaluation key, `to_bytes` is what the service is sent."""

    @property
    def key_id(self) -> str: ...
    def to_bytes(self) -> bytes: ...


class EvaluationKey(Protocol):
    """An owner's public key as the service holds it, checked and ready."""

    @property
    def key_id(self) -> str: ...


@runtime_checkable
class RefillableKey(EvaluationKey, Protocol):
    """An evaluation key that can make ahead of time what its answers use up. No engine has to offer this.

    What is made is independent of every request, used for one answer at most, and by the process that made it: a child
    that was forked holds none. An answer that finds nothing makes what it needs at once. Calls are safe from any
    thread, during an evaluation, too.
    """

    @property
    def held_bytes(self) -> int:
        """The memory that waits to be used up."""

    def refill(self, limit: int | None = None) -> int:
        """Make the smallest amount there is, unless more than `limit` bytes would wait then: the bytes it added.

        0 says that there was no room. What exceeds the limit already is dropped unused, so that `refill(0)` empties.
        Without a limit, something is made.
        """


class Encryptor(Protocol):
    """Encrypts chunks of queries for one plan: what the program's `queries` makes of encoded records."""

    def encrypt(self, queries: Array) -> bytes:
        """The request payload for integers `(n, columns)`, 1 <= n <= rows_per_chunk. Fresh randomness every time."""


class Decryptor(Protocol):
    """Decrypts answers for one plan."""

    def decrypt(self, answer: bytes, rows: int) -> Array:
        """Float64 scores `(rows,)`. In role `same` without the public terms, which the submitter adds."""


class Evaluator(Protocol):
    """Holds the secret half and scores requests it cannot read."""

    def evaluate(self, request: bytes, key: EvaluationKey | None = None, *, rows: int | None = None) -> bytes:
        """The answer payload. Raises `RejectMessageError` for anything but a well-formed request.

        `key` is the request's owner's where the plan asks for one, and is not looked at otherwise. `rows` is what the
        message claims to hold: where an engine can tell, a payload of another number is refused.
        """


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
    def read_evaluation_key(self, plan: Plan, content: bytes) -> EvaluationKey:
        """An owner's public key, or `RejectMessageError`: damaged, foreign, or the plan asks for none."""


@dataclass(frozen=True)
class EngineSpec:
    """Where an engine's halves live and what it can carry, known without importing any of them.

    `operations`: the tags of a polynomial program's steps, or "lookup" for tables; a program whose `operations` are
    among them is carried, as far as parameters exist that fit. `sanitised`: an answer tells its key holder no more than
    the scores, as the engine's SPEC argues. `whole_chunks`: an answer yields `rows_per_chunk` scores to its key holder
    however few rows the message claims, because rows that are not used are scored, too, and nobody can see which.
    `parties`: how many processes that must not collude compute one answer. Beyond one, the engine is no half of a
    scoring service: it has `plan` and `owner`, and its own parties instead of `blind`.
    """

    name: str
    package: str
    roles: tuple[Role, ...]
    operations: tuple[str, ...]
    extra: str
    summary: str
    sanitised: bool = False
    whole_chunks: bool = False
    parties: int = 1
