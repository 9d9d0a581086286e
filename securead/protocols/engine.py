"""What an engine offers: three modules that three different roles import.

* `plan`: public parameters derived from a program's public half. Imports no cryptography.
* `owner`: keys, encryption, decryption. Only a data owner or a key holder imports it.
* `blind`: evaluation of what cannot be read. Only the scoring service imports it.

The protocols below are the whole contract; `securead.checks.check_engine` tests an engine against it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
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
    owner's public key may weigh, which the service then needs before it evaluates: it masks answers with it. A plan may
    tell by `held_key_bytes` what such a key takes in memory, where that is not five times as much.
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


@dataclass(frozen=True)
class Work:
    """What one request of some records costs, in units and not in seconds: the input of the planner's cost model.

    Four phases, each a mapping from the name of a kind of operation to how many units of it there are: `client` turns
    encoded records into a request, `server` turns it into an answer when all that can be made ahead of time has been,
    `offline` is what is made ahead for one such answer (masks; 0 where nothing is), and `holder` turns the answer into
    scores. Of several parties, `server` is one party's computation, which the slowest of them decides.

    Calibration fits seconds to units engine by engine and phase by phase: a name means the same in every plan of one
    engine, whatever its parameters and role, and nothing beyond it. Few names fit well: one for each kind of loop that
    counts, in the elementary steps that it takes (coefficients times primes, not ciphertexts), and one, with amount 1,
    for what every request costs. Amounts follow from the plan, the public half and the number of rows alone: no weight
    is looked at, and layers count as if they were dense.

    Traffic of this request: `up_bytes` and `down_bytes` are the payloads (of all parties in sum), `between_bytes` what
    passes between parties and waits its turn (one direction), `offline_bytes` what is sent ahead of requests.
    `ways`: messages that wait for one another, 2 for a request and its answer.
    """

    client: Mapping[str, float]
    server: Mapping[str, float]
    holder: Mapping[str, float]
    offline: Mapping[str, float] = field(default_factory=dict)
    up_bytes: int = 0
    down_bytes: int = 0
    between_bytes: int = 0
    offline_bytes: int = 0
    ways: int = 2

    def __post_init__(self) -> None:
        for phase in PHASES:
            amounts = dict(getattr(self, phase))
            if not all(0 <= amount < math.inf for amount in amounts.values()):
                raise ValueError(f"amounts of work are finite and not negative: {phase} {amounts}")
            object.__setattr__(self, phase, MappingProxyType(amounts))

    def of(self, phase: str) -> Mapping[str, float]:
        """The amounts of one of `PHASES`."""
        amounts: Mapping[str, float] = getattr(self, phase)
        return amounts


PHASES = ("client", "server", "offline", "holder")


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


@runtime_checkable
class FloodReader(Decryptor, Protocol):
    """A decryptor that can show the flood of an answer: what a measurement checks for. No engine has to offer this."""

    def in_floods(self, answer: bytes, other: bytes, rows: int) -> Array | None:
        """Float64 `(rows,)`: how far two answers to one request are apart, in deviations of the promised flood.

        They differ by their floods alone, but for what is small beside them. None where the rounding of a finished
        answer is not small beside a flood that was added before: then no answer shows it.
        """


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


@runtime_checkable
class PlanModuleWithWork(Protocol):
    """A plan module that also says what requests cost. No engine has to: without it the planner predicts no times.

    Engines of this package have it in `work.py` beside `plan.py`, which takes it in: `from ..work import work as work`.
    """

    def work(self, plan: Plan, public: PublicProgram, rows: int) -> Work:
        """What a request of `rows` records, 1 <= rows <= plan.rows_per_chunk, takes. Exact in bytes."""


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
    scoring service: it has `plan` and `owner`, and its own parties instead of `blind`. `setup`: the service makes
    something once for a program, keeps a secret of it and publishes the rest, which owners need before they encrypt
    (`securead.protocols.setup`); such an engine has one role. `degrees`: the least and the largest total degree of a
    polynomial program that is carried.
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
    setup: bool = False
    degrees: tuple[int, int] = (1, 1 << 16)

    def carries(self, public: PublicProgram) -> bool:
        """Whether all of a program's operations, and its degree, are among those that the engine knows.

        Whether parameters exist that fit is another question: `make_plan` answers it.
        """
        least, most = self.degrees
        return public.operations <= {*self.operations} and least <= getattr(public, "degree", least) <= most
