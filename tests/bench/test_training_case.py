"""Cases of kind "train": controls, what each site sends, and that masking and Flower change no score."""

from __future__ import annotations

import dataclasses
import math

import pytest

from securead.bench import records
from securead.bench.records import Case, Record
from securead.bench.training_case import train
from securead.errors import FixConfigurationError, PrivacyRefusedError

SMALL = (("n_estimators", 10), ("depth", 4))


def case_of(**fields: object) -> Case:
    given = {"dataset": "generated-payments", "detector": "forest", "parameters": SMALL, "epsilon": 1.0}
    return Case("test", "train", **{**given, **fields})  # type: ignore[arg-type]


def sent(record: Record, sender: str) -> int:
    (one,) = (each for each in record.traffic if each.sender == sender)
    assert one.bytes_once is not None
    return one.bytes_once


def test_a_record_has_controls_and_repeats() -> None:
    one, again = train(case_of(), None), train(case_of(), None)
    assert one.accuracy == again.accuracy
    assert one.traffic == again.traffic
    assert one.provenance.program == again.provenance.program
    assert one.privacy == again.privacy
    shown = dataclasses.asdict(one.accuracy)
    for name in ("auroc", "auroc_norm", "auroc_no_data", "auroc_central", "auroc_best_site", "average_precision"):
        assert 0 < shown[name] <= 1, name
    assert one.accuracy.auroc_untrained is None  # no network
    assert one.privacy is not None
    assert one.privacy.epsilon == pytest.approx(1, abs=1e-3)
    assert one.privacy.accountant.startswith("PLD")
    assert records.from_line(records.to_line(one), where="a test") == one


def test_masked_sums_change_no_score_and_cost_bytes() -> None:
    plain, masked = (train(case_of(aggregation=each), None) for each in ("plain", "masked"))
    assert masked.accuracy == plain.accuracy
    assert sent(masked, "site") > sent(plain, "site") > 8 * 10 * 2**4
    assert sent(masked, "coordinator") > sent(plain, "coordinator")
    assert {(each.role, each.offline) for each in masked.timings} == {("site", True), ("coordinator", True)}
    assert masked.rounds == plain.rounds


def test_no_noise_is_said_and_epsilon_and_seed_decide() -> None:
    exact = train(case_of(epsilon=None), None)
    assert exact.privacy == records.Privacy(None, None)
    assert exact.accuracy.auroc == pytest.approx(exact.accuracy.auroc_central, abs=0.05)
    noisy, other = train(case_of(epsilon=0.3), None), train(case_of(epsilon=0.3, seed=1), None)
    assert noisy.accuracy != other.accuracy
    assert noisy.provenance.program != exact.provenance.program


def test_one_site_is_its_own_best() -> None:
    found = train(case_of(sites=1), None)
    assert found.accuracy.auroc_best_site == found.accuracy.auroc_central


def test_an_untrained_network_is_a_control() -> None:
    parameters = (("hidden", 4), ("rounds", 1), ("threshold", "model"))
    found = train(case_of(detector="autoencoder", parameters=parameters, epsilon=None), None)
    assert found.accuracy.auroc_untrained is not None
    assert not math.isclose(found.accuracy.auroc_untrained, found.accuracy.auroc or 0)


def test_refusals_are_raised() -> None:
    with pytest.raises(PrivacyRefusedError):
        train(case_of(epsilon=0.01, parameters=(("threshold", "private"),)), None)
    with pytest.raises(FixConfigurationError, match="is trained by"):
        train(case_of(executor="pigeon"), None)


@pytest.mark.long
@pytest.mark.parametrize("aggregation", ["plain", "masked"])
def test_flower_trains_the_same_model(aggregation: str) -> None:
    pytest.importorskip("flwr")
    embedded, flower = (train(case_of(executor=each, aggregation=aggregation), None) for each in ("embedded", "flower"))
    assert flower.accuracy == embedded.accuracy
    assert flower.provenance.program == embedded.provenance.program
    # Certificates, where sums are masked; seconds are told in as many digits as they have.
    assert sent(flower, "site") >= 0.99 * sent(embedded, "site")
    assert {name for name, _ in flower.peak_bytes} > {"coordinator"}
