"""The demonstration's data: the user's file, the real payments data where it is, else generated payments."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from securead.data.generators.payments import generate_payments
from securead.data.readers import Table, read_table
from securead.data.schema import Array, Schema
from securead.errors import FixInputError

PAYMENTS_FILE = "creditcard_rounded.npz"
_GENERATED_ROWS = 60_000


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
