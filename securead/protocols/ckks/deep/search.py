"""The cheapest parameters that carry a deep program within its tolerance at 128 bits, its answers fully flooded.

One number decides about accuracy: what is multiplied errs by 2**-precision of its largest value where it is rescaled.
The least precision whose errors *and flood* stay within the tolerance is found by bisection, with powers of two for
moduli; then primes are taken, and everything is computed once more with these.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from securead.program.polynomial import PublicPolynomial
from securead.protocols.ckks.deep.scales import Given, Scaled, Setting, scale, transform_error
from securead.protocols.ckks.deep.structure import Structure
from securead.protocols.ckks.propagate import tails_for
from securead.protocols.engine import Role
from securead.protocols.seal import primes
from securead.protocols.seal.noise import FLOOD_BITS, public_error

RING_DIMENSIONS = (16384, 32768)
MAX_ANSWER_PRIMES = 4
MIN_PRIME_BITS, MAX_PRIME_BITS = 20, 50  # what `residues` proves exact
_MOST_PRECISION = 300
_PRECISION_CHOICES = 6
_MARGIN = 1.0 + 1.0 / 64
# A score is a double in the end, and so is the one it is compared with.
_DOUBLE = 2.0**-51


@dataclass(frozen=True)
class Found:
    """Parameters and what follows from them. `data_primes` in the order in which they outlive rescaling, those of
    group 1 last; `groups`: how many each group has.
    """

    setting: Setting
    scaled: Scaled
    input_bits: int
    precision: int
    data_primes: tuple[int, ...]
    groups: tuple[int, ...]
    answer_primes: int
    flood_bits: int
    hidden_error: float
    error_bound: float
    result_bound: float


def search(public: PublicPolynomial, role: Role) -> Found | None:
    """The cheapest parameters, or None when nothing fits."""
    for n in RING_DIMENSIONS:
        special = primes.special_prime(n, MIN_PRIME_BITS)
        for lazy in (True, False):
            setting = Setting(public, role, Structure.of(public, lazy=lazy), tails_for(public, n), special)
            least = _least_precision(setting)
            for precision in range(least, least + _PRECISION_CHOICES) if least is not None else ():
                try:
                    found = _with_primes(setting, precision)
                except OverflowError:  # a scale beyond doubles: it fits no ring
                    break
                if found is not None:
                    return found
    return None


def mask_bound(ring_dimension: int, prime: int, masks: int) -> int:
    """The largest coefficient of the masks' noise: `masks` encryptions of zero, made one prime up and rounded down by
    `prime`, times powers of the secret; for every ternary key and all randomness.
    """
    powers: int = sum(ring_dimension**j for j in range(masks))
    return public_error(ring_dimension, prime) * powers


def flood_bits(ring_dimension: int, hidden: float) -> int:
    """The flood is uniform on [-F, F), F = 2**flood_bits the least power of two above 2**40 N / 2 times `hidden`."""
    return FLOOD_BITS + (ring_dimension // 2).bit_length() - 1 + math.frexp(hidden)[1]


def input_bits(setting: Setting, precision: int) -> int:
    """The least scale of records whose encryption errs by 2**-precision of the largest value or less."""
    public, tails = setting.public, setting.tails
    noise = tails.fresh(setting.role, setting.special_prime) + tails.ring_dimension
    unit = math.ldexp(float(public.encoder.bound), -public.encoder.fraction_bits)
    return max(0, precision + math.frexp(noise / unit)[1])


def _least_precision(setting: Setting) -> int | None:
    """The smallest precision whose errors and flood stay within the tolerance (by bisection)."""

    def fits(precision: int) -> bool:
        try:
            return _sanitised(setting, precision, _scaled(setting, precision))[2] < setting.public.tolerance
        except OverflowError:  # scales beyond doubles: precise enough, so that the search goes on below
            return True

    low, high = 1, _MOST_PRECISION
    if not fits(high):
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle) else (middle + 1, high)
    return low


def _scaled(
    setting: Setting, precision: int, data: tuple[int, ...] = (), given: Given | None = None, *, encoding: bool = True
) -> Scaled:
    """Without primes, as many digits as the largest modulus of this ring dimension has, of the widest."""
    most = primes.modulus_bits_limit(setting.ring_dimension)
    digits = sum(data) if data else (most // MAX_PRIME_BITS) << MAX_PRIME_BITS
    return scale(setting, precision, input_bits(setting, precision), digits, given, encoding=encoding)


def _sanitised(
    setting: Setting, precision: int, scaled: Scaled, data: tuple[int, ...] = (), prime: int = 1 << MIN_PRIME_BITS
) -> tuple[float, int, float]:
    """The circuit's error against encoded records, the flood that hides it, and the score's worst error with both."""
    tails, n, masks = setting.tails, setting.ring_dimension, setting.structure.sizes[-1] - 1
    given = Given(tuple(int(modulus) for modulus in scaled.moduli), scaled.lifts)
    scale = float(scaled.scales[-1])
    hidden = _scaled(setting, precision, data, given, encoding=False).errors[-1]
    flood = flood_bits(n, hidden * scale + mask_bound(n, prime, masks))
    zeros = tails.fresh("split", prime) * sum(tails.secret**j for j in range(masks))
    # Coefficients uniform on [-F, F): four times the proxy of a rounding, times F squared; the mean is -1/2.
    spread = math.ldexp(2 * tails.rounding, flood) + n / 2
    return hidden, flood, (scaled.errors[-1] + (zeros + spread) / scale) * (1 + 2.0**-40)


def _with_primes(setting: Setting, precision: int) -> Found | None:
    """Real primes for one precision, if every inequality still holds."""
    n, public, tails = setting.ring_dimension, setting.public, setting.tails
    size, draft = setting.structure.sizes[-1], _scaled(setting, precision)
    groups = [modulus.numerator.bit_length() - 1 for modulus in draft.moduli]
    widths = [_split(bits) if bits >= MIN_PRIME_BITS else () for bits in groups]
    answer = _answer(setting, precision, draft)
    if answer is None:
        return None
    kept, dropped = answer
    bits = (*kept, *dropped, *(width for group in reversed(widths) for width in group))
    if sum(bits) + setting.special_prime.bit_length() - 1 > primes.modulus_bits_limit(n):
        return None
    data = primes.choose(n, bits)
    if data is None or setting.special_prime in data:
        return None
    if (math.prod(data) * setting.special_prime).bit_length() > primes.modulus_bits_limit(n):
        return None
    last = len(kept) + len(dropped)
    moduli, end = list[int](), len(data)
    for group in widths:
        moduli.append(math.prod(data[end - len(group) : end]))
        end -= len(group)
    scaled = _scaled(setting, precision, data, Given(tuple(moduli), draft.lifts))
    hidden, flood, error = _sanitised(setting, precision, scaled, data, (*data, setting.special_prime)[last])
    scale = answer_scale(float(scaled.scales[-1]), data[len(kept) : last])
    modulus = math.prod(data[: len(kept)])
    error += tails.rescale(size) / scale if dropped else 0.0
    error += transform_error(n, setting.reach + error) + setting.reach * _DOUBLE
    result = setting.reach + error
    if error > public.tolerance or scaled.room > math.prod(data[:last]) or 2 * result * scale >= float(modulus):
        return None
    return Found(
        setting=setting,
        scaled=scaled,
        input_bits=input_bits(setting, precision),
        precision=precision,
        data_primes=data,
        groups=tuple(len(group) for group in widths),
        answer_primes=len(kept),
        flood_bits=flood,
        hidden_error=hidden,
        error_bound=error,
        result_bound=result,
    )


def _answer(setting: Setting, precision: int, draft: Scaled) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Split the last level's modulus into what the answer keeps and what rescaling it drops, in bits of primes."""
    public, tails, size = setting.public, setting.tails, setting.structure.sizes[-1]
    room = public.tolerance - _sanitised(setting, precision, draft)[2] - setting.reach * 2 * _DOUBLE
    if room <= 0:
        return None
    least_scale = tails.rescale(size) / room
    scale_bits = math.frexp(float(draft.scales[-1]))[1] - 1
    total = _bits(float(draft.room) * _MARGIN)
    rest = scale_bits - _bits(least_scale)
    keep = max(total - rest, _bits(least_scale) + 2, MIN_PRIME_BITS)
    rest = total - keep
    if rest < MIN_PRIME_BITS:
        keep, rest = total, 0
    if -(-keep // MAX_PRIME_BITS) > MAX_ANSWER_PRIMES:
        return None
    return _split(keep), _split(rest)


def answer_scale(scale: float, dropped: tuple[int, ...]) -> float:
    """A scale after rescaling by `dropped`, last prime first."""
    for prime in reversed(dropped):
        scale /= prime
    return scale


def _bits(value: float) -> int:
    """The smallest b with value <= 2**b (or one more where value is a power of two)."""
    return math.frexp(value)[1]


def _split(bits: int) -> tuple[int, ...]:
    """`bits` in as few nearly equal widths as a prime may have, wide ones first."""
    parts = -(-bits // MAX_PRIME_BITS)
    return tuple(bits // parts + (i < bits % parts) for i in range(parts)) if parts else ()
