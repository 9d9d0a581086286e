"""A case of kind "script": a program of `benchmarks/`, run as people run it, and every number of what it wrote.

A script takes `--out FILE` and leaves a JSON object there. Its figures are that object's numbers by their path
("square_ms.64"); its sentences become notes. What a script measures it documents itself: here nothing is checked or
judged, only kept with the revision, the versions and the machine, so that a run can be resumed, reported and repeated.
"""

from __future__ import annotations

import math
import os
import re
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from securead import files
from securead.bench import provenance
from securead.bench.records import Case, Figure, Record
from securead.errors import FixConfigurationError, FixInputError

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_MOST_FIGURES, _MOST_NOTES, _LONGEST_NOTE = 5_000, 100, 400
_MOST_BYTES = 16 << 20


def scripts_folder() -> Path:
    """The folder of the scripts, in a checkout; an installed package has none."""
    return Path(__file__).parent.parent.parent / "benchmarks"


def script(case: Case, data: Path | None) -> Record:
    """The record of a case; `case.detector` names the script, `case.parameters` are its options.

    Of an option `true` is a flag, and `false` none. A case with a data set is not measured where there is no folder of
    data. Raises `FixConfigurationError` and `FixInputError` for what keeps it from being measured here.
    """
    path = scripts_folder() / f"{case.detector}.py"
    if not _NAME.fullmatch(case.detector) or not path.is_file():
        raise FixConfigurationError(
            "not measured here: benchmarks/ of a checkout has no such script", value=case.detector
        )
    if case.dataset != "none" and data is None:
        raise FixInputError(f"{case.dataset}: real data is not here", remedy="Give --data-dir, or set SECUREAD_DATA.")
    made = provenance.collect()
    with tempfile.TemporaryDirectory(prefix="securead-bench-") as folder:
        out = Path(folder) / "figures.json"
        done = subprocess.run(
            [sys.executable, str(path), "--out", str(out), *_options(case)],
            cwd=path.parent.parent,
            env=_environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode or not out.is_file():
            said = " ".join(done.stderr.strip().splitlines()[-3:])[-500:]
            return Record(case, made, failures=(f"the script {path.name} failed ({done.returncode}): {said}",))
        found = files.read_json(out, limit=_MOST_BYTES)
    if not isinstance(found, dict):
        return Record(case, made, failures=(f"the script {path.name} wrote no JSON object",))
    leaves = list(_leaves(found, ""))
    figures = [Figure(name, float(value)) for name, value in leaves if _is_number(value)]
    notes = [f"{name}: {value}"[:_LONGEST_NOTE] for name, value in leaves if isinstance(value, str)]
    if not figures or len(figures) > _MOST_FIGURES:
        return Record(case, made, failures=(f"the script {path.name} wrote {len(figures):,} figures",))
    peak = 1024 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return Record(
        case,
        made,
        peak_bytes=(("script", peak),),
        figures=tuple(figures),
        notes=tuple(notes[:_MOST_NOTES]),
    )


def _options(case: Case) -> Iterator[str]:
    for name, value in case.parameters:
        option = "--" + name.replace("_", "-")
        if value is True:
            yield option
        elif value is not False:
            yield f"{option}={value}"


def _environment() -> dict[str, str]:
    """A script imports its neighbours and this package, wherever that was found."""
    package = str(Path(__file__).parent.parent.parent)
    paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Everything that is neither an object nor a list, by its path."""
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for name, inner in items:
            yield from _leaves(inner, f"{path}.{name}" if path else str(name))
    else:
        yield path, value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
