"""Splitting a bundle: four files for four roles, none of which tells more than its role may know."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from small_model import records, small_bundle

from securead.errors import FixInputError, UseOtherKeyError
from securead.models.shared import SharedModel
from securead.protocols.sharing.dealer import read_program
from securead.protocols.sharing.shares import ModelShare
from securead.serving.split import MODEL_FILE, PARTY_FILES, PROGRAM_FILE, split_bundle

BUNDLE = small_bundle()


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return BUNDLE.save(tmp_path / "bundle")


def test_four_files(bundle: Path, tmp_path: Path) -> None:
    done = split_bundle(bundle, tmp_path / "shared")
    assert sorted(file.name for file in (tmp_path / "shared").iterdir()) == sorted(
        [*PARTY_FILES, PROGRAM_FILE, MODEL_FILE]
    )
    halves = [ModelShare.read(tmp_path / "shared" / name) for name in PARTY_FILES]
    for index, (half, name) in enumerate(zip(halves, PARTY_FILES, strict=True)):
        assert half.index == index
        assert half.program_digest == done.plan.program_digest == BUNDLE.program.digest
        assert (tmp_path / "shared" / name).stat().st_mode & 0o077 == 0
    assert halves[0].split == halves[1].split
    assert read_program(str(tmp_path / "shared" / PROGRAM_FILE)).digest == BUNDLE.program.digest
    model = SharedModel.read(tmp_path / "shared" / MODEL_FILE)
    scores = BUNDLE.program.score(records(50))
    np.testing.assert_array_equal(model.is_anomaly(scores), BUNDLE.public.is_anomaly(scores))
    assert "weights" not in json.loads((tmp_path / "shared" / MODEL_FILE).read_text())


def test_verdicts_only(bundle: Path, tmp_path: Path) -> None:
    split_bundle(bundle, tmp_path / "shared", verdicts_only=True)
    model = SharedModel.read(tmp_path / "shared" / MODEL_FILE)
    assert model.verdicts_only
    assert all(ModelShare.read(tmp_path / "shared" / name).verdicts_only for name in PARTY_FILES)
    with pytest.raises(FixInputError, match="secret"):
        model.is_anomaly(np.zeros(3))


def test_nothing_is_overwritten(bundle: Path, tmp_path: Path) -> None:
    split_bundle(bundle, tmp_path / "shared")
    (tmp_path / "shared" / PARTY_FILES[0]).unlink()
    with pytest.raises(FixInputError, match="holds a split already"):
        split_bundle(bundle, tmp_path / "shared")


def test_sealed(bundle: Path, tmp_path: Path) -> None:
    split_bundle(bundle, tmp_path / "shared", seal="five words are quite good")
    with pytest.raises(UseOtherKeyError):
        ModelShare.read(tmp_path / "shared" / PARTY_FILES[0])
    ModelShare.read(tmp_path / "shared" / PARTY_FILES[0], passphrase="five words are quite good")
