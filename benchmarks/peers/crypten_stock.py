"""The peer: CrypTen as its tutorials run it. Two parties over gloo, triples from its own trusted third party.

The parties are processes that read a line "units rows" and answer with the seconds that scoring so many shared records
took, wall and processor time, and with the scores; sharing the records and opening the scores are not timed. "units
rows count" has CrypTen count bytes and rounds, too. Only the import is mended: CrypTen 0.4.1 looks for a module that
torch has moved.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

Layers = Sequence[tuple[np.ndarray, np.ndarray]]
THIRD_PARTY = 2


class Peer:
    """Three processes of CrypTen that hold one network `W_k ... W_1 x`, its units chosen at each call.

    "square", "relu", "linear_square" (the first half of a layer stays as it is): the score is `|x - network(x)|^2`;
    "form": it is `|W_1 x + b_1|^2`. `cpu_seconds`: of each party, at the last call.
    """

    def __init__(self, layers: Layers, records: np.ndarray) -> None:
        self.cpu_seconds: list[float] = []
        self._folder = tempfile.TemporaryDirectory()
        folder = Path(self._folder.name)
        arrays = {f"w{i}": w for i, (w, _) in enumerate(layers)} | {f"b{i}": b for i, (_, b) in enumerate(layers)}
        np.savez(folder / "network.npz", X=records, **arrays)
        shared = {
            "WORLD_SIZE": "2",
            "DISTRIBUTED_BACKEND": "gloo",
            "RENDEZVOUS": f"file://{folder}/rendezvous",
            "GLOO_SOCKET_IFNAME": "lo",
        }
        self._processes = [
            subprocess.Popen(
                [sys.executable, __file__, str(folder / "network.npz")],
                env=os.environ | shared | {"RANK": str(rank)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for rank in (0, 1, THIRD_PARTY)
        ]

    def score(self, units: str, rows: int) -> tuple[float, np.ndarray]:
        """Seconds of the slower party, and the scores of the first `rows` records."""
        answers = self._ask(f"{units} {rows}")
        self.cpu_seconds = [float(a["cpu_seconds"]) for a in answers]
        return max(a["seconds"] for a in answers), np.array(answers[0]["scores"])

    def communication(self, units: str, rows: int) -> dict[str, float]:
        """The `bytes` and `rounds` of scoring, the mean of both parties' own counts."""
        answers = self._ask(f"{units} {rows} count")
        return {name: sum(a[name] for a in answers) / len(answers) for name in ("bytes", "rounds")}

    def _ask(self, line: str) -> list[dict[str, Any]]:
        answers = []
        for process in self._processes[:THIRD_PARTY]:
            assert process.stdin is not None
            process.stdin.write(line + "\n")
            process.stdin.flush()
        for process in self._processes[:THIRD_PARTY]:
            assert process.stdout is not None
            answer = process.stdout.readline()
            if not answer:
                raise RuntimeError("a party of the peer died")
            answers.append(json.loads(answer))
        return answers

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()
        self._folder.cleanup()


def run_party(network: Path) -> None:
    """One party, or the third."""
    sys.modules["torch.onnx._internal.registration"] = importlib.import_module(
        "torch.onnx._internal.torchscript_exporter.registration"
    )
    import crypten
    import torch

    torch.set_num_threads(1)
    crypten.cfg.mpc.provider = "TTP"
    if os.environ["RANK"] == str(THIRD_PARTY):
        crypten.mpc.provider.TTPServer()
        return
    crypten.init()
    with np.load(network) as file:
        stored = {name: torch.tensor(file[name], dtype=torch.float64) for name in file.files}
    layers = [
        (crypten.cryptensor(stored[f"w{i}"].T, src=0), crypten.cryptensor(stored[f"b{i}"], src=0))
        for i in range(sum(name.startswith("w") for name in stored))
    ]
    shared: dict[str, Any] = {}
    for line in sys.stdin:
        units, rows, *count = line.split()
        if rows not in shared:
            shared[rows] = crypten.cryptensor(stored["X"][: int(rows)], src=0)
        x = shared[rows]
        crypten.cfg.communicator.verbose = bool(count)
        crypten.comm.get().reset_communication_stats()
        cpu, start = time.process_time(), time.perf_counter()
        hidden = x
        for at, (weight, offset) in enumerate(layers):
            hidden = hidden.matmul(weight) + offset
            if at < len(layers) - 1:
                hidden = _activated(hidden, units)
        scores = (hidden if units == "form" else x - hidden).square().sum(1)
        took = {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - cpu}
        counted = crypten.comm.get().get_communication_stats()
        opened = scores.get_plain_text()
        answer = {**took, "bytes": counted["bytes"], "rounds": counted["rounds"], "scores": opened.tolist()}
        print(json.dumps(answer), flush=True)


def _activated(hidden: Any, units: str) -> Any:
    if units != "linear_square":
        return hidden.square() if units == "square" else hidden.relu()
    import crypten

    linear = (hidden.size(1) + 1) // 2
    return crypten.cat([hidden[:, :linear], hidden[:, linear:].square()], dim=1)


if __name__ == "__main__":
    run_party(Path(sys.argv[1]))
