"""Links between the roles: what a request takes over one, predicted from bytes and ways.

A way is one message that something else waits for. The prediction is for the bytes that pass one after the other; it
knows no packet loss and no slow start.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from securead.errors import FixConfigurationError
from securead.protocols.sharing.outbox import Delay

LINKS: Mapping[str, Delay] = {
    "loopback": Delay(0.0),
    "lan": Delay(0.0002, 1e9 / 8),
    "wan": Delay(0.02, 100e6 / 8),
}
"""Seconds one way and bytes a second: this machine; 1 Gb/s and .2 ms; 100 Mb/s and 20 ms."""

_RATES = {"kb/s": 1e3 / 8, "mb/s": 1e6 / 8, "gb/s": 1e9 / 8}
_DELAYS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
# "b", not "B": eight times as much would pass unnoticed.
_LINK = re.compile(r"([\d.]+)\s*([kKmMgG]b/s)\s*,\s*([\d.]+)\s*(us|ms|s)")


def parse_link(text: str) -> Delay:
    """A link by name, or as "100Mb/s,20ms": bits a second, and what one way takes."""
    if text in LINKS:
        return LINKS[text]
    found = _LINK.fullmatch(text.strip())
    try:
        if found is None:
            raise ValueError(text)
        rate = float(found[1]) * _RATES[found[2].lower()]
        return Delay(float(found[3]) * _DELAYS[found[4].lower()], rate)
    except ValueError as error:  # `Delay` refuses a rate of 0 by one of these, too
        raise FixConfigurationError(
            "no such link", value=text, remedy=f"Name one of {', '.join(LINKS)}, or give it as 100Mb/s,20ms."
        ) from error


def predicted_seconds(loopback_seconds: float, *, ways: int, bytes_in_line: float, link: str | Delay) -> float:
    """Seconds over a link for what takes `loopback_seconds` on this machine: every way waits, every byte has its turn.

    `bytes_in_line`: those that cannot be on the way at once, so of an exchange in both directions at once one half.
    """
    model = LINKS[link] if isinstance(link, str) else link
    return loopback_seconds + ways * model.seconds + carried_seconds(bytes_in_line, model)


def carried_seconds(count: float, link: Delay) -> float:
    """What a link takes to pass so many bytes on, its delay apart."""
    return 0.0 if math.isinf(link.bytes_per_second) else count / link.bytes_per_second
