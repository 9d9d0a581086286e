"""Bundles: two halves, one file each; damage and mixing are refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from securead.errors import FixConfigurationError, FixInputError, UseOtherKeyError
from securead.models import bundle
from securead.models.subspace import SubspaceDetector


@pytest.fixture(scope="module")
def trained() -> bundle.Bundle:
    rng = np.random.default_rng(0)
    return bundle.make(SubspaceDetector().fit(rng.normal(size=(300, 4)) @ rng.normal(size=(4, 4))), "test-model")


def test_round_trip(trained: bundle.Bundle, tmp_path: Path) -> None:
    again = bundle.load(trained.save(tmp_path / "b"))
    X = np.random.default_rng(1).normal(size=(20, 4))
    assert again.public == trained.public
    assert again.public.digest == trained.public.digest
    assert np.array_equal(again.program.score(X), trained.program.score(X))
    assert (tmp_path / "b" / "secret.json").stat().st_mode & 0o777 == 0o600
    assert bundle.load_public(tmp_path / "b") == trained.public


def test_the_public_half_holds_no_weight(trained: bundle.Bundle, tmp_path: Path) -> None:
    trained.save(tmp_path / "b")
    public = (tmp_path / "b" / "public.json").read_text()
    weights = trained.secret.weights[1]
    large = {str(abs(int(v))) for v in (*weights.matrices[0].ravel(), *weights.offset) if abs(int(v)) > 999}
    assert len(large) > 5
    # Whole numbers only: four digits of some random bound's fraction may be a weight's by chance.
    assert not large & set(re.findall(r"(?<![\d.])\d+(?![\d.])", public))
    assert trained.secret.commitment_key.hex() not in public
    assert "weights" not in repr(trained)


def test_sealed(trained: bundle.Bundle, tmp_path: Path) -> None:
    trained.save(tmp_path / "b", passphrase="five words are better")
    assert b"matrices" not in (tmp_path / "b" / "secret.json").read_bytes()
    assert bundle.load(tmp_path / "b", passphrase="five words are better").public == trained.public
    with pytest.raises(UseOtherKeyError, match="wrong"):
        bundle.load(tmp_path / "b", passphrase="other")
    with pytest.raises(UseOtherKeyError, match="passphrase"):
        bundle.load(tmp_path / "b")


def test_halves_of_two_models_do_not_mix(trained: bundle.Bundle, tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    other = bundle.make(SubspaceDetector().fit(rng.normal(size=(300, 4))), "other")
    trained.save(tmp_path / "a")
    other.save(tmp_path / "b")
    (tmp_path / "a" / "secret.json").write_bytes((tmp_path / "b" / "secret.json").read_bytes())
    with pytest.raises(FixInputError, match="belong together"):
        bundle.load(tmp_path / "a")


@pytest.mark.parametrize("content", ["", "{}", "[]", "null", '{"weights": {"1": 3}}', "\x00\xff" * 10])
def test_damage_is_named(trained: bundle.Bundle, tmp_path: Path, content: str) -> None:
    trained.save(tmp_path / "b")
    for name in ("secret.json", "public.json"):
        kept = (tmp_path / "b" / name).read_bytes()
        (tmp_path / "b" / name).write_text(content)
        with pytest.raises(FixInputError):
            bundle.load(tmp_path / "b")
        (tmp_path / "b" / name).write_bytes(kept)


def test_a_changed_public_half_is_found(trained: bundle.Bundle, tmp_path: Path) -> None:
    trained.save(tmp_path / "b")
    path = tmp_path / "b" / "public.json"
    plain = json.loads(path.read_text())
    plain["program"]["steps"][1]["bound_bits"] -= 1
    path.write_text(json.dumps(plain))
    with pytest.raises(FixInputError):
        bundle.load(tmp_path / "b")


@pytest.mark.parametrize("name", ["", "a/b", "../x", ".hidden", "a b", "x" * 65, "ümlaut"])
def test_names_that_could_be_paths_are_refused(trained: bundle.Bundle, name: str) -> None:
    with pytest.raises(FixConfigurationError):
        bundle.make(SubspaceDetector().fit(np.random.default_rng(0).normal(size=(30, 3))), name)
