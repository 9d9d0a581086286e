"""Stock CrypTen (`crypten_stock`) on the rows and with the weights that our own engine has."""

from __future__ import annotations

from crypten_stock import Peer
from exchange import REPEATS, Exchange, asked


def measure(exchange: Exchange) -> None:
    if exchange.form == "quadratic":
        layers, units = [(exchange.arrays["A"], exchange.arrays["b"])], "form"
    elif exchange.form == "network":
        layers, units = exchange.layers, exchange.order["units"]
    else:
        exchange.refuse("CrypTen has no look-up of a secret position in a secret table")
    rows = len(exchange.arrays["Z"])
    peer = Peer(layers, exchange.arrays["Z"])
    try:
        peer.score(units, rows)  # the first one builds what the others use
        for _ in range(REPEATS):
            seconds, scores = peer.score(units, rows)
            for party, cpu in enumerate(peer.cpu_seconds):
                exchange.took(f"party {party}", "evaluate", rows, wall=seconds, cpu=cpu)
        stats = peer.communication(units, rows)
    finally:
        peer.close()
    # Each party counts what it sends and what it receives.
    exchange.sent("party 0", "party 1", "shares", stats["bytes"] / 2, rows=rows)
    exchange.sent("party 1", "party 0", "shares", stats["bytes"] / 2, rows=rows)
    exchange.facts["rounds"] = stats["rounds"]
    exchange.notes.append("wall time of the slower party; triples are fetched while it waits, and not counted in bytes")
    exchange.answer(scores, "crypten", "torch")


if __name__ == "__main__":
    measure(asked())
