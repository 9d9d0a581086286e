"""Subspace detectors: Mahalanobis distance and PCA residual, from one round of first and second moments.

Each site clips its standardised records to an L2 ball, sums v v^T for v = (a z/R, b) with a^2 + b^2 = 1, and adds
noise: |v| <= 1 makes the L2 sensitivity of the whole matrix 1 (Dwork, Talwar, Thakurta and Zhang 2014, "Analyze
Gauss"; here with the means and the count in the same release). Scores: Mahalanobis (1936); Hotelling and the residual
of principal components (Jackson and Mudholkar 1979).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import numpy as np
from scipy import stats
from sklearn.utils.validation import check_is_fitted

from securead.data.schema import Array, Schema
from securead.errors import FixConfigurationError, FixInputError, FixProgramError, PrivacyRefusedError
from securead.models.estimator import AnomalyDetector
from securead.models.layout import Layout
from securead.models.threshold import Wish, refuse_no_number
from securead.models.training import State, Total, Update, release
from securead.privacy.plan import PrivacyPlan, Stage
from securead.privacy.site import Releaser
from securead.program.builder import ProgramBuilder
from securead.program.program import Program

MOMENTS = "moments"
# One record's vector has this length in grid steps; with the weights below a record adds less than 2**37 to an entry,
# so sums over 2**25 records fit 62 bits.
_VECTOR_STEPS = 1 << 16
# Integers whose ratio is just below sqrt(2). An off-diagonal entry stands twice in the matrix, so weighting it by
# sqrt(2) leaves the Frobenius norm as the sensitivity and halves the variance of its noise.
_DIAGONAL, _OFF_DIAGONAL = 29, 41
# Share of a record's squared length that carries z; the rest counts records. More of it means less noise on moments.
_SIGNAL_SHARE = 0.8
_CHUNK = 1 << 16
_MOST_RECORDS = 1 << 25
# Far beyond any standardised record, and far from where a float64 quotient of lengths loses its last bits.
_CLIP_NORMS = (1e-6, 1e6)

# Of the largest score: some thousands of what CKKS in float64 adds to it.
_RESOLVED = 2.0**-35


class SubspaceDetector(AnomalyDetector):
    """Distance from the bulk of the records in the metric of their covariance, or outside their main directions.

    Parameters
    ----------
    method: "mahalanobis" scores (z-m)^T C^-1 (z-m); "pca_residual" scores the squared distance from the span of the
        leading principal components.
    components: how many principal components are kept ("pca_residual"); by default half of the columns.
    l2_clip_norm: records are scaled down to this L2 norm for training; by default 2 sqrt(d).
    Others: see `AnomalyDetector`.

    Eigenvalues of the covariance are floored at the larger of 1 % of their mean and the spectral norm that the
    privacy noise is expected to have, so that noise cannot turn a direction into a false signal.
    """

    def __init__(
        self,
        *,
        method: Literal["mahalanobis", "pca_residual"] = "mahalanobis",
        components: int | None = None,
        l2_clip_norm: float | None = None,
        scaling: Literal["schema", "private", "local"] = "schema",
        threshold: Wish = "model",
        contamination: float = 0.1,
        limit: float = 8.0,
        schema: Schema | None = None,
        privacy: PrivacyPlan | None = None,
    ) -> None:
        super().__init__(
            scaling=scaling,
            threshold=threshold,
            contamination=contamination,
            limit=limit,
            schema=schema,
            privacy=privacy,
        )
        self.method = method
        self.components = components
        self.l2_clip_norm = l2_clip_norm

    def model_stages(self) -> Mapping[str, Stage]:
        """One round."""
        return {MOMENTS: Stage(share=1.0)}

    def stage_in_words(self, stage: str) -> str:
        """The moments, or what every detector may release."""
        return "first and second moments of clipped records" if stage == MOMENTS else super().stage_in_words(stage)

    def model_update(self, state: State, Z: Array, releaser: Releaser) -> Update:
        """The weighted upper triangle of sum v v^T, exact integers; one record changes it by at most |v|^2."""
        if len(Z) > _MOST_RECORDS:
            raise FixInputError(
                f"one site's sums hold {_MOST_RECORDS:,} records at most",
                value=len(Z),
                remedy="Train on a part of them, or as two sites.",
            )
        radius = self._radius(Z.shape[1])
        signal, constant = _vector_steps()
        total = np.zeros((Z.shape[1] + 1, Z.shape[1] + 1), dtype=np.int64)
        for start in range(0, len(Z), _CHUNK):
            block = Z[start : start + _CHUNK]
            norms = np.linalg.norm(block, axis=1, keepdims=True)
            scaled = block * np.minimum(1.0, radius / np.maximum(norms, 1e-300)) * (signal / radius)
            # Towards zero: rounding can only shorten a vector, so its length stays within the sensitivity.
            V = np.column_stack([np.trunc(scaled * (1 - 1e-12)), np.full(len(block), float(constant))])
            # float64 holds these sums exactly: 2**16 rows of at most 2**32 each stay below 2**53.
            total += (V.T @ V).astype(np.int64)
        weighted = total[np.triu_indices(len(total))] * _entry_weights(len(total))
        return release(state, weighted, _DIAGONAL * _VECTOR_STEPS**2, releaser)

    def model_layout(self, state: State) -> Layout:
        """Moments; the last one counts records, each of which adds a matrix of bounded norm."""
        unit = _DIAGONAL * _vector_steps()[1] ** 2
        return Layout("weighted", unit=unit, l2_per_record=float(_DIAGONAL * _VECTOR_STEPS**2))

    def model_state(self, state: State, total: Total) -> Mapping[str, Array]:
        """Mean and covariance of standardised records, and the deviation of the covariance's noise."""
        width = len(state.schema.columns)
        signal, constant = _vector_steps()
        matrix = np.zeros((width + 1, width + 1))
        matrix[np.triu_indices(width + 1)] = total.values / _entry_weights(width + 1)
        matrix = matrix + np.triu(matrix, 1).T
        deviation = math.sqrt(total.noise_variance) / _DIAGONAL
        # A count within three deviations of its noise says that there are no records to speak of.
        if matrix[-1, -1] <= 3 * deviation:
            raise PrivacyRefusedError(
                "too few records: their noised number cannot be told from zero",
                value=f"{matrix[-1, -1] / constant**2:.1f} records, noise {deviation / constant**2:.1f}",
                remedy="Add records or allow a larger epsilon.",
            )
        records = matrix[-1, -1] / constant**2
        unit = self._radius(width) / signal
        mean = matrix[-1, :-1] * unit / constant / records
        covariance = matrix[:-1, :-1] * unit**2 / records - np.outer(mean, mean)
        return {"mean": mean, "covariance": covariance, "noise": np.array([deviation * unit**2 / records])}

    def score_standardised(self, values: Mapping[str, Array], Z: Array) -> Array:
        """Squared length of the whitened or residual part of z - mean."""
        scores: Array = (((Z - values["mean"]) @ self._factor(values).T) ** 2).sum(axis=1)
        return scores

    def score_quantile(self, values: Mapping[str, Array], share_above: float) -> float:
        """Chi-square for Mahalanobis; for the residual, Jackson and Mudholkar's moment-matched chi-square."""
        eigenvalues, floor, _ = _spectrum(values)
        floored = np.maximum(eigenvalues, floor)
        if self.method == "pca_residual":
            variances = floored[: len(floored) - self._kept(len(floored))]
        else:
            variances = np.maximum(eigenvalues, 0) / floored
        if not variances.max(initial=0.0) > 1e-12:
            variances = np.ones_like(variances)  # records that never vary: a score counts floors of the covariance
        first, second = variances.sum(), (variances**2).sum()
        return float(stats.chi2.ppf(1 - share_above, df=first**2 / second) * second / first)

    def score_limits(self, values: Mapping[str, Array]) -> tuple[float, float]:
        """From a thousandth of the typical score to the largest that clipped records can reach."""
        factor = self._factor(values)
        reach = np.abs(factor) @ (self.limit + np.abs(values["mean"]))
        typical = self.score_quantile(values, 0.5)
        return typical / 1000, max(float((reach**2).sum()), typical)

    def compile(
        self, *, weight_bits: int | None = None, fraction_bits: int = 14, ring_bits: int | None = None
    ) -> Program:
        """Squares of affine forms, summed; integer weights of `weight_bits` fraction bits.

        By default these are as few as keep a typical score within about a thousandth of the float detector's.

        An orthogonal factor in front of the forms leaves the sum of their squares unchanged, so it is chosen to make
        the weight matrix triangular (QR identity): half of the products with weights vanish. When fewer components are
        kept than left out, the residual is |z-m|^2 minus their squares, and |z|^2 is a public term.

        With `ring_bits`, inputs have as many of `fraction_bits` as let the score fit so many bits.
        """
        check_is_fitted(self)
        program = self._compiled(weight_bits, fraction_bits)
        if ring_bits is None or program.public.score_bits <= ring_bits:
            return program
        fewer = fraction_bits - math.ceil((program.public.score_bits - ring_bits) / 2)
        if fewer < 6:
            raise FixProgramError(
                f"the score does not fit {ring_bits} bits",
                value=program.public.score_bits,
                remedy="Fit with a smaller limit, or compile with a smaller weight_bits.",
            )
        return self._compiled(weight_bits, fewer)

    def _compiled(self, weight_bits: int | None, fraction_bits: int) -> Program:
        values = self.values_
        factor, mean = self._factor(values), values["mean"]
        builder = ProgramBuilder(self._encoder(self.encoder_.schema, fraction_bits))
        subtract = self.method == "pca_residual" and 0 < 2 * self._kept(len(mean)) < len(mean)
        if subtract:
            factor = _principal(values, self._kept(len(mean)))
        forms = _triangular(factor)
        typical, d = self.score_quantile(values, 0.5), len(mean)
        if weight_bits is None:
            # A weight is off by 2**-(bits + 1), a form of d of them by about sqrt(d) times that for |z_i| ~ 1. The
            # score moves by twice the length of all forms times this, sqrt(typical), or |z| where one subtracts.
            length = math.sqrt(d) if subtract else math.sqrt(typical)
            weight_bits = max(6, math.ceil(math.log2(1000 * length * math.sqrt(d) / typical)))
        bits = fraction_bits + weight_bits
        hidden = builder.affine([(forms, builder.input)], -forms @ mean, fraction_bits=bits)
        squares = builder.product(hidden, hidden)
        ones = np.ones((1, len(forms)))
        if subtract:
            builder.affine(
                [(-ones, squares), (-2 * mean[None, :], builder.input)],
                np.array([mean @ mean]),
                fraction_bits=builder.fraction_bits(squares),
            )
        else:
            builder.affine([(ones, squares)], fraction_bits=builder.fraction_bits(squares))
        return builder.finish(
            # A millionth, unless records can reach so far that float64, in which SEAL encodes, would not resolve that.
            tolerance=max(1e-6 * typical, self.score_limits(values)[1] * _RESOLVED),
            # A quadratic form in d variables has this many coefficients; as many honest scores determine it.
            honest_extraction_rows=(d + 1) * (d + 2) // 2,
            squared_norm=1.0 if subtract else None,
        )

    def _radius(self, width: int) -> float:
        low, high = _CLIP_NORMS
        if self.l2_clip_norm is not None:
            refuse_no_number("l2_clip_norm", self.l2_clip_norm)
        if self.l2_clip_norm is not None and not low <= self.l2_clip_norm <= high:
            raise FixConfigurationError(
                f"l2_clip_norm lies in [{low:g}, {high:g}]",
                value=self.l2_clip_norm,
                remedy="It is the length of a standardised record: leave it out for 2 sqrt(d).",
            )
        return self.l2_clip_norm or 2 * math.sqrt(width)

    def _kept(self, width: int) -> int:
        kept: object = width // 2 if self.components is None else self.components
        if not isinstance(kept, int | np.integer):
            raise FixConfigurationError(
                "components is a whole number", value=kept, remedy="Leave it out for its default."
            )
        if not 0 <= kept < max(width, 1):
            raise FixConfigurationError(
                f"components must be below the number of columns: the records have {width} feature(s)",
                value=kept,
                remedy="Keep fewer.",
            )
        return int(kept)

    def _factor(self, values: Mapping[str, Array]) -> Array:
        """The matrix A of the score |A (z - m)|^2, `(rank, d)`."""
        eigenvalues, floor, vectors = _spectrum(values)
        if self.method == "pca_residual":
            return vectors[:, : len(eigenvalues) - self._kept(len(eigenvalues))].T
        whitening: Array = (vectors / np.sqrt(np.maximum(eigenvalues, floor))).T
        return whitening

    def _check_parameters(self) -> None:
        super()._check_parameters()
        if self.method not in ("mahalanobis", "pca_residual"):
            raise FixConfigurationError(
                "method is mahalanobis or pca_residual", value=self.method, remedy="Correct it."
            )


def _vector_steps() -> tuple[float, int]:
    """Grid steps of the z part's largest length and of the constant, squares summing to at most those of a vector."""
    constant = math.isqrt(round((1 - _SIGNAL_SHARE) * _VECTOR_STEPS**2))
    return math.sqrt(_VECTOR_STEPS**2 - constant**2), constant


def _entry_weights(width: int) -> Array:
    """Integer weights of the upper triangle's entries, in the order of `np.triu_indices(width)`."""
    rows, columns = np.triu_indices(width)
    return np.where(rows == columns, _DIAGONAL, _OFF_DIAGONAL).astype(np.int64)


def _spectrum(values: Mapping[str, Array]) -> tuple[Array, float, Array]:
    """The covariance's eigenvalues in rising order, the floor below which nothing is known of them, eigenvectors."""
    eigenvalues, vectors = np.linalg.eigh((values["covariance"] + values["covariance"].T) / 2)
    # A symmetric noise matrix with off-diagonal deviation s has a spectral norm close to 2 s sqrt(d) (Wigner 1958);
    # here s is the diagonal's over sqrt(2).
    noise = float(values["noise"][0]) * math.sqrt(2 * len(eigenvalues))
    return eigenvalues, max(0.01 * float(np.abs(eigenvalues).mean()), noise, 1e-9), vectors


def _principal(values: Mapping[str, Array], kept: int) -> Array:
    """The leading eigenvectors as rows, `(kept, d)`."""
    _, _, vectors = _spectrum(values)
    return vectors[:, vectors.shape[1] - kept :].T


def _triangular(factor: Array) -> Array:
    """Q^T A for the orthogonal Q that makes it upper trapezoidal: the same squared length, fewer non-zeros."""
    return np.triu(np.linalg.qr(factor, mode="complete")[1])[: len(factor)]
