"""Parameters of a deep polynomial program under levelled CKKS, derived from the program's public half alone.

Guarantees: with `make_plan(public, role)`

* every key and ciphertext is within 128 bits of security by the standard of 2018 and by the guideline of 2024;
* a decrypted score differs from the integer program's by at most `error_bound <= public.tolerance`, except with
  probability 2**-64 for a chunk;
* flooding is at least 2**40 N / 2 times everything in an answer that is not the score of an encoded record: errors of
  encryption, of rounding inside the circuit (taken as independent and uniform: the protocol's SPEC.md, section 5), and
  the masks' noise;
* the plan is the same, bit for bit, on every machine.

Factors of products are relinearised and rescaled (`structure`), so that values do not grow with the degree. A program
that cannot be carried so is refused. This module imports no cryptography.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

from securead import codec
from securead.errors import FixInputError, FixProgramError
from securead.program.polynomial import SquaredNorm
from securead.program.program import PublicProgram
from securead.protocols.ckks.deep.remedies import DEGREES, carried, smallest_changes
from securead.protocols.ckks.deep.search import (
    MAX_PRIME_BITS,
    MIN_PRIME_BITS,
    RING_DIMENSIONS,
    Found,
    answer_scale,
    flood_bits,
    mask_bound,
    search,
)
from securead.protocols.ckks.deep.work import work as work
from securead.protocols.engine import EngineSpec, Role
from securead.protocols.seal import primes
from securead.protocols.seal.keyfiles import PREFIX_BYTES
from securead.protocols.seal.noise import FLOOD_BITS
from securead.protocols.seal.packing import residue_bytes

ENGINE = EngineSpec(
    name="ckks-deep",
    package="securead.protocols.ckks.deep",
    roles=("same", "split"),
    operations=("input", "affine", "product"),
    extra="ckks",
    sanitised=True,
    summary="polynomial programs of degree 5 to 64 under CKKS in SEAL, relinearised and rescaled",
    whole_chunks=True,
    degrees=DEGREES,
)

SEED_BYTES = 64
PREAMBLE_BYTES = 4 + 32  # of requests and answers: rows u32, key id


@dataclass(frozen=True)
class StepPlan:
    """One step under encryption: products on the longest way to it, polynomials, whether it is relinearised, the power
    of two in its weights, and the worst absolute error in real units.
    """

    depth: int
    size: int
    relinearised: bool
    lift: int
    error: float


@dataclass(frozen=True)
class DeepPlan:
    """See `securead.protocols.engine.Plan`. A value that breaks a security table or floods too little cannot be made.

    Records are encrypted at scale 2**`input_bits`; `score_scale` is the score's before it is rescaled for the answer.
    `groups`: how many primes the factors of depth 1, 2, ... are rescaled by; group 1 is the last of `data_primes`.
    `hidden_error`: what the score errs by against encoded records, with all but masks and flood.
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
    groups: tuple[int, ...]
    input_bits: int
    steps: tuple[StepPlan, ...]
    score_scale: float
    answer_primes: int
    hidden_error: float
    flood_bits: int
    error_bound: float
    result_bound: float

    def __post_init__(self) -> None:
        def require(condition: bool, what: str, value: object) -> None:
            if not condition:
                raise FixInputError(what, where="deep CKKS plan", value=value, remedy="The plan is damaged or foreign.")

        n, data, chain = self.ring_dimension, self.data_primes, self.chain
        require(n in RING_DIMENSIONS, "unknown ring dimension", n)
        require(2 <= len(chain) <= 48 and len(set(chain)) == len(chain), "a modulus is a few primes", len(chain))
        require(all(MIN_PRIME_BITS <= p.bit_length() <= MAX_PRIME_BITS for p in chain), "not proved", chain)
        require(all(primes.is_usable(p, n) for p in chain), "a modulus SEAL cannot use", chain)
        limit = primes.modulus_bits_limit(n)
        require(self.modulus_bits <= limit, "the modulus is too large for 128 bits of security", self.modulus_bits)
        require(1 <= self.width and 2 <= len(self.steps), "a plan has inputs and steps", self.width)
        require(all(2 <= s.size <= 5 and s.depth >= 0 and 0 <= s.lift <= limit for s in self.steps), "bad steps", 0)
        sound = len(self.groups) == max(self.depth - 1, 0) and all(0 <= group <= 16 for group in self.groups)
        require(sound and self.depth >= 1, "absurd groups of primes", self.groups)
        require(1 <= self.answer_primes <= self.last_primes, "an absurd answer", self.answer_primes)
        require(0 <= self.input_fraction_bits <= self.score_fraction_bits, "an absurd scale", self.score_fraction_bits)
        require(0 <= self.input_bits < limit and 1 <= self.score_scale < 2.0**limit, "absurd scales", self.score_scale)
        require(0 < self.hidden_error < self.error_bound, "an absurd error", self.hidden_error)
        enough = flood_bits(n, self.hidden_error * self.score_scale + self.mask_bound)
        require(enough <= self.flood_bits < limit, "answers could leak", self.flood_bits)
        require(0 < self.error_bound <= self.result_bound < math.inf, "an absurd error bound", self.error_bound)
        flood = math.ldexp(1.0, self.flood_bits) / self.score_scale
        require(flood <= self.error_bound, "the flood drowns the score", self.flood_bits)
        fits = 2 * self.result_bound * self.answer_scale < math.prod(data[: self.answer_primes])
        require(self.answer_scale >= 1 and fits, "an answer without room", self.answer_scale)

    @property
    def engine(self) -> str:
        return ENGINE.name

    @functools.cached_property
    def digest(self) -> str:
        """Names the plan in messages, binds keys to it, and fixes the uniform halves of every public key."""
        return codec.digest(self, domain="securead.protocols.ckks-deep.plan.v1")

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
    def depth(self) -> int:
        """Products on the longest way from the record to the score."""
        return self.steps[-1].depth

    @property
    def level_primes(self) -> tuple[int, ...]:
        """How many primes are left on level 0, 1, ..."""
        return tuple(len(self.data_primes) - sum(self.groups[:level]) for level in range(len(self.groups) + 1))

    @property
    def last_primes(self) -> int:
        """How many primes the score has when it is masked."""
        return self.level_primes[-1]

    @property
    def mask_prime(self) -> int:
        """What SEAL's encryptions of zero on the last level are divided by."""
        return self.chain[self.last_primes]

    @property
    def input_scale(self) -> float:
        """What a column's real values are multiplied by; of public terms, too."""
        return math.ldexp(1.0, self.input_bits)

    @property
    def answer_scale(self) -> float:
        return answer_scale(self.score_scale, self.data_primes[self.answer_primes : self.last_primes])

    @property
    def mask_bound(self) -> int:
        """The largest coefficient of the masks' noise, in the worst case."""
        return mask_bound(self.ring_dimension, self.mask_prime, self.answer_size - 1)

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
        return self.steps[-1].size

    @property
    def switches(self) -> bool:
        """Whether anything is relinearised: then public keys hold a relinearisation key."""
        return any(step.relinearised for step in self.steps)

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
    def key_polynomials(self) -> int:
        """Polynomials of a public key: its own, and one for every digit of what is relinearised."""
        return 1 + (len(self.data_primes) if self.switches else 0)

    @property
    def evaluation_key_bytes(self) -> int:
        return PREFIX_BYTES + self.key_polynomials * residue_bytes(self.ring_dimension, self.chain)

    @property
    def held_key_bytes(self) -> int:
        """What an owner's public key takes in a service's memory, masks apart: whole words for its residues."""
        return 8 * self.key_polynomials * len(self.chain) * self.ring_dimension

    def describe(self) -> tuple[tuple[str, str], ...]:
        """Name and value pairs for people, in the order they are best read."""
        limit, rows = primes.modulus_bits_limit(self.ring_dimension), self.rows_per_chunk
        widths = " + ".join(str(p.bit_length()) for p in self.data_primes)
        flood = f"{self.flood_bits} bits, {FLOOD_BITS} above all errors of encryption, rounding and masks"
        return (
            ("engine", "CKKS in SEAL, relinearised and rescaled, one ciphertext a feature, one slot a record"),
            ("role", self.role),
            ("security", f"{self.security_bits} bits: modulus {self.modulus_bits} of at most {limit} bits"),
            ("ring dimension", str(rows * 2)),
            ("records a request", str(rows)),
            ("primes, bits", f"{widths}, special {self.special_prime.bit_length()}"),
            ("levels", f"{len(self.groups) + 1}, rescaled by {', '.join(map(str, self.groups)) or 'no'} primes"),
            ("scales, bits", f"input {self.input_bits}, score {math.log2(self.score_scale):.0f}"),
            ("answer", f"{self.answer_size} polynomials, {self.answer_primes} primes"),
            ("error bound", f"{self.error_bound:.3g} (fails with probability below 2**-64 a request)"),
            ("flooding", flood),
            ("reveals", "the scores of the submitter's own encoded records; unused slots count as records"),
            ("upload, bytes a record", f"{self.max_request_bytes / rows:.0f} of {rows}"),
            ("download, bytes a record", f"{self.max_answer_bytes / rows:.0f} of {rows}"),
            ("public key at the service, bytes", str(self.evaluation_key_bytes)),
        )


def make_plan(program: PublicProgram, role: Role) -> DeepPlan:
    """Derive parameters, or raise `FixProgramError` with the smallest change that would fit."""
    public = carried(program)
    found = search(public, role)
    if found is None:
        raise FixProgramError(
            "the program does not fit CKKS at 128 bits of security within its tolerance, answers flooded",
            where="ckks-deep",
            value=f"degree {public.degree}, tolerance {public.tolerance:g}, score of {public.score_bits} bits",
            remedy=smallest_changes(public, role),
        )
    return _as_plan(found)


def plan_from_plain(plain: object) -> DeepPlan:
    """Read back `codec.to_plain(plan)`; anything but a sound plan is a `FixInputError`."""
    return codec.from_plain(DeepPlan, plain, where="deep CKKS plan")


def _as_plan(found: Found) -> DeepPlan:
    public, structure, scaled = found.setting.public, found.setting.structure, found.scaled
    rows = zip(structure.depths, structure.sizes, scaled.lifts, scaled.errors, strict=True)
    return DeepPlan(
        role=found.setting.role,
        program_digest=public.digest,
        width=public.encoder.width,
        input_bound=public.encoder.bound,
        input_fraction_bits=public.encoder.fraction_bits,
        public_terms=public.public_terms,
        score_fraction_bits=public.score_fraction_bits,
        ring_dimension=found.setting.ring_dimension,
        data_primes=found.data_primes,
        special_prime=found.setting.special_prime,
        groups=found.groups,
        input_bits=found.input_bits,
        steps=tuple(
            StepPlan(depth, size, at in structure.relinearised, lift, error)
            for at, (depth, size, lift, error) in enumerate(rows)
        ),
        score_scale=float(scaled.scales[-1]),
        answer_primes=found.answer_primes,
        hidden_error=found.hidden_error,
        flood_bits=found.flood_bits,
        error_bound=found.error_bound,
        result_bound=found.result_bound,
    )
