"""What `securead plan` prints."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from securead.planner.options import Option
    from securead.planner.planning import Choice

Column = tuple[str, Callable[["Option"], str]]


def show(choice: Choice) -> None:
    """Tables of figures, what each option reveals and why it is (not) taken, and the commands to run next."""
    from securead.planner.words import commands

    screen, several = Console(highlight=False), len({option.bundle for option in choice.options}) > 1
    who: list[Column] = [("engine", lambda o: o.engine), ("role", lambda o: o.role)]
    if several:
        who.append(("bundle", lambda o: o.bundle))
    if choice.options:
        title = "Parameters (bits of modulus and weights; security by the standard of 2018 and the guideline of 2024)"
        _table(screen, title, choice, [*who, *PARAMETERS])
        _table(screen, "Records a request, bytes a record each way, keys sent once", choice, [*who, *TRAFFIC])
        if any(option.times for option in choice.options):
            title = "Predicted: ms of a request, each role on one core, and records a second"
            _table(screen, title, choice, [*who, *TIMES])
        _table(screen, "What answers reveal, and who is trusted", choice, [*who, *TRUST])
        _table(screen, "Why", choice, [*who, ("", lambda o: o.reason)])
    refused = [(f"{each.engine}, {each.role}", each.bundle if several else "", each.reason) for each in choice.refusals]
    if refused:
        table = _empty("Without parameters for this program")
        for row in refused:
            table.add_row(*(Text(cell, overflow="fold") for cell in row if cell))
        screen.print(table)
        screen.print()
    for note in choice.notes:
        screen.print(Text(note, style="yellow"))
    if choice.fits:
        option = choice.chosen
        chosen = Text.assemble(("Chosen: ", "bold"), f"{option.engine}, role {option.role}, {option.bundle}")
        screen.print(chosen)
        screen.print("Next:")
        for line in commands(option):
            screen.print(Text(f"  {line}"), soft_wrap=True)


def _ms(option: Option, what: str) -> str:
    """One of an option's times."""
    if option.times is None:
        return "-"
    value = 1e3 * float(getattr(option.times, what))
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}" if value < 10 else f"{value:.0f}"


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 10 or not value else f"{value:.2g}"


def _security(option: Option) -> str:
    if option.security_2018 is None or option.security_2024 is None:
        return str(option.security_bits)
    return f"{option.security_2018} / {option.security_2024}"


def _key_bytes(option: Option) -> str:
    from securead.cli.screen import size

    return size(option.key_bytes) if option.key_bytes else "0"


PARAMETERS: list[Column] = [
    ("N", lambda o: "-" if o.ring_dimension is None else str(o.ring_dimension)),
    ("modulus", lambda o: "-" if o.modulus_bits is None else str(o.modulus_bits)),
    ("degree", lambda o: "look-up" if o.degree is None else str(o.degree)),
    ("weights", lambda o: str(o.weight_bits)),
    ("error bound", lambda o: f"{o.error_bound:.2g}" if o.error_bound else "exact"),
    ("security", _security),
]
TRAFFIC: list[Column] = [
    ("rows", lambda o: f"{o.rows:,}"),
    ("up", lambda o: _number(o.up_per_row)),
    ("down", lambda o: _number(o.down_per_row)),
    ("keys", _key_bytes),
]
TIMES: list[Column] = [
    ("client", lambda o: _ms(o, "client")),
    ("server", lambda o: _ms(o, "server")),
    ("idle", lambda o: _ms(o, "offline")),
    ("holder", lambda o: _ms(o, "holder")),
    ("link", lambda o: _ms(o, "link")),
    ("request", lambda o: _ms(o, "request")),
    ("rows/s", lambda o: _number(o.rows_per_second)),
]
TRUST: list[Column] = [("reveals", lambda o: o.leakage), ("trust", lambda o: o.trust)]
_WORDS = ("engine", "role", "bundle", "reveals", "trust", "")


def _empty(title: str) -> Table:
    return Table(title=title, title_justify="left", title_style="bold", show_header=False, box=None, padding=(0, 1))


def _table(screen: Console, title: str, choice: Choice, columns: Sequence[Column]) -> None:
    table = _empty(title)
    table.show_header = True
    for name, _ in columns:
        table.add_column(name, justify="left" if name in _WORDS else "right", header_style="dim")
    for at, option in enumerate(choice.options):
        style = "bold" if choice.fits and at == 0 else ""
        cells = (Text(cell(option), style=style, overflow="fold") for _, cell in columns)
        table.add_row(*cells)
    screen.print(table)
    screen.print()
