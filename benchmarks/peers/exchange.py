"""How a peer's script is asked, and how it answers. Needs NumPy and nothing of ours: a peer may have its own Python.

`python SCRIPT FOLDER`. FOLDER/order.json holds what is wanted (`Order`), FOLDER/rows.npz the arrays; the script leaves
FOLDER/scores.npy, a score for each of the first rows, and FOLDER/answer.json: times, bytes, versions, notes, or why it
measured nothing. Models, by `form` (records are standardised, as our own programs read them):

| form | arrays | score |
|---|---|---|
| `quadratic` | A, b | squared length of A z + b |
| `network` | w0, b0, w1, ...; order: units | squared length of z - network(z); its hidden units as `units` says |
| `tables` | positions of each row, tables, sizes | the sum of a table's entry at each position |
| `clear` | X_train and X, as they are | whatever the peer learns from X_train |
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

REPEATS = 5


class Exchange:
    """One order, and what is measured for it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.order: dict[str, Any] = json.loads((folder / "order.json").read_text())
        with np.load(folder / "rows.npz") as file:
            self.arrays = {name: file[name] for name in file.files}
        self._timings: dict[tuple[str, str, bool], dict[str, Any]] = {}
        self._traffic: list[dict[str, Any]] = []
        self.notes: list[str] = []
        self.facts: dict[str, Any] = {}

    @property
    def form(self) -> str:
        return str(self.order["form"])

    @property
    def layers(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Weights `(out, in)` and offsets `(out,)` of a network, from the input on."""
        return [(self.arrays[f"w{i}"], self.arrays[f"b{i}"]) for i in range(self.order["layers"])]

    def time(self, role: str, phase: str, call: Callable[[], Any], *, rows: int = 0) -> Any:
        """What `call` returns; its seconds count for `role`, for each of `rows` rows, or once where there are none."""
        cpu, wall = time.process_time(), time.perf_counter()
        result = call()
        self.took(role, phase, rows, wall=time.perf_counter() - wall, cpu=time.process_time() - cpu)
        return result

    def took(self, role: str, phase: str, rows: int, *, wall: float, cpu: float | None) -> None:
        """Seconds that were measured elsewhere; `cpu` None where nobody knows them."""
        timing = self._timings.setdefault((role, phase, not rows), {"cpu": [], "wall": []})
        timing["wall"].append(wall / max(rows, 1))
        if cpu is not None:
            timing["cpu"].append(cpu / max(rows, 1))

    def sent(self, sender: str, receiver: str, what: str, size: int, *, rows: int = 0) -> None:
        """Bytes for so many rows, or once."""
        found = {"sender": sender, "receiver": receiver, "what": what}
        self._traffic.append({**found, "per_row": size / rows} if rows else {**found, "once": size})

    def refuse(self, why: str) -> NoReturn:
        """Nothing is measured."""
        (self.folder / "answer.json").write_text(json.dumps({"missing": why}))
        raise SystemExit(0)

    def answer(self, scores: Any, *packages: str) -> None:
        """Scores of the first rows, in order, and all that was measured."""
        from importlib import metadata

        np.save(self.folder / "scores.npy", np.asarray(scores, dtype=float))
        timings = [
            {"role": role, "phase": phase, "once": once, **seconds}
            for (role, phase, once), seconds in self._timings.items()
        ]
        answer = {
            "timings": timings,
            "traffic": self._traffic,
            "peak_bytes": [["peer", _peak_bytes()]],
            "versions": [[name, metadata.version(name)] for name in packages],
            "notes": self.notes,
            **self.facts,
        }
        (self.folder / "answer.json").write_text(json.dumps(answer))


def _peak_bytes() -> int:
    """The most memory that this process held; what its parent held before it started it does not count."""
    status = Path("/proc/self/status")
    if status.is_file():
        lines = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
        return int(lines[0].split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def asked() -> Exchange:
    """The order that this process was started with."""
    return Exchange(Path(sys.argv[1]))


def chunks(rows: int, size: int) -> list[slice]:
    """All rows, `size` at a time."""
    return [slice(start, min(start + size, rows)) for start in range(0, rows, size)]


def passes(parts: int) -> int:
    """How often to go through so many parts, for at least `REPEATS` times of each step."""
    return max(1, -(-REPEATS // parts))
