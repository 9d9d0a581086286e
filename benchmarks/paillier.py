"""Paillier: blind lookups in published tables, and packed sums of training beside unpacked phe.

    python benchmarks/paillier.py --out bench-output/paillier.json

Lookups: processor time of this process (one core), bytes to bytes, medians and ranges over repeats; read ratios, as the
machine may be shared. Every score is compared with the exact one. `owner` is what a request takes when its random
factor waits, blinding and opening together; `offline` is that factor; `server` is an answer. One row and a full chunk,
per row. Publishing is wall-clock time on all cores that the process may use. Bytes are payloads, both ways; `message`
has them with their envelopes. The classical use, in which the owner encrypts every feature, is beside it, once. Sums
are measured by `paillier_sums.py`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from securead.checks import programs
from securead.program.program import Program
from securead.protocols import wire
from securead.protocols.paillier import blind, owner
from securead.protocols.paillier.linear import blind as linear_blind
from securead.protocols.paillier.linear import owner as linear_owner
from securead.protocols.paillier.linear.plan import make_plan as make_linear_plan
from securead.protocols.paillier.plan import make_plan
from securead.protocols.paillier.powers import cores

PROGRAMS: dict[str, Callable[[], Program]] = {
    "50 x 64": lambda: programs.forest(50, 6),
    "100 x 256": lambda: programs.forest(100, 8),
}
STEPS = ("offline", "encrypt", "server", "decrypt")
Case = dict[str, Any]


def spread(values: list[float]) -> dict[str, float]:
    """The first repeat warms up and does not count."""
    kept = values[1:] or values
    return {"median": float(np.median(kept)), "least": min(kept), "most": max(kept)}


def message_bytes(plan: Any, payload: bytes, rows: int) -> int:
    """A payload in its envelope."""
    name = "ab" * 32
    header = wire.Header("request", plan.engine, plan.role, name, name, name, "cd" * 16, 0, 1, rows)
    return len(wire.Envelope(header, payload).to_bytes())


def lookups(name: str, program: Program, repeats: int) -> Case:
    """Publishing, and requests of one row and of a full chunk."""
    plan = make_plan(program.public, "same")
    start, cpu = time.perf_counter(), time.process_time()
    setup = blind.make_setup(plan, program)
    publish, publish_cpu = time.perf_counter() - start, time.process_time() - cpu
    secret, _ = owner.generate_keys(plan)
    cpu = time.process_time()
    encryptor = owner.make_encryptor(plan, secret, setup.published)
    reading = time.process_time() - cpu
    decryptor, evaluator = owner.make_decryptor(plan, secret), blind.make_evaluator(plan, program, setup.secret)
    tables, cases = program.secret.tables, {}
    for title, rows in (("one row", 1), ("a full chunk", plan.rows_per_chunk)):
        found: dict[str, list[float]] = {step: [] for step in STEPS}

        def timed(step: str, call: Callable[[], Any], rows: int = rows, found: Any = found) -> Any:
            before = time.process_time()
            result = call()
            found[step].append(1e3 * (time.process_time() - before) / rows)
            return result

        positions = np.random.default_rng(rows).integers(0, plan.sizes, (rows, len(plan.sizes)))
        exact = program.public.decode(sum(table[positions[:, at]] for at, table in enumerate(tables)))
        for _ in range(repeats + 1):
            timed("offline", encryptor.prepare)
            request = timed("encrypt", lambda positions=positions: encryptor.encrypt(positions))
            answer = timed("server", lambda request=request: evaluator.evaluate(request))
            scores = timed("decrypt", lambda answer=answer, rows=rows: decryptor.decrypt(answer, rows))
            if not np.array_equal(scores, exact):
                raise AssertionError(f"{name}: a score is wrong")
        cases[title] = {
            "rows": rows,
            **{f"{step}_ms_per_row": spread(values) for step, values in found.items()},
            "owner_ms_per_row": spread([a + b for a, b in zip(found["encrypt"], found["decrypt"], strict=True)]),
            "upload_bytes_per_row": len(request) / rows,
            "download_bytes_per_row": len(answer) / rows,
            "message_bytes_per_row": (message_bytes(plan, request, rows) + message_bytes(plan, answer, rows)) / rows,
        }
    return {
        "program": name,
        "key_bits": plan.key_bits,
        "table_bytes": len(setup.published),
        "publish_s": publish,
        "publish_cpu_s": publish_cpu,
        "publish_cores": cores(),
        "read_published_s": reading,
        **cases,
    }


def linear(name: str, program: Program) -> Case:
    """The classical use on the same tables: a ciphertext for each entry, a chunk of rows in all of them. Once."""
    plan = make_linear_plan(program.public, "same")
    secret, public = linear_owner.generate_keys(plan)
    encryptor, decryptor = linear_owner.make_encryptor(plan, secret), linear_owner.make_decryptor(plan, secret)
    key = linear_blind.read_evaluation_key(plan, public.to_bytes())
    evaluator, rows = linear_blind.make_evaluator(plan, program), plan.rows_per_chunk
    positions = np.random.default_rng(rows).integers(0, plan.sizes, (rows, len(plan.sizes)))
    exact = program.public.decode(sum(table[positions[:, at]] for at, table in enumerate(program.secret.tables)))
    times = [time.process_time()]
    request = encryptor.encrypt(positions)
    times.append(time.process_time())
    answer = evaluator.evaluate(request, key)  # its mask included
    times.append(time.process_time())
    scores = decryptor.decrypt(answer, rows)
    times.append(time.process_time())
    if not np.array_equal(scores, exact):
        raise AssertionError(f"{name}: a score is wrong")
    spent = [1e3 * (after - before) / rows for before, after in itertools.pairwise(times)]
    return {
        "program": name,
        "rows": rows,
        **dict(zip(("encrypt_ms_per_row", "server_ms_per_row", "decrypt_ms_per_row"), spent, strict=True)),
        "upload_bytes_per_row": len(request) / rows,
        "upload_bytes": len(request),
        "download_bytes": len(answer),
    }


def measure(*, names: tuple[str, ...] = tuple(PROGRAMS), repeats: int = 15, sums: bool = True) -> dict[str, Any]:
    """All figures; those without a program's name are of 50 x 64, one row a request."""
    cases = [lookups(name, PROGRAMS[name](), repeats) for name in names]
    first, one = cases[0], cases[0]["one row"]
    summed: dict[str, Any] = {}
    if sums:
        import paillier_sums

        summed = paillier_sums.measure()
    return {
        "owner_ms": one["owner_ms_per_row"]["median"],
        "owner_offline_ms": one["offline_ms_per_row"]["median"],
        "server_ms": one["server_ms_per_row"]["median"],
        "bytes_per_row": one["upload_bytes_per_row"] + one["download_bytes_per_row"],
        "table_bytes": first["table_bytes"],
        "publish_s": first["publish_s"],
        **summed,
        "lookups": cases,
        "linear": linear(names[0], PROGRAMS[names[0]]()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--small", action="store_true", help="leave out 100 x 256, which takes minutes to publish")
    parser.add_argument("--no-sums", action="store_true", help="lookups only")
    parser.add_argument("--out", type=Path, help="write the figures as JSON, too")
    options = parser.parse_args()
    names = tuple(PROGRAMS)[: 1 if options.small else None]
    figures = measure(names=names, repeats=options.repeats, sums=not options.no_sums)
    columns = ("owner", "offline", "server")
    print(f"{'a row':28}" + "".join(f"{f'{column}, ms':>24}" for column in columns) + f"{'up, bytes':>11}{'down':>7}")
    for case in figures["lookups"]:
        for title in ("one row", "a full chunk"):
            one = case[title]
            times = "".join(
                f"{'{median:.2f} ({least:.2f}-{most:.2f})'.format(**one[f'{column}_ms_per_row']):>24}"
                for column in columns
            )
            name = f"{case['program']}, {one['rows']} rows"
            print(f"{name:28}{times}{one['upload_bytes_per_row']:>11.1f}{one['download_bytes_per_row']:>7.1f}")
        print(
            f"{case['program']}: {case['table_bytes']:,} bytes published in {case['publish_s']:.1f} s on"
            f" {case['publish_cores']} cores ({case['publish_cpu_s']:.1f} s of processor); an owner reads and checks"
            f" them in {case['read_published_s']:.2f} s"
        )
    classical = figures["linear"]
    print(
        "features encrypted one by one, {program}, {rows} rows: owner {encrypt_ms_per_row:.0f} ms a row, server "
        "{server_ms_per_row:.2f}; up {upload_bytes_per_row:,.0f} bytes a row, {upload_bytes:,} for one".format(
            **classical
        )
    )
    if "packed_s_per_site" in figures:
        print(
            "packed sums, a site: {packed_s_per_site:.2f} s and {packed_bytes_per_site:,} bytes; unpacked phe takes "
            "{ratio_time_unpacked:.0f} x the time and {ratio_bytes_unpacked:.0f} x the bytes".format(**figures)
        )
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
