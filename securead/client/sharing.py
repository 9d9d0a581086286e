"""Scores that leave the key holder: blurred, counted over the key's life, or refused.

A decryption of CKKS holds its ciphertext's error. Whoever sees decryptions of ciphertexts that it knows, as the scoring
service does, can solve for the secret key from a few of them (Li and Micciancio 2021), and rounding is no defence. So
scores stay with the key holder unless they pass here. For an engine whose `error_bound` is 0 nothing is added.

Guarantee. At most `at_most` scores of a key leave, each with Gaussian noise of deviation
error_bound * sqrt(12 at_most) * 2**20, rounded afterwards. All of them together then differ by a Kullback-Leibler
divergence of at most 2**-40 / 24 from what somebody would make who knows the exact scores and no error: 40 bits of
statistical security, beside the 128 of encryption (Li, Micciancio, Schultz and Sorrell 2022; the bound has to be the
worst case, averages do not suffice). It holds for answers that the service computed as the protocol says. What was
told in other ways, or from a copy of the key directory, is not counted.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from securead import codec, files
from securead.client.keys import HolderKeys, read_plan, read_record, secret_half
from securead.data.schema import Array
from securead.errors import FixConfigurationError, FixInputError, PrivacyRefusedError
from securead.privacy.gaussian import discrete_gaussian

SHARING_FILE = "sharing.json"
STATISTICAL_BITS = 40
_MOST = 10**9
_USEFUL_SHARE = 0.01  # of the threshold: how far off a shared score may be, unless the caller says otherwise
_FINE = 10  # bits by which scores are resolved below the error bound before noise is added


@dataclass(frozen=True)
class SharingPlan:
    """How much scores of one key are blurred, fixed before the first of them leaves.

    `error_bound`: of the engine's plan, in score units; 0 for an exact engine, which blurs nothing and counts nothing.
    `at_most`: scores and verdicts that may leave over the key's whole life. Raises `FixConfigurationError` for another
    number than 1 to 10**9.
    """

    key: str
    error_bound: float
    at_most: int

    def __post_init__(self) -> None:
        if not 1 <= self.at_most <= _MOST:
            raise FixConfigurationError(
                "a key shares at least one score and at most 10**9", value=self.at_most, remedy="Declare how many."
            )
        if not 0 <= self.error_bound < math.inf:
            raise FixInputError("an error bound is a number of 0 or more", value=self.error_bound)

    @property
    def exact(self) -> bool:
        """Whether decryptions hold no error that could tell of the key."""
        return self.error_bound == 0

    @property
    def unit(self) -> float:
        """Scores are whole multiples of this power of two before noise is added, so that noise can be exact."""
        return math.ldexp(1.0, math.floor(math.log2(self.error_bound)) - _FINE)

    @property
    def _deviation(self) -> int:
        # One unit more: two values that differ by the bound may be rounded apart.
        apart = self.error_bound / self.unit + 1
        return math.ceil(apart * math.sqrt(12 * self.at_most) * math.exp2(STATISTICAL_BITS / 2))

    @property
    def _step(self) -> int:
        return 1 << ((self._deviation // 4).bit_length() - 1)

    @property
    def deviation(self) -> float:
        """Of the noise, in score units."""
        return 0.0 if self.exact else self._deviation * self.unit

    @property
    def step(self) -> float:
        """What shared scores are multiples of; no more than a quarter of the deviation."""
        return 0.0 if self.exact else self._step * self.unit

    @property
    def accuracy(self) -> float:
        """A shared score is within this of the integer program's in 95 of 100 cases."""
        return self.error_bound + 2 * self.deviation + self.step / 2

    def refuse_useless(self, useful: float) -> None:
        """Raise `PrivacyRefusedError` unless shared scores are as accurate as the caller needs, `useful` > 0."""
        if not 0 < useful < math.inf:
            raise FixConfigurationError(
                "the accuracy that shared scores need is a positive number",
                value=useful,
                remedy="Say with --useful how far off a shared score may be.",
            )
        if self.accuracy <= useful:
            return
        few = SharingPlan(self.key, self.error_bound, 1)
        if few.accuracy <= useful:
            fits = int(self.at_most * (useful / self.accuracy) ** 2 * 0.99) or 1
            remedy = f"Score these rows with a key made for them alone, which shares at most {fits:,}"
        else:
            bound = self.error_bound * useful / few.accuracy
            remedy = f"No number of scores is small enough: the model's tolerance would have to be {bound:.1e} or less"
        raise PrivacyRefusedError(
            f"noise that protects the key would destroy these scores: off by up to {self.accuracy:.3g} where "
            f"{useful:.3g} is needed",
            value=f"error bound {self.error_bound:.3g}, at most {self.at_most:,} shared scores",
            remedy=f"Nothing was shared. {remedy}; or use an exact engine (bfv), or do with less accuracy.",
        )

    def blur(self, scores: Array) -> Array:
        """Float64 `(n,)`: scores with fresh noise, rounded to `step`. Each call is a release of all of them."""
        if self.exact:
            return scores
        step = self._step

        def one(score: float) -> float:
            noised = round(score / self.unit) + discrete_gaussian(self._deviation)
            return (noised + step // 2) // step * step * self.unit

        return np.array([one(score) for score in scores.tolist()], dtype=np.float64)


@dataclass(frozen=True)
class SharingRecord:
    """DIR/secret/sharing.json: what left so far, of how many."""

    key: str
    at_most: int
    shared: int = 0
    format: int = 1

    def __post_init__(self) -> None:
        if not (0 <= self.shared <= self.at_most and 1 <= self.at_most <= _MOST and self.format == 1):
            raise FixInputError("this is no record of shared scores", value=(self.shared, self.at_most, self.format))


@dataclass(frozen=True, eq=False)
class SharedScores:
    """What may leave: `scores` float64 `(n,)`, and `is_anomaly` made from them, never from the true scores."""

    scores: Array
    is_anomaly: Array
    accuracy: float


class Sharing:
    """The scores and verdicts of one key that may leave the key holder, counted.

    With `path` the count is a file that outlives the process: for each release it is locked, read again and replaced
    before the release is made, so that neither a crash nor another process can make it forget; at worst it over-counts.
    Without, it lasts as long as this object, for keys that do not live longer either.
    """

    def __init__(self, plan: SharingPlan, threshold: float, *, path: Path | None = None) -> None:
        self.plan = plan
        self._threshold, self._path = threshold, path
        self._record = self._stored(SharingRecord(plan.key, plan.at_most))

    @classmethod
    def of(cls, keys: HolderKeys, *, at_most: int, path: Path | None = None) -> Sharing:
        """For keys in memory; `at_most` is tau, declared once for all that will ever leave."""
        plan = SharingPlan(keys.record.key, keys.plan.error_bound, at_most)
        return cls(plan, keys.model.threshold.value, path=path)

    @property
    def shared(self) -> int:
        """Scores and verdicts that left so far; an exact engine's are not counted."""
        return self._record.shared

    def share_score(self, scores: Array, *, useful: float | None = None) -> SharedScores:
        """Scores `(n,)` as they may be told to anyone, the service included, and verdicts made from them.

        Each row counts once, whether its score, its verdict or both are told; the same row again counts again, and
        so does an alarm, a retry or a block that the service can see. `useful`: how far off a shared score may be in
        score units, by default a hundredth of the model's threshold. Raises `PrivacyRefusedError`, and shares and
        counts nothing, when the noise is larger than that or more would leave than was declared.
        """
        scores = np.asarray(scores, dtype=np.float64)
        if scores.ndim != 1 or not np.isfinite(scores).all():
            raise FixInputError("scores are finite numbers in one row", value=scores.shape)
        if not self.plan.exact:
            self.plan.refuse_useless(abs(self._threshold) * _USEFUL_SHARE if useful is None else useful)
            self._charge(len(scores))
        told = self.plan.blur(scores)
        return SharedScores(told, told > self._threshold, self.plan.accuracy)

    def _charge(self, count: int) -> None:
        with files.locked(self._path) if self._path is not None else contextlib.nullcontext():
            record = self._stored(self._record)
            if record.shared + count > record.at_most:
                raise PrivacyRefusedError(
                    f"sharing {count:,} more would go beyond the {record.at_most:,} that this key may share",
                    value=f"{record.shared:,} shared before",
                    remedy="Nothing was shared. Ask for fewer rows, or score what comes next with a new key.",
                )
            after = SharingRecord(record.key, record.at_most, record.shared + count)
            if self._path is not None:
                files.write_json(self._path, codec.to_plain(after), mode=0o600)
            self._record = after

    def _stored(self, record: SharingRecord) -> SharingRecord:
        """The record as it stands in the file by now: other processes may have shared more."""
        if self._path is None or self.plan.exact or not self._path.exists():
            return record
        stored = read_sharing(self._path)
        if (stored.key, stored.at_most) != (record.key, record.at_most):
            raise FixConfigurationError(
                f"{self._path} was begun for another key or another number of scores",
                value=f"{stored.at_most:,} there, {record.at_most:,} asked for",
                remedy="The noise of what left was sized for that number: keep it, or make a new key.",
            )
        return stored


def read_sharing(path: Path) -> SharingRecord:
    """A file that a `Sharing` wrote."""
    return codec.from_plain(SharingRecord, files.read_json(path, limit=1 << 16), where=str(path))


def open_sharing(directory: Path | str, *, at_most: int | None = None) -> Sharing:
    """What the key of a key directory, or of its secret half, may share; opens no secret.

    `at_most` is declared at the first release and may be left out afterwards; an exact engine needs none. Raises
    `UseOtherKeyError` without the secret half, `FixConfigurationError` where the number is missing or another.
    """
    half = secret_half(directory)
    record, (model, plan) = read_record(half), read_plan(half)
    path = half / SHARING_FILE
    if at_most is None:
        if plan.error_bound == 0:
            at_most = 1  # not looked at
        elif path.exists():
            at_most = read_sharing(path).at_most
        else:
            raise FixConfigurationError(
                "nobody has declared how many scores this key may share over its life",
                where=str(directory),
                remedy="Say so once with --at-most N: the noise grows with its square root, and it cannot be changed.",
            )
    return Sharing(SharingPlan(record.key, plan.error_bound, at_most), model.threshold.value, path=path)
