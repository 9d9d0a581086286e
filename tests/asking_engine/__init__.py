"""A make-believe engine that asks for an evaluation key: lookups in the clear, answers masked under the owner's key.

It protects nothing. It exists so that keys can be registered, refused, forgotten and asked for again in milliseconds,
with the real service, client and command line around it. An answer that was masked under another key decrypts to
nothing, as with a real engine.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from securead.data.encoder import Encoder
from securead.data.schema import Column, Schema
from securead.models.bundle import Bundle, PublicModel, Threshold
from securead.privacy.statement import PrivacyStatement
from securead.program.builder import table_program
from securead.program.geometry import Bins
from securead.protocols import registry

COLUMNS = ("amount", "age", "hour")
NAME = "asking"  # by name before every real engine, so that it is the one that is chosen


def table_bundle(name: str = "table", *, seed: int = 1) -> Bundle:
    """Three columns with bounds [-4, 4], eight bins each, random entries."""
    encoder = Encoder(Schema(tuple(Column(n, -4.0, 4.0, center=0.0, spread=1.0) for n in COLUMNS)))
    edges = tuple(int(e) for e in np.linspace(-encoder.bound, encoder.bound, 9)[1:-1])
    tables = np.random.default_rng(seed).uniform(0, 4, size=(len(COLUMNS), 8))
    program = table_program(
        encoder, Bins((0, 1, 2), (edges,) * 3), list(tables), entry_bits=8, honest_extraction_rows=24
    )
    public = PublicModel(
        name=name,
        detector="made up for tests",
        program=program.public,
        threshold=Threshold(6.0, "chosen by hand"),
        privacy=PrivacyStatement(private=False, noise_source="system"),
        created="2026-01-01",
        version="0",
    )
    return Bundle(public, program.secret)


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Register the engine in this process, for one test, as the only one that looks up."""
    from asking_engine.plan import ENGINE

    others = {name: spec for name, spec in registry.engines().items() if "lookup" not in spec.operations}
    engines = {NAME: ENGINE, **others}
    monkeypatch.setattr(registry, "engines", lambda: engines)


def installation(folder: Path) -> dict[str, str]:
    """The environment of a process in which the engine is installed, the way a third party's is."""
    information = folder / "asking_engine-1.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: asking-engine\nVersion: 1\n")
    (information / "entry_points.txt").write_text(f"[{registry.GROUP}]\n{NAME} = asking_engine.plan:ENGINE\n")
    places = [str(folder), str(Path(__file__).resolve().parent.parent), os.environ.get("PYTHONPATH")]
    return {"PYTHONPATH": os.pathsep.join(filter(None, places))}
