"""The planner's predictions beside measured requests, and the figures of latency, depth, the pool and the kernels.

    python benchmarks/plan.py --out bench-output/plan.json

Calibrates this machine (`--profile FILE` uses a profile that is there), then runs trained detectors through every
registered engine in every role, in batches of one record, a few and a full chunk, as the cases of `securead bench` do:
both halves in processes of their own. `prediction_error_median` is the median over these requests of how far the
predicted seconds from records to scores are off, as a share of the measured ones; `prediction` has the distribution,
the same by engine and by phase, and every request. Detectors, records and keys are not those of calibration.

The other figures are those of benchmarks/latency.py, deep.py, pool.py and ckks.py, each in a process of its own; one
that cannot be measured is null, and `missing` says why. `--only prediction` and the like run a part.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from securead.bench import datasets, engine_case, fitting, sharing_case
from securead.bench.calibration import calibrate
from securead.bench.datasets import NamedData
from securead.bench.players import HalfFailedError
from securead.bench.prediction import Comparison, compare
from securead.bench.records import Case
from securead.errors import FixProgramError, InstallExtraError
from securead.models import bundle as bundles
from securead.models.bundle import Bundle
from securead.models.estimator import AnomalyDetector
from securead.planner import profile as profiles
from securead.planner.profile import EngineCosts, Profile
from securead.program.layered import RING_BITS
from securead.program.program import PublicProgram
from securead.protocols import registry
from securead.protocols.engine import PHASES, EngineSpec, Plan, PlanModuleWithWork, Role

HERE = Path(__file__).resolve().parent
# Figure -> script and its name there.
FIGURES = {
    "single_row_http_p95_ms": ("latency", "single_row_http_p95_ms"),
    "latency_key_bytes": ("latency", "latency_key_bytes"),
    "deep_us_per_row": ("deep", "deep_us_per_row"),
    "deep_tenseal_us_per_row": ("deep", "deep_tenseal_us_per_row"),
    "pool_speedup": ("pool", "pool_speedup"),
    "server_us_per_row": ("ckks", "server_us_per_row"),
    "server_us_per_row_pool_ready": ("ckks", "server_us_per_row_pool_ready"),
    "client_encrypt_us_per_row": ("ckks", "client_encrypt_us_per_row"),
}
# Arguments of a script's `measure`; of the others all have defaults.
ARGUMENTS = {"ckks": {"repeats": 5, "few": 2}}
# One core, as these figures are of; the pool pins its own.
ONE_CORE = ("latency", "deep", "ckks")
PARTS = ("prediction", *dict.fromkeys(script for script, _ in FIGURES.values()))
DETECTORS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("generated-payments", "autoencoder", {"hidden": 12, "rounds": 3}),
    (
        "generated-payments",
        "autoencoder",
        {"hidden": "16-8-16", "units": "square", "rounds": 3, "limit": 2.0, "weight_limit": 0.15},
    ),
    ("generated-payments", "subspace", {}),
    ("generated-sensors", "subspace", {}),
    ("generated-payments", "forest", {"n_estimators": 50, "depth": 5}),
    ("generated-payments", "forest", {"n_estimators": 20, "depth": 6}),
)
BATCHES = (1, 16, 0)  # 0: what fills a chunk
MOST_ROWS, FEW_ROWS = 4096, 64
SLOW_SECONDS = 5.0  # a request that is predicted to take longer is measured at one size


def predictions(profile: Profile, *, quick: bool) -> Iterator[Comparison]:
    """Every detector through every engine that carries it."""
    for dataset, kind, parameters in DETECTORS[-1:] if quick else DETECTORS:
        case = Case("plan", "score", dataset, kind, parameters=tuple(parameters.items()), rows=1000)
        data = datasets.load(dataset, None, seed=0, rows=1000)
        detector = fitting.fit(case, data).detector
        name = f"{dataset.removeprefix('generated-')} {kind} {' '.join(map(str, parameters.values()))}".strip()
        for costs in profile.engines:
            spec = registry.spec(costs.engine)
            for role in spec.roles:
                yield from _compared(name, detector, data, spec, role, profile, BATCHES[:1] if quick else BATCHES)


def _compared(
    name: str,
    detector: AnomalyDetector,
    data: NamedData,
    spec: EngineSpec,
    role: Role,
    profile: Profile,
    batches: tuple[int, ...],
) -> Iterator[Comparison]:
    """Requests of several sizes on one engine, where it carries the detector's program."""
    try:
        bundle = bundles.make(detector, "benchmark", ring_bits=RING_BITS if spec.parties > 1 else None)
        public, costs = bundle.public.program, profile.of(spec.name)
        if costs is None or not spec.carries(public):
            return
        plan = registry.plan_module(spec.name).make_plan(public, role)
    except FixProgramError:
        return
    full = min(plan.rows_per_chunk, MOST_ROWS)
    # Where unused slots cost as much, every size costs the same.
    sizes = [full] if spec.whole_chunks else sorted({min(batch or full, full) for batch in batches})
    if _predicted_seconds(plan, public, sizes[0], costs) > SLOW_SECONDS:
        sizes = sizes[:1]
    with tempfile.TemporaryDirectory(prefix="securead-plan-") as folder:
        try:
            measured = _measured(spec, plan, bundle, data.X_held[:FEW_ROWS], sizes, Path(folder))
        except (HalfFailedError, InstallExtraError) as error:
            print(f"  {name}, {spec.name}, {role}: {error}", flush=True)
            return
    for rows, found in measured.items():
        compared = compare(f"{name}, {role}, {rows}", plan, public, rows, found.timings, costs)
        if compared is not None:
            yield compared


def _predicted_seconds(plan: Plan, public: PublicProgram, rows: int, costs: EngineCosts) -> float:
    """Of a request, as far as calibration tells."""
    module = registry.plan_module(plan.engine)
    if not isinstance(module, PlanModuleWithWork):
        return 0.0
    work = module.work(plan, public, rows)
    return sum(costs.seconds(phase, work.of(phase)) or 0.0 for phase in PHASES)


def _measured(
    spec: EngineSpec, plan: Plan, bundle: Bundle, X: np.ndarray, sizes: list[int], folder: Path
) -> dict[int, engine_case.Measured]:
    if spec.parties == 1:
        return engine_case.timed(spec.name, plan, bundle, X, sizes, folder)
    found = {}
    for rows in sizes:
        case = Case("plan", "score", "given", "given", engine=spec.name, role=plan.role, batch=rows)
        place = folder / str(rows)
        place.mkdir()
        found[rows] = sharing_case.run(case, bundle, X, place)
    return found


def distribution(errors: list[float]) -> dict[str, float | int] | None:
    """Median, nine tenths and the worst."""
    if not errors:
        return None
    return {
        "median": float(np.median(errors)),
        "p90": float(np.quantile(errors, 0.9)),
        "worst": max(errors),
        "requests": len(errors),
    }


def measure(profile: Profile, *, quick: bool = False) -> dict[str, Any]:
    """The errors of predictions: their distribution in all, by engine and by phase, and every request."""
    found = list[Comparison]()
    for one in predictions(profile, quick=quick):
        measured, predicted = one.request
        words = f"{1e3 * measured:9.2f} ms measured, {1e3 * predicted:9.2f} predicted ({one.error:5.0%})"
        print(f"  {one.engine:10} {one.what:44} {words}", flush=True)
        found.append(one)
    engines = sorted({one.engine for one in found})
    phases = sorted({phase for one in found for phase in one.measured})
    return {
        "prediction_error_median": float(np.median([one.error for one in found])) if found else None,
        "prediction": {
            "all": distribution([one.error for one in found]),
            "by_engine": {name: distribution([one.error for one in found if one.engine == name]) for name in engines},
            "by_phase": {
                phase: distribution([errors[phase] for one in found if phase in (errors := one.phase_errors())])
                for phase in phases
            },
            "requests": [
                {"what": one.what, "engine": one.engine, "measured": one.measured, "predicted": one.predicted}
                for one in found
            ],
        },
    }


def script_figures(name: str, seconds: float) -> dict[str, Any]:
    """What `measure` of a script returns, in a process of its own; raises `RuntimeError` that says why nothing."""
    if not (HERE / f"{name}.py").is_file():
        raise RuntimeError(f"there is no benchmarks/{name}.py")
    with tempfile.TemporaryDirectory(prefix="securead-plan-") as folder:
        out = Path(folder, "figures.json")
        program = (
            f"import json, sys; sys.path.insert(0, {str(HERE)!r}); import {name}; "
            f"found = {name}.measure(**{ARGUMENTS.get(name, {})!r}); found = found[0] if isinstance(found, tuple) else "
            f"found; open({str(out)!r}, 'w').write(json.dumps(found))"
        )
        threads = {"OMP_NUM_THREADS": "1"} if name in ONE_CORE else {}
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, **threads},
            timeout=seconds,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        if done.returncode or not out.is_file():
            raise RuntimeError(" ".join(done.stderr.strip().splitlines()[-1:]) or f"ended with {done.returncode}")
        figures: dict[str, Any] = json.loads(out.read_text())
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", type=Path, help="use this profile instead of calibrating")
    parser.add_argument("--only", choices=PARTS, action="append", help="measure this part only; repeatable")
    parser.add_argument("--quick", action="store_true", help="one detector, one record a request, no other scripts")
    parser.add_argument("--limit", type=float, default=900.0, help="seconds that each other script may take")
    parser.add_argument("--out", type=Path, help="write the figures as JSON, too")
    options = parser.parse_args()
    parts = options.only or (("prediction",) if options.quick else PARTS)
    report: dict[str, Any] = dict.fromkeys((*FIGURES, "prediction_error_median"))
    report |= {"missing": {}, "scripts": {}}
    for name in [each for each in PARTS[1:] if each in parts]:
        print(f"{name}:", flush=True)
        try:
            report["scripts"][name] = figures = script_figures(name, options.limit)
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            report["missing"][name] = str(error)
            continue
        report |= {mine: figures.get(theirs) for mine, (script, theirs) in FIGURES.items() if script == name}
    if "prediction" in parts:
        report |= predicted(options)
    for name in (*FIGURES, "prediction_error_median"):
        value = report[name]
        print(f"  {name:30} {'-' if value is None else format(value, ',.4g')}")
    for name, why in report["missing"].items():
        print(f"  not measured: {name}: {why}")
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(report, indent=2) + "\n")


def predicted(options: argparse.Namespace) -> dict[str, Any]:
    """Calibrate, or read a profile; then compare."""
    seconds: float | None = None
    left_out: dict[str, str] = {}
    if options.profile is not None:
        profile = profiles.read(options.profile)
    else:
        with tempfile.TemporaryDirectory(prefix="securead-plan-") as folder:
            done = calibrate(Path(folder, "profile.json"))
        profile, seconds, left_out = done.profile, done.seconds, dict(done.left_out)
        print(f"calibrated {', '.join(each.engine for each in profile.engines)} in {seconds:.1f} s", flush=True)
    return {
        "calibration_seconds": seconds,
        "calibration_left_out": left_out,
        "calibration_error": {each.engine: each.error for each in profile.engines},
        **measure(profile, quick=options.quick),
    }


if __name__ == "__main__":
    main()
