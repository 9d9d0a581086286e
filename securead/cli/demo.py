"""`securead demo`: the whole path in one command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from securead.bench.results import Run


def command(
    data: Annotated[
        Path | None,
        typer.Option(
            "--data", metavar="FILE", help="Your records: .npz, .csv or .parquet; a label column is optional."
        ),
    ] = None,
    label: Annotated[
        str | None, typer.Option("--label", metavar="COLUMN", help="The label column, 1 = anomaly.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where results go.")] = Path("demo-output"),
) -> None:
    """See all of it once: three banks train privately, a service scores encrypted records, only you read the scores.

    Splits the records unevenly among three banks; trains an isolation forest and a Mahalanobis detector (epsilon 1
    each) and an autoencoder in five rounds (epsilon 3); starts the scoring service as a process; runs key generation,
    encryption, submission and decryption as further processes, with the submitter holding the key (role same) and not
    holding it (role split). Each detector is shown beside what it has to beat: |z|^2, an untrained network, one trained
    on noise.

    Without --data it uses $SECUREAD_DATA/creditcard_rounded.npz where present, else generated payments. Bounds of your
    own data are read off it here, and each run begins the banks' ledgers anew: for real use, declare the bounds in a
    recipe and keep the ledgers.

    Writes DIR/summary.json, DIR/report.html (open it in a browser) and the artefacts of each role below DIR/work.
    """
    import time

    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from securead.bench.datasets import demo_data

    start = time.perf_counter()
    screen = Console(stderr=True, highlight=False, soft_wrap=True)
    chosen = demo_data(data, label)

    # Only now, because what trains takes seconds to load: bad data is named at once.
    from securead.bench.demo import run_demo
    from securead.serving import serve
    from securead.serving.deployment import deploy

    rows, columns = chosen.table.X.shape
    screen.print(f"data: {chosen.why}; {rows:,} records x {columns} columns", markup=False)
    with Progress(SpinnerColumn(), TimeElapsedColumn(), TextColumn("{task.description}"), console=screen) as bar:
        task = bar.add_task("preparing", total=None)

        def say(step: str) -> None:
            bar.update(task, description=step)
            if not screen.is_terminal:
                screen.print(f"[{time.perf_counter() - start:6.1f} s] {step}", markup=False)

        run = run_demo(chosen, out, start_service=serve, start_parties=deploy, say=say)
        bar.update(task, description="done")
    Console(highlight=False).print(_table(run))
    sampled = {len(one.encrypted_scores) for one in run.detectors if len(one.encrypted_scores) < run.rows_held_out}
    for rows in sorted(sampled):
        screen.print(f"(look-ups were scored on a sample of {rows:,} of them that keeps every anomaly)", markup=False)
    for sentence in run.detectors[0].privacy:
        screen.print(sentence, markup=False)
    took = time.perf_counter() - start
    screen.print(f"{took:.0f} s in all; look at {out / 'report.html'}, {out / 'summary.json'}", markup=False)


def _table(run: Run) -> Table:
    """A column a run, so that it fits a terminal of 80."""
    from rich.table import Table

    results = run.summary.detectors
    title = f"{run.dataset}: {run.rows_held_out:,} held-out records scored unseen"
    table = Table(title=title, box=None, pad_edge=False, header_style="bold")
    table.add_column("\nengine\nrole")
    for item in results:
        table.add_column(f"{item.name.removeprefix('subspace-')}\n{item.engine}\n{item.role}", justify="right")
    lines = (
        ("epsilon", [_number(item.epsilon, ".2f") for item in results]),
        ("AUROC, clear", [_number(item.auroc_float, ".4f") for item in results]),
        ("AUROC, encrypted", [_number(item.auroc_encrypted, ".4f") for item in results]),
        ("AUROC, plain |z|^2", [_number(item.auroc_norm_baseline, ".4f") for item in results]),
        ("AUROC, untrained", [_number(item.auroc_untrained, ".4f") for item in results]),
        ("AP, encrypted", [_number(item.ap_encrypted, ".4f") for item in results]),
        ("max relative error", [_number(item.max_rel_error, ".1e") for item in results]),
        ("rank correlation", [_number(item.rank_correlation, ".7f") for item in results]),
        ("server, us/row", [_number(1e6 * item.server_seconds / item.rows_scored, ".1f") for item in results]),
        ("encrypt, us/row", [_number(1e6 * item.client_encrypt_seconds / item.rows_scored, ".1f") for item in results]),
        ("upload, bytes/row", [_number(item.upload_bytes_per_row, ",.0f") for item in results]),
        ("download, bytes/row", [_number(item.download_bytes_per_row, ",.0f") for item in results]),
        ("keys, bytes", [_number(float(item.key_bytes), ",.0f") for item in results]),
    )
    for name, cells in lines:
        table.add_row(name, *cells)
    return table


def _number(value: float | None, shape: str) -> str:
    return "-" if value is None else format(value, shape)
