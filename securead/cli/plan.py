"""`securead plan`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from securead.cli import options

if TYPE_CHECKING:
    from securead.planner.profile import Profile


def command(
    bundles: Annotated[
        list[Path] | None, typer.Argument(metavar="BUNDLE...", help="Bundles, or public halves, that would all do.")
    ] = None,
    goal: Annotated[
        Literal["throughput", "latency"], typer.Option(help="Many records a second, or one record soon.")
    ] = "throughput",
    rows: Annotated[
        int | None, typer.Option(min=1, help="Records in a request (default: latency 1, throughput a full chunk).")
    ] = None,
    max_up: Annotated[
        float | None, typer.Option(metavar="KB", help="The most to upload a record, KB of 1,000.")
    ] = None,
    max_down: Annotated[float | None, typer.Option(metavar="KB", help="The most to download a record.")] = None,
    max_ms: Annotated[float | None, typer.Option(metavar="MS", help="The most that a request may take.")] = None,
    max_error: Annotated[float | None, typer.Option(metavar="E", help="The largest error bound of a score.")] = None,
    role: Annotated[
        Literal["same", "split", "any"], typer.Option(help="Who holds the key: the submitter, or somebody else.")
    ] = "any",
    link: Annotated[
        str, typer.Option(metavar="LINK", help="loopback, lan, wan, or rate and one-way delay: 100Mb/s,20ms.")
    ] = "loopback",
    engine: Annotated[str | None, typer.Option("--engine", metavar="NAME", help="This engine only.")] = None,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Measure this machine anew first (about half a minute).")
    ] = False,
    no_calibrate: Annotated[
        bool, typer.Option("--no-calibrate", help="Do not measure where there is no profile: predict no times.")
    ] = False,
    profile: Annotated[
        Path | None, typer.Option("--profile", metavar="FILE", help="The profile to read and write (default: a cache).")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Choose an engine, its parameters and a role for a model, and say why not the others.

    Shows every engine in every role: parameters, bytes, keys, error bound, security by the standard of 2018 and by the
    guideline of 2024, what answers reveal, who is trusted, and predicted times; then the choice, the reason why each
    other is not it, and the commands to run next. Of several bundles of one detector, such as shrink writes, any would
    do: the one that serves the goal best is taken, none is changed. Opens no secret.

    What needs less trust goes first, whatever it costs: one service with sanitised answers, then parties that must not
    collude, then answers that are not sanitised. Name --engine to take another.

    Times are predicted from what each request computes and what that takes on this machine, one core a role, masks made
    in idle time; HTTP itself, some milliseconds, is not in them. What computing takes is measured once, by small
    programs on every installed engine (--calibrate), and kept in the user's cache folder.

    Exit code 2 where no option keeps the limits; the smallest change that would succeed is then the last line.

    \b
    Examples:
      securead plan bundles/payments --goal latency --max-ms 200 --link wan
      securead plan bundle small --max-up 2 --role split
    """
    from securead.cli.plan_tables import show
    from securead.cli.screen import print_json, say
    from securead.errors import FixConfigurationError
    from securead.planner.planning import NothingFitsError, plan
    from securead.planner.words import plain

    if not bundles and not calibrate:
        raise FixConfigurationError("no bundle is named", remedy="Give a BUNDLE, or --calibrate alone.")
    if calibrate and no_calibrate:
        raise FixConfigurationError("--calibrate and --no-calibrate exclude each other", remedy="Give one of them.")
    ask = functools.partial(
        plan,
        list(bundles or ()),
        goal=goal,
        role=role,
        engine=engine,
        rows=rows,
        max_up=max_up,
        max_down=max_down,
        max_ms=max_ms,
        max_error=max_error,
        link=link,
    )

    def check() -> None:
        if bundles:  # what can be refused is refused before anything is measured
            ask(profile=None)

    known = _profile(profile, check, calibrate=calibrate, allowed=not no_calibrate)
    if not bundles:
        return
    choice = ask(profile=known)
    if as_json:
        print_json(plain(choice))
    else:
        show(choice)
    if not choice.fits:
        raise NothingFitsError(choice)
    if as_json:
        say(f"chosen: {choice.chosen.engine}, role {choice.chosen.role}, {choice.chosen.bundle}")


def _profile(path: Path | None, check: Callable[[], None], *, calibrate: bool, allowed: bool) -> Profile | None:
    """The profile of this machine: measured where that is asked for, or where there is none and it is allowed."""
    from securead.bench.calibration import calibrate as measure
    from securead.cli.screen import StepBar, say
    from securead.errors import FixInputError
    from securead.planner import profile as profiles

    place, why = path or profiles.default_path(), ""
    if not place.is_file() and allowed:
        why = "no profile of this machine yet: measuring it once, about half a minute"
    if not calibrate and place.is_file():
        try:
            return profiles.read(place)
        except FixInputError as error:
            if path is not None:
                raise
            why = error.what + ("; measuring anew" if allowed else "")
    if not calibrate and not allowed:
        if why:
            say(why, "yellow")
        return None
    check()
    say("measuring this machine, about half a minute" if calibrate else why)
    with StepBar() as bar:
        done = measure(place, watch=bar)
    for name, why in done.left_out:
        say(f"not measured: {name}: {why}", "yellow")
    engines = ", ".join(f"{each.engine} ({each.measurements})" for each in done.profile.engines)
    say(f"measured {engines} in {done.seconds:.0f} s -> {place}")
    return done.profile
