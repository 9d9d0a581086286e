"""Rebuilding the model zoo: every recipe whose data is there, trained into a bundle. `python -m securead.bench.zoo`"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from securead import files
from securead.bench.datasets import PAYMENTS_FILE
from securead.data.readers import read_table
from securead.federated.recipe import gather, load_recipe, train_recipe, write_scales, zoo_folder
from securead.models import bundle


def rebuild(out: Path) -> dict[str, str]:
    """Train each recipe into `out`/<name>; returns the bundles' digests by recipe, also as `out`/digests.json.

    A recipe that names no data of its own is for the payments file below SECUREAD_DATA, and left out without it.
    """
    folder = os.environ.get("SECUREAD_DATA")
    payments = None if folder is None or not (Path(folder) / PAYMENTS_FILE).is_file() else Path(folder) / PAYMENTS_FILE
    digests = {}
    for path in sorted(zoo_folder().glob("*/recipe.toml")):
        recipe = load_recipe(path)
        if recipe.generate is not None or recipe.data is not None:
            data = gather(recipe, path.parent)
        elif payments is not None:
            table = read_table(payments)
            data = gather(recipe, path.parent, X=table.X, columns=table.columns, labels=table.y)
        else:
            print(f"{path.parent.name}: left out, SECUREAD_DATA names no folder with {PAYMENTS_FILE}")
            continue
        detector = train_recipe(recipe, data)
        made = bundle.make(detector, recipe.name, ring_bits=recipe.ring_bits)
        made.save(out / path.parent.name)
        write_scales(detector, data, out / f"{path.parent.name}.scales")
        digests[path.parent.name] = made.public.digest
        print(f"{path.parent.name}: epsilon {made.public.privacy.epsilon:.3g}, {made.public.digest[:16]}")
    files.write_json(out / "digests.json", digests)
    return digests


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("bundles"), help="where bundles go")
    print(json.dumps(rebuild(parser.parse_args().out), indent=2))


if __name__ == "__main__":
    main()
