"""Recipes: what is unknown, missing or contradictory is named; the zoo's recipes parse."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from securead.errors import FixConfigurationError, FixInputError, SecureadError
from securead.federated.recipe import gather, load_recipe, parse_recipe, train_recipe, zoo_recipe
from securead.models import bundle

GOOD = """
name = "m"
[[sites]]
name = "a"
share = 3
[[sites]]
name = "b"
share = 1
[detector]
type = "subspace"
method = "pca_residual"
[privacy]
epsilon = 2
delta = 1e-5
[schema]
[[schema.columns]]
names = ["x0", "x1", "x2"]
lower = -5
upper = 5
"""
X = np.random.default_rng(0).normal(size=(400, 3))


def test_a_recipe_trains() -> None:
    recipe = parse_recipe(GOOD, where="test")
    data = gather(recipe, Path(), X=X, columns=("x0", "x1", "x2"))
    assert [(site.name, len(site.X)) for site in data.sites] == [("a", 300), ("b", 100)]
    model = bundle.make(train_recipe(recipe, data), recipe.name).public
    assert model.privacy.epsilon is not None
    assert model.privacy.epsilon <= 2
    assert not model.privacy.observed_bounds


def test_sites_with_files_of_their_own(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", X=X[:100], columns=np.array(["x2", "x0", "x1"]))
    np.savez(tmp_path / "b.npz", X=X[100:], columns=np.array(["x0", "x1", "x2"]))
    text = GOOD.replace("share = 3", 'data = "a.npz"').replace("share = 1", 'data = "b.npz"\nledger = "b.json"')
    data = gather(parse_recipe(text, where="test"), tmp_path)
    # Columns are matched by name at each site.
    assert np.array_equal(data.sites[0].X, X[:100][:, [1, 2, 0]])
    assert np.array_equal(data.sites[1].X, X[100:])
    assert data.sites[1].ledger == tmp_path / "b.json"


def test_observed_bounds_are_confessed() -> None:
    text = GOOD[: GOOD.index("[schema]")]
    recipe = parse_recipe(text, where="test")
    trained = train_recipe(recipe, gather(recipe, Path(), X=X, columns=("x0", "x1", "x2")))
    assert trained.statement_.observed_bounds
    assert "which were read off the records" in trained.statement_.in_words()[0]


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ('name = "m"', "", "'name' is missing"),
        ('name = "m"', 'name = "a/b"', "model's name"),
        ("share = 3", "shares = 3", "unknown entry 'shares'"),
        ("share = 3", 'share = "many"', "a number"),
        ("epsilon = 2", "epsilon = -1", "epsilon lies"),
        ("epsilon = 2", "", "'epsilon' is missing"),
        ("epsilon = 2", "epsilon = nan", "finite"),
        ('type = "subspace"', "", "no type"),
        ("lower = -5", "lower = 9", "not below"),
        ("lower = -5", "lower = = 9", "not TOML"),
        ('["x0", "x1", "x2"]', '["x0", "x0", "x2"]', "declared twice"),
        ('method = "pca_residual"', 'method = "magic"', "mahalanobis or pca_residual"),
        ('method = "pca_residual"', "depth = 3", "no such parameter"),
        ('type = "subspace"', 'type = "oracle"', "no detector has this name"),
        ('["x0", "x1", "x2"]', '["x0", "x1", "amount"]', "missing"),
    ],
)
def test_mistakes_are_named(old: str, new: str, named: str) -> None:
    assert old in GOOD

    def follow() -> None:
        recipe = parse_recipe(GOOD.replace(old, new), where="recipe.toml")
        train_recipe(recipe, gather(recipe, Path(), X=X, columns=("x0", "x1", "x2")))

    with pytest.raises(SecureadError, match=named):
        follow()


def test_files_that_are_missing_are_named(tmp_path: Path) -> None:
    with pytest.raises(FixInputError, match=r"nothing\.toml"):
        load_recipe(tmp_path / "nothing.toml")
    with pytest.raises(FixConfigurationError, match="site 'a' has no data"):
        gather(parse_recipe(GOOD, where="test"), tmp_path)
    with pytest.raises(FixConfigurationError, match="zoo"):
        zoo_recipe("no-such-model")


def test_the_zoo_parses(root: Path) -> None:
    recipes = sorted((root / "models").glob("*/recipe.toml"))
    assert recipes
    for path in recipes:
        recipe = load_recipe(path)
        assert zoo_recipe(path.parent.name) == path
        assert recipe.privacy is not None
        assert recipe.schema is not None or recipe.generate is not None
        assert (path.parent / "CARD.md").is_file()


OBSERVED = """
name = "m"
[[sites]]
name = "a"
data = "a.csv"
[[sites]]
name = "b"
data = "b.csv"
[detector]
type = "subspace"
"""


def test_observed_bounds_follow_the_columns_names(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("p,q\n0,100\n1,110\n")
    (tmp_path / "b.csv").write_text("q,p\n105,2\n")
    data = gather(parse_recipe(OBSERVED, where="test"), tmp_path)
    assert [column.name for column in data.schema.columns] == ["p", "q"]
    assert data.schema.columns[0].upper < 3
    assert data.schema.columns[1].lower > 90
    assert data.sites[1].X.tolist() == [[2, 105]]


@pytest.mark.parametrize("content", ["p\n1\n", "p,q\n1,\n"], ids=["missing column", "missing value"])
def test_what_one_site_has_wrong_is_named_with_the_site(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.csv").write_text("p,q\n0,100\n1,110\n")
    (tmp_path / "b.csv").write_text(content)
    with pytest.raises(SecureadError, match="site 'b'"):
        gather(parse_recipe(OBSERVED, where="test"), tmp_path)


def test_a_recipe_without_sites_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SecureadError, match="no site"):
        gather(parse_recipe('name = "m"\nsites = []\n[detector]\ntype = "subspace"\n', where="test"), tmp_path)


@pytest.mark.parametrize("kind", ["quantity", "feature", "anomaly"])
def test_a_recipe_may_make_its_sites_differ(kind: str) -> None:
    labels = (np.arange(len(X)) % 4 == 0).astype(np.int8)
    recipe = parse_recipe(GOOD + f'[split]\nkind = "{kind}"\nstrength = 0.9\n', where="test")
    data = gather(recipe, Path(), X=X, columns=("x0", "x1", "x2"), labels=labels)
    assert recipe.split is not None
    parts = recipe.split.split(X, ("x0", "x1", "x2"), labels, [3, 1], seed=0)
    for site, rows in zip(data.sites, parts, strict=True):
        assert np.array_equal(site.X, X[rows])
        assert site.labels is not None
        assert np.array_equal(site.labels, labels[rows])
    assert train_recipe(recipe, data).statement_.private


def test_a_split_is_of_one_table(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", X=X)
    text = GOOD.replace("share = 3", 'data = "a.npz"').replace("share = 1", 'data = "a.npz"')
    recipe = parse_recipe(text + '[split]\nkind = "feature"\n', where="test")
    with pytest.raises(FixConfigurationError, match=r"\[split\] is of one table"):
        gather(recipe, tmp_path)
    with pytest.raises(FixInputError, match="needs labels"):
        gather(
            parse_recipe(GOOD + '[split]\nkind = "anomaly"\n', where="test"),
            tmp_path,
            X=X,
            columns=("x0", "x1", "x2"),
        )
    with pytest.raises(SecureadError, match="strength"):
        parse_recipe(GOOD + '[split]\nkind = "feature"\nstrength = 2\n', where="test")
