"""A choice in words and for programs: the commands to run next, and JSON."""

from __future__ import annotations

import dataclasses
import shlex
from typing import Any

from securead.planner.options import Option
from securead.planner.planning import Choice
from securead.protocols import registry


def commands(option: Option) -> tuple[str, ...]:
    """What to run to score as the option says; words in capitals are the reader's own."""
    bundle, engine = shlex.quote(option.bundle), option.engine
    if option.parties > 1:
        return (
            f"securead split {bundle} --out shared",
            "securead dealer DEALER.toml; securead party --index 0 PARTY0.toml; securead party --index 1 PARTY1.toml",
            f"securead score RECORDS.csv --engine {engine} --parties CLIENT.toml --out scores.csv",
        )
    name, keys = shlex.quote(option.model), "keys" if option.role == "same" else "keys/public"
    submit = f"securead score RECORDS.csv --server URL --model {name} --keys {keys} --out scores.csv"
    if option.role == "split":
        submit = (
            f"securead encrypt RECORDS.csv --keys {keys} --out REQUEST; securead submit REQUEST --server URL "
            f"--out ANSWER; securead decrypt ANSWER --keys keys/secret --out scores.csv"
        )
    first = (f"securead publish {bundle}",) if registry.spec(engine).setup else ()
    return (
        *first,
        f"securead serve {bundle} --engine {engine}",
        f"securead keygen --server URL --model {name} --engine {engine} --role {option.role} --out keys",
        submit,
    )


def plain(choice: Choice) -> dict[str, Any]:
    """For programs: what was chosen, every option with its figures, every refusal, and the change if nothing fits."""
    return {
        "goal": choice.goal,
        "limits": dataclasses.asdict(choice.limits),
        "ranked_by": choice.ranked_by,
        "fits": choice.fits,
        "chosen": _option(choice.options[0]) if choice.fits else None,
        "commands": list(commands(choice.options[0])) if choice.fits else [],
        "smallest_change": None if choice.change is None else choice.change.words,
        "options": [_option(option) for option in choice.options],
        "refusals": [dataclasses.asdict(refusal) for refusal in choice.refusals],
        "notes": list(choice.notes),
    }


def _option(option: Option) -> dict[str, Any]:
    """The figures with those that follow from them."""
    return {
        **dataclasses.asdict(option),
        "up_bytes_per_row": option.up_per_row,
        "down_bytes_per_row": option.down_per_row,
        "request_ms": None if option.times is None else 1e3 * option.times.request,
        "rows_per_second": option.rows_per_second,
    }
