"""`python -m securead.bench.measure` with cases that take as long, and end as badly, as their parameters say."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import types
from pathlib import Path

from securead.bench import measure, provenance
from securead.bench.records import Case, Record
from securead.errors import InstallExtraError


def score(case: Case, data: Path | None) -> Record:
    wish = dict(case.parameters)
    print("what a library prints is no record")
    if "log" in wish:
        with Path(str(wish["log"])).open("a") as file:
            file.write(f"{time.monotonic()} {os.getpid()}\n")
    if "child" in wish:
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        Path(str(wish["child"])).write_text(str(child.pid))
    time.sleep(float(wish.get("sleep", 0.0)))
    match wish.get("end", "well"):
        case "crash":
            raise ZeroDivisionError("no luck with " + os.path.join(os.sep, "home", "ann", "records.npz"))
        case "killed":
            os.kill(os.getpid(), 9)
        case "silent":
            os._exit(0)
        case "absent":
            raise InstallExtraError("the engine is not here", remedy="Install it.")
        case "late":
            print("a thread of a library fell over", file=sys.stderr)
    threads = os.environ["OMP_NUM_THREADS"]
    return Record(
        case, provenance.collect(), rows=7, notes=(f"threads {threads}", f"data {os.environ.get('SECUREAD_DATA')}")
    )


module = types.ModuleType("securead.bench.scoring_case")
module.score = score  # type: ignore[attr-defined]
sys.modules[module.__name__] = module

if __name__ == "__main__":
    measure.main()
