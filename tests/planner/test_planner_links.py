"""Links by name and by figures."""

from __future__ import annotations

import pytest

from securead.errors import FixConfigurationError
from securead.planner.links import LINKS, carried_seconds, parse_link, predicted_seconds
from securead.protocols.sharing.outbox import Delay


@pytest.mark.parametrize(
    ("text", "seconds", "bytes_per_second"),
    [
        ("loopback", 0.0, float("inf")),
        ("wan", 0.02, 12.5e6),
        ("100Mb/s,20ms", 0.02, 12.5e6),
        ("1 Gb/s, 200us", 0.0002, 125e6),
        ("64kb/s,1.5s", 1.5, 8e3),
    ],
)
def test_a_link_in_words(text: str, seconds: float, bytes_per_second: float) -> None:
    found = parse_link(text)
    assert found.seconds == pytest.approx(seconds)
    assert found.bytes_per_second == bytes_per_second


@pytest.mark.parametrize(
    "text", ["", "fast", "100Mb/s", "100MB/s,20ms", "0Mb/s,20ms", "1..5Mb/s,20ms", "100Mb/s,-20ms"]
)
def test_anything_else_is_refused_with_examples(text: str) -> None:
    with pytest.raises(FixConfigurationError, match="100Mb/s,20ms"):
        parse_link(text)


def test_every_way_waits_and_every_byte_has_its_turn() -> None:
    own = Delay(0.1, 1e6)
    assert predicted_seconds(1.0, ways=3, bytes_in_line=2e6, link=own) == pytest.approx(1.0 + 0.3 + 2.0)
    assert predicted_seconds(1.0, ways=2, bytes_in_line=1e9, link="loopback") == 1.0
    assert carried_seconds(125e6, LINKS["lan"]) == pytest.approx(1.0)
