"""A recipe as one participant of a run between institutions sees it: the terms for everyone, its own records for one.

The recipe is the same file everywhere, up to where each keeps its own things: `ledger`, `limit` and `scale` of a
[[sites]] section are that site's business and in nobody's digest.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from securead.errors import FixConfigurationError
from securead.federated.federation import Terms
from securead.federated.participant import Site
from securead.federated.recipe import Recipe, gather
from securead.models.registry import make_detector


def terms_of(recipe: Recipe) -> Terms:
    """What all participants hold beforehand. Raises `FixConfigurationError` where the recipe leaves something open."""
    if recipe.schema is None:
        raise FixConfigurationError(
            "institutions agree on the bounds of every column beforehand, and the recipe has none",
            remedy="Add a section [schema] with public bounds.",
        )
    names = tuple(site.name for site in recipe.sites)
    if not names or len(set(names)) != len(names):
        raise FixConfigurationError(
            "the recipe names the sites, each once", value=names, remedy="Add a section [[sites]] with a name for each."
        )
    schema = recipe.schema if recipe.window is None else recipe.window.schema(recipe.schema)
    detector = make_detector(recipe.detector, recipe.parameters)
    if detector.get_params(deep=False).get("random_state", 0) is None:
        raise FixConfigurationError(
            "every participant draws the same public geometry, and the recipe names no seed for it",
            remedy="Give random_state, any integer, in the section [detector].",
        )
    return Terms(detector, names, schema, recipe.privacy, recipe.federation)


def own_site(recipe: Recipe, name: str, data: Path, base: Path) -> Site:
    """The site of a name with its records from `data`; its other paths are relative to `base`, the recipe's folder."""
    found = [site for site in recipe.sites if site.name == name]
    if not found:
        raise FixConfigurationError(
            "the recipe has no site of this name",
            value=name,
            remedy="It has " + ", ".join(site.name for site in recipe.sites)[:200] + ".",
        )
    alone = dataclasses.replace(
        recipe, sites=(dataclasses.replace(found[0], data=str(data.resolve())),), data=None, generate=None, split=None
    )
    (site,) = gather(alone, base).sites
    return site
