"""A recipe for secret sharing, from records to a bundle whose program two parties can carry."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from securead.cli import app
from securead.errors import FixConfigurationError
from securead.federated.recipe import parse_recipe
from securead.models import bundle
from securead.protocols.sharing.plan import make_plan

RECIPE = """
name = "relu"
data = "records.csv"
engine = "sharing"
[[sites]]
name = "a"
share = 1
[[sites]]
name = "b"
share = 1
[detector]
type = "{detector}"
{parameters}
"""
NETWORK = 'units = "relu"\nhidden = [6, 3, 6]\nrounds = 2\nsampling_prob = 0.1'


@pytest.mark.parametrize(
    ("detector", "parameters"),
    [("autoencoder", NETWORK), ("subspace", ""), ("subspace", 'method = "pca_residual"'), ("histogram", "")],
)
def test_a_recipe_trains_to_a_bundle_for_two_parties(detector: str, parameters: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    records = rng.normal(size=(400, 3)) @ rng.normal(size=(3, 6)) + 0.1 * rng.normal(size=(400, 6))
    header = ",".join(f"c{i}" for i in range(6))
    np.savetxt(tmp_path / "records.csv", records, delimiter=",", header=header, comments="")
    (tmp_path / "recipe.toml").write_text(RECIPE.format(detector=detector, parameters=parameters))
    run = CliRunner().invoke(app, ["train", str(tmp_path / "recipe.toml"), "--out", str(tmp_path / "bundle")])
    assert run.exit_code == 0, run.output
    loaded = bundle.load(tmp_path / "bundle")
    plan = make_plan(loaded.public.program, "same")
    assert plan.error_bound <= loaded.public.program.tolerance
    assert ("relu" in loaded.public.program.operations) == (detector == "autoencoder")
    assert np.isfinite(loaded.program.score(records).astype(float)).all()


def test_an_unknown_engine_is_refused_before_training() -> None:
    recipe = parse_recipe(RECIPE.format(detector="subspace", parameters="").replace("sharing", "shearing"), where="r")
    with pytest.raises(FixConfigurationError, match="shearing"):
        _ = recipe.ring_bits
    assert parse_recipe('name = "x"\n[detector]\ntype = "subspace"\n', where="r").ring_bits is None
    assert parse_recipe('name = "x"\nengine = "ckks"\n[detector]\ntype = "subspace"\n', where="r").ring_bits is None
