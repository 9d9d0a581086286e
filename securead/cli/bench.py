"""`securead bench`: a suite of measurements into a folder, and two such folders compared."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text
from typer.core import TyperCommand

from securead.cli.docstrings import helped
from securead.cli.screen import console, say

if TYPE_CHECKING:
    from securead.bench.records import Case, Record

_COMPARE = "compare"


class BenchCommand(TyperCommand):
    """`bench SUITE`, and `bench compare A B`: the first word decides, so that suites need no word before them."""

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """The context of the command that is meant; Click runs whichever command the context is of."""
        if args[:1] == [_COMPARE]:
            inner = typer.Typer(add_completion=False, rich_markup_mode="rich")
            inner.command(_COMPARE, help=helped(compare))(compare)
            command = typer.main.get_command(inner)
            return command.make_context(f"{info_name} {_COMPARE}", args[1:], parent=parent, **extra)
        return super().make_context(info_name, args, parent=parent, **extra)


def command(
    suite: Annotated[
        str,
        typer.Argument(
            metavar="SUITE",
            help="quick, engines, privacy, federation, peers, mechanisms, readme or full, or a part of one of them, as "
            "ckks; or FILE.toml, a suite of your own.",
        ),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Where results go. Default: bench-output/SUITE.")
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option("--data-dir", metavar="FOLDER", help="Where real data sets lie. Default: $SECUREAD_DATA."),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="PATTERN", help="Only these cases. Repeat it to narrow further."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in DIR: what has a record is not measured again.")
    ] = False,
    jobs: Annotated[
        int, typer.Option("--jobs", min=1, max=256, help="Cases at once. More than 1 disturbs the times.")
    ] = 1,
    peer_env: Annotated[
        list[str] | None,
        typer.Option("--peer-env", metavar="NAME=PATH", help="A peer's own environment: its folder or its python."),
    ] = None,
    listed: Annotated[bool, typer.Option("--list", help="Print the cases and measure nothing.")] = False,
) -> None:
    """Measure computation, traffic, accuracy and privacy of the engines beside their peers, in one run on one machine.

    A suite is a list of cases: data set, detector, epsilon, engine, role, batch, link, threads, seed. Each runs in a
    process of its own. quick takes minutes, full hours. Scores repeat exactly from run to run; times do not: compare
    ratios within one run, on a machine that does nothing else.

    Every finished case is a line of DIR/records.jsonl at once. After Ctrl-C, a kill or a power cut, --resume goes on
    from there. A case that crashes, or whose engine, data or peer is not on this machine, says so in its place and
    stops nothing. To measure
    a case again, delete its line there and use --resume.

    PATTERN is a glob over the names of cases ('*-cardio-*'), or FIELD=GLOB: engine=ckks, epsilon=1, dataset='sat*'.
    --list shows the names. NAME=PATH gives a peer that cannot live beside the other packages an environment of its own
    (concrete-ml, spu); without it that peer is "not measured here".

    Writes DIR/report.html (open it in a browser), report.md, records.csv, records.parquet and environment.json. They
    hold neither your name, nor your host's, nor a path, unless a suite of yours names a data file by its path.

    To compare two runs, or hold one to a baseline: securead bench compare A B; securead bench compare --help.

    \b
    Examples:
      securead bench quick
      securead bench engines --data-dir ../shared/data --out runs/engines
      securead bench engines --out runs/engines --resume
      securead bench privacy --only epsilon=1 --only 'detector=auto*' --list
      securead bench peers --peer-env concrete-ml=envs/concrete
      securead bench mine.toml --jobs 2
    """
    import os

    from securead.bench import suites

    chosen = suites.load(suite)
    cases = suites.only(chosen.cases, only or [])
    if listed:
        print("\n".join(case.id for case in cases))
        return
    peers = _environments(peer_env or [])
    named = data_dir or (Path(os.environ["SECUREAD_DATA"]) if os.environ.get("SECUREAD_DATA") else None)
    _refuse_absent(named, "--data-dir" if data_dir else "SECUREAD_DATA")
    folder = out or Path("bench-output") / chosen.name
    _refuse_without_drawing()

    from securead.bench import runner

    say(f"{chosen.title}: {len(cases)} {'case' if len(cases) == 1 else 'cases'} into {folder}")
    if resume:
        _say_what_is_there(folder, cases)
    start = time.perf_counter()
    try:
        with Screen() as screen:
            records = runner.run(
                cases,
                folder,
                place=runner.Place(named, peers),
                watch=screen,
                resume=resume,
                jobs=jobs,
                limits=chosen.limits,
                suite=chosen.name,
            )
    except KeyboardInterrupt:
        say("What has finished is kept. To go on: the same command with --resume.", "yellow")
        raise
    absent = [record for record in records if record.missing]
    say(f"{len(records) - len(absent)} measured, {len(absent)} not, in {in_words(time.perf_counter() - start)}")
    # Of the whole folder: an earlier run with another --only left records there, too.
    report = _write_report(folder, f"securead bench {Path(suite).name} --out DIR")
    print(report)


def compare(
    a: Annotated[Path, typer.Argument(metavar="A", help="The run or baseline to compare with.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="The run that is judged.")],
    tolerance: Annotated[
        float, typer.Option("--tolerance", min=1.0, help="By what factor a time may grow and pass.")
    ] = 1.25,
) -> None:
    """Compare run B with run A: what became slower, larger or less accurate, with confidence intervals.

    A and B are folders that `securead bench` wrote, or baselines of ratios. Accuracy must be equal where the cases are
    equal: it is drawn from seeds. Times are compared as ratios within a run, never as seconds, so that the two may come
    from different machines.

    Exit code 0 where nothing became worse, 1 where something did: the list says what.

    \b
    Example:
      securead bench compare runs/before runs/after
    """
    from securead.bench import gate

    found = gate.compare(a, b, tolerance=tolerance)
    print(found.in_words())
    if not found.passed:
        raise typer.Exit(1)


class Screen:
    """A `securead.bench.runner.Watch`: a bar with the time left on a terminal, a line for each case elsewhere."""

    def __init__(self, shown_on: Console | None = None) -> None:
        self._console = shown_on or console()
        self._start = time.perf_counter()
        self._running: list[str] = []
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Screen:
        if self._console.is_terminal:
            self._bar = Progress(
                TimeElapsedColumn(),
                BarColumn(bar_width=24),
                TextColumn("{task.completed:.0f} of {task.total:.0f}; {task.fields[left]}"),
                TextColumn("{task.description}", markup=False),
                console=self._console,
                transient=True,
            )
            self._task = self._bar.add_task("", total=1, left="")
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def started(self, case: Case, *, done: int, total: int, left: float | None) -> None:
        """A case runs now."""
        self._running.append(case.id)
        self._show(done, total, left)

    def finished(self, record: Record, *, done: int, total: int, left: float | None) -> None:
        """A case has its record."""
        self._running.remove(record.case.id)
        self._show(done, total, left)
        if self._bar is None or record.missing or record.failures:
            took = f"not measured: {record.missing}" if record.missing else f"{record.seconds:.1f} s"
            failed = "".join(f"; FAILED: {what}" for what in record.failures if what != record.missing)
            after = f"[{time.perf_counter() - self._start:6.1f} s] "
            line = f"{after}{done} of {total}: {record.case.id}: {took}{failed}; {_left(left)}"
            style = "red" if record.failures else "yellow" if record.missing else ""
            self._console.print(Text(line, style=style))

    def _show(self, done: int, total: int, left: float | None) -> None:
        if self._bar is not None and self._task is not None:
            what = ", ".join(name.rpartition("-")[0] for name in self._running)
            self._bar.update(self._task, completed=done, total=total, description=what, left=_left(left))


def in_words(seconds: float) -> str:
    """A duration for people: 40 s, 7 min, 2 h 10 min."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def _left(seconds: float | None) -> str:
    return "time left unknown yet" if seconds is None else f"about {in_words(seconds)} left"


def _environments(given: Sequence[str]) -> dict[str, Path]:
    from securead.errors import FixConfigurationError

    found = {}
    for pair in given:
        name, equals, path = pair.partition("=")
        if not equals or not name or not path:
            raise FixConfigurationError("--peer-env takes NAME=PATH", value=pair, remedy="Write, say, spu=envs/spu.")
        _refuse_absent(Path(path), f"--peer-env {name}")
        found[name] = Path(path).absolute()
    return found


def _refuse_absent(path: Path | None, what: str) -> None:
    from securead.errors import FixConfigurationError

    if path is not None and not path.exists():
        raise FixConfigurationError(f"{what} names nothing that exists", value=str(path), remedy="Correct the path.")


def _refuse_without_drawing() -> None:
    """Before hours of measuring, not after them."""
    from importlib.util import find_spec

    from securead.errors import InstallExtraError

    if find_spec("matplotlib") is None:
        raise InstallExtraError("the report needs matplotlib", remedy="Run: pip install 'securead[bench]'.")


def _say_what_is_there(folder: Path, cases: Sequence[Case]) -> None:
    from securead.bench import journal, provenance

    if not (folder / journal.RECORDS_FILE).is_file():
        return
    ids = {case.id for case in cases}
    done = [record for record in journal.read_records(folder) if record.case.id in ids]
    say(f"{len(done)} of them have a record already")
    others = {record.provenance.revision for record in done} - {provenance.revision()}
    if others:
        say(f"some records are of another revision ({', '.join(sorted(others))}) than this one", "yellow")


def _write_report(folder: Path, command: str) -> Path:
    from securead.bench import journal, report_page

    return report_page.write_suite_report(journal.read_records(folder), folder, command=command)
