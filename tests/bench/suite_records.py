"""Made-up records of a benchmark suite: what the report's tests are about, with no measurement behind them."""

from __future__ import annotations

import random
from dataclasses import replace

from securead.bench.records import Accuracy, Case, Fidelity, Privacy, Provenance, Record, Spread, Timing, Traffic

PLACE = Provenance("0123abc", (("numpy", "2.4.6"), ("python", "3.11.9")), "made-up machine", 2, "2026-01-01T00:00:00Z")
# Seconds a row of client, server, key holder online, of the server offline, bytes up and down, of keys.
COSTS = {
    "clear": (0.0, 2e-6, 0.0, 0.0, 0, 0, 0),
    "ckks": (40e-6, 180e-6, 6e-6, 90e-6, 1433, 112, 262_144),
    "bfv": (55e-6, 96e-6, 9e-6, 30e-6, 1890, 210, 1_200_000),
    "sharing": (20e-6, 420e-6, 0.0, 300e-6, 3140, 16, 0),
}
PEERS = {"tenseal": ("ckks", 12.7), "crypten": ("sharing", 9.1), "sklearn": ("clear", 1.4)}


def around(value: float) -> Spread:
    return Spread(value, 0.94 * value, 1.1 * value, 5)


def timings(engine: str, factor: float = 1.0) -> tuple[Timing, ...]:
    client, server, holder, ahead, *_ = (part * factor for part in COSTS[engine])
    made = []
    for role, phase, offline, value in (
        ("client", "encrypt", False, client),
        ("server", "score", False, server),
        ("key holder", "decrypt", False, holder),
        ("server", "mask", True, ahead),
    ):
        if value:
            made.append(Timing(role, phase, 1, offline, around(value), around(1.3 * value)))
    return tuple(made)


def traffic(engine: str, factor: float = 1.0) -> tuple[Traffic, ...]:
    *_, up, down, keys = COSTS[engine]
    made = [
        Traffic("client", "server", "records", up * factor),
        Traffic("server", "key holder", "scores", down * factor),
    ]
    made += [Traffic("key holder", "server", "keys", None, keys)] if keys else []
    return tuple(made) if up else ()


def scored(
    engine: str = "ckks",
    dataset: str = "cardio",
    detector: str = "forest",
    *,
    auroc: float = 0.95,
    loss: float = 0.0,
    norm: float = 0.9,
    factor: float = 1.0,
    **case: object,
) -> Record:
    """A record of our engine; `loss` of area against the model in the clear."""
    named = Case("engines", "score", dataset, detector, epsilon=1.0, delta=1e-6, engine=engine, role="same")
    named = replace(named, **case)  # type: ignore[arg-type]
    hides = engine != "clear"
    return Record(
        named,
        PLACE,
        rows=named.rows or 1831,
        columns=21,
        accuracy=Accuracy(
            auroc=auroc - loss / 2,
            average_precision=0.7,
            precision=0.61,
            false_alarms=0.034,
            auroc_float=auroc,
            auroc_norm=norm,
        ),
        fidelity=Fidelity(
            max_error_to_integer=3e-6 if hides else 0.0,
            rank_correlation_to_integer=1 - 3e-9,
            auroc_of_scores=auroc - loss,
            decisions_changed=1 if hides else 0,
        ),
        timings=timings(engine, factor),
        traffic=traffic(engine, factor**0.5),
        rounds=2 if hides else 0,
        predicted_seconds=0.21 if named.link == "wan" else None,
        delayed_seconds=0.23 if named.link == "wan" else None,
        peak_bytes=(("client", 90_000_000), ("server", 310_000_000)),
        privacy=Privacy(named.epsilon, 1e-6, "dp_accounting PLD", "seeded-study"),
        security_bits=128.0 if hides else None,
        extraction_rows=465,
        seconds=3.2,
    )


def trained(
    epsilon: float | None,
    seed: int,
    dataset: str = "cardio",
    detector: str = "forest",
    *,
    auroc: float,
    norm: float = 0.9,
) -> Record:
    case = Case("privacy", "train", dataset, detector, epsilon=epsilon, seed=seed)
    accuracy = Accuracy(auroc=auroc, average_precision=0.6, auroc_norm=norm, auroc_untrained=norm - 0.05)
    times = (Timing("site", "train", 1, False, around(1e-4), around(1.2e-4)),)
    return Record(case, PLACE, rows=1831, columns=21, accuracy=accuracy, timings=times)


def peer(name: str, record: Record, *, times: float | None = None, auroc: float | None = None) -> Record:
    """A peer's record on the rows of one of ours, `times` as slow."""
    engine, usual = PEERS[name]
    case = replace(record.case, suite="peers", kind="peer", peer=name, engine=engine)
    accuracy = Accuracy(auroc=record.accuracy.auroc if auroc is None else auroc)
    made = timings(engine, times or usual)
    fidelity = Fidelity(auroc_of_scores=accuracy.auroc)
    found = replace(record, case=case, accuracy=accuracy, fidelity=fidelity, timings=made)
    return replace(found, privacy=None, extraction_rows=None)


def _with_threads(record: Record, count: int) -> Record:
    """The same with more threads: 0.8 of them at work."""
    faster = tuple(
        replace(each, threads=count, wall_seconds_per_row=around(1.3e-6 / (0.8 * count))) for each in record.timings
    )
    return replace(record, case=replace(record.case, threads=count), timings=faster)


def suite() -> tuple[Record, ...]:
    """Records of every kind: what a run of all suites might give."""
    rng = random.Random(0)
    made: list[Record] = []
    for dataset, base, norm in (("cardio", 0.951, 0.943), ("thyroid", 0.934, 0.961), ("creditcard", 0.948, 0.925)):
        for detector, lift in (("forest", 0.0), ("autoencoder", -0.02), ("histogram", -0.011)):
            for engine in ("clear", "bfv", "ckks", "sharing"):
                if (engine, detector) in (("bfv", "autoencoder"), ("ckks", "forest"), ("ckks", "histogram")):
                    continue
                loss = 0.0 if engine == "clear" else rng.uniform(0, 0.0004)
                factor = {"forest": 1.0, "autoencoder": 1.8, "histogram": 0.4}[detector] * rng.uniform(0.9, 1.1)
                made.append(scored(engine, dataset, detector, auroc=base + lift, norm=norm, loss=loss, factor=factor))
            for epsilon in (0.3, 1.0, 3.0, 10.0, None):
                for seed in range(5):
                    cost = 0.0 if epsilon is None else 0.03 / epsilon**0.8
                    area = base + lift + 0.004 - cost + rng.gauss(0, 0.004)
                    made.append(trained(epsilon, seed, dataset, detector, auroc=area, norm=norm))
    ours = {(r.case.engine, r.case.dataset, r.case.detector): r for r in made if r.case.kind == "score"}
    made.append(peer("tenseal", ours["ckks", "cardio", "autoencoder"]))
    made.append(peer("crypten", ours["sharing", "cardio", "autoencoder"]))
    made.append(peer("sklearn", ours["clear", "cardio", "forest"], auroc=0.957))
    made.append(scored("ckks", "cardio", "autoencoder", link="wan", auroc=0.931))
    for trees in (10, 30, 100, 300):
        for engine in ("bfv", "sharing"):
            factor = 0.02 * trees ** (0.97 if engine == "bfv" else 0.6) * rng.uniform(0.95, 1.05)
            parameters = (("n_estimators", trees),)
            made.append(scored(engine, "generated-sensors", parameters=parameters, factor=factor, auroc=0.9))
    for rows in (64, 512, 4096, 32768):
        factor = rows**-0.35 * rng.uniform(0.95, 1.05)
        made.append(scored("ckks", "generated-payments", "autoencoder", rows=rows, factor=factor, auroc=0.97))
    for threads in (2, 4):
        made.append(_with_threads(scored("ckks", "generated-payments", "autoencoder", rows=64, auroc=0.97), threads))
    place = {"dataset": "", "detector": "gaussian-release"}
    mechanism = Case("mechanisms", "mechanism", place["dataset"] or "none", place["detector"], (("values", 2000),))
    made.append(Record(mechanism, PLACE, timings=(Timing("site", "release", 1, False, around(1e-3), None),)))
    for name, why in (
        ("spu", "no environment for spu was given: --peer-env spu=PATH"),
        ("concrete-ml", "no environment"),
    ):
        case = Case("peers", "peer", "cardio", "forest", engine="clear", peer=name)
        made.append(Record(case, PLACE, missing=why))
    return tuple(made)
