"""Recipes: everything that a training run needs, in one TOML file that people can read and diff."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from securead import codec, files
from securead.data.generators.generated import Generated
from securead.data.generators.payments import generate_payments
from securead.data.generators.sensors import generate_sensors
from securead.data.partition import partition
from securead.data.readers import Table, read_table
from securead.data.schema import Array, Column, Schema
from securead.data.skew import Skew
from securead.errors import FixConfigurationError, FixInputError, SecureadError
from securead.federated.embedded import Progress, train
from securead.federated.federation import Federation
from securead.federated.participant import Site
from securead.federated.windowed import Place, WindowSection, generated_sites, sites_of
from securead.models.bundle import check_name
from securead.models.estimator import AnomalyDetector
from securead.models.registry import make_detector
from securead.privacy.plan import PrivacyPlan
from securead.program.layered import RING_BITS
from securead.protocols import registry


@dataclass(frozen=True)
class Columns:
    """Columns that share their bounds: `names` with everything else as in `Column`."""

    names: tuple[str, ...]
    lower: float
    upper: float
    transform: Literal["identity", "log"] = "identity"
    center: float | None = None
    spread: float | None = None


@dataclass(frozen=True)
class SchemaSection:
    """The public schema, declared."""

    columns: tuple[Columns, ...]
    out_of_bounds: Literal["clip", "refuse"] = "clip"

    def schema(self) -> Schema:
        """The checked schema."""
        columns = tuple(
            Column(name, group.lower, group.upper, group.transform, group.center, group.spread)
            for group in self.columns
            for name in group.names
        )
        return Schema(columns, self.out_of_bounds)


@dataclass(frozen=True)
class SiteSection:
    """One data owner: a data file of its own, or its share of the run's common file.

    `ledger` names the file that keeps its budget across jobs, `limit` the epsilon that it allows in total; `scale` the
    file for its own scale, where detectors use one (scaling = "local").
    """

    name: str
    data: str | None = None
    share: float | None = None
    ledger: str | None = None
    limit: float | None = None
    scale: str | None = None

    def place(self, base: Path) -> Place:
        """The same with paths relative to `base`."""
        data, ledger, scale = (None if name is None else base / name for name in (self.data, self.ledger, self.scale))
        return Place(self.name, data, ledger, self.limit, scale)


@dataclass(frozen=True)
class GenerateSection:
    """Synthetic records: "payments" of several banks or "sensors" of several gateways, and how many of them."""

    kind: Literal["payments", "sensors"]
    sites: int
    rows: int
    anomaly_rate: float = 0.0
    seed: int = 0

    def generate(self) -> Generated:
        """The records with their schema; `rows` are shared among all sites."""
        if self.kind == "payments":
            return generate_payments(rows=self.rows, banks=self.sites, fraud_rate=self.anomaly_rate, seed=self.seed)
        readings = max(self.rows // self.sites, 1)
        return generate_sensors(gateways=self.sites, readings=readings, fault_rate=self.anomaly_rate, seed=self.seed)


@dataclass(frozen=True)
class Recipe:
    """What `securead train` runs.

    `privacy` absent means exact sums and no guarantee. `schema` absent means bounds observed in the data, widened by a
    tenth on each side; every statement then says that they are not covered. `generate` names synthetic records, which
    come with their sites and schema. `label` names the column of known anomalies, where it has no usual name; labels
    serve a threshold by false alarms or by costs, a split by anomaly, and nothing else. `engine` names the one that the
    model is for: a program for "sharing" is another than for a scoring service. `window` makes records of readings; the
    schema's columns are then their channels. `split` makes sites of a common table differ, for studies; by default each
    gets its share at random.
    """

    name: str
    sites: tuple[SiteSection, ...]
    detector: str
    parameters: Mapping[str, Any]
    privacy: PrivacyPlan | None = None
    schema: Schema | None = None
    data: str | None = None
    generate: GenerateSection | None = None
    split_seed: int = 0
    split: Skew | None = None
    label: str | None = None
    engine: str | None = None
    window: WindowSection | None = None
    federation: Federation = field(default_factory=Federation)

    @property
    def ring_bits(self) -> int | None:
        """What `compile` is given for the engine."""
        return None if self.engine is None or registry.spec(self.engine).parties == 1 else RING_BITS


def parse_recipe(content: str, *, where: str) -> Recipe:
    """A recipe from TOML text; whatever is unknown, missing or of the wrong type is named."""
    try:
        plain = tomllib.loads(content)
    except tomllib.TOMLDecodeError as error:
        raise FixInputError(f"{where} is not TOML: {error}", remedy="Correct the line.") from error
    detector = plain.pop("detector", None)
    if not isinstance(detector, dict) or not isinstance(detector.get("type"), str):
        raise FixInputError(
            "the section [detector] is missing or has no type", where=where, remedy='Add, say, type = "subspace".'
        )
    parameters = {key: value for key, value in detector.items() if key != "type"}
    read: _Plain = codec.from_plain(_Plain, plain, where=where)
    if not check_name(read.name):
        raise FixConfigurationError("a model's name is 1 to 64 letters, digits, '-', '_' or '.'", value=read.name)
    return Recipe(
        name=read.name,
        sites=read.sites,
        detector=detector["type"],
        parameters=parameters,
        privacy=read.privacy,
        schema=None if read.schema is None else read.schema.schema(),
        data=read.data,
        generate=read.generate,
        split_seed=read.split_seed,
        split=read.split,
        label=read.label,
        engine=read.engine,
        window=read.window,
        federation=read.federation,
    )


@dataclass(frozen=True)
class _Plain:
    """The TOML file without the detector's section, whose entries are the detector's own."""

    name: str
    sites: tuple[SiteSection, ...] = ()
    privacy: PrivacyPlan | None = None
    schema: SchemaSection | None = None
    data: str | None = None
    generate: GenerateSection | None = None
    split_seed: int = 0
    split: Skew | None = None
    label: str | None = None
    engine: str | None = None
    window: WindowSection | None = None
    federation: Federation = field(default_factory=Federation)


def load_recipe(path: Path) -> Recipe:
    """Read a recipe file."""
    return parse_recipe(files.read_bytes(path, limit=1 << 20).decode(errors="replace"), where=str(path))


@dataclass(frozen=True, eq=False)
class TrainingData:
    """What the sites hold, and the schema they agreed on."""

    sites: tuple[Site, ...]
    schema: Schema


def gather(
    recipe: Recipe,
    base: Path,
    *,
    X: Array | None = None,
    columns: tuple[str, ...] = (),
    owner: Array | None = None,
    labels: Array | None = None,
    readings: Path | None = None,
) -> TrainingData:
    """Read each site's records; paths are relative to `base`, the recipe's folder.

    With `X` (its column names, and labels where known) these records are split by the sites' shares instead of reading
    files, or by `owner`, the position of each record's site. With `readings`, that file takes the place of the recipe's
    `data` where records are windows.
    """
    own = X is None and recipe.data is None
    if recipe.split is not None and (own or recipe.window is not None):
        raise FixConfigurationError(
            "[split] is of one table of records, and these sites have their own or train on windows",
            remedy="Name the table (data = ..., or --data), or leave [split] out.",
        )
    if recipe.window is not None:
        return _gather_windows(recipe, recipe.window, base, readings)
    if X is None and recipe.generate is not None:
        made = recipe.generate.generate()
        tables = [(name, made.of_site(name)) for name in made.sites]
        return TrainingData(
            tuple(Site(name, table.X, labels=table.y) for name, table in tables), recipe.schema or made.schema
        )
    if not recipe.sites:
        raise FixConfigurationError("the recipe has no site", remedy="Add a section [[sites]] with a name.")
    declared = recipe.schema
    features = () if declared is None else declared.names
    if X is None and recipe.data is not None:
        whole = read_table(base / recipe.data, label=recipe.label, features=features)
    elif X is not None:
        whole = Table(X, columns, labels)
    else:
        whole = None
    read = [_own_records(site, base, recipe.label, features) for site in recipe.sites] if whole is None else [whole]
    layout = declared or Schema(tuple(Column(name, 0.0, 1.0) for name in read[0].columns))
    owners = [f"site {site.name!r}" for site in recipe.sites] if whole is None else ["the records"]
    # All are checked before one is used: what a site releases before another is refused would be charged to it.
    parts = [_checked(layout, where, table) for where, table in zip(owners, read, strict=True)]
    known = [table.y for table in read]
    schema = declared or Schema.observed(np.concatenate(parts), layout.names, widen=0.1)
    if whole is not None:
        shares = [1.0 if site.share is None else site.share for site in recipe.sites]
        if recipe.split is not None:
            split = recipe.split.split(parts[0], layout.names, whole.y, shares, seed=recipe.split_seed)
        elif owner is None:
            split = partition(len(whole.X), shares, seed=recipe.split_seed)
        else:
            split = [np.flatnonzero(owner == position) for position in range(len(recipe.sites))]
        parts = [parts[0][rows] for rows in split]
        known = [None if whole.y is None else whole.y[rows] for rows in split]
    sites = tuple(
        Site(site.name, part, None if site.ledger is None else base / site.ledger, site.limit, marks)
        for site, part, marks in zip(recipe.sites, parts, known, strict=True)
    )
    return TrainingData(sites, schema)


def _gather_windows(recipe: Recipe, section: WindowSection, base: Path, readings: Path | None) -> TrainingData:
    made = None if recipe.generate is None or readings is not None else recipe.generate.generate()
    declared = recipe.schema or (None if made is None else made.schema)
    if declared is None:
        raise FixConfigurationError(
            "windows need a declared schema: bounds of every channel",
            remedy="Add a section [schema] with the sensors' ranges.",
        )
    schema = section.schema(declared)
    if made is not None:
        return TrainingData(generated_sites(section, schema, made), schema)
    common = readings or (None if recipe.data is None else base / recipe.data)
    places = [site.place(base) for site in recipe.sites]
    if common is None and not places:
        raise FixConfigurationError("the recipe has no site", remedy="Add a section [[sites]] with a name.")
    return TrainingData(sites_of(section, schema, places, common, recipe.label), schema)


def _own_records(site: SiteSection, base: Path, label: str | None, features: tuple[str, ...]) -> Table:
    if site.data is None:
        raise FixConfigurationError(
            f"site {site.name!r} has no data",
            remedy="Give each site a data file, or the recipe one (data = ..., or --data).",
        )
    return read_table(base / site.data, label=label, features=features)


def _checked(layout: Schema, where: str, table: Table) -> Array:
    """The records in the layout's column order; what is ill-formed about them is raised with whose they are."""
    try:
        ordered: Array = table.X[:, layout.order(table.columns, reorder=True)]
        layout.bounded(ordered)
    except SecureadError as error:
        error.where = where
        raise
    return ordered


def train_recipe(
    recipe: Recipe, data: TrainingData, *, progress: Progress | None = None, checkpoint: Path | None = None
) -> AnomalyDetector:
    """Train by the recipe on the embedded executor; `bundle.make(detector, recipe.name, ...)` compiles it."""
    detector = make_detector(recipe.detector, recipe.parameters)
    return train(
        detector,
        data.sites,
        data.schema,
        privacy=recipe.privacy,
        federation=recipe.federation,
        progress=progress,
        checkpoint=checkpoint,
    )


def write_scales(detector: AnomalyDetector, data: TrainingData, folder: Path) -> tuple[Path, ...]:
    """Write the scale of every site that has one and named no file for it, to `folder`; all that were written."""
    scales = getattr(detector, "scales_", {})
    written = []
    for at, site in enumerate(data.sites):
        if site.name in scales:
            name = site.name if check_name(site.name) else f"site-{at}"
            written.append(site.scale or folder / f"{name}.json")
            scales[site.name].write(written[-1])
    return tuple(written)


def zoo_folder() -> Path:
    """The folder of the model zoo's recipes, in an installed package or a checkout."""
    package = Path(__file__).parent.parent
    return package / "_zoo" if (package / "_zoo").is_dir() else package.parent / "models"


def zoo_recipe(name: str) -> Path:
    """The path of a recipe of the model zoo."""
    path = zoo_folder() / name / "recipe.toml"
    if not path.is_file():
        raise FixConfigurationError("the zoo has no such recipe", value=name, remedy="See the folder models/.")
    return path
