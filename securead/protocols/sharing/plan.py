"""Parameters of a program under two-party secret sharing, derived from its public half alone.

Guarantees: with `make_plan(public, "same")`

* every sign that is taken, every truncation and the score concern values of at most 2**62 in magnitude, so that
  integers in the ring of 2**64 are the oracle's; other values may wrap around without harm;
* a score is the oracle's up to `error_bound`, 0 for a program without truncations, except with the probability
  `failure_probability` a record; then it is likely to lie outside `in_range` and is computed again;
* parties, dealer and clients derive the same sequence of correlations (`correlations`), hence rounds and bytes.

This module imports no cryptography.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

from securead import codec
from securead.errors import FixInputError, FixProgramError
from securead.program import polynomial
from securead.program.polynomial import Affine, Product, PublicPolynomial, Relu, Step, Truncate
from securead.program.program import PublicProgram
from securead.program.truncation import failure_probability, worst_error
from securead.protocols.engine import EngineSpec, Role
from securead.protocols.sharing.correlations import (
    BitProduct,
    Correlation,
    MatrixTriple,
    SquarePair,
    Triple,
    or_correlation,
    party_words,
    sign_correlations,
    size,
)
from securead.protocols.sharing.work import work as work

ENGINE = EngineSpec(
    name="sharing",
    package="securead.protocols.sharing",
    roles=("same",),
    operations=("input", "affine", "product", "relu", "truncate", "lookup"),
    extra="mpc",
    sanitised=True,
    parties=2,
    summary="polynomial programs with ReLUs and table programs on additive shares between two parties and a dealer",
)

WORD_BYTES = 8
SEED_BYTES = 32
SALT_BYTES = 32  # before party 0's words, so that their hash, which party 1 is told, tells it nothing
VALUE_BITS = 62
MAX_ROWS = 8192
MAX_REQUEST_BYTES, MAX_CORRECTION_BYTES = 32 << 20, 128 << 20
# A record is computed again when its score is out of range: fewer than one in a thousand.
MAX_FAILURE_BITS = 10


@dataclass(frozen=True)
class SharingPlan:
    """See `securead.protocols.engine.Plan`. `steps` of a polynomial program, or `sizes` of a program's tables.

    `public_terms`: whether the client shares the value of its public terms as one more column.
    """

    role: Role
    program_digest: str
    steps: tuple[Step, ...]
    sizes: tuple[int, ...]
    public_terms: bool
    score_bits: int
    error_bound: float
    rows_per_chunk: int

    def __post_init__(self) -> None:
        def require(condition: bool, what: str, value: object) -> None:
            if not condition:
                raise FixInputError(what, where="sharing plan", value=value, remedy="The plan is damaged or foreign.")

        require(self.role == "same", "sharing has the role same only", self.role)
        require(bool(self.steps) != bool(self.sizes), "a plan has steps or tables", len(self.steps))
        require(len(self.steps) <= polynomial.MAX_STEPS and len(self.sizes) <= 1024, "too many", len(self.sizes))
        require(not self.sizes or 1 <= min(self.sizes) <= sum(self.sizes) <= 1 << 20, "no tables", len(self.sizes))
        require(not (self.sizes and self.public_terms), "tables have no public terms", self.public_terms)
        require(1 <= self.score_bits <= VALUE_BITS, "scores beyond the ring", self.score_bits)
        require(_overflowing(self.steps) is None, "a value beyond the ring", _overflowing(self.steps))
        require(0 <= self.error_bound < math.inf, "the error bound is finite", self.error_bound)
        rows = self.rows_per_chunk
        require(1 <= rows <= MAX_ROWS and rows & (rows - 1) == 0, "a chunk is a power of two", rows)

    @property
    def engine(self) -> str:
        return ENGINE.name

    @functools.cached_property
    def digest(self) -> str:
        """Names the plan in handshakes and messages."""
        return codec.digest(self, domain="securead.protocols.sharing.plan.v1")

    @property
    def security_bits(self) -> int:
        """Of AES-256 and the transport; shares themselves hide perfectly."""
        return 128

    @functools.cached_property
    def failure_probability(self) -> float:
        """The most with which one record meets a truncation that fails."""
        return failure_probability(self.steps)

    @property
    def input_width(self) -> int:
        """Words of one record: its columns and its public term, or one for each entry of all tables."""
        return sum(self.sizes) if self.sizes else self.steps[0].width + self.public_terms

    @property
    def max_request_bytes(self) -> int:
        """The larger payload of a request, party 0's."""
        return self.request_bytes(self.rows_per_chunk)

    @property
    def max_answer_bytes(self) -> int:
        return WORD_BYTES * self.rows_per_chunk

    @property
    def evaluation_key_bytes(self) -> int:
        return 0

    def request_bytes(self, rows: int) -> int:
        """The exact length of party 0's payload; party 1's is `SEED_BYTES`."""
        return SALT_BYTES + WORD_BYTES * rows * self.input_width

    def bucket(self, rows: int) -> int:
        """The number of rows that the parties compute with: the next power of two. They fill up with zero rows."""
        if not 1 <= rows <= self.rows_per_chunk:
            raise FixInputError(f"a chunk has 1 to {self.rows_per_chunk} rows", value=rows, remedy="Split it.")
        return 1 << (rows - 1).bit_length()

    @property
    def buckets(self) -> tuple[int, ...]:
        """All numbers of rows that a set of correlations can be dealt for."""
        return tuple(1 << at for at in range(self.rows_per_chunk.bit_length()))

    def correlations(self, rows: int, verdict: bool) -> tuple[Correlation, ...]:
        """What `bucket(rows)` rows consume, in this order; with `verdict`, also the comparison with the threshold."""
        n, found = self.bucket(rows), list[Correlation]()
        if self.sizes:
            found.append(MatrixTriple((n, sum(self.sizes)), (sum(self.sizes), 1)))
        for step in self.steps:
            match step:
                case Affine():
                    width = sum(self.steps[s].width for s in step.sources)
                    found.append(MatrixTriple((n, width), (width, step.width)))
                case Product():
                    shape = (n, step.width)
                    found.append(SquarePair(shape) if step.left == step.right else Triple(shape, shape))
                case Relu():
                    found += [*sign_correlations(n * step.width), BitProduct((n, step.width))]
                case _:
                    pass
        if verdict:
            found += [*sign_correlations(2 * n), or_correlation(n)]
        return tuple(found)

    def rounds(self, verdict: bool) -> int:
        """Messages that each party sends the other, one after the other, whatever the number of rows."""
        return len(self.correlations(1, verdict))

    def online_bytes(self, rows: int, verdict: bool) -> int:
        """Bytes of shares that each party sends the other for one chunk, without framing."""
        return WORD_BYTES * sum(each.opened for each in self.correlations(rows, verdict))

    def offline_bytes(self, rows: int, verdict: bool) -> int:
        """Bytes that the dealer sends party 0 for one chunk, without framing; party 1 needs none."""
        return WORD_BYTES * sum(size(each.result) for each in self.correlations(rows, verdict))

    def stock_bytes(self, rows: int, verdict: bool) -> int:
        """Memory that party 0 needs to compute one chunk with a set: corrections and what is expanded."""
        expanded = sum(party_words(each, 1) for each in self.correlations(rows, verdict))
        return WORD_BYTES * expanded

    @property
    def lowest_score(self) -> int:
        """No score is lower: 0 of tables, else the negated bound."""
        return 0 if self.sizes else -(1 << self.score_bits)

    @property
    def highest_score(self) -> int:
        """No score is higher."""
        return 1 << self.score_bits

    def describe(self) -> tuple[tuple[str, str], ...]:
        """Name and value pairs for people, in the order they are best read."""
        rows = self.rows_per_chunk
        failure = self.failure_probability
        often = f"2**{math.log2(failure):.0f} a record" if failure else "never"
        return (
            ("engine", "additive shares modulo 2**64 between two parties, correlations from a dealer (CrypTen)"),
            ("role", self.role),
            ("assumption", "the two parties do not collude with each other, nor the dealer with either"),
            ("records a request", str(rows)),
            ("scores", "exact" if not self.error_bound else f"within {self.error_bound:.3g} of the integer program"),
            ("a truncation fails at most", often),
            ("rounds between the parties", f"{self.rounds(False)}, with a verdict {self.rounds(True)}"),
            ("upload, bytes a record", f"{WORD_BYTES * self.input_width} and {SALT_BYTES + SEED_BYTES} a request"),
            ("between parties, bytes a record", f"{2 * self.online_bytes(rows, False) / rows:.0f} of {rows}"),
            ("from the dealer, bytes a record", f"{self.offline_bytes(rows, False) / rows:.0f} of {rows}"),
        )


def make_plan(program: PublicProgram, role: Role) -> SharingPlan:
    """Derive the plan, or raise `FixProgramError` with the smallest change that would fit."""
    steps: tuple[Step, ...] = ()
    sizes: tuple[int, ...] = ()
    error, terms = 0.0, False
    if isinstance(program, PublicPolynomial):
        steps, terms = program.steps, bool(program.public_terms)
        error = float(worst_error(steps)) / 2.0**program.score_fraction_bits
        _require_room(program, error)
    else:
        sizes = program.sizes
    if role != "same":
        raise FixProgramError(
            "on shares there is no role but same: scores go to whomever the request names",
            where="sharing",
            value=role,
            remedy='Use role "same".',
        )

    def plan(rows: int) -> SharingPlan:
        return SharingPlan(role, program.digest, steps, sizes, terms, program.score_bits, error, rows)

    rows = MAX_ROWS
    while rows > 1:
        made = plan(rows)
        if made.request_bytes(rows) <= MAX_REQUEST_BYTES and made.offline_bytes(rows, True) <= MAX_CORRECTION_BYTES:
            break
        rows //= 2
    return plan(rows)


def plan_from_plain(plain: object) -> SharingPlan:
    """Read back `codec.to_plain(plan)`; anything but a sound plan is a `FixInputError`."""
    return codec.from_plain(SharingPlan, plain, where="sharing plan")


def _overflowing(steps: tuple[Step, ...]) -> int | None:
    """The first step whose sign or truncation concerns values beyond the ring."""
    for at, step in enumerate(steps):
        if isinstance(step, Relu | Truncate) and steps[step.source].bound_bits > VALUE_BITS:
            return at
    return None


def _require_room(program: PublicPolynomial, error: float) -> None:
    """Refuse values beyond the ring, truncations that fail often, and errors beyond the program's tolerance."""
    remedy = f"Compile with compile(ring_bits={VALUE_BITS})"
    at = _overflowing(program.steps)
    bits = program.score_bits if at is None else program.steps[program.steps[at].source].bound_bits  # type: ignore[union-attr]
    if bits > VALUE_BITS:
        what = "the score" if at is None else f"what step {at} works on"
        raise FixProgramError(
            f"{what} needs {bits} bits, shares have room for {VALUE_BITS}",
            where="sharing",
            value=bits,
            remedy=f"{remedy}, or with {bits - VALUE_BITS} fraction or weight bits fewer in all.",
        )
    failure = failure_probability(program.steps)
    if failure > 2.0**-MAX_FAILURE_BITS:
        raise FixProgramError(
            "truncations on shares would fail too often for this program",
            where="sharing",
            value=f"2**{math.log2(failure):.1f} a record",
            remedy=f"{remedy}, or with fewer fraction bits before truncations.",
        )
    if error > program.tolerance:
        raise FixProgramError(
            "truncations on shares may move a score by more than the program's tolerance",
            where="sharing",
            value=f"{error:.3g} > {program.tolerance:.3g}",
            remedy=f"{remedy}, which declares what truncations cost, or with more fraction bits.",
        )
