"""Rows that count against the number from which a model can be rebuilt: by key, by answer, with and without refusal."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from itertools import islice

import asking_engine.plan
import numpy as np
import pytest
from asking_engine import install, table_bundle
from small_model import records, small_bundle
from test_serving_app import Http, check_refusal

from securead.client.keys import Keys, make_keys
from securead.client.workflow import key_message, seal
from securead.errors import PrivacyRefusedError
from securead.models.bundle import Bundle
from securead.protocols import registry
from securead.serving.app import build_app
from securead.serving.loaded import load
from securead.serving.metering import RowMeter, metered_rows, rows_that_rebuild

TABLES = table_bundle()  # published: 24 rows
X = np.random.default_rng(0).normal(size=(10, 3)).clip(-4, 4)


class Caller:
    """Someone with keys who sends rows to an application."""

    def __init__(self, http: Http, bundle: Bundle) -> None:
        self._http, self._name = http, bundle.public.name
        self.keys: Keys = make_keys(bundle.public, "same")

    def score(self, X: np.ndarray) -> object:
        first = next(islice(seal(self.keys.submitter, X), 1)).envelope
        key = key_message(self.keys.submitter, first.header)
        if key is not None:
            self._http.put(f"/v1/models/{self._name}/keys/{self.keys.record.key}", content=key.to_bytes())
        return self._http.post(f"/v1/models/{self._name}/score", content=first.to_bytes())


def metric(http: Http, name: str, model: str = "table") -> float:
    lines = http.get("/metrics").text.splitlines()
    return next(float(line.split()[-1]) for line in lines if line.startswith(f'{name}{{model="{model}"}}'))


@pytest.fixture
def asking(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)


@pytest.mark.usefixtures("asking")
def test_rows_are_counted_and_by_default_nothing_more(caplog: pytest.LogCaptureFixture) -> None:
    http = Http(build_app(load([TABLES])))
    one, other = Caller(http, TABLES), Caller(http, TABLES)
    with caplog.at_level(logging.INFO, "securead"):
        for _ in range(4):
            assert one.score(X).status_code == 200
        assert other.score(X).status_code == 200
    assert metric(http, "securead_rows_metered_total") == metric(http, "securead_rows_total") == 50
    assert metric(http, "securead_keys_beyond_extraction_total") == 1, "once a key, not once an answer"
    said = [e for e in map(json.loads, caplog.messages) if e["event"] == "serving.extraction"]
    assert [(e["model"], e["key"], e["rows"], e["published"]) for e in said] == [("table", one.keys.record.key, 30, 24)]


@pytest.mark.usefixtures("asking")
def test_a_key_that_had_its_rows_is_refused_and_a_new_one_is_not() -> None:
    http = Http(build_app(load([TABLES]), refuse_extraction=True))
    one = Caller(http, TABLES)
    assert [one.score(X).status_code for _ in range(3)] == [200, 200, 200]
    for _ in range(2):
        said = check_refusal(one.score(X), 403, "PrivacyRefusedError")
        assert "30 rows" in said["message"]
        assert "24" in said["message"]
    assert metric(http, "securead_rows_metered_total") == 30
    assert Caller(http, TABLES).score(X).status_code == 200, "keys are free to make: this is a meter, not a wall"


@pytest.mark.usefixtures("asking")
def test_refused_messages_count_nothing() -> None:
    http = Http(build_app(load([TABLES])))
    assert http.post("/v1/models/table/score", content=b"nonsense").status_code == 400
    assert metric_or_zero(http) == 0


def metric_or_zero(http: Http) -> float:
    try:
        return metric(http, "securead_rows_metered_total")
    except StopIteration:
        return 0


def test_a_ckks_chunk_counts_as_all_it_holds() -> None:
    """One row is asked for; a dishonest sender could have filled every slot."""
    bundle = small_bundle()
    http = Http(build_app(load([bundle]), refuse_extraction=True))
    one = Caller(http, bundle)
    assert one.keys.plan.engine == "ckks"
    assert one.score(records(1)).status_code == 200, "the answer that reaches the number is still given"
    assert metric(http, "securead_rows_total", "tiny") == 1
    assert metric(http, "securead_rows_metered_total", "tiny") == one.keys.plan.rows_per_chunk
    assert metric(http, "securead_keys_beyond_extraction_total", "tiny") == 1
    check_refusal(one.score(records(1)), 403, "PrivacyRefusedError")


def test_what_a_message_counts_is_the_engines_word(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)
    plan = make_keys(TABLES.public, "same").plan
    assert metered_rows(plan, 3) == 3
    filling = replace(asking_engine.plan.ENGINE, whole_chunks=True)
    monkeypatch.setattr(registry, "engines", lambda: {"asking": filling})
    assert metered_rows(plan, 3) == plan.rows_per_chunk
    monkeypatch.undo()
    served = {name: spec.whole_chunks for name, spec in registry.engines().items() if spec.parties == 1}
    assert {"bfv": False, "ckks": True}.items() <= served.items()


@pytest.mark.usefixtures("asking")
def test_counts_are_bounded() -> None:
    plan, program = make_keys(TABLES.public, "same").plan, TABLES.public.program
    meter = RowMeter(refuse=True, max_keys=2)
    for key in ("a", "b", "a", "c"):  # "b" was not answered for the longest time
        meter.answered("table", program, plan, key, 12)
    assert len(meter) == 2
    assert meter.answered("table", program, plan, "b", 1).total == 1
    meter.answered("table", program, plan, "a", 12)
    assert meter.answered("table", program, plan, "a", 1).total == 13, "forgotten when b came back"


@pytest.mark.usefixtures("asking")
def test_models_and_keys_are_counted_apart() -> None:
    plan, program = make_keys(TABLES.public, "same").plan, TABLES.public.program
    meter = RowMeter(refuse=True)
    found = [meter.answered(m, program, plan, k, 23) for m in ("table", "other") for k in ("a", "b")]
    assert all((one.total, one.reached) == (23, False) for one in found)
    meter.admit("table", program, plan, "a")
    assert meter.answered("table", program, plan, "a", 1).reached
    assert not meter.answered("table", program, plan, "a", 1).reached
    meter.admit("other", program, plan, "a")


@pytest.mark.usefixtures("asking")
def test_fewer_crafted_rows_than_honest_ones_are_what_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    plan, program = make_keys(TABLES.public, "same").plan, TABLES.public.program
    monkeypatch.setattr(type(plan), "crafted_rows", 5, raising=False)
    assert rows_that_rebuild(program, plan) == 5 < program.honest_extraction_rows
    meter = RowMeter(refuse=True)
    assert not meter.answered("table", program, plan, "a", 4).reached
    meter.admit("table", program, plan, "a")
    assert meter.answered("table", program, plan, "a", 1).reached
    with pytest.raises(PrivacyRefusedError, match="from 5 of which"):
        meter.admit("table", program, plan, "a")
