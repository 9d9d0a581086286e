"""Polynomial programs: what a detector with linear layers and products compiles to.

A program is a short list of steps over vectors of fixed-point integers: the encoded record, integer affine maps,
elementwise products, and one score at the end. The **public** half (`PublicPolynomial`) says the shape, the scales and
how large every value can get; the **secret** half (`SecretPolynomial`) holds the integer weights. They are two types
so that an artefact for a client cannot contain a weight.

The public half discloses, besides the shape, for every step the power of two above its largest value and above its
largest row sum of weights, because parameters and error bounds derive from them.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from securead import codec
from securead.data.encoder import Encoder
from securead.data.schema import Array
from securead.errors import FixInputError, FixProgramError

MAX_STEPS = 64
MAX_WIDTH = 8192
MAX_FRACTION_BITS = 1000  # two to that power is a float64 still
FORMAT = 1
_DIGEST = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class Input:
    """The encoded record: `width` integers, each at most 2**bound_bits in magnitude."""

    type_tag: ClassVar[str] = "input"
    width: int
    fraction_bits: int
    bound_bits: int


@dataclass(frozen=True)
class Affine:
    """`sum_s W_s v_s + b` over earlier steps `sources`, with secret integer weights.

    `gain_bits[s]` bounds the largest row sum of |W_s| by a power of two; `offset_bits` bounds |b|.
    """

    type_tag: ClassVar[str] = "affine"
    width: int
    fraction_bits: int
    bound_bits: int
    sources: tuple[int, ...]
    gain_bits: tuple[int, ...]
    offset_bits: int


@dataclass(frozen=True)
class Product:
    """The elementwise product of two earlier steps of equal width; a square is a product of a step with itself."""

    type_tag: ClassVar[str] = "product"
    width: int
    fraction_bits: int
    bound_bits: int
    left: int
    right: int


@dataclass(frozen=True)
class Relu:
    """`max(0, v)` of an earlier step. Only secret sharing carries it."""

    type_tag: ClassVar[str] = "relu"
    width: int
    fraction_bits: int
    bound_bits: int
    source: int


@dataclass(frozen=True)
class Truncate:
    """`floor(v / 2**shift)` of an earlier step, which so loses `shift` fraction bits.

    An engine may be off by one unit either way: the bounds of this step and of all that follow allow for it. Only
    secret sharing carries it, with a failure probability that its plan states.
    """

    type_tag: ClassVar[str] = "truncate"
    width: int
    fraction_bits: int
    bound_bits: int
    source: int
    shift: int


Step = Input | Affine | Product | Relu | Truncate


@dataclass(frozen=True)
class SquaredNorm:
    """A public term: `multiplier * sum z_i**2`, which the submitter computes itself.

    The product has the score's fraction bits. It costs nothing under encryption when the submitter holds the key.
    """

    type_tag: ClassVar[str] = "squared_norm"
    multiplier: int

    def bound(self, encoder: Encoder) -> int:
        """The largest magnitude over all encoded records."""
        return abs(self.multiplier) * encoder.width * encoder.bound**2

    def evaluate(self, Z: Array) -> Array:
        """Exact integers `(n,)` for encoded records `(n, width)`."""
        largest = max(int(Z.max()), -int(Z.min())) if Z.size else 0
        Z = Z.astype(object if largest**2 * Z.shape[1] >= 2**62 else np.int64)
        values: Array = (Z * Z).sum(axis=1).astype(object) * self.multiplier
        return values


@dataclass(frozen=True)
class PublicPolynomial:
    """Everything about a polynomial program that its data owner needs, and nothing secret.

    `tolerance` is the absolute error of a score (in the score's own unit) below which results count as equal; an
    engine derives its precision from it. `score_bits` bounds the integer score. `honest_extraction_rows` is the
    number of honest scores from which the secret half can be solved for, whatever the engine. `commitment` binds
    the secret half without revealing it (HMAC-SHA256 under a random 32-byte key kept in the secret half).
    """

    type_tag: ClassVar[str] = "polynomial"
    encoder: Encoder
    steps: tuple[Step, ...]
    public_terms: tuple[SquaredNorm, ...]
    score_bits: int
    tolerance: float
    honest_extraction_rows: int
    commitment: str
    format: int = FORMAT

    def __post_init__(self) -> None:
        _check_shape(self)

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 over this half; through `commitment` it also fixes every weight. Names the program everywhere."""
        return codec.digest(self, domain="securead.program.polynomial.v2")

    @property
    def operations(self) -> frozenset[str]:
        """What an engine must be able to do, by the tags of the steps."""
        return frozenset(step.type_tag for step in self.steps)

    @property
    def score_fraction_bits(self) -> int:
        """A score is its integer divided by two to this power."""
        return self.steps[-1].fraction_bits

    @property
    def degree(self) -> int:
        """The total degree of the score in the inputs, not counting public terms."""
        degrees: list[int] = []
        for step in self.steps:
            match step:
                case Input():
                    degrees.append(1)
                case Affine():
                    degrees.append(max(degrees[s] for s in step.sources))
                case Product():
                    degrees.append(degrees[step.left] + degrees[step.right])
                case Relu() | Truncate():
                    degrees.append(degrees[step.source])
        return degrees[-1]

    def decode(self, integers: Array) -> Array:
        """Integer scores to float64 scores."""
        return np.asarray(integers, dtype=object).astype(float) / 2.0**self.score_fraction_bits

    def queries(self, Z: Array) -> Array:
        """What an engine encrypts for encoded records: the records themselves."""
        return Z

    def public_term(self, Z: Array) -> Array:
        """The exact integer sum of all public terms, `(n,)`; zeros when there is none."""
        total = np.zeros(len(Z), dtype=object)
        for term in self.public_terms:
            total = total + term.evaluate(Z)
        return total

    def check(self, secret: object) -> None:
        """Raise `FixInputError` unless `secret` is this program's secret half."""
        from securead.program.ranges import check_weights

        if not isinstance(secret, SecretPolynomial):
            raise FixInputError("the secret half is of another kind of program", where="program")
        check_weights(self, secret)

    def evaluate(self, secret: object, Z: Array) -> Array:
        """The oracle: exact integer scores `(n,)` (Python integers) of encoded records `(n, width)`."""
        from securead.program.evaluate import evaluate

        assert isinstance(secret, SecretPolynomial)  # noqa: S101  (`check` made sure)
        return evaluate(self, secret, Z)


@dataclass(frozen=True, eq=False)
class Weights:
    """The integers of one affine step: a matrix per source `(width, source width)` and an offset `(width,)`."""

    matrices: tuple[Array, ...]
    offset: Array


@dataclass(frozen=True, eq=False)
class SecretPolynomial:
    """The weights, by position of their affine step, and the key of the public half's commitment."""

    weights: Mapping[int, Weights] = field(repr=False)
    commitment_key: bytes = field(repr=False)


def _check_shape(program: PublicPolynomial) -> None:
    """Refuse a public half that is not a program; it may come from a stranger."""

    def require(condition: bool, what: str, value: object) -> None:
        if not condition:
            raise FixInputError(what, where="program", value=value, remedy="The program is damaged or foreign.")

    steps = program.steps
    require(program.format == FORMAT, "unknown program format", program.format)
    require(2 <= len(steps) <= MAX_STEPS, f"a program has 2 to {MAX_STEPS} steps", len(steps))
    require(isinstance(steps[0], Input) and steps[0].width == program.encoder.width, "the first step is the input", 0)
    require(isinstance(steps[-1], Affine) and steps[-1].width == 1, "the last step is an affine score", len(steps) - 1)
    for at, step in enumerate(steps):
        require(1 <= step.width <= MAX_WIDTH, "a step is too wide", step.width)
        sound = 0 <= step.fraction_bits <= MAX_FRACTION_BITS and 0 <= step.bound_bits <= 1024
        require(sound, "a step's scale is absurd", at)
        match step:
            case Input():
                require(at == 0, "there is one input", at)
            case Affine():
                require(0 < len(step.sources) == len(step.gain_bits), "an affine step has sources and gains", at)
                require(all(0 <= s < at for s in step.sources), "a source comes earlier", step.sources)
                require(all(0 <= g <= 1024 for g in (*step.gain_bits, step.offset_bits)), "a gain is absurd", at)
            case Product():
                same = 0 <= step.left < at and 0 <= step.right < at
                require(same and steps[step.left].width == steps[step.right].width == step.width, "bad product", at)
                exact = steps[step.left].fraction_bits + steps[step.right].fraction_bits
                require(step.fraction_bits == exact, "a product adds its factors' fraction bits", at)
            case Relu():
                require(0 <= step.source < at and steps[step.source].width == step.width, "bad ReLU", at)
            case Truncate():
                require(0 <= step.source < at and steps[step.source].width == step.width, "bad truncation", at)
                left = steps[step.source].fraction_bits - step.shift
                require(1 <= step.shift <= 512 and step.fraction_bits == left, "a truncation drops its shift", at)
    require(0 < program.tolerance < float("inf"), "the tolerance is positive", program.tolerance)
    # 2**1023 is the largest power of two that a float64 score can still express.
    require(1 <= program.score_bits <= 1023, "the score's range is absurd", program.score_bits)
    public_bound = sum(term.bound(program.encoder) for term in program.public_terms)
    require(public_bound <= 1 << program.score_bits, "public terms beyond the score's range", program.score_bits)
    require(_DIGEST.fullmatch(program.commitment) is not None, "a commitment is 64 hex digits", program.commitment)
    require(program.honest_extraction_rows >= 1, "the extraction count is positive", program.honest_extraction_rows)


def refuse_overflow(bits: int, limit: int, where: str) -> None:
    """Raise `FixProgramError` when a value of `bits` bits does not fit `limit` bits."""
    if bits > limit:
        raise FixProgramError(
            f"{where} needs {bits} bits, only {limit} are there",
            value=bits,
            remedy="Compile with fewer weight or fraction bits, or a smaller encoder limit.",
        )
