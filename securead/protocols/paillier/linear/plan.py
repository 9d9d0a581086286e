"""Public parameters of linear scores on encrypted features: how many rows share a ciphertext, and all lengths.

Guarantees of every plan:

* keys have 3,072 bits: 128 bits of security (NIST SP 800-57);
* a row's slot holds every value that a linear score can take, so scores are exact and no slot touches the next;
* the plan is the same on every machine.

This module imports no cryptography.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

from securead import codec
from securead.errors import FixInputError, FixProgramError
from securead.program.polynomial import Affine, PublicPolynomial
from securead.program.program import PublicProgram
from securead.program.table import PublicTable
from securead.protocols.engine import EngineSpec, Role
from securead.protocols.paillier.keys import KEY_BITS
from securead.protocols.paillier.linear.work import work as work
from securead.protocols.paillier.plan import HIDING_BITS, MAX_ROWS, PREAMBLE_BYTES, ROOTS, SECURITY_BITS
from securead.protocols.seal.keyfiles import PREFIX_BYTES

ENGINE = EngineSpec(
    name="paillier-linear",
    package="securead.protocols.paillier.linear",
    roles=("same", "split"),
    operations=("input", "affine", "lookup"),
    extra="paillier",
    sanitised=True,
    summary="linear scores on features encrypted one by one under the owner's Paillier key: the classical use",
    degrees=(1, 1),
)

MAX_FEATURES = 4096
DIGIT_BITS = 8  # of a weight: what the service multiplies up at a time


@dataclass(frozen=True)
class LinearPlan:
    """See `securead.protocols.engine.Plan`.

    `sizes`: of tables, whose features are ones and zeros; empty for a polynomial, whose features are the record's
    columns. A weight is in [0, 2**weight_bits), or of that magnitude with `signed`; so is a score, with `value_bits`.
    """

    role: Role
    program_digest: str
    sizes: tuple[int, ...]
    features: int
    largest: int
    signed: bool
    weight_bits: int
    value_bits: int
    score_bits: int
    unit: float
    public_terms: bool
    key_bits: int
    rows_per_chunk: int

    def __post_init__(self) -> None:
        def require(condition: bool, what: str, value: object) -> None:
            if not condition:
                raise FixInputError(what, where="linear plan", value=value, remedy="The plan is damaged or foreign.")

        require(self.key_bits == KEY_BITS, f"keys have {KEY_BITS} bits", self.key_bits)
        require(1 <= self.features <= MAX_FEATURES, "an absurd number of features", self.features)
        require(self.sizes == () or sum(self.sizes) == self.features, "a table's entries are features", self.features)
        require(all(size >= 1 for size in self.sizes), "a table has entries", self.sizes)
        require(1 <= self.largest <= 1 << 62, "an absurd feature", self.largest)
        require(0 <= self.weight_bits <= 2048 and 1 <= self.value_bits <= 2048, "an absurd range", self.value_bits)
        require(0 < self.unit < math.inf, "the unit is positive", self.unit)
        require(self.role == "same" or not self.public_terms, "public terms are added in role same", self.role)
        most = most_rows(self.slot_bits)
        require(1 <= self.rows_per_chunk <= most, f"at most {most} rows share a ciphertext", self.rows_per_chunk)

    @property
    def engine(self) -> str:
        return ENGINE.name

    @functools.cached_property
    def digest(self) -> str:
        """Names the plan in messages, and binds keys to it."""
        return codec.digest(self, domain="securead.protocols.paillier.linear.plan.v1")

    @property
    def error_bound(self) -> float:
        """Linear scores are exact; adding public terms rounds once."""
        return 2.0 ** (self.score_bits - 50) * self.unit if self.public_terms else 0.0

    @property
    def security_bits(self) -> int:
        return SECURITY_BITS

    @property
    def residue_bytes(self) -> int:
        """A number modulo n; a ciphertext has twice as many."""
        return self.key_bits // 8

    @property
    def slot_bits(self) -> int:
        """What a row takes of a plaintext: its value, lifted above zero where it has a sign."""
        return self.value_bits + 2 * self.signed

    @property
    def lift(self) -> int:
        """What is added to a row's value."""
        return 1 << self.value_bits if self.signed else 0

    @property
    def digits(self) -> int:
        """In how many digits a weight is multiplied up, lifted above zero where it has a sign."""
        return max(1, -(-(self.weight_bits + 2 * self.signed) // DIGIT_BITS))

    @property
    def request_bytes(self) -> int:
        """The exact length of a request of any number of rows."""
        return PREAMBLE_BYTES + 2 * self.residue_bytes * self.features

    @property
    def max_request_bytes(self) -> int:
        return self.request_bytes

    @property
    def max_answer_bytes(self) -> int:
        """The exact length of an answer, too."""
        return PREAMBLE_BYTES + 2 * self.residue_bytes

    @property
    def public_key_bytes(self) -> int:
        """A modulus and what shows it to be one."""
        return (1 + ROOTS) * self.residue_bytes

    @property
    def evaluation_key_bytes(self) -> int:
        return PREFIX_BYTES + self.public_key_bytes

    def describe(self) -> tuple[tuple[str, str], ...]:
        """Name and value pairs for people, in the order they are best read."""
        rows = self.rows_per_chunk
        return (
            ("engine", "Paillier, linear scores on encrypted features"),
            ("role", self.role),
            ("security", f"{self.security_bits} bits: the owner's modulus has {self.key_bits} bits"),
            ("records a request", str(rows)),
            ("features, a ciphertext each", str(self.features)),
            ("scores", f"exact, {self.value_bits} bits"),
            ("reveals", f"the scores; to a query made otherwise, {self.slot_bits} bits a record and one a request"),
            ("upload, bytes a record at most", f"{self.request_bytes / rows:.0f} of {rows}"),
            ("upload, bytes for one record", str(self.request_bytes)),
            ("download, bytes for one record", str(self.max_answer_bytes)),
            ("public key at the service, bytes", str(self.evaluation_key_bytes)),
        )


def most_rows(slot_bits: int) -> int:
    """How many slots share a plaintext and leave room to hide what is beyond them; 0 where none does."""
    return min(MAX_ROWS, (KEY_BITS - 1 - HIDING_BITS) // slot_bits)


def make_plan(program: PublicProgram, role: Role) -> LinearPlan:
    """Derive parameters, or raise `FixProgramError` with the smallest change that would fit."""
    public = carried(program)
    if isinstance(public, PublicTable):
        shape = {"sizes": public.sizes, "features": sum(public.sizes), "largest": 1, "signed": False}
        shape |= {"weight_bits": public.largest.bit_length(), "value_bits": public.score_bits, "unit": public.unit}
    else:
        shape = {"sizes": (), "features": public.encoder.width, "largest": public.encoder.bound, "signed": True}
        shape |= {"weight_bits": _gain_bits(public), "value_bits": public.steps[-1].bound_bits}
        shape |= {"unit": 2.0**-public.score_fraction_bits}
    terms = bool(public.public_terms)
    if terms and role == "split":
        raise FixProgramError(
            "public terms are added by a submitter that reads the score",
            where=ENGINE.name,
            value=role,
            remedy="Use role same, or the engine ckks.",
        )
    if shape["features"] > MAX_FEATURES:  # type: ignore[operator]
        raise FixProgramError(
            f"a ciphertext for each of {shape['features']:,} features is too much",
            where=ENGINE.name,
            remedy=f"Compile with at most {MAX_FEATURES:,} entries, or use the engine paillier or bfv.",
        )
    rows = most_rows(shape["value_bits"] + 2 * shape["signed"])  # type: ignore[operator]
    if rows < 1:
        raise FixProgramError(
            "a score does not fit a Paillier plaintext",
            where=ENGINE.name,
            value=f"{shape['value_bits']} bits",
            remedy="Compile with fewer weight or fraction bits.",
        )
    return LinearPlan(
        role=role,
        program_digest=public.digest,
        score_bits=public.score_bits,
        public_terms=terms,
        key_bits=KEY_BITS,
        rows_per_chunk=rows,
        **shape,  # type: ignore[arg-type]
    )


def plan_from_plain(plain: object) -> LinearPlan:
    """Read back `codec.to_plain(plan)`; anything but a sound plan is a `FixInputError`."""
    return codec.from_plain(LinearPlan, plain, where="linear plan")


def carried(public: PublicProgram) -> PublicTable | PublicPolynomial:
    """The public half of a linear program; any other is `FixProgramError`."""
    if not ENGINE.carries(public):
        raise FixProgramError(
            "the engine paillier-linear adds up weighted features and computes nothing else",
            where=ENGINE.name,
            value=sorted(public.operations),
            remedy="Name an engine that carries these operations and this degree.",
        )
    return public


def _gain_bits(public: PublicPolynomial) -> int:
    """Bits of the largest weight that a feature can have in the score, from the public row sums of all steps."""
    gains = [1]
    for step in public.steps[1:]:
        if not isinstance(step, Affine):
            raise TypeError(step)
        gains.append(sum(gains[source] << bits for source, bits in zip(step.sources, step.gain_bits, strict=True)))
    return gains[-1].bit_length()
