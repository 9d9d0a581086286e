"""Parameters of a polynomial program under CKKS, derived from the program's public half alone.

Guarantees: with `make_plan(public, role)`

* every key and ciphertext is within 128 bits of security by the standard of 2018 and by the guideline of 2024;
* a decrypted score differs from the integer program's by at most `error_bound <= public.tolerance`, except with
  probability 2**-64 for a chunk: fresh encryption and encoding errors, masks and flood, the rounding of rescaling and
  of SEAL's double-precision transforms (`noise` and `propagate` have the terms, the protocol's SPEC.md the argument);
* flooding is at least 2**40 N / 2 times the noise of the masks that it hides, in the worst case, and, where it is full,
  2**40 N / 2 times what encryption errors do to the score besides;
* the plan is the same, bit for bit, on every machine.

Weights stay integers, and scales grow: nothing is rescaled, relinearised or switched before the score is masked and
flooded. An answer has degree + 1 polynomials. This module imports no cryptography.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

from securead import codec
from securead.errors import FixInputError, FixProgramError
from securead.program.polynomial import PublicPolynomial, SquaredNorm
from securead.program.program import PublicProgram
from securead.protocols.ckks.noise import flood_bits, mask_bound
from securead.protocols.ckks.remedies import MAX_DEGREE, carried, smallest_changes
from securead.protocols.ckks.search import MAX_PRIME_BITS, Found, answer_scale, in_coefficients, search
from securead.protocols.ckks.work import work as work
from securead.protocols.engine import EngineSpec, Role
from securead.protocols.seal import primes
from securead.protocols.seal.keyfiles import PREFIX_BYTES
from securead.protocols.seal.noise import FLOOD_BITS
from securead.protocols.seal.packing import residue_bytes

ENGINE = EngineSpec(
    name="ckks",
    package="securead.protocols.ckks",
    roles=("same", "split"),
    operations=("input", "affine", "product"),
    extra="ckks",
    sanitised=True,
    summary="polynomial programs of degree up to 4 under CKKS in SEAL: one ciphertext a feature, one slot a record",
    whole_chunks=True,
    degrees=(1, MAX_DEGREE),
)

SEED_BYTES = 64  # SEAL's
PREAMBLE_BYTES = 4 + 32  # of requests and answers: rows u32, key id


@dataclass(frozen=True)
class StepPlan:
    """One step under encryption: its degree in the inputs, and the worst absolute error in real units."""

    degree: int
    error: float


@dataclass(frozen=True)
class CkksPlan:
    """See `securead.protocols.engine.Plan`. A value that breaks a security table or floods too little cannot be made.

    A step of degree d is encrypted at scale 2**(its fraction bits + d * excess_bits).
    """

    role: Role
    program_digest: str
    width: int
    input_bound: int
    input_fraction_bits: int
    public_terms: tuple[SquaredNorm, ...]
    score_fraction_bits: int
    ring_dimension: int
    data_primes: tuple[int, ...]
    special_prime: int
    excess_bits: int
    steps: tuple[StepPlan, ...]
    answer_primes: int
    full_flood: bool
    flood_bits: int
    spread: float
    error_bound: float
    result_bound: float

    def __post_init__(self) -> None:
        def require(condition: bool, what: str, value: object) -> None:
            if not condition:
                raise FixInputError(what, where="CKKS plan", value=value, remedy="The plan is damaged or foreign.")

        n, data, chain = self.ring_dimension, self.data_primes, self.chain
        require(n in primes.RING_DIMENSIONS, "unknown ring dimension", n)
        require(2 <= len(chain) <= 16 and len(set(chain)) == len(chain), "a modulus is a few primes", chain)
        require(all(primes.is_usable(p, n) for p in chain), "a modulus SEAL cannot use", chain)
        proved = all(primes.MIN_PRIME_BITS <= p.bit_length() <= MAX_PRIME_BITS for p in data)
        require(proved, "a modulus whose arithmetic is not proved", chain)
        limit = primes.modulus_bits_limit(n)
        require(self.modulus_bits <= limit, "the modulus is too large for 128 bits of security", self.modulus_bits)
        require(1 <= self.width and 2 <= len(self.steps), "a plan has inputs and steps", self.width)
        require(1 <= self.answer_primes <= len(data), "an absurd answer", self.answer_primes)
        require(1 <= self.degree <= MAX_DEGREE, "an absurd degree", self.degree)
        require(0 <= self.input_fraction_bits <= self.score_fraction_bits, "an absurd scale", self.score_fraction_bits)
        absurd = self.excess_bits < 0 or self.score_scale_bits >= math.prod(data).bit_length()
        require(not absurd, "an absurd scale", self.excess_bits)
        require(0 < self.spread <= self.error_bound, "an absurd effect of encryption errors", self.spread)
        enough = flood_bits(n, self.hidden)
        require(enough <= self.flood_bits < 2 * limit, "answers could leak", self.flood_bits)
        require(0 < self.error_bound <= self.result_bound < math.inf, "an absurd error bound", self.error_bound)
        flood = math.ldexp(1.0, self.flood_bits - self.score_scale_bits)
        require(flood <= self.error_bound, "the flood drowns the score", self.flood_bits)
        fits = 2 * self.result_bound * self.answer_scale < math.prod(data[: self.answer_primes])
        require(self.answer_scale >= 1 and fits, "an answer without room", self.answer_scale)

    @property
    def engine(self) -> str:
        return ENGINE.name

    @functools.cached_property
    def digest(self) -> str:
        """Names the plan in messages, binds keys to it, and fixes the uniform half of every public key."""
        return codec.digest(self, domain="securead.protocols.ckks.plan.v3")

    @property
    def rows_per_chunk(self) -> int:
        return self.ring_dimension // 2

    @property
    def security_bits(self) -> int:
        return primes.SECURITY_BITS

    @property
    def chain(self) -> tuple[int, ...]:
        """All primes of the largest modulus, the special one last."""
        return (*self.data_primes, self.special_prime)

    @property
    def modulus_bits(self) -> int:
        """Bits of the largest modulus of any key or ciphertext, the special prime included."""
        return math.prod(self.chain).bit_length()

    @property
    def degree(self) -> int:
        """The score's degree in the inputs: one less than the polynomials of an answer."""
        return self.steps[-1].degree

    @property
    def input_scale(self) -> float:
        """What a column's real values are multiplied by, a power of two; of public terms, too."""
        return math.ldexp(1.0, self.input_fraction_bits + self.excess_bits)

    @property
    def score_scale_bits(self) -> int:
        """Bits of the score's scale when it is masked."""
        return self.score_fraction_bits + self.degree * self.excess_bits

    @property
    def answer_scale(self) -> float:
        return answer_scale(self.score_scale_bits, self.data_primes[self.answer_primes :])

    @property
    def mask_bound(self) -> int:
        """The largest coefficient of the masks' noise, in the worst case."""
        return mask_bound(self.ring_dimension, self.degree)

    @property
    def hidden(self) -> int:
        """The largest coefficient of what the flood hides: the masks' noise, and what encryption errors do if full."""
        return self.mask_bound + (in_coefficients(self.spread, self.score_scale_bits) if self.full_flood else 0)

    @property
    def has_public_column(self) -> bool:
        """Whether the public terms travel as one more encrypted column."""
        return self.role == "split" and bool(self.public_terms)

    @property
    def columns(self) -> int:
        """Ciphertexts in a request."""
        return self.width + self.has_public_column

    @property
    def answer_size(self) -> int:
        """Polynomials in an answer."""
        return self.degree + 1

    @property
    def column_bytes(self) -> int:
        """One ciphertext of a request: a seed and a packed polynomial in role `same`, two in role `split`."""
        polynomial = residue_bytes(self.ring_dimension, self.data_primes)
        return SEED_BYTES + polynomial if self.role == "same" else 2 * polynomial

    @property
    def max_request_bytes(self) -> int:
        """The exact length of every request."""
        return PREAMBLE_BYTES + self.columns * self.column_bytes

    @property
    def max_answer_bytes(self) -> int:
        """The exact length of every answer."""
        kept = self.data_primes[: self.answer_primes]
        return PREAMBLE_BYTES + self.answer_size * residue_bytes(self.ring_dimension, kept)

    @property
    def evaluation_key_bytes(self) -> int:
        return PREFIX_BYTES + residue_bytes(self.ring_dimension, self.chain)

    def describe(self) -> tuple[tuple[str, str], ...]:
        """Name and value pairs for people, in the order they are best read."""
        limit, rows = primes.modulus_bits_limit(self.ring_dimension), self.rows_per_chunk
        widths = " + ".join(str(p.bit_length()) for p in self.data_primes)
        return (
            ("engine", "CKKS in SEAL, one ciphertext a feature, one slot a record"),
            ("role", self.role),
            ("security", f"{self.security_bits} bits: modulus {self.modulus_bits} of at most {limit} bits"),
            ("ring dimension", str(self.ring_dimension)),
            ("records a request", str(rows)),
            ("primes, bits", f"{widths}, special {self.special_prime.bit_length()}"),
            ("scales, bits", f"input {math.log2(self.input_scale):.0f}, score {self.score_scale_bits}"),
            ("answer", f"{self.answer_size} polynomials, {self.answer_primes} primes"),
            ("error bound", f"{self.error_bound:.3g} (fails with probability below 2**-64 a request)"),
            ("flooding", f"{self.flood_bits} bits, {FLOOD_BITS} above {self._flooded}"),
            ("reveals", f"the scores of the submitter's own, {self._noisy} records; unused slots count as records"),
            ("upload, bytes a record", f"{self.max_request_bytes / rows:.0f} of {rows}"),
            ("download, bytes a record", f"{self.max_answer_bytes / rows:.0f} of {rows}"),
            ("public key at the service, bytes", str(self.evaluation_key_bytes)),
        )

    @property
    def _flooded(self) -> str:
        return "the noise that it hides, encryption errors included" if self.full_flood else "the noise that it hides"

    @property
    def _noisy(self) -> str:
        return "encoded" if self.full_flood else "slightly noisy"


def make_plan(program: PublicProgram, role: Role, *, full_flood: bool = False) -> CkksPlan:
    """Derive parameters, or raise `FixProgramError` with the smallest change that would fit.

    With `full_flood` the flood hides what encryption errors do to the score, as well as the masks' noise. That takes
    some 60 bits of scale for every degree: it fits programs of degree up to two, and small ones beyond.
    """
    public = carried(program)
    found = search(public, role, full_flood=full_flood)
    if found is None:
        raise FixProgramError(
            "the program does not fit CKKS at 128 bits of security within its tolerance",
            where="ckks",
            value=f"degree {public.degree}, tolerance {public.tolerance:g}",
            remedy=smallest_changes(public, role, full_flood=full_flood),
        )
    return _as_plan(public, role, found, full_flood)


def plan_from_plain(plain: object) -> CkksPlan:
    """Read back `codec.to_plain(plan)`; anything but a sound plan is a `FixInputError`."""
    return codec.from_plain(CkksPlan, plain, where="CKKS plan")


def _as_plan(public: PublicPolynomial, role: Role, found: Found, full_flood: bool) -> CkksPlan:
    return CkksPlan(
        role=role,
        program_digest=public.digest,
        width=public.encoder.width,
        input_bound=public.encoder.bound,
        input_fraction_bits=public.encoder.fraction_bits,
        public_terms=public.public_terms,
        score_fraction_bits=public.score_fraction_bits,
        ring_dimension=found.ring_dimension,
        data_primes=found.data_primes,
        special_prime=found.special_prime,
        excess_bits=found.excess_bits,
        steps=tuple(StepPlan(state.degree, state.error) for state in found.states),
        answer_primes=found.answer_primes,
        full_flood=full_flood,
        flood_bits=found.flood_bits,
        spread=found.spread,
        error_bound=found.error_bound,
        result_bound=found.result_bound,
    )
