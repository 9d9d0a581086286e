"""`securead train`: a recipe in, a bundle out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from securead.cli import options


def command(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE.toml", help="Sites, schema, detector and privacy plan.")],
    out: Annotated[Path, typer.Option("--out", metavar="BUNDLE", help="The bundle directory to write.")],
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="FILE", help="Split these records among the sites by their shares."),
    ] = None,
    label: Annotated[
        str | None,
        typer.Option("--label", help="The column of known anomalies, for thresholds by false alarms or costs."),
    ] = None,
    passphrase_file: options.PassphraseFile = None,
) -> None:
    """Train one detector over several sites and compile it into a bundle.

    Every site clips its records to the public schema, sums them and adds its full noise before anything leaves it;
    its budget is charged first, and a run that it cannot pay for is refused before a record is read. Without a
    [privacy] section sums are exact, and the bundle says that it protects nobody.

    A run that is interrupted or killed goes on from its last whole round when the same command is given again; until
    it is done, BUNDLE.training holds what the sites keep to themselves.

    Writes BUNDLE/public.json (for everyone who wants records scored) and BUNDLE/secret.json (the weights, mode 0600;
    sealed with a passphrase when one is given).

    \b
    Example recipe:
      name = "payments"
      data = "payments.csv"
      [[sites]]
      name = "bank-a"
      share = 6
      [[sites]]
      name = "bank-b"
      share = 4
      [detector]
      type = "subspace"
      scaling = "private"
      [privacy]
      epsilon = 1.0
      delta = 1e-6
      [schema]
      [[schema.columns]]
      names = ["amount"]
      lower = 0
      upper = 30000
      transform = "log"
    """
    import shutil
    from dataclasses import replace

    from securead.cli.screen import StepBar, say
    from securead.client.messages import refuse_unwritable
    from securead.data.readers import read_table
    from securead.federated.recipe import gather, load_recipe, train_recipe
    from securead.models import bundle

    plan, secret_words = load_recipe(recipe), options.passphrase(passphrase_file)
    # Found out after training, this would cost the sites a budget and leave nothing for it.
    refuse_unwritable(out / bundle.PUBLIC_FILE)
    features = () if plan.schema is None else plan.schema.names
    plan = replace(plan, label=label or plan.label)
    if data is None:
        gathered = gather(plan, recipe.parent)
    else:
        table = read_table(data, label=plan.label, features=features)
        gathered = gather(plan, recipe.parent, X=table.X, columns=table.columns, labels=table.y)
    running = out.with_name(out.name + ".training")
    with StepBar() as bar:
        trained = bundle.make(train_recipe(plan, gathered, progress=bar.step, checkpoint=running), plan.name)
    trained.save(out, passphrase=secret_words)
    shutil.rmtree(running)
    rows = sum(len(site.X) for site in gathered.sites)
    say(f"trained {plan.detector} on {rows:,} records of {len(gathered.sites)} site(s) -> {out}")
    for sentence in trained.public.privacy.in_words():
        say(sentence)
