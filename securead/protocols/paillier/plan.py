"""Public parameters of blind lookups: how many rows share a ciphertext, and the length of everything.

Guarantees of every plan:

* keys have 3,072 bits: 128 bits of security (NIST SP 800-57), and a blind hides to 2**-128 whatever is packed;
* a score's bits are all that a row takes of a plaintext, so scores are exact and an answer has no other bits;
* the plan is the same on every machine.

This module imports no cryptography.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

from securead import codec
from securead.errors import FixInputError, FixProgramError
from securead.program.program import PublicProgram
from securead.program.table import PublicTable
from securead.protocols.engine import EngineSpec, Role
from securead.protocols.paillier.keys import KEY_BITS
from securead.protocols.paillier.work import work as work

ENGINE = EngineSpec(
    name="paillier",
    package="securead.protocols.paillier",
    roles=("same",),
    operations=("lookup",),
    extra="paillier",
    sanitised=True,
    setup=True,
    summary="table programs by blind lookup in published Paillier ciphertexts: exact, under a kilobyte for 200 rows",
)

SECURITY_BITS = 128
HIDING_BITS = 129  # below the modulus, beyond all scores that share it: the blind hides to 2**-128
MAX_ROWS = 1024
ROOTS = 10
PREAMBLE_BYTES = 4 + 32  # rows u32, key id
NAME_BYTES, SALT_BYTES, HEAD_BYTES = 32, 32, 32


@dataclass(frozen=True)
class PaillierPlan:
    """See `securead.protocols.engine.Plan`. A value with a smaller key, or without room to hide, cannot be made."""

    role: Role
    program_digest: str
    sizes: tuple[int, ...]
    largest: int
    score_bits: int
    unit: float
    key_bits: int
    rows_per_chunk: int

    def __post_init__(self) -> None:
        def require(condition: bool, what: str, value: object) -> None:
            if not condition:
                raise FixInputError(what, where="Paillier plan", value=value, remedy="The plan is damaged or foreign.")

        require(self.role == "same", "only who encrypts can read an answer", self.role)
        require(self.key_bits == KEY_BITS, f"keys have {KEY_BITS} bits", self.key_bits)
        require(len(self.sizes) >= 1 and min(self.sizes) >= 1, "a program has tables", len(self.sizes))
        require(self.entries <= 1 << 20, "absurdly many entries", self.entries)
        require(1 <= self.largest < 1 << 24 and 1 <= self.score_bits <= 40, "an absurd range", self.largest)
        require(0 < self.unit < math.inf, "the unit is positive", self.unit)
        most = most_rows(self.score_bits)
        require(1 <= self.rows_per_chunk <= most, f"at most {most} rows share a ciphertext", self.rows_per_chunk)

    @property
    def engine(self) -> str:
        return ENGINE.name

    @functools.cached_property
    def digest(self) -> str:
        """Names the plan in messages, and binds keys and what is published to it."""
        return codec.digest(self, domain="securead.protocols.paillier.plan.v1")

    @property
    def error_bound(self) -> float:
        """Scores are exact."""
        return 0.0

    @property
    def security_bits(self) -> int:
        return SECURITY_BITS

    @property
    def entries(self) -> int:
        """Entries of all tables."""
        return sum(self.sizes)

    @property
    def residue_bytes(self) -> int:
        """A number modulo n; a ciphertext has twice as many."""
        return self.key_bits // 8

    @property
    def packed_bits(self) -> int:
        """What a full chunk's scores take of a plaintext."""
        return self.score_bits * self.rows_per_chunk

    @property
    def request_bytes(self) -> int:
        """The exact length of a request of any number of rows."""
        return PREAMBLE_BYTES + NAME_BYTES + SALT_BYTES + 2 * self.residue_bytes

    def answer_bytes(self, rows: int) -> int:
        """The exact length of an answer."""
        return PREAMBLE_BYTES + SALT_BYTES + -(-self.score_bits * rows // 8)

    @property
    def max_request_bytes(self) -> int:
        return self.request_bytes

    @property
    def max_answer_bytes(self) -> int:
        return self.answer_bytes(self.rows_per_chunk)

    @property
    def evaluation_key_bytes(self) -> int:
        """None: the service decrypts with a key of its own."""
        return 0

    @property
    def setup_bytes(self) -> int:
        """The exact length of what the service publishes: its modulus, the roots, and a ciphertext an entry."""
        return HEAD_BYTES + NAME_BYTES + (1 + ROOTS + 2 * self.entries) * self.residue_bytes

    @property
    def crafted_rows(self) -> int:
        """The fewest rows from which crafted queries could read all entries, if each has all of its bits."""
        return -(-self.entries * self.largest.bit_length() // self.score_bits)

    def describe(self) -> tuple[tuple[str, str], ...]:
        """Name and value pairs for people, in the order they are best read."""
        rows, bits = self.rows_per_chunk, self.score_bits
        return (
            ("engine", "Paillier, blind lookup in published tables"),
            ("role", self.role),
            ("security", f"{self.security_bits} bits: the service's modulus has {self.key_bits} bits"),
            ("records a request", str(rows)),
            ("scores", f"exact, below 2**{bits}"),
            ("hiding", f"a request is within 2**-{HIDING_BITS - 1} of random, for any service and any table"),
            (
                "reveals",
                f"the scores; to a query made otherwise, {bits} bits a record: {self.crafted_rows:,} records or more "
                "could read the tables",
            ),
            ("published tables, bytes once", str(self.setup_bytes)),
            ("upload, bytes a record at most", f"{self.request_bytes / rows:.0f} of {rows}"),
            ("upload, bytes for one record", str(self.request_bytes)),
            ("download, bytes for one record", str(self.answer_bytes(1))),
            ("public key at the service, bytes", "0"),
        )


def most_rows(score_bits: int) -> int:
    """How many scores of so many bits share a plaintext and leave room to hide them."""
    return min(MAX_ROWS, (KEY_BITS - 1 - HIDING_BITS) // score_bits)


def make_plan(program: PublicProgram, role: Role) -> PaillierPlan:
    """Derive parameters, or raise `FixProgramError` with the smallest change that would fit."""
    public = carried(program)
    if role != "same":
        raise FixProgramError(
            "a blind lookup is opened by whoever encrypted it",
            where="paillier",
            value=role,
            remedy="Use role same, or the engine bfv.",
        )
    return PaillierPlan(
        role=role,
        program_digest=public.digest,
        sizes=public.sizes,
        largest=public.largest,
        score_bits=public.score_bits,
        unit=public.unit,
        key_bits=KEY_BITS,
        rows_per_chunk=most_rows(public.score_bits),
    )


def plan_from_plain(plain: object) -> PaillierPlan:
    """Read back `codec.to_plain(plan)`; anything but a sound plan is a `FixInputError`."""
    return codec.from_plain(PaillierPlan, plain, where="Paillier plan")


def carried(public: PublicProgram) -> PublicTable:
    """The public half of a table program; any other is `FixProgramError`."""
    if not isinstance(public, PublicTable):
        raise FixProgramError(
            "the engine paillier looks tables up and computes nothing else",
            where="paillier",
            value=sorted(public.operations),
            remedy="Name an engine that carries these operations, or compile a detector to tables.",
        )
    return public
