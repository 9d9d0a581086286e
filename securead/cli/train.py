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
    engine: Annotated[
        str | None,
        typer.Option("--engine", help="The engine that the model is for; needed for sharing among two parties."),
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
    sealed with a passphrase when one is given). With scaling = "local", also BUNDLE.scales/SITE.json (mode 0600), or
    where the recipe says: each gateway's own scale, which it alone needs to score.

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

    Records of sensors are windows of readings; the schema's columns are then channels:
      [window]
      length = 10
      period = 1.0
      series = "gateway"
    """
    from dataclasses import replace

    from securead import files
    from securead.cli.screen import StepBar, say
    from securead.client.messages import refuse_unwritable
    from securead.data.readers import read_table
    from securead.federated.recipe import gather, load_recipe, train_recipe, write_scales
    from securead.models import bundle

    plan, secret_words = load_recipe(recipe), options.passphrase(passphrase_file)
    # Found out after training, this would cost the sites a budget and leave nothing for it.
    refuse_unwritable(out / bundle.PUBLIC_FILE)
    features = () if plan.schema is None else plan.schema.names
    plan = replace(plan, label=label or plan.label, engine=engine or plan.engine)
    ring_bits = plan.ring_bits  # an unknown engine is refused here, before training
    if data is None or plan.window is not None:
        gathered = gather(plan, recipe.parent, readings=data)
    else:
        table = read_table(data, label=plan.label, features=features)
        gathered = gather(plan, recipe.parent, X=table.X, columns=table.columns, labels=table.y)
    running = out.with_name(out.name + ".training")
    with StepBar() as bar:
        fitted = train_recipe(plan, gathered, progress=bar.step, checkpoint=running)
        trained = bundle.make(fitted, plan.name, ring_bits=ring_bits)
    trained.save(out, passphrase=secret_words)
    scales = write_scales(fitted, gathered, out.with_name(out.name + ".scales"))
    files.discard(running)
    rows = sum(len(site.X) for site in gathered.sites)
    say(f"trained {plan.detector} on {rows:,} records of {len(gathered.sites)} site(s) -> {out}")
    if scales:
        say(f"wrote {len(scales)} gateways' own scales, each for its gateway alone -> {scales[0].parent}")
    for sentence in trained.public.privacy.in_words():
        say(sentence)
