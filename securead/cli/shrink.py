"""`securead shrink`: a bundle in, a smaller one out that ranks nearly as well."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from securead.cli import options

if TYPE_CHECKING:
    from securead.bench.shrinking import Shrinking
    from securead.data.schema import Array, Schema


def command(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="The bundle to shrink, with its secret half.")],
    data: Annotated[
        Path, typer.Option("--data", metavar="FILE", help="Labelled records that the model was not trained on.")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="BUNDLE2", help="The bundle directory to write.")],
    label: Annotated[str | None, typer.Option("--label", help="The column of known anomalies: 1, else 0.")] = None,
    max_loss: Annotated[float, typer.Option("--max-loss", help="The most AUROC that may be lost.")] = 0.005,
    sure: Annotated[
        bool, typer.Option("--sure", help="Hold the upper end of the loss's 95 % interval to --max-loss, too.")
    ] = False,
    by: Annotated[
        Literal["bytes", "work"], typer.Option("--by", help="What to make small first: traffic or the service's work.")
    ] = "bytes",
    engine: Annotated[str | None, typer.Option("--engine", help="The engine whose costs count.")] = None,
    role: Annotated[Literal["same", "split"], typer.Option("--role", help="The role whose costs count.")] = "same",
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE", help="Draw the trade-off: .svg or .png.")
    ] = None,
    table: Annotated[
        Path | None, typer.Option("--table", metavar="FILE", help="All that was looked at: .csv or .json.")
    ] = None,
    reorder: options.Reorder = False,
    scale: options.Scale = None,
    time: options.Time = None,
    passphrase_file: options.PassphraseFile = None,
    as_json: options.Json = False,
) -> None:
    """Make a smaller model out of a bundle: fewer trees, units and bits, under a stated loss of AUROC.

    Parts are dropped one after the other, first those without which scores stay closest to what they were; for every
    number that is left, the fewest bits that still keep the loss are found. Each candidate is scored in the clear on
    its integer program, and its cost is read off the engine's parameters. Of those whose AUROC on FILE falls by
    --max-loss at most, and that can flag the same share of normal records, the cheapest is written. Its loss is shown
    with a 95 % interval (DeLong, paired); it was found on the records that chose it: expect a little more on others.
    AUROC says little about the very top of the ranking: average precision is printed, too, and may fall further.

    BUNDLE2 has keys, digest and threshold of its own: the threshold flags as many normal records of FILE as before. A
    smaller model also takes fewer honest scores to copy; the table says how many.

    Privacy: the training records keep their guarantee only if FILE holds none of them. The records of FILE are not
    covered by any: what is kept, the threshold, and constants in place of dropped units depend on them. The new
    bundle's statement says so.

    Writes BUNDLE2/public.json and BUNDLE2/secret.json (mode 0600; sealed with the passphrase that opened BUNDLE).

    \b
    Example:
      securead shrink bundle --data labelled.csv --label fraud --max-loss 0.005 --out small --plot small.svg
    """
    from securead.bench import tradeoff
    from securead.bench.shrinking import shrink
    from securead.cli.screen import print_json, say
    from securead.client.messages import refuse_unwritable
    from securead.errors import FixConfigurationError, FixInputError
    from securead.models import bundle as bundles

    words = options.passphrase(passphrase_file)
    if out.resolve() == bundle.resolve():
        raise FixConfigurationError("--out is the bundle itself", value=str(out), remedy="Name another directory.")
    public = bundles.load_public(bundle)
    if not (bundle / bundles.SECRET_FILE).is_file():
        raise FixInputError(
            f"{bundle} has no secret half, so there is nothing to make smaller",
            remedy="Give the model owner's bundle directory.",
        )
    for file, kinds, what in ((plot, tradeoff.PICTURE_KINDS, "a picture"), (table, tradeoff.TABLE_KINDS, "a table")):
        if file is not None:
            tradeoff.check_kind(file, kinds, what)
            refuse_unwritable(file)
    refuse_unwritable(out / bundles.PUBLIC_FILE)
    X, y = _labelled(data, public.program.encoder.schema, label, scale=scale, time=time, reorder=reorder)
    with _LateBar() as bar:
        found = shrink(
            bundles.load(bundle, passphrase=words),
            X,
            y,
            max_loss=max_loss,
            engine=engine,
            role=role,
            by=by,
            sure=sure,
            progress=bar.step,
        )
    found.bundle.save(out, passphrase=words)
    _show(found, len(X))
    if table is not None:
        tradeoff.write_table(found, table)
    if plot is not None:
        tradeoff.write_picture(found, plot)
    say(f"wrote {out}" + "".join(f", {file}" for file in (table, plot) if file is not None))
    say(found.bundle.public.privacy.in_words()[-1], "yellow")
    if as_json:
        print_json(tradeoff.summary(found))


def _labelled(
    path: Path, schema: Schema, label: str | None, *, scale: Path | None, time: str | None, reorder: bool
) -> tuple[Array, Array | None]:
    """Records with their labels; a window's is that of its last reading."""
    from securead.client import workflow
    from securead.data.readings import read_readings
    from securead.data.streaming import StreamingEncoder
    from securead.data.windows import LocalScale, WindowedSchema
    from securead.errors import FixConfigurationError, FixInputError

    if isinstance(schema, WindowedSchema):
        (readings,) = read_readings(path, schema.window, time=time, label=label, reorder=reorder)
        encoder = StreamingEncoder(schema, None if scale is None else LocalScale.read(scale))
        windows = encoder.push(readings.X, readings.times)
        if not len(windows):
            raise FixInputError(f"{path} has no whole window", remedy="Give a longer series.")
        return windows.X, None if readings.y is None else readings.y[windows.rows]
    if scale is not None or time is not None:
        raise FixConfigurationError(
            "--scale and --time are for models of windows", remedy="This model scores single records: leave them out."
        )
    return workflow.read_labelled(path, schema, label=label, reorder=reorder)


def _show(found: Shrinking, records: int) -> None:
    """The trade-off as a table on standard error, and what was chosen."""
    from rich.table import Table

    from securead.bench.tradeoff import shown
    from securead.cli.screen import console, say
    from securead.data.windows import windows_per_reading

    at = f"{found.engine}, role {found.role}"
    sample = "" if found.records == records else f" (of {records:,}, every anomaly up to half of them)"
    table = Table(
        title=f"{found.bundle.public.name}: {found.records:,} records{sample}, {found.anomalies:,} anomalies; {at}"
    )
    for name in ("", found.part, "bits", "AUROC", "loss (95 % interval)", "bytes/row", "ring", "work/row", "copied by"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in shown(found):
        cost = one.cost
        marks = {id(found.whole): "as trained", id(found.chosen): "chosen"}
        table.add_row(
            marks.get(id(one), ""),
            str(one.parts),
            str(one.bits) if one.bits else "-",
            f"{one.auroc:.4f}",
            "-" if one is found.whole else f"{one.loss:+.4f} ({one.low:+.4f} to {one.high:+.4f})",
            "-" if cost is None else f"{cost.traffic:,.0f}",
            "-"
            if cost is None or cost.ring_dimension is None
            else f"{cost.ring_dimension} of {cost.modulus_bits} bits",
            "-" if cost is None else f"{cost.work:,.0f}",
            f"{one.rows:,}",
            style="bold" if one is found.chosen else "",
        )
    console().print(table)
    say("work: estimated multiplications of words at the service; copied by: honest scores that give the model away")
    how = "the upper end of the loss's interval" if found.sure else "the loss"
    say(f"chosen: fewest {found.by} of {len(found.candidates)} candidates with {how} at most {found.max_loss:g}")
    precise, now = found.precision
    say(f"average precision, which is not held to anything: {now:.4f}, before {precise:.4f}")
    before, after = found.found
    say(f"anomalies above the threshold: {after:,} of {found.anomalies:,}, before {before:,}")
    threshold = found.bundle.public.threshold
    say(f"threshold {threshold.value:.6g}: {threshold.in_words()}")
    if windows_per_reading(found.bundle.public.program.encoder.schema) > 1:
        say("windows that share readings count as independent here, so the intervals are too narrow", "yellow")
    if found.norm >= found.chosen.auroc:
        say(
            f"|z|^2, which needs no model, has AUROC {found.norm:.4f} on these records: no worse than the chosen",
            "yellow",
        )
    if not found.sure and found.chosen.high > found.max_loss:
        say(f"the interval reaches to {found.chosen.high:.4f}: --sure keeps all of it below --max-loss", "yellow")


class _LateBar:
    """A bar of steps once work has lasted two seconds."""

    def __init__(self) -> None:
        import contextlib
        import time

        self._stack, self._clock, self._start = contextlib.ExitStack(), time.monotonic, time.monotonic()
        self._what = ""

    def __enter__(self) -> _LateBar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def step(self, what: str, done: int, total: int) -> None:
        """`done` of `total` steps of `what` are over."""
        from securead.cli.screen import PATIENT_SECONDS, StepBar

        if self._clock() - self._start < PATIENT_SECONDS:
            return
        if what != self._what:  # a bar for each kind of work
            self._stack.close()
            self._bar, self._what = self._stack.enter_context(StepBar()), what
        self._bar.step(what, done, total)
