"""Runs one target under atheris: `python tests/fuzz/fuzz.py ckks-key --seconds 60` (needs the extra `fuzz`).

The corpus begins with honest messages and is kept in `--corpus` where that is given. A crash is written beside it, or
into the present folder, and ends the run with an exit code other than 0. Memory is bounded by libFuzzer's limits on
what the process holds and on any one allocation.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import random
import sys
import tempfile
from pathlib import Path

import atheris

from securead.protocols import residues

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
# Numba compiles what lies in there: instrumented, it would not.
for found in pkgutil.iter_modules(residues.__path__):
    if found.name != "torch_form":
        importlib.import_module(f"{residues.__name__}.{found.name}")
with atheris.instrument_imports(include=["securead"]):
    from fuzz_targets import TARGETS

    import securead.protocols.bfv.blind
    import securead.protocols.bfv.owner
    import securead.protocols.ckks.blind
    import securead.protocols.ckks.owner
    import securead.protocols.ckks.row.blind
    import securead.protocols.ckks.row.owner  # noqa: F401 - engines are imported by name later: too late to instrument


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", nargs="?", choices=sorted(TARGETS))
    parser.add_argument("--list", action="store_true", help="name all targets")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--corpus", type=Path, help="a folder to keep interesting inputs and crashes in")
    parser.add_argument("--rss-mb", type=int, default=3072, help="what the process may hold, libraries included")
    options = parser.parse_args()
    if options.list or options.target is None:
        print(*TARGETS)
        return
    target = TARGETS[options.target]

    def mutate(content: bytes, largest: int, seed: int) -> bytes:
        rng = random.Random(seed)
        if rng.random() < 0.5:
            return target.mutate(content, rng)[:largest]
        changed = atheris.Mutate(content, largest)
        return (target.mend(changed, rng) if rng.random() < 0.9 else changed)[:largest]

    with tempfile.TemporaryDirectory() as temporary:
        corpus = options.corpus or Path(temporary)
        corpus.mkdir(parents=True, exist_ok=True)
        for at, seed in enumerate(target.seeds()):
            assert target.run(seed), "an honest message is refused"
            (corpus / f"honest-{at}").write_bytes(seed)
        flags = {
            "max_total_time": options.seconds,
            "max_len": target.max_bytes(),
            "rss_limit_mb": options.rss_mb,
            "malloc_limit_mb": 1024,
            "timeout": 60,
            "artifact_prefix": f"{options.corpus or '.'}/",
            "print_final_stats": 1,
        }
        arguments = [sys.argv[0], *(f"-{name}={value}" for name, value in flags.items()), str(corpus)]
        atheris.Setup(arguments, target.run, custom_mutator=mutate)
        # libFuzzer leaves by exit(), past Python's own end.
        sys.stdout.flush()
        atheris.Fuzz()


if __name__ == "__main__":
    main()
