"""The autoencoder: squared reconstruction error of a small network trained by private federated averaging.

Federated averaging (McMahan et al. 2017; its kin in `models.averaging`) of local DP-SGD (Abadi et al. 2016), few long
rounds. A site's weight is its own noised number of records. After each round every site releases the noised loss of
records it kept aside; training stops when that no longer falls. The model may be the mean of the last rounds' weights.
With a single hidden layer of linear and square units the score is a polynomial of degree four, with two or three layers
of squares one of degree eight or sixteen, and compiles to a program by the QR identity.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from typing import Any, Literal, get_args

import numpy as np
from scipy import stats

from securead.data.schema import Array, Schema
from securead.errors import FixConfigurationError, PrivacyRefusedError
from securead.models import network
from securead.models.averaging import Optimizer, Server, Shipment, shipment
from securead.models.estimator import AnomalyDetector
from securead.models.layout import Layout
from securead.models.threshold import Wish, refuse_no_number
from securead.models.training import State, Total, Update, release, release_trained
from securead.privacy.mechanisms import GRID_BITS
from securead.privacy.plan import PrivacyPlan, Stage
from securead.privacy.randomness import Stream
from securead.privacy.site import Releaser
from securead.program.deep import MAX_HIDDEN, deep_program
from securead.program.layered import RING_BITS, layered_program
from securead.program.program import Program
from securead.program.reconstruction import TOLERANCE, Network, reconstruction_error

RECORDS = "records"
_UNIT = 1 << GRID_BITS
_VALIDATION_SHARE = 0.1
# A record's loss counts up to this multiple of the number of columns; z-scored records lose about 1 a column untrained.
_LOSS_LIMIT = 4.0


class AutoEncoder(AnomalyDetector):
    """Reconstruction error of a narrow network: high where a record breaks the relations between its columns.

    Parameters
    ----------
    hidden: units of the hidden layer, or of each hidden layer.
    units: "linear_square" (half and half), "linear_and_square" (each unit as it is and squared), "square", or "relu"
        (which only secret sharing can carry).
    rounds, sampling_prob: each round is one expected pass, 1 / sampling_prob steps on Poisson samples.
    l2_clip_norm: of one record's gradient, in private training.
    learning_rate, weight_decay, weight_limit: of AdamW; every weight is kept within [-weight_limit, weight_limit].
    proximal: mu of FedProx (Li et al. 2020), which holds sites to the common model while they train; no privacy cost.
    server_optimizer: "average" takes the sites' weighted average for the new model, "adam" (FedAdam, Reddi et al. 2021)
        takes steps of about server_learning_rate towards it; server_betas and server_tau are Adam's memories and floor,
        here for few rounds: a first memory of 0.9, usual for hundreds, barely leaves the start in ten.
    update_bits: of every value that a site sends of its network's change; None for whole weights at 64 bits.
    average_last: the model is the mean of so many last rounds' weights (Polyak and Juditsky 1992), and is what checks
        judge; training goes on from the last round's. Noise of single rounds cancels, and it costs no privacy.
    patience: consecutive rounds with a validation loss above the lowest by more than its noise, then training stops.
    random_state: the public seed of the initial weights (and, without privacy, of the batches).
    Others: see `AnomalyDetector`.
    """

    sums_only = False

    def __init__(
        self,
        *,
        hidden: int | tuple[int, ...] = 12,
        units: network.Units = "linear_square",
        rounds: int = 5,
        sampling_prob: float = 0.02,
        l2_clip_norm: float = 1.0,
        learning_rate: float = 5e-3,
        weight_decay: float = 1e-4,
        weight_limit: float = 1.0,
        proximal: float = 0.0,
        server_optimizer: Optimizer = "average",
        server_learning_rate: float = 0.1,
        server_betas: tuple[float, float] = (0.5, 0.99),
        server_tau: float = 0.03,
        update_bits: int | None = None,
        average_last: int = 1,
        patience: int = 2,
        random_state: int = 0,
        scaling: Literal["schema", "private", "local"] = "schema",
        threshold: Wish = "model",
        contamination: float = 0.1,
        limit: float = 4.0,
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
        self.hidden = hidden
        self.units = units
        self.rounds = rounds
        self.sampling_prob = sampling_prob
        self.l2_clip_norm = l2_clip_norm
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.weight_limit = weight_limit
        self.proximal = proximal
        self.server_optimizer = server_optimizer
        self.server_learning_rate = server_learning_rate
        self.server_betas = server_betas
        self.server_tau = server_tau
        self.update_bits = update_bits
        self.average_last = average_last
        self.patience = patience
        self.random_state = random_state

    # --- training -------------------------------------------------------------------------------------------------

    def model_stages(self) -> Mapping[str, Stage]:
        """The noised number of records, then rounds of DP-SGD, each followed by a noised validation loss."""
        self._check_parameters()
        stages = {RECORDS: Stage(share=0.02)}
        for number in range(1, self.rounds + 1):
            stages[f"round-{number}"] = Stage(sampling_prob=self.sampling_prob, steps=self._steps)
            stages[f"check-{number}"] = Stage(share=0.1 / self.rounds)
        return stages

    def site_loss(self, state: State, values: Array) -> float | None:
        """The noised loss per record that was kept aside, after a check."""
        if not state.stage.startswith("check-"):
            return None
        return float(values[0]) / max(float(values[1]), _UNIT) * _LOSS_LIMIT * len(state.schema.columns)

    def stage_in_words(self, stage: str) -> str:
        """A count, a round of DP-SGD, a validation loss, or what every detector may release."""
        if stage.startswith("round-"):
            share = f"{self.sampling_prob:.2g} of records"
            return f"DP-SGD: {self._steps} steps on {share} each, gradients clipped to {self.l2_clip_norm:g}"
        if stage.startswith("check-"):
            return "clipped validation losses"
        return "the number of records" if stage == RECORDS else super().stage_in_words(stage)

    def model_update(self, state: State, Z: Array, releaser: Releaser) -> Update:
        """A count, a locally trained network times this site's weight, or a clipped sum of validation losses."""
        if state.stage == RECORDS:
            return release(state, np.array([len(Z) * _UNIT]), _UNIT, releaser)
        kept_aside = releaser.coins(len(Z), _VALIDATION_SHARE, purpose="kept_aside", seed=self.random_state)
        if state.stage.startswith("check-"):
            cap = _LOSS_LIMIT * Z.shape[1]
            # fmin, because an error beyond float64 is NaN and counts as the cap, too.
            losses = np.fmin(self._errors(self._model(state.values), Z[kept_aside]), cap) / cap
            sums = np.array([np.rint(losses * _UNIT).sum(), len(losses) * _UNIT]).astype(np.int64)
            return release(state, sums, math.isqrt(2 * _UNIT * _UNIT) + 1, releaser)
        return self._trained(state, Z[~kept_aside], releaser)

    def _trained(self, state: State, Z: Array, releaser: Releaser) -> Update:
        """The locally trained network times this site's weight, its own noised number of records, and that weight."""
        shape, theta, records = self._network(state.values["theta"]), state.values["theta"], releaser.kept.get(RECORDS)
        weight = 1.0 if records is None else max(float(records[0]) / _UNIT, 1.0)
        shipped = self._shipment(state.values)

        def exactly() -> Array:
            seed = self.random_state + int(state.stage.removeprefix("round-"))
            trained = network.train_exactly(shape, theta, Z, self._descent, seed)
            # Of its own records: roundings that all sites share would not cancel.
            own = np.random.default_rng([seed, zlib.crc32(np.ascontiguousarray(Z).tobytes())])
            return shipped.values(trained, theta, weight, own.random)

        def privately(noise_multiplier: float, stream: Stream) -> Array:
            trained = network.train_privately(
                shape,
                theta,
                Z,
                self._descent,
                noise_multiplier=noise_multiplier,
                l2_clip_norm=self.l2_clip_norm,
                expected_records=weight * (1 - _VALIDATION_SHARE),
                stream=stream,
            )
            return shipped.values(trained, theta, weight, stream.uniform)

        return release_trained(state, exactly, privately, releaser, bits=shipped.bits)

    def model_layout(self, state: State) -> Layout:
        """A number of records; a network times its weight; a sum of losses, each at most one, and their number."""
        if state.stage == RECORDS:
            return Layout("table", unit=_UNIT)
        if state.stage.startswith("check-"):
            return Layout("weighted", unit=_UNIT, l2_per_record=math.sqrt(2) * _UNIT)
        return self._shipment(state.values).layout(state.values["theta"])

    def model_state(self, state: State, total: Total) -> Mapping[str, Array]:
        """The sites' weighted average after a round; the validation loss and the best weights after a check."""
        values = state.values
        if state.stage == RECORDS:
            shape = network.Shape((len(state.schema.columns), *self._widths, len(state.schema.columns)), self.units)
            theta = network.initial_parameters(shape, self.random_state)
            public = {"records": np.array([max(float(total.values[0]) / _UNIT / total.sites, 1.0), total.sites])}
            public |= {"losses": np.empty(0), "waited": np.zeros(1)}
            return public | dict.fromkeys(("theta", "untrained", "best"), theta)
        if state.stage.startswith("round-"):
            if total.values[-1] <= 0:
                raise PrivacyRefusedError("too few records: all weights are noise", remedy="Allow a larger epsilon.")
            average = self._shipment(values).average(values["theta"], total.values)
            found = self._server.step(values["theta"], average, values)
            if self.average_last > 1:
                before = values.get("recent", np.empty((0, len(found["theta"]))))
                found["recent"] = np.vstack([before, found["theta"]])[-self.average_last :]
            if not math.isfinite(self._largest_error(self._model(found))):
                raise network.diverged("scores may overflow")
            return found
        cap = _LOSS_LIMIT * len(state.schema.columns)
        records = max(float(total.values[1]), _UNIT)
        loss = float(np.clip(total.values[0] / records, 0.0, 1.0)) * cap
        # Losses that differ by less than their noise are the same to us: the later weights then count as better.
        noise = math.sqrt(total.noise_variance) / records * cap
        losses = np.append(values["losses"], loss)
        worse = loss > losses.min() + noise
        return {
            "losses": losses,
            "best": values["best"] if worse else self._model(values),
            "waited": values["waited"] + 1 if worse else np.zeros(1),
            "loss": np.array([max(losses.min(), noise, 1e-6 * cap)]),
        }

    def stage_after(self, stage: str, values: Mapping[str, Array]) -> str:
        """The next stage in order; past the remaining rounds when the validation loss has risen for too long."""
        following = super().stage_after(stage, values)
        if following.startswith("round-") and stage.startswith("check-") and values["waited"][0] >= self.patience:
            return super().stage_after(f"check-{self.rounds}", values)
        return following

    # --- scoring --------------------------------------------------------------------------------------------------

    def score_standardised(self, values: Mapping[str, Array], Z: Array) -> Array:
        """Squared reconstruction error under the best weights."""
        return self._errors(values["best"], Z)

    def untrained_score(self, X: Any) -> Array:
        """The control: scores of the same network with its public initial weights."""
        return self._errors(self.values_["untrained"], self.encoder_.standardise(X))

    def score_quantile(self, values: Mapping[str, Array], share_above: float) -> float:
        """A chi-square whose mean is the validation loss, with as many degrees of freedom as columns."""
        columns = self._columns(values["best"])
        return float(values["loss"][0] * stats.chi2.ppf(1 - share_above, columns) / columns)

    def score_limits(self, values: Mapping[str, Array]) -> tuple[float, float]:
        """From a thousandth of the typical error to the error that clipped records cannot exceed."""
        typical = self.score_quantile(values, 0.5)
        return typical / 1000, max(self._largest_error(values["best"]), typical)

    # --- compiling ------------------------------------------------------------------------------------------------

    def compile(
        self, *, weight_bits: int | None = None, fraction_bits: int = 14, ring_bits: int | None = None
    ) -> Program:
        """A program of degree four for one hidden layer of linear and square units: `program.reconstruction`. Of degree
        eight or sixteen for two or three hidden layers of squares: `program.deep`.

        By default weights have as few bits as keep ranks as they are. With `ring_bits`, and for ReLUs and other deeper
        networks, which only secret sharing carries, a program of all layers instead that fits so many bits (by default
        62); it has as many fraction bits as fit, whatever else is given: `program.layered`.
        """
        values = self.values_
        shape, typical = self._network(values["best"]), self.score_quantile(values, 0.5)
        layers = network.layers(shape, values["best"])
        # Each weight of the network is an unknown; generically as many honest scores determine them.
        unknowns = shape.parameters + self._columns(values["best"])
        encoder = self._encoder(self.encoder_.schema, fraction_bits)
        if ring_bits is None and self.units == "square" and 1 < len(self._widths) <= MAX_HIDDEN:
            return deep_program(
                encoder, layers, typical=typical, weight_bits=weight_bits, honest_extraction_rows=unknowns
            )
        if ring_bits is not None or self.units == "relu" or len(self._widths) != 1:
            return layered_program(
                lambda bits: self._encoder(self.encoder_.schema, bits),
                layers,
                "linear_square" if self.units == "linear_and_square" else self.units,
                ring_bits=RING_BITS if ring_bits is None else ring_bits,
                tolerance=TOLERANCE * typical,
                honest_extraction_rows=unknowns,
            )
        (encode, bias), (decode, center) = layers
        linear = 0 if self.units == "square" else (len(bias) + 1) // 2
        one = Network(encode, bias, decode, center, linear)
        builder = reconstruction_error(encoder, one, typical=typical, weight_bits=weight_bits)
        return builder.finish(tolerance=TOLERANCE * typical, honest_extraction_rows=unknowns, squared_norm=1.0)

    # --- inner ----------------------------------------------------------------------------------------------------

    @property
    def _widths(self) -> tuple[int, ...]:
        return tuple(self.hidden) if isinstance(self.hidden, tuple | list) else (int(self.hidden),)

    @property
    def _steps(self) -> int:
        return max(1, round(1 / self.sampling_prob))

    @property
    def _descent(self) -> network.Descent:
        return network.Descent(
            self._steps,
            self.sampling_prob,
            self.learning_rate,
            self.weight_decay,
            self.weight_limit,
            self.proximal,
        )

    @property
    def _server(self) -> Server:
        return Server(
            self.server_optimizer, self.server_learning_rate, self.server_betas, self.server_tau, self.weight_limit
        )

    def _shipment(self, values: Mapping[str, Array]) -> Shipment:
        """How weights travel; `values` tell the average number of records and of how many sites."""
        # A step of Adam moves a weight by about the learning rate, and none leaves its limits.
        reach = min(self.learning_rate * self._steps, 2 * self.weight_limit)
        records, sites = values.get("records", (1.0, 1))
        return shipment(self.update_bits, reach=float(reach), mean_records=float(records), sites=int(sites))

    def _model(self, values: Mapping[str, Array]) -> Array:
        """The weights that would score if training ended now."""
        model: Array = values["theta"] if self.average_last == 1 else values["recent"].mean(axis=0)
        return model

    def _columns(self, theta: Array) -> int:
        """The number of columns that a network with these hidden layers and so many parameters has."""
        without, one = (network.Shape((n, *self._widths, n), self.units).parameters for n in (0, 1))
        return (len(theta) - without) // (one - without)

    def _network(self, theta: Array) -> network.Shape:
        columns = self._columns(theta)
        return network.Shape((columns, *self._widths, columns), self.units)

    def _errors(self, theta: Array, Z: Array) -> Array:
        return network.reconstruction_errors(self._network(theta), theta, Z)

    def _largest_error(self, theta: Array) -> float:
        """What no clipped record's error exceeds; infinite where float64 does not hold it."""
        reach = np.full(self._columns(theta), float(self.limit))
        found = network.layers(self._network(theta), theta)
        with np.errstate(over="ignore", invalid="ignore"):
            for at, (weight, offset) in enumerate(found):
                reach = np.abs(weight) @ reach + np.abs(offset)
                if at < len(found) - 1 and self.units != "relu":
                    reach = np.maximum(reach, reach**2)
            return float(((reach + self.limit) ** 2).sum())

    def _check_parameters(self) -> None:
        super()._check_parameters()
        for name in ("sampling_prob", "l2_clip_norm", "learning_rate", "weight_decay", "weight_limit", "proximal"):
            refuse_no_number(name, getattr(self, name))
            if not math.isfinite(getattr(self, name)):
                raise FixConfigurationError(f"{name} is finite", value=getattr(self, name))
        for name in ("rounds", "average_last", "patience", "random_state"):
            if not _is_count(getattr(self, name)):
                raise FixConfigurationError(f"{name} is a whole number, not negative", value=getattr(self, name))
        hidden = self.hidden if isinstance(self.hidden, tuple | list) else (self.hidden,)
        if not hidden or not all(_is_count(width) and width >= 1 for width in hidden):
            raise FixConfigurationError("hidden is a number of units, at least 1, for every layer", value=self.hidden)
        if self.units not in get_args(network.Units):
            raise FixConfigurationError(f"units is one of {', '.join(get_args(network.Units))}", value=self.units)
        if self.units == "linear_square" and min(hidden) < 2:
            raise FixConfigurationError(
                "hidden layers of linear_square have two units at least, one of each kind",
                value=self.hidden,
                remedy='Or units="square".',
            )
        if not (0 < self.sampling_prob <= 1 and min(self.rounds, self.average_last, self.patience) >= 1):
            raise FixConfigurationError(
                "sampling_prob lies in (0, 1], rounds, average_last and patience are at least 1",
                value=(self.sampling_prob, self.rounds, self.average_last, self.patience),
            )
        if (
            min(self.l2_clip_norm, self.learning_rate, self.weight_limit) <= 0
            or min(self.weight_decay, self.proximal) < 0
        ):
            raise FixConfigurationError(
                "l2_clip_norm, learning_rate and weight_limit are positive, weight_decay and proximal not negative",
                value=(self.l2_clip_norm, self.learning_rate, self.weight_limit, self.weight_decay, self.proximal),
            )
        _ = self._server, self._shipment({})  # which refuse what they cannot do


def _is_count(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and bool(value >= 0)
