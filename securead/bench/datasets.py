"""Where benchmarks and the demonstration get their records: files, data sets by name, generated ones.

`load` gives a data set by name, split the same way every time; `demo_data` the demonstration's.

| name | what |
|---|---|
| `creditcard` | creditcard_rounded.npz of the data folder, or creditcard.csv as ULB publishes it |
| `cardio`, `6_cardio`, ... | NN_name.npz as ADBench lays them out: in the data folder or a folder within it |
| `skab` | skab.npz: each run's first 400 readings train, the rest is held out |
| `kddcup99`, `openml:ID` | through scikit-learn, which fetches them where there is internet |
| a path | .npz, .csv or .parquet, within the data folder or anywhere |
| `generated-payments`, `generated-sensors` | the built-in generators |
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from securead.bench import fetched
from securead.data.generators.payments import generate_payments
from securead.data.generators.sensors import generate_sensors
from securead.data.partition import hold_out, partition
from securead.data.readers import Table, read_table
from securead.data.schema import Array, Schema
from securead.errors import FixInputError
from securead.federated.participant import Site
from securead.federated.recipe import load_recipe, zoo_recipe

PAYMENTS_FILE, ULB_FILE, SKAB_FILE = "creditcard_rounded.npz", "creditcard.csv", "skab.npz"
HELD_OUT = 0.3
_GENERATED_ROWS = 60_000
_NAMED_ROWS, _NAMED_READINGS = 20_000, 8_000
_QUIET_READINGS = 400
_UNEVEN = (6.0, 3.0, 1.0)
_FILES = (".npz", ".csv", ".parquet")


@dataclass(frozen=True, eq=False)
class DemoData:
    """A table, what to call it, why it was chosen, and what is declared about it, if anything is.

    `recipe`: the zoo's recipes `<recipe>_<detector>` declare its schema; else `schema` may. `owner` `(n,)` gives the
    position in `sites` of each record's owner, where records have owners by nature.
    """

    table: Table
    name: str
    why: str
    recipe: str | None = None
    schema: Schema | None = None
    sites: tuple[str, ...] = ("bank-a", "bank-b", "bank-c")
    owner: Array | None = None


def demo_data(path: Path | None, label: str | None) -> DemoData:
    """`path` if given, else `$SECUREAD_DATA/creditcard_rounded.npz` if present, else generated payments."""
    if path is not None:
        table = read_table(path, label=label)
        if len(table.X) < 60:
            raise FixInputError(f"{path} is too small to split among three banks", value=len(table.X))
        return DemoData(table, path.stem, f"your file {path.name}")
    folder = os.environ.get("SECUREAD_DATA")
    if folder and (Path(folder) / PAYMENTS_FILE).is_file():
        table = read_table(Path(folder) / PAYMENTS_FILE)
        return DemoData(
            table,
            "creditcard",
            f"{PAYMENTS_FILE} from SECUREAD_DATA: European card payments, September 2013 (ULB)",
            "payments",
        )
    return _generated("SECUREAD_DATA names no folder with " + PAYMENTS_FILE)


def _generated(because: str) -> DemoData:
    made = generate_payments(rows=_GENERATED_ROWS, seed=0)
    return DemoData(
        made.table,
        "generated-payments",
        f"generated card payments with typed frauds, no real ones ({because})",
        schema=made.schema,
        sites=made.sites,
        owner=made.site,
    )


@dataclass(frozen=True, eq=False)
class NamedData:
    """A data set, split: some records to train on, others to score.

    `weights_held` `(n,)`: of how many held-out records each stands for, where a sample of them is scored, so that
    figures that depend on the share of anomalies are for all of them. `owner` `(m,)`: the position in `owners` of each
    training record's owner, where records have owners by nature. `notes` say how it was split and whose bounds these
    are. Labels are None where there are none.
    """

    name: str
    X_train: Array
    y_train: Array | None
    X_held: Array
    y_held: Array | None
    weights_held: Array
    schema: Schema
    notes: tuple[str, ...]
    owners: tuple[str, ...] = ()
    owner: Array | None = None

    @property
    def scaling(self) -> str:
        """What detectors are told: the schema's scale where it has one, else a private estimate."""
        return "private" if any(column.center is None for column in self.schema.columns) else "schema"

    def sites(self, count: int, *, seed: int) -> list[Site]:
        """The training records at so many sites: their natural ones if these are as many, else dealt at random."""
        if self.owner is not None and count == len(self.owners):
            return [Site(name, self.X_train[self.owner == at]) for at, name in enumerate(self.owners)]
        shares = _UNEVEN if count == len(_UNEVEN) else (1.0,) * count
        parts = partition(len(self.X_train), shares, seed=seed)
        return [Site(f"site-{at}", self.X_train[rows]) for at, rows in enumerate(parts)]

    def standardised(self, X: Array) -> Array:
        """Records less the training records' mean, by their deviation; a column that never varies is 0."""
        spread = self.X_train.std(axis=0)
        return np.where(spread > 0, (X - self.X_train.mean(axis=0)) / np.where(spread > 0, spread, 1.0), 0.0)


def load(name: str, folder: Path | None, *, seed: int = 0, rows: int = 0) -> NamedData:
    """The data set `name`, from `folder` if it is a file: the same split for the same `seed`, wherever it is loaded.

    With `rows`, at most so many held-out records: every anomaly as far as half of them reach. Raises `FixInputError`
    for one that is not here, saying where it was looked for, and for one too small to split.
    """
    data = _read(name, folder, seed)
    if len(data.X_train) < 20 or not len(data.X_held):
        raise FixInputError(f"{name} is too small to train on and to score", value=len(data.X_train))
    if not rows or rows >= len(data.X_held):
        return data
    kept = sample(data.y_held, len(data.X_held), rows, seed=seed)
    y = None if data.y_held is None else data.y_held[kept]
    weights = np.full(rows, len(data.X_held) / rows)
    if y is not None and data.y_held is not None:
        of_class = [np.sum(data.y_held == each) / max(np.sum(y == each), 1) for each in (0, 1)]
        weights = np.where(y == 1, of_class[1], of_class[0])
    words = f"{rows:,} of {len(data.X_held):,} held-out records are scored"
    if y is not None:
        words += f", {int(y.sum()):,} of them anomalies; precision and average precision are weighted to stand for all"
    return replace(data, X_held=data.X_held[kept], y_held=y, weights_held=weights, notes=(*data.notes, words))


def sample(y: Array | None, count: int, rows: int, *, seed: int) -> Array:
    """Positions of `rows` of `count` records, in order: anomalies as far as half of them reach, others at random."""
    order = np.random.default_rng(seed).permutation(count)
    if y is not None:
        anomalies = order[y[order] == 1]
        order = np.concatenate([anomalies[: rows // 2], order[y[order] == 0], anomalies[rows // 2 :]])
    return np.sort(order[:rows])


def _read(name: str, folder: Path | None, seed: int) -> NamedData:
    if name == "generated-payments":
        made = generate_payments(rows=_NAMED_ROWS, seed=0)
        return _split(name, made.table, seed, schema=made.schema, owners=made.sites, owner=made.site)
    if name == "generated-sensors":
        fleet = generate_sensors(gateways=3, readings=_NAMED_READINGS, seed=0)
        return _split(name, fleet.table, seed, schema=fleet.schema, owners=fleet.sites, owner=fleet.site)
    if name == "kddcup99" or name.startswith("openml:"):
        table, note = fetched.kddcup99() if name == "kddcup99" else fetched.openml(name.removeprefix("openml:"))
        return _split(name, table, seed, notes=(note,))
    path = _find(name, folder)
    if name == "skab" and path.name == SKAB_FILE:
        return _skab(path)
    if path.name == ULB_FILE:
        return _ulb(name, read_table(path), seed)
    declared = _payments_schema() if path.name == PAYMENTS_FILE else None
    return _split(name, read_table(path), seed, schema=declared)


def _find(name: str, folder: Path | None) -> Path:
    """The file that a name stands for."""
    if name.lower().endswith(_FILES):
        places = [Path(name)] if folder is None else [folder / name, Path(name)]
        path = next((place for place in places if place.is_file()), None)
    else:
        path = next(iter(_named(name, folder)), None) if folder is not None else None
    if path is None:
        where = "no data folder is named" if folder is None else f"it is not in {folder.name}"
        raise FixInputError(
            f"the data set {name!r} is not here: {where}", remedy="Name its folder: --data-dir DIR or SECUREAD_DATA."
        )
    return path


def _named(name: str, folder: Path) -> list[Path]:
    """NAME.npz or NN_NAME.npz in a folder, or in one within it, as ADBench lays out; any case; the nearest first."""
    if name == "creditcard":
        return [folder / file for file in (PAYMENTS_FILE, ULB_FILE) if (folder / file).is_file()]

    def fits(path: Path) -> bool:
        number, _, rest = path.stem.partition("_")
        return name.lower() in (path.stem.lower(), rest.lower() if number.isdecimal() else "")

    found = [path for pattern in ("*.npz", "*/*.npz") for path in sorted(folder.glob(pattern)) if fits(path)]
    return found


def _payments_schema() -> Schema | None:
    return load_recipe(zoo_recipe("payments_forest")).schema


def _ulb(name: str, table: Table, seed: int) -> NamedData:
    """ULB's file: V1 to V28 are named from V0 on, as the declared schema has them, and the column Time is left out."""
    kept = [at for at, column in enumerate(table.columns) if column != "Time"]
    columns = tuple(
        f"V{int(column[1:]) - 1}" if column[:1] == "V" and column[1:].isdecimal() else column
        for column in (table.columns[at] for at in kept)
    )
    schema = _payments_schema()
    if schema is not None and columns != schema.names:
        raise FixInputError(f"{ULB_FILE} has other columns than ULB's", value=table.columns[:5])
    return _split(name, Table(table.X[:, kept], columns, table.y), seed, schema=schema, notes=("without Time",))


def _skab(path: Path) -> NamedData:
    """The water-valve test bed: a run's first readings are normal, and a detector for it learns from these."""
    table = read_table(path)
    with np.load(path, allow_pickle=False) as archive:
        runs = np.asarray(archive["experiment"]).ravel()
    within = np.concatenate([np.arange(count) for count in np.unique(runs, return_counts=True)[1]])
    order = np.argsort(runs, kind="stable")
    quiet = np.zeros(len(runs), dtype=bool)
    quiet[order] = within < _QUIET_READINGS
    words = f"each run's first {_QUIET_READINGS} readings train, the rest is held out"
    return _of_parts("skab", table, np.flatnonzero(quiet), np.flatnonzero(~quiet), notes=(words,))


def _split(
    name: str,
    table: Table,
    seed: int,
    *,
    schema: Schema | None = None,
    owners: tuple[str, ...] = (),
    owner: Array | None = None,
    notes: tuple[str, ...] = (),
) -> NamedData:
    finite = np.isfinite(table.X).all(axis=1)
    if not finite.all():
        notes = (*notes, f"{int((~finite).sum()):,} records with missing values are left out")
        table = Table(table.X[finite], table.columns, None if table.y is None else table.y[finite])
        owner = None if owner is None else owner[finite]
    fit, held = hold_out(len(table.X), table.y, HELD_OUT, seed=seed)
    words = f"{1 - HELD_OUT:.0%} of {len(table.X):,} records train, the rest is held out; split by seed {seed}"
    words += "" if table.y is None else ", with the same share of anomalies in both; training sees no label"
    owner = None if owner is None else owner[fit]
    return _of_parts(name, table, fit, held, schema=schema, owners=owners, owner=owner, notes=(*notes, words))


def _of_parts(
    name: str,
    table: Table,
    fit: Array,
    held: Array,
    *,
    schema: Schema | None = None,
    owners: tuple[str, ...] = (),
    owner: Array | None = None,
    notes: tuple[str, ...] = (),
) -> NamedData:
    X, labels = table.X[fit], table.y
    if schema is None:
        spread = X.std(axis=0)
        scale = X.mean(axis=0), np.where(spread > 0, spread, 1.0)
        schema = Schema.observed(X, table.columns, widen=0.1).with_scale(*scale)
        bounds = "bounds and scale are observed in the training records, for a declared schema; no epsilon covers them"
    else:
        bounds = "bounds are declared from the domain"
    return NamedData(
        name=name,
        X_train=X,
        y_train=None if labels is None else labels[fit],
        X_held=table.X[held],
        y_held=None if labels is None else labels[held],
        weights_held=np.ones(len(held)),
        schema=schema,
        notes=(*notes, bounds),
        owners=owners,
        owner=owner,
    )
