"""Recipes of windows: gateways from series, files or a generator; SKAB as a long test of the whole of it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from securead.data.windows import WindowedSchema
from securead.errors import SecureadError
from securead.federated.recipe import gather, load_recipe, parse_recipe, train_recipe, write_scales

RECIPE = """
name = "pumps"
[window]
length = 5
period = 1.0
series = "gateway"
first = 300
[detector]
type = "subspace"
scaling = "local"
[privacy]
epsilon = 4
delta = 1e-6
[schema]
[[schema.columns]]
names = ["flow", "heat"]
lower = -100
upper = 100
"""


def readings(path: Path, gateways: tuple[str, ...] = ("a", "b", "c"), n: int = 400) -> Path:
    rng, lines = np.random.default_rng(0), ["time,gateway,flow,heat"]
    levels = {name: rng.uniform(-50, 50, 2) for name in gateways}
    for t in range(n):
        for name in gateways:
            flow, heat = levels[name] + rng.normal(size=2)
            lines.append(f"{t},{name},{flow:.4f},{heat:.4f}")
    path.write_text("\n".join(lines) + "\n")
    return path


def test_each_series_is_a_site(tmp_path: Path) -> None:
    recipe = parse_recipe(RECIPE, where="test")
    data = gather(recipe, tmp_path, readings=readings(tmp_path / "r.csv"))
    assert [site.name for site in data.sites] == ["a", "b", "c"]
    assert isinstance(data.schema, WindowedSchema)
    assert {site.X.shape for site in data.sites} == {(296, 10)}
    trained = train_recipe(recipe, data)
    written = write_scales(trained, data, tmp_path / "scales")
    assert [path.name for path in written] == ["a.json", "b.json", "c.json"]


def test_named_sites_keep_budget_and_scale_of_their_own(tmp_path: Path) -> None:
    text = RECIPE + '[[sites]]\nname = "b"\nledger = "b-ledger.json"\nscale = "b-scale.json"\n[[sites]]\nname = "c"\n'
    recipe = parse_recipe(text, where="test")
    data = gather(recipe, tmp_path, readings=readings(tmp_path / "r.csv"))
    assert [site.name for site in data.sites] == ["b", "c"]
    write_scales(train_recipe(recipe, data), data, tmp_path / "scales")
    assert (tmp_path / "b-scale.json").is_file()
    assert [path.name for path in (tmp_path / "scales").iterdir()] == ["c.json"]


def test_each_site_s_own_file(tmp_path: Path) -> None:
    text = RECIPE.replace('series = "gateway"\n', "") + '[[sites]]\nname = "x"\ndata = "x.csv"\n'
    rng = np.random.default_rng(1)
    lines = [f"{t},{a:.3f},{b:.3f}" for t, (a, b) in enumerate(rng.normal(size=(50, 2))) if t != 20]
    (tmp_path / "x.csv").write_text("time,flow,heat\n" + "\n".join(lines))
    data = gather(parse_recipe(text, where="test"), tmp_path)
    assert data.sites[0].X.shape == (16 + 25, 10), "no window spans the gap"


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("length = 5", "", "'length' is missing"),
        ("length = 5", "length = 0", "length and a stride"),
        ("length = 5", "length = 5\nlenght = 6", "unknown entry 'lenght'"),
        ('series = "gateway"\n', "", "cannot be split"),
        ('series = "gateway"', 'series = "pump"', "no column 'pump'"),
        ("first = 300", "first = 3", "no records"),
        ('["flow", "heat"]', '["flow", "speed"]', "missing"),
        ("[schema]", "[schema_]", "unknown entry 'schema_'"),
        ("[detector]", '[[sites]]\nname = "z"\n[detector]', "no series of this name"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, old: str, new: str, named: str) -> None:
    path = readings(tmp_path / "r.csv")

    def follow() -> None:
        recipe = parse_recipe(RECIPE.replace(old, new), where="recipe.toml")
        train_recipe(recipe, gather(recipe, tmp_path, readings=path))

    assert old in RECIPE
    with pytest.raises(SecureadError, match=named):
        follow()


def test_readings_are_not_split_by_shares(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("time,flow,heat\n0,1,1\n")
    text = RECIPE.replace('series = "gateway"\n', "") + '[[sites]]\nname = "a"\nshare = 1\n'
    with pytest.raises(SecureadError, match="cannot be split by shares"):
        gather(parse_recipe(text, where="test"), tmp_path, readings=tmp_path / "r.csv")


def test_the_zoo_s_fleet_is_on_scales_that_are_charged(root: Path) -> None:
    recipe = load_recipe(root / "models" / "sensor_fleet" / "recipe.toml")
    assert recipe.window is not None
    assert recipe.parameters["scaling"] == "local"
    small = recipe.generate
    assert small is not None
    data = gather(recipe, root)
    assert len(data.sites) == 12
    assert data.schema.origin == "declared"


def _benchmark(root: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("skab_benchmark", root / "benchmarks" / "skab.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.long
@pytest.mark.data
def test_skab_without_noise_reaches_the_study(root: Path, data_folder: Path) -> None:
    skab = _benchmark(root)
    runs = skab.read_readings(data_folder / skab.DATA, skab.SCHEMA.window, series="experiment")
    assert len(runs) == 20
    found, network = skab.areas(runs, None, 0)
    assert found["autoencoder"] >= 0.915
    assert found["autoencoder"] > max(area for name, area in found.items() if name != "autoencoder")
    assert not network.statement_.private


@pytest.mark.long
@pytest.mark.data
def test_skab_at_epsilon_8_states_both_units_and_beats_chance(root: Path, data_folder: Path) -> None:
    skab = _benchmark(root)
    runs = skab.read_readings(data_folder / skab.DATA, skab.SCHEMA.window, series="experiment")
    fewer = {**skab.candidates(8.0)[skab.CHOSEN[8.0]], "rounds": 15}  # the benchmark has them all
    network = skab.trained(skab.autoencoder(fewer, 0), runs, 8.0)
    X, y = skab.rest(network, runs)
    assert skab.roc_auc_score(y, network.anomaly_score(X)) > 0.7
    assert network.statement_.epsilon <= 8
    assert network.statement_.readings.windows == 10
    assert network.statement_.readings.epsilon > 8
