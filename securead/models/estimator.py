"""The base of all detectors: scikit-learn's outlier contract on top, the training contract below.

`fit` is central and non-private: bounds and scale come from the data, nothing is noised, and the privacy statement
says so. With `schema` and `privacy` it runs the same rounds privately with the data as the only site. Executors in
`securead.federated` run them over many sites.
"""

from __future__ import annotations

import abc
import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any, Literal, Self

import numpy as np
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from securead.data.encoder import Encoder
from securead.data.schema import Array, Schema
from securead.data.windows import WindowedSchema
from securead.errors import FixConfigurationError
from securead.models import local
from securead.models.bundle import Threshold
from securead.models.layout import OPAQUE, Layout
from securead.models.local import LOCAL, LOCAL_SHARE
from securead.models.protection import protect, statement
from securead.models.threshold import Calibrator, Costs, FalseAlarms, Wish, refuse_no_number
from securead.models.training import DONE, State, Total, Update, release
from securead.privacy import preprocessing
from securead.privacy.budget import Budget
from securead.privacy.plan import PrivacyPlan, Stage
from securead.privacy.site import Releaser, Unprotected
from securead.privacy.statement import PrivacyStatement
from securead.program.program import Program

SCALING, THRESHOLD = "scaling", "threshold"
_SCALING_SHARE, _THRESHOLD_SHARE = 0.2, 0.1
_WHAT = {SCALING: "histograms of every column, for scaling", LOCAL: local.WHAT}


class AnomalyDetector(OutlierMixin, BaseEstimator, abc.ABC):  # type: ignore[misc]
    """What every detector shares: scaling, limits, threshold, and the two contracts.

    Parameters
    ----------
    scaling: "schema" takes each column's declared centre and spread (or the middle and a sixth of its bounds);
        "private" estimates them from noised histograms, charged to the budget; "local" has every site do so for
        itself, on windows of readings (`models.local`): scores are then of windows on the gateway's own scale.
    threshold: "model" derives it from the detector's own distribution at rate `contamination`, touching no record;
        "private" takes it from a noised histogram of scores, charged. `FalseAlarms(rate)` does so for a wanted rate of
        false alarms, leaving known anomalies out where there are labels; `Costs(missed, false_alarm)` takes the least
        cost on labelled records. A central fit takes the exact quantile, or the exact optimum.
    contamination: the share of records to flag where nothing else is asked for.
    limit: standardised values are clipped to [-limit, limit].
    schema, privacy: public bounds and a `PrivacyPlan`; both or neither.
    """

    sums_only = True
    """Whether every stage is a sum over records, so that exact training does not see how they are split."""

    def __init__(
        self,
        *,
        scaling: Literal["schema", "private", "local"] = "schema",
        threshold: Wish = "model",
        contamination: float = 0.1,
        limit: float = 8.0,
        schema: Schema | None = None,
        privacy: PrivacyPlan | None = None,
    ) -> None:
        self.scaling = scaling
        self.threshold = threshold
        self.contamination = contamination
        self.limit = limit
        self.schema = schema
        self.privacy = privacy

    # --- what a detector adds -------------------------------------------------------------------------------------

    def initial_values(self, schema: Schema) -> Mapping[str, Array]:
        """Public values that the detector's own stages start from, such as a geometry; drawn once, never by a site."""
        return {}

    def scale_from(
        self, noised: Array, edges: Array, noise_deviation: float, names: tuple[str, ...]
    ) -> tuple[Array, Array]:
        """Centre and spread of each column from noised histograms of every column, for scaling="private"."""
        return preprocessing.estimate_scale(noised, edges, noise_deviation, names)

    @abc.abstractmethod
    def model_stages(self) -> Mapping[str, Stage]:
        """The detector's own stages, in order; their shares sum to 1 where none is sampled."""

    @abc.abstractmethod
    def model_update(self, state: State, Z: Array, releaser: Releaser) -> Update:
        """One site's update of one of `model_stages` from standardised records."""

    def model_layout(self, state: State) -> Layout:
        """How updates of one of `model_stages` are laid out; to be told where rules other than the sum should work."""
        return OPAQUE

    @abc.abstractmethod
    def model_state(self, state: State, total: Total) -> Mapping[str, Array]:
        """New public values from one stage's total."""

    @abc.abstractmethod
    def score_standardised(self, values: Mapping[str, Array], Z: Array) -> Array:
        """Anomaly scores (higher is more anomalous) of standardised records, from public values alone."""

    @abc.abstractmethod
    def score_quantile(self, values: Mapping[str, Array], share_above: float) -> float:
        """The score that `share_above` of normal records exceed under the detector's own distribution."""

    @abc.abstractmethod
    def score_limits(self, values: Mapping[str, Array]) -> tuple[float, float]:
        """Public positive bounds between which a threshold is looked for."""

    def score_step(self, values: Mapping[str, Array]) -> float | None:
        """Of which value all scores are multiples, or None where they are not."""
        return None

    def site_loss(self, state: State, values: Array) -> float | None:
        """The validation loss per record that an update's or a total's values tell, or None."""
        return None

    def stage_in_words(self, stage: str) -> str:
        """What a stage releases, for the privacy statement."""
        if stage == THRESHOLD:
            return f"{self._calibrator.released}, for the threshold"
        return _WHAT.get(stage, stage)

    @abc.abstractmethod
    def compile(
        self, *, weight_bits: int | None = None, fraction_bits: int = 14, ring_bits: int | None = None
    ) -> Program:
        """The fitted detector as a program with integer weights; `tolerance` follows from the score's own scale.

        With `ring_bits`, one for secret sharing: its values fit so many bits, at the cost of fraction bits.
        """

    # --- the training contract ------------------------------------------------------------------------------------

    def stages(self) -> Mapping[str, Stage]:
        """All stages that release something, in order."""
        before = {SCALING: Stage(_SCALING_SHARE)} if self.scaling == "private" else {}
        if self.scaling == "local":
            before = {LOCAL: Stage(LOCAL_SHARE)}
        after = {THRESHOLD: Stage(_THRESHOLD_SHARE)} if self._calibrator.counts_scores else {}
        rest = 1 - sum(stage.share for stage in (*before.values(), *after.values()))
        model = {
            name: dataclasses.replace(stage, share=rest * stage.share) for name, stage in self.model_stages().items()
        }
        return before | model | after

    def stage_after(self, stage: str, values: Mapping[str, Array]) -> str:
        """The stage that follows, given the values after `stage`; by default the next in order."""
        order = [*self.stages(), DONE]
        return order[order.index(stage) + 1]

    def initial_state(self, schema: Schema) -> State:
        """The state before the first round; checks parameters."""
        self._check_parameters()
        if self.scaling == "local":
            local.check_schema(schema)
        return self._entering(next(iter(self.stages())), schema, {})

    def site_update(self, state: State, data: Array, releaser: Releaser, labels: Array | None = None) -> Update:
        """One site's contribution to one round, from its raw records `(n, d)`.

        `labels` `(n,)`, 1 for known anomalies, serve the threshold alone; `Costs` cannot do without.
        """
        if state.stage == SCALING:
            bounded, _ = state.schema.bounded(data)
            edges = preprocessing.scaling_edges(*state.schema.transformed_bounds())
            counts = preprocessing.histogram(state.schema.transformed(bounded), edges)
            return release(state, counts, preprocessing.sensitivity(len(edges)), releaser)
        if state.stage == LOCAL:
            return local.update(state, data, releaser)
        if self.scaling == "local" and isinstance(state.schema, WindowedSchema):
            data = local.standardised(state, data, releaser)
        Z = self._encoder(state.schema).standardise(data)
        if state.stage == THRESHOLD:
            scores, known = self.score_standardised(state.values, Z), self.check_labels(labels, len(Z))
            edges = self._score_edges(state.values)[None, :]
            counts = np.concatenate(
                [preprocessing.histogram(part[:, None], edges) for part in self._calibrator.parts(scores, known)]
            )
            # A record is in one part at most, and there in one bin.
            return release(state, counts, preprocessing.sensitivity(1), releaser)
        return self.model_update(state, Z, releaser)

    def check_labels(self, labels: Array | None, records: int) -> Array | None:
        """Known anomalies as booleans `(n,)` where the threshold looks at labels, else None.

        `FixInputError` for labels that are none, or for none where the threshold cannot do without: to be called before
        anything is released.
        """
        return self._calibrator.checked(labels, records)

    def next_state(self, state: State, total: Total) -> State:
        """The coordinator's step: public state and a sum in, public state out."""
        schema, values = state.schema, dict(state.values)
        if state.stage == SCALING:
            edges = preprocessing.scaling_edges(*schema.transformed_bounds())
            noise = preprocessing.deviation(total.noise_variance)
            scale = self.scale_from(preprocessing.counts(total.values), edges, noise, schema.names)
            schema = schema.with_scale(*scale)
        elif state.stage == LOCAL:
            schema, fleet = local.next_state(schema, total)
            values |= fleet
        elif state.stage == THRESHOLD:
            noise = preprocessing.deviation(total.noise_variance)
            found = self._calibrator.from_histograms(
                preprocessing.counts(total.values), self._score_edges(values), noise
            )
            values[THRESHOLD] = np.array([found.value, found.share, found.low, found.high], dtype=float)
        else:
            values |= self.model_state(state, total)
        return self._entering(self.stage_after(state.stage, values), schema, values)

    def finish(self, state: State) -> Self:
        """Set the fitted attributes. `offset_` is minus the threshold, as scikit-learn counts scores downwards."""
        if not state.done:
            raise FixConfigurationError("training has rounds left", value=state.stage)
        self._set_fitted(state)
        if THRESHOLD in self.values_:
            value, share, low, high = map(float, self.values_[THRESHOLD])
            origin = self._calibrator.origin("noised histograms of")
            self.calibration_ = Threshold(value, origin, share, low, high)
        else:
            quantile = functools.partial(self.score_quantile, self.values_)
            self.calibration_ = self._calibrator.from_model(quantile)
        return self._with_threshold()

    # --- scikit-learn ---------------------------------------------------------------------------------------------

    def fit(self, X: Any, y: Any = None) -> Self:
        """Fit on one table. Private when `schema` and `privacy` are set, exact otherwise.

        `y`, 1 for known anomalies, serves a threshold by `FalseAlarms` or `Costs` and is ignored otherwise.
        """
        X = validate_data(self, X, dtype=np.float64, ensure_min_samples=2)
        names = getattr(self, "feature_names_in_", None)
        if (self.schema is None) != (self.privacy is None):
            raise FixConfigurationError(
                "a private fit needs a schema with public bounds and a privacy plan",
                value={"schema": self.schema is not None, "privacy": self.privacy is not None},
                remedy="Give both; or neither, for an exact, non-private fit.",
            )
        labels = y if isinstance(self.threshold, FalseAlarms | Costs) else None
        if self.schema is None or self.privacy is None:
            return self._fit_exactly(X, None if names is None else tuple(names), self.check_labels(labels, len(X)))
        if names is not None:
            self.schema.order(tuple(names))
        self._check_parameters()
        self.check_labels(labels, len(X))
        site = protect(
            self, self.privacy, Budget("data", self.privacy.epsilon, self.privacy.delta), job="fit", schema=self.schema
        )
        state, stages = self.initial_state(self.schema), list[str]()
        while not state.done:
            stages.append(state.stage)
            state = self.next_state(state, _single(self.site_update(state, X, site, labels)))
        self.finish(state)
        records, readings = [site.guarantee()], [site.guarantee_of_readings()]
        self.statement_ = statement(self, self.privacy, self.schema, stages, records, readings)
        if self.scaling == "local":
            self.scales_ = {site.site: local.scale_of(self.schema, self.values_, site, site.site)}
        return self

    def _fit_exactly(self, X: Array, names: tuple[str, ...] | None, labels: Array | None) -> Self:
        largest = np.maximum(1, np.abs(X).max(axis=0))
        unit = X / largest  # so that squares and sums of huge values stay finite
        spread = unit.std(axis=0)
        schema = Schema.observed(X, names).with_scale(
            unit.mean(axis=0) * largest, np.where(spread > 1e-9, spread * largest, 1.0)
        )
        self._check_parameters()
        site, stages = Unprotected(), self.model_stages()
        state = State(next(iter(stages)), schema, self.initial_values(schema))
        while state.stage in stages:
            values = {**state.values, **self.model_state(state, _single(self.site_update(state, X, site)))}
            state = State(self.stage_after(state.stage, values), schema, values)
        self._set_fitted(dataclasses.replace(state, stage=DONE))
        self.calibration_ = self._calibrator.exactly(self.anomaly_score(X), labels)
        return self._with_threshold()

    def anomaly_score(self, X: Any) -> Array:
        """Anomaly scores `(n,)`, higher is more anomalous, of raw records `(n, d)`; values are clipped to bounds."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        return self.score_standardised(self.values_, self.encoder_.standardise(X))

    def score_samples(self, X: Any) -> Array:
        """scikit-learn's reading: the opposite of `anomaly_score`."""
        return -self.anomaly_score(X)

    def decision_function(self, X: Any) -> Array:
        """`score_samples - offset_`: negative for anomalies."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> Array:
        """-1 for anomalies, +1 for the rest."""
        return np.where(self.decision_function(X) < 0, -1, 1)

    # --- inner ----------------------------------------------------------------------------------------------------

    def _encoder(self, schema: Schema, fraction_bits: int = 14) -> Encoder:
        return Encoder(schema, limit=float(self.limit), fraction_bits=fraction_bits)

    def _score_edges(self, values: Mapping[str, Array]) -> Array:
        # No score is negative: a threshold at the first edge flags every record, one of score 0 included.
        low, high = self.score_limits(values)
        return np.concatenate([[-1.0], np.geomspace(low, high, self._calibrator.bins)])

    def _set_fitted(self, state: State) -> None:
        self.values_ = dict(state.values)
        self.encoder_ = self._encoder(state.schema)
        self.n_features_in_ = len(state.schema.columns)
        self.statement_ = PrivacyStatement(private=False)

    def _with_threshold(self) -> Self:
        step = self.score_step(self.values_)
        if step is not None:
            # Between two possible scores, so that detector and program, which round differently, agree on every record.
            value = (math.floor(self.calibration_.value / step + 1e-6) + 0.5) * step
            self.calibration_ = dataclasses.replace(self.calibration_, value=value)
        self.threshold_ = self.calibration_.value
        self.offset_ = -self.threshold_
        return self

    def _entering(self, stage: str, schema: Schema, values: Mapping[str, Array]) -> State:
        """The state at the start of a stage; the detector's own begin with its initial values."""
        first = next(iter(self.model_stages()))
        return State(stage, schema, {**values, **self.initial_values(schema)} if stage == first else dict(values))

    @property
    def _calibrator(self) -> Calibrator:
        return Calibrator(self.threshold, self.contamination)

    def _check_parameters(self) -> None:
        refuse_no_number("limit", self.limit)
        if self.scaling not in ("schema", "private", "local"):
            raise FixConfigurationError(
                'scaling is "schema", "private" or "local"', value=self.scaling, remedy="Correct it."
            )
        _ = self._calibrator  # refuses what it cannot do


def _single(update: Update) -> Total:
    return Total(update.stage, update.values, update.noise_variance, 1)
