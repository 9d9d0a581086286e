"""Masked sums: milliseconds a site and round for 2,000 values among 5 sites, with certificates; bytes sent.

    python benchmarks/masking.py --out bench-output/masking.json

A site's work is to agree (everyone's adverts and certificates verified) and to mask (everyone's signatures verified).
"first": the first round, with the exchange of every pair; "later": the median of the others. Once with the site's
memory in the process, once in a folder, where every promise waits for the disk. Sums are checked.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from securead import certificates
from securead.privacy.site import Kept
from securead.protocols.masking.identity import Authority, Identity
from securead.protocols.masking.masker import Masker
from securead.protocols.masking.masks import unmask


def measure(folder: Path, sites: int, values: int, rounds: int, *, on_disk: bool) -> dict[str, float]:
    names = [f"bank-{number}" for number in range(sites)]
    certificates.issue(folder / "deployment", names)
    maskers = {}
    for name in names:
        identity = Identity.from_member(folder / "deployment" / name)
        roster = Authority(folder / "deployment" / "ca.crt", names)
        memory = Kept(folder / name if on_disk else None)
        maskers[name] = Masker("benchmark", identity, roster, memory, minimum=2, attempts=3)
    adverts, rng, taken = [masker.advert() for masker in maskers.values()], np.random.default_rng(0), []
    for number in range(rounds):
        updates = {name: rng.integers(-(2**40), 2**40, values) for name in names}
        signatures, messages, start = {}, {}, time.perf_counter()
        for name, masker in maskers.items():
            signatures[name] = masker.agree(number, 1, adverts, updates[name])
        for name, masker in maskers.items():
            messages[name] = masker.mask(number, 1, signatures, updates[name])
        taken.append(1000 * (time.perf_counter() - start) / sites)
        assert np.array_equal(unmask(messages, names), sum(updates.values()))
    return {"first": round(taken[0], 2), "later": round(statistics.median(taken[1:]), 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sites", type=int, default=5)
    parser.add_argument("--values", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    result: dict[str, object] = {"sites": given.sites, "values": given.values, "bytes_per_site_round": 8 * given.values}
    for place, on_disk in (("memory", False), ("folder", True)):
        with tempfile.TemporaryDirectory() as folder:
            found = measure(Path(folder), given.sites, given.values, given.rounds, on_disk=on_disk)
        result[f"ms_per_site_{place}"] = found
    text = json.dumps(result, indent=1)
    print(text)
    if given.out:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
