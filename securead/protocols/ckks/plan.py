"""Parameters of a polynomial program under CKKS, derived from the program's public half alone.

Guarantees: with `make_plan(public, role)`

* every key and ciphertext is within 128 bits of security by the standard of 2018 and by the guideline of 2024;
* a decrypted score differs from the integer program's by at most `error_bound <= public.tolerance`, except with
  probability 2**-64 for a chunk: fresh encryption and encoding errors, the rounding of constants, of rescaling and of
  SEAL's double-precision transforms, carried through the program by interval arithmetic over `bound_bits` and
  `gain_bits` (`noise` and `propagate` have the terms, the protocol's SPEC.md the argument);
* the plan is the same, bit for bit, on every machine.

Weights stay integers: a linear layer multiplies by constants and lets the scale grow; only a product that feeds another
product is rescaled, and the score once at the end. Nothing is relinearised, so there is no evaluation key and an answer
has degree + 1 polynomials. This module imports no cryptography.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from securead import codec
from securead.errors import FixInputError, FixProgramError
from securead.program.polynomial import PublicPolynomial, SquaredNorm
from securead.program.program import PublicProgram
from securead.protocols.ckks.remedies import MAX_DEGREE, carried, smallest_changes
from securead.protocols.ckks.search import Found, search
from securead.protocols.engine import EngineSpec, Role
from securead.protocols.seal import primes
from securead.protocols.seal.sizes import METADATA_BYTES, SEED_BYTES, compressed_limit

ENGINE = EngineSpec(
    name="ckks",
    package="securead.protocols.ckks",
    roles=("same", "split"),
    operations=("input", "affine", "product"),
    extra="ckks",
    summary="polynomial programs of degree up to 4 under CKKS in SEAL: one ciphertext a feature, one slot a record",
)

_COUNT_BYTES = 4


@dataclass(frozen=True)
class StepPlan:
    """One step under encryption. `level`: primes dropped so far. `scale` multiplies real values.

    `multipliers`: the plaintext scale for each source of an affine step; the score's has one more for the column of
    public terms. `rescales`: primes dropped after a product. `error`: the worst absolute error in real units.
    """

    level: int
    scale: float
    size: int
    error: float
    rescales: int
    multipliers: tuple[float, ...]


@dataclass(frozen=True)
class CkksPlan:
    """See `securead.protocols.engine.Plan`. A value that breaks a security table cannot be made."""

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
    input_scale: float
    steps: tuple[StepPlan, ...]
    final_rescales: int
    answer_scale: float
    error_bound: float
    result_bound: float

    def __post_init__(self) -> None:
        def require(condition: bool, what: str, value: object) -> None:
            if not condition:
                raise FixInputError(what, where="CKKS plan", value=value, remedy="The plan is damaged or foreign.")

        require(self.ring_dimension in primes.RING_DIMENSIONS, "unknown ring dimension", self.ring_dimension)
        chain = (*self.data_primes, self.special_prime)
        require(2 <= len(chain) <= 16 and len(set(chain)) == len(chain), "a modulus is a few primes", chain)
        require(all(primes.is_usable(p, self.ring_dimension) for p in chain), "a modulus SEAL cannot use", chain)
        limit = primes.modulus_bits_limit(self.ring_dimension)
        require(self.modulus_bits <= limit, "the modulus is too large for 128 bits of security", self.modulus_bits)
        require(1 <= self.width and 1 <= len(self.steps), "a plan has inputs and steps", self.width)
        require(1 <= self.answer_primes and 2 <= self.answer_size <= MAX_DEGREE + 1, "an absurd answer", self.steps[-1])
        scales = (self.input_scale, self.answer_scale, *(step.scale for step in self.steps))
        require(all(1 <= s < 2.0**440 for s in scales), "an absurd scale", scales)
        require(0 < self.error_bound <= self.result_bound, "an absurd error bound", self.error_bound)

    @property
    def engine(self) -> str:
        return ENGINE.name

    @property
    def digest(self) -> str:
        """Names the plan in messages and binds keys to it."""
        return codec.digest(self, domain="securead.protocols.ckks.plan.v1")

    @property
    def rows_per_chunk(self) -> int:
        return self.ring_dimension // 2

    @property
    def security_bits(self) -> int:
        return primes.SECURITY_BITS

    @property
    def modulus_bits(self) -> int:
        """Bits of the largest modulus of any key or ciphertext, the special prime included."""
        return (math.prod(self.data_primes) * self.special_prime).bit_length()

    @property
    def has_public_column(self) -> bool:
        """Whether the public terms travel as one more encrypted column."""
        return self.role == "split" and bool(self.public_terms)

    @property
    def columns(self) -> int:
        """Ciphertexts in a request."""
        return self.width + self.has_public_column

    @property
    def answer_primes(self) -> int:
        return len(self.data_primes) - self.steps[-1].level - self.final_rescales

    @property
    def answer_size(self) -> int:
        """Polynomials in an answer."""
        return self.steps[-1].size

    @property
    def request_ciphertext_bytes(self) -> int:
        """The exact length of a request's ciphertext once decompressed: seeded in role `same`, whole in `split`."""
        if self.role == "same":
            return METADATA_BYTES + SEED_BYTES + 8 * self.ring_dimension * len(self.data_primes)
        return METADATA_BYTES + 16 * self.ring_dimension * len(self.data_primes)

    @property
    def answer_ciphertext_bytes(self) -> int:
        """The exact length of an answer's ciphertext once decompressed."""
        return METADATA_BYTES + 8 * self.answer_size * self.ring_dimension * self.answer_primes

    @property
    def max_request_bytes(self) -> int:
        return _COUNT_BYTES + self.columns * (_COUNT_BYTES + compressed_limit(self.request_ciphertext_bytes))

    @property
    def evaluation_key_bytes(self) -> int:
        return 0

    @property
    def max_answer_bytes(self) -> int:
        return 2 * _COUNT_BYTES + compressed_limit(self.answer_ciphertext_bytes)

    def describe(self) -> tuple[tuple[str, str], ...]:
        """Name and value pairs for people, in the order they are best read."""
        limit = primes.modulus_bits_limit(self.ring_dimension)
        widths = " + ".join(str(p.bit_length()) for p in self.data_primes)
        return (
            ("engine", "CKKS in SEAL, one ciphertext a feature, one slot a record"),
            ("role", self.role),
            ("security", f"{self.security_bits} bits: modulus {self.modulus_bits} of at most {limit} bits"),
            ("ring dimension", str(self.ring_dimension)),
            ("records a request", str(self.rows_per_chunk)),
            ("primes, bits", f"{widths}, special {self.special_prime.bit_length()}"),
            ("input scale, bits", f"{math.log2(self.input_scale):.2f}"),
            ("answer", f"{self.answer_size} polynomials, {self.answer_primes} primes"),
            ("error bound", f"{self.error_bound:.3g} (fails with probability below 2**-64 a request)"),
            ("upload, bytes a record at most", f"{self.max_request_bytes / self.rows_per_chunk:.0f}"),
            ("download, bytes a record at most", f"{self.max_answer_bytes / self.rows_per_chunk:.0f}"),
            ("evaluation keys", "none"),
        )


def make_plan(program: PublicProgram, role: Role) -> CkksPlan:
    """Derive parameters, or raise `FixProgramError` with the smallest change that would fit."""
    public = carried(program)
    found = search(public, role)
    if found is None:
        raise FixProgramError(
            "the program does not fit CKKS at 128 bits of security within its tolerance",
            where="ckks",
            value=f"degree {public.degree}, tolerance {public.tolerance:g}",
            remedy=smallest_changes(public, role),
        )
    return _as_plan(public, role, found)


def plan_from_plain(plain: object) -> CkksPlan:
    """Read back `codec.to_plain(plan)`; anything but a sound plan is a `FixInputError`."""
    return codec.from_plain(CkksPlan, plain, where="CKKS plan")


def _as_plan(public: PublicPolynomial, role: Role, found: Found) -> CkksPlan:
    factors = found.chain.factors
    steps: list[StepPlan] = []
    levels = [sum(found.stage_sizes[:stage]) for stage in range(len(found.stage_sizes) + 1)]
    for step, state in zip(public.steps, found.states, strict=True):
        level = levels[state.stage]
        sources = [steps[s].level for s in (getattr(step, "left", None), getattr(step, "right", None)) if s is not None]
        rescales = level - max(sources) if sources else 0
        steps.append(StepPlan(level, state.scale.value(factors), state.size, state.error, rescales, state.multipliers))
    answer_scale = steps[-1].scale
    final = found.data_primes[found.answer_primes : len(found.data_primes) - steps[-1].level]
    for prime in reversed(final):
        answer_scale /= prime
    return CkksPlan(
        role=role,
        program_digest=public.digest,
        width=public.encoder.width,
        input_bound=public.encoder.bound,
        input_fraction_bits=public.encoder.fraction_bits,
        public_terms=public.public_terms,
        score_fraction_bits=public.score_fraction_bits,
        ring_dimension=found.chain.ring_dimension,
        data_primes=found.data_primes,
        special_prime=found.chain.special_prime,
        input_scale=found.chain.input_scale.value(factors),
        steps=tuple(steps),
        final_rescales=len(final),
        answer_scale=answer_scale,
        error_bound=found.error_bound,
        result_bound=found.result_bound,
    )
