"""`securead share`: the one way by which scores leave the key holder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from securead.cli import options


def command(
    scores: Annotated[Path, typer.Argument(metavar="SCORES", help="What `securead decrypt` or `score` wrote.")],
    keys: Annotated[Path, typer.Option("--keys", metavar="DIR", help="The key directory, or DIR/secret.")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The CSV file to write, to be handed out.")],
    rows: Annotated[
        str, typer.Option("--rows", metavar="LIST", help="Rows to share, such as 3,17,40-52 (counted from 0), or all.")
    ],
    at_most: Annotated[
        int | None,
        typer.Option(
            "--at-most", metavar="N", min=1, help="How many this key will ever share: declared once, then fixed."
        ),
    ] = None,
    useful: Annotated[
        float | None,
        typer.Option(
            "--useful", metavar="X", help="How far off a shared score may be (default: 1/100 of the threshold)."
        ),
    ] = None,
    verdicts: Annotated[bool, typer.Option("--verdicts", help="Write row,anomaly only; each counts all the same.")] = (
        False
    ),
    as_json: options.Json = False,
) -> None:
    """Make scores or verdicts of some rows fit to be told to others, or refuse to.

    Decrypted CKKS scores hold a trace of the secret key, and rounding does not remove it: the service, which knows the
    ciphertexts, can compute the key from them and then read every record that was encrypted with it. This adds noise
    that covers the trace, and counts in DIR/secret/sharing.json what left, over all calls. Noise grows with the square
    root of --at-most. Where it would destroy the scores, which with the usual tolerances it does, nothing is shared:
    score those rows with a key of their own (a small --at-most), compile the model with a far smaller tolerance, or
    serve an exact one. Scores of the engine bfv are exact: they are copied as they are, and not counted.

    Everything that others can tell from your scores counts: alarms, blocked payments, a retry. So does your choice of
    rows: if you share those above the threshold, the rest are told to lie below it. Choose rows by what is known
    anyway, and give each SCORES file the keys that it was decrypted with: this cannot tell.

    This protects the key from a service that computes as agreed. It does not hide the scores themselves, from enough of
    which anyone can rebuild the model. Keep one copy of DIR/secret: copies do not know of each other's count.

    \b
    Example:
      securead share scores.csv --keys keys --rows 3,17,40-52 --at-most 100 --out shared.csv
    """
    from securead.cli.screen import print_json, say
    from securead.client import messages
    from securead.client.results import read_scores, write_shared
    from securead.client.sharing import SHARING_FILE, open_sharing
    from securead.errors import FixInputError

    messages.refuse_overwriting(out, scores, keys)
    if out.name == SHARING_FILE:
        raise FixInputError("the result would overwrite the count of shared scores", remedy="Choose another --out.")
    messages.refuse_unwritable(out)
    numbers, values = read_scores(scores, None if rows == "all" else chosen_rows(rows))
    sharing = open_sharing(keys, at_most=at_most)
    told = sharing.share_score(values, useful=useful)
    write_shared(out, numbers, None if verdicts else told.scores, told.is_anomaly)
    what = "verdicts" if verdicts else "scores"
    if sharing.plan.exact:
        say(f"shared {len(numbers):,} {what}: this engine is exact, so nothing was added -> {out}")
    else:
        say(f"shared {len(numbers):,} {what}, within {told.accuracy:.3g} of the true in 95 of 100 cases -> {out}")
        say(f"this key has shared {sharing.shared:,} of at most {sharing.plan.at_most:,}")
    if as_json:
        plain = {
            "rows": len(numbers),
            "exact": sharing.plan.exact,
            "noise_deviation": sharing.plan.deviation,
            "accuracy": told.accuracy,
            "shared": None if sharing.plan.exact else sharing.shared,
            "at_most": None if sharing.plan.exact else sharing.plan.at_most,
        }
        print_json(plain)


def chosen_rows(text: str) -> frozenset[int]:
    """Row numbers of a list such as 3,17,40-52, or `FixInputError`."""
    from securead.errors import FixInputError

    chosen: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        ends = [first, last] if dash else [first, first]
        if not all(end.isascii() and end.isdigit() and len(end) < 10 for end in ends) or int(ends[0]) > int(ends[1]):
            raise FixInputError(
                "these are no rows", value=text, remedy="Say --rows 3,17,40-52 (counted from 0), or --rows all."
            )
        if int(ends[1]) - int(ends[0]) >= 10**7:
            raise FixInputError("these are too many rows", value=text, remedy="Say --rows all.")
        chosen.update(range(int(ends[0]), int(ends[1]) + 1))
    return frozenset(chosen)
