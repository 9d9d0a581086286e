"""What all imported detectors share: scikit-learn's outlier methods, the imported threshold, and plain statements."""

from __future__ import annotations

import abc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from securead.data.encoder import Encoder
from securead.data.schema import Array
from securead.errors import FixConfigurationError, FixInputError, FixProgramError
from securead.models.bundle import Threshold
from securead.models.imported.records import Given
from securead.models.threshold import Calibrator, exact_at_rate, refuse_no_number
from securead.privacy.statement import PrivacyStatement
from securead.program.program import Program

_CHECKED = 200
# Originals may compute in float32.
_ORIGINAL_ROUNDING = 2e-3


@dataclass(frozen=True, eq=False)
class Origin:
    """Where a detector comes from: its name for people, and its own anomaly score (higher is more anomalous)."""

    name: str
    score: Callable[[Array], Array]
    threshold: float | None = None
    threshold_said: str = ""


class ImportedDetector(abc.ABC):
    """A fitted detector whose parameters came from elsewhere; it cannot be fitted again.

    `anomaly_score` is what programs and engines compute. `score_samples` and `decision_function` are on the original's
    own scale, in scikit-learn's direction; the two scales are monotone in each other (`in_original_scale`).

    Attributes: `calibration_` and `threshold_` (on the scale of `anomaly_score`), `offset_` (on the original's),
    `statement_`, `encoder_`, `n_features_in_`.
    """

    slack = 0.0
    """How far the detector itself, before it compiles, may be from the original, on the original's scale."""

    encoder_: Encoder
    calibration_: Threshold
    statement_: PrivacyStatement

    def __init__(self, encoder: Encoder) -> None:
        self.encoder_ = encoder
        self.n_features_in_ = encoder.width

    @abc.abstractmethod
    def score_standardised(self, Z: Array) -> Array:
        """Anomaly scores `(n,)` of standardised records."""

    @abc.abstractmethod
    def error_bound(self, X: Any) -> Array:
        """The most `(n,)` by which `compile()`'s scores, on the original's scale, may differ from the original's.

        Proven for records within bounds; an engine's error and the original's own rounding in float32 come on top.
        """

    @abc.abstractmethod
    def compile(
        self, *, weight_bits: int | None = None, fraction_bits: int | None = None, ring_bits: int | None = None
    ) -> Program:
        """The detector as a program with integer weights; `ring_bits` as `AnomalyDetector.compile` takes it."""

    def in_original_scale(self, scores: Array) -> Array:
        """Scores of `anomaly_score` or of an encrypted run as the original gives them (higher is more anomalous)."""
        return scores

    def from_original_scale(self, scores: Array) -> Array:
        """The inverse of `in_original_scale`."""
        return scores

    def place_threshold(self, value: float) -> float:
        """Where a threshold lies so that detector and program flag the same records."""
        return value

    # --- scikit-learn ---------------------------------------------------------------------------------------------

    def anomaly_score(self, X: Any) -> Array:
        """Anomaly scores `(n,)`, higher is more anomalous, of raw records `(n, d)`; values are clipped to bounds."""
        names = getattr(X, "columns", None)
        if names is not None:
            self.encoder_.schema.order(tuple(map(str, names)))
        return self.score_standardised(self.encoder_.standardise(np.asarray(X, dtype=np.float64)))

    def score_samples(self, X: Any) -> Array:
        """The original's scores, downwards: lower is more anomalous."""
        return -self.in_original_scale(self.anomaly_score(X))

    def decision_function(self, X: Any) -> Array:
        """`score_samples - offset_`: negative for anomalies."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> Array:
        """-1 for anomalies, +1 for the rest."""
        return np.where(self.anomaly_score(X) > self.threshold_, -1, 1)

    # --- what an import adds --------------------------------------------------------------------------------------

    def finish(
        self, origin: Origin, given: Given, disclosed: tuple[str, ...], *, guess: Threshold | None = None
    ) -> None:
        """Set the threshold and the statement, and refuse an import that does not score as its original does.

        `guess`: a threshold from a model of the scores, taken where there is no better one.
        """
        found = self._threshold(origin, given, guess)
        value = float(self.from_original_scale(np.array([found.value]))[0])
        if not np.isfinite(value):
            raise FixConfigurationError("no score lies at this threshold", value=found.value)
        said = f"{found.origin}; {self.scale_in_words(found.value)}"
        self.calibration_ = Threshold(self.place_threshold(value), said, found.share, found.low, found.high)
        self.threshold_ = self.calibration_.value
        self.offset_ = -found.value
        self.statement_ = PrivacyStatement(
            private=False,
            imported_from=origin.name,
            not_covered=disclosed,
            observed_bounds=self.encoder_.schema.origin == "observed",
        )
        self._refuse_unless_equal(origin, given)

    def scale_in_words(self, threshold: float) -> str:
        """How the program's scores relate to the original's, and the threshold on the original's scale."""
        return f"scores are the original's, {threshold:.6g} there"

    def _threshold(self, origin: Origin, given: Given, guess: Threshold | None) -> Threshold:
        """On the original's scale: what the caller asked for, else the original's own, else from records, else `guess`.

        A share of records is asked for by `contamination`, which looks at `X`.
        """
        X = given.records(self.n_features_in_)
        if given.threshold is not None:
            refuse_no_number("threshold", given.threshold)
            if given.contamination is not None:
                raise FixConfigurationError("threshold and contamination are two answers to one question")
            return Threshold(float(given.threshold), "given at import")
        if given.contamination is None and origin.threshold is not None:
            return Threshold(float(origin.threshold), origin.threshold_said)
        if X is not None and (given.contamination is not None or guess is None):
            rate = 0.1 if given.contamination is None else given.contamination
            Calibrator("model", rate)  # refuses what is no share
            scores = self.in_original_scale(self.anomaly_score(X))
            return exact_at_rate(scores, rate, f"flags {rate:.2%} of the records given at import")
        if given.contamination is not None:
            raise FixInputError(
                "a share of records to flag needs records",
                value=given.contamination,
                remedy="Give X= as well, or threshold= instead.",
            )
        if guess is None:
            raise FixInputError(
                f"{origin.name} has no threshold of its own",
                remedy="Give threshold=, or X= (and contamination=) to flag a share of these records.",
            )
        return guess

    def _refuse_unless_equal(self, origin: Origin, given: Given) -> None:
        schema = self.encoder_.schema
        lower, upper = (np.array([getattr(column, side) for column in schema.columns]) for side in ("lower", "upper"))
        X = given.records(self.n_features_in_)
        if X is None:
            X = np.random.default_rng(0).uniform(lower, upper, size=(_CHECKED, len(lower)))
        X = np.clip(X[:_CHECKED], lower, upper)
        theirs = np.asarray(origin.score(X), dtype=float)
        apart = np.abs(self.in_original_scale(self.anomaly_score(X)) - theirs)
        allowed = self.slack + _ORIGINAL_ROUNDING * np.maximum(np.abs(theirs), 1e-6)
        if not (apart <= allowed).all():
            raise FixProgramError(
                f"the import does not score as {origin.name} does",
                value=f"apart by {apart.max():.3g}",
                remedy="It was changed after fitting, or comes from a version that scores in another way.",
            )


def refuse(what: str, why: str, nearest: str) -> FixInputError:
    """The error for an original that cannot be carried: the reason, and the nearest detector that can."""
    return FixInputError(f"{what} cannot be imported: {why}", remedy=f"Nearest: {nearest}.")
