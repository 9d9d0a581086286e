"""Card payments of several banks with typed frauds. Synthetic: no real person, card or merchant is behind a row.

A small world is drawn from the seed - banks with habits of their own, customers, merchants - then a month of payments
is played through it, attacks are played into the same month, and only then are features computed, from each card's own
past, as an issuer computes them when a payment asks for authorisation. So attacks leave traces as real ones do: through
the sequence, and on the honest payments that follow them.

Modelled on what is commonly described: habits of customers, distance from home and frauds as scenarios (Le Borgne,
Siblini, Lebichot and Bontempi 2022, "Reproducible Machine Learning for Credit Card Fraud Detection", chapter 3),
lognormal amounts, recency and frequency features (Bahnsen, Aouada, Stojanovic and Ottersten 2016). The frauds:

* card_testing: stolen numbers are tried out in quick online payments of a few cents to a few euro;
* account_takeover: from a new device or another place, amounts that rise from payment to payment, at new shops;
* merchant_collusion: a local merchant books round amounts on regional cards at night;
* amount_outlier: a payment like any other of this customer but for an amount many times the usual.

Numbers in this file are round guesses of ours, chosen so that no fraud is trivial and none is hidden; nothing measured
here says how a detector fares on real payments.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from securead.data.generators.generated import Generated, check_share, check_whole, run_lengths, split_count
from securead.data.generators.payment_world import (
    CATEGORIES,
    DAY,
    DAYS,
    LOCAL,
    ONLINE,
    Bank,
    Events,
    World,
    joined,
    taken,
)
from securead.data.readers import Table
from securead.data.schema import Array, Column, Schema

KINDS = ("normal", "card_testing", "account_takeover", "merchant_collusion", "amount_outlier")
MAX_AMOUNT = 10_000.0
_WARM_UP_DAYS = 2  # played before the month and dropped, so that counts over the last day start filled
_MAX_DISTANCE = 20_000.0
_DECIMALS = 4  # of every feature: what a file needs, and the last bits of exp and log stay out of it

_LOG: Literal["log"] = "log"
_PLAIN: Literal["identity"] = "identity"
# Name, bounds, transform, and what is typical: centre and spread after the transform. Domain knowledge, all public.
_COLUMNS: tuple[tuple[str, float, float, Literal["identity", "log"], float, float], ...] = (
    ("amount", 0.0, MAX_AMOUNT, _LOG, 3.2, 1.2),
    ("hour_sin", -1.0, 1.0, _PLAIN, -0.35, 0.65),
    ("hour_cos", -1.0, 1.0, _PLAIN, -0.35, 0.6),
    ("hours_from_own_usual", 0.0, 12.0, _PLAIN, 3.4, 2.9),
    ("hours_from_merchants_usual", 0.0, 12.0, _PLAIN, 3.7, 3.0),
    ("minutes_since_last", 0.0, DAYS * DAY, _LOG, 5.7, 2.0),
    ("payments_last_hour", 0.0, 60.0, _LOG, 0.8, 0.2),
    ("payments_last_day", 0.0, 200.0, _LOG, 1.25, 0.4),
    ("spent_last_day", 0.0, 20 * MAX_AMOUNT, _LOG, 4.2, 1.2),
    ("distance_from_home_km", 0.0, _MAX_DISTANCE, _LOG, 3.0, 1.2),
    ("distance_from_last_km", 0.0, _MAX_DISTANCE, _LOG, 3.0, 1.4),
    ("amount_to_own_mean", 0.0, 200.0, _LOG, 0.55, 0.45),
    ("merchant_mean_amount", 0.0, MAX_AMOUNT, _LOG, 3.4, 1.0),
    ("merchant_disputes_per_1000", 0.0, 100.0, _LOG, 0.8, 0.55),
    ("own_share_of_category", 0.0, 1.0, _PLAIN, 0.23, 0.14),
    ("online", 0.0, 1.0, _PLAIN, 0.38, 0.49),
    ("new_merchant", 0.0, 1.0, _PLAIN, 0.25, 0.43),
    ("new_device", 0.0, 1.0, _PLAIN, 0.02, 0.14),
    ("other_country", 0.0, 1.0, _PLAIN, 0.05, 0.22),
    ("round_amount", 0.0, 1.0, _PLAIN, 0.08, 0.27),
)


@dataclass(frozen=True, eq=False)
class Payments(Generated):
    """Payments in order of time; sites are banks. `customer` and `merchant` `(n,)` number who paid whom."""

    banks: tuple[Bank, ...]
    customer: Array
    merchant: Array


def payments_schema() -> Schema:
    """The public schema of generated payments: 20 columns, bounds and typical scale declared, outside is clipped."""
    return Schema(tuple(Column(*column) for column in _COLUMNS))


def generate_payments(*, rows: int = 20_000, banks: int = 3, fraud_rate: float = 0.01, seed: int = 0) -> Payments:
    """A month of synthetic card payments with labelled, typed frauds.

    Exactly `rows` payments, round(rows * fraud_rate) of them frauds, a quarter of each type; every value lies within
    the schema's bounds; every bank has payments; the same arguments give the same bytes (under one NumPy).

    Parameters
    ----------
    rows: payments of all banks together, at least 100 for each bank; one customer for each 40.
    banks: how many, 1 to 26; bank i, counted from 1, has a share of the customers proportional to 1/i.
    fraud_rate: the share of fraudulent payments, 0 to 0.2.
    seed: decides everything.

    Raises `FixConfigurationError` for arguments outside these ranges.
    """
    check_whole("banks", banks, 1, 26)
    check_whole("rows", rows, 100 * int(banks), 10_000_000)
    check_whole("seed", seed, 0, 2**63 - 1)
    check_share("fraud_rate", fraud_rate, 0.2)
    rng = np.random.default_rng([int(seed), 1])
    world = World(rng, int(rows), int(banks))
    frauds = round(rows * fraud_rate)
    parts = [
        world.month(rng, rows - frauds, 0.0, DAYS * DAY),
        world.month(rng, math.ceil(rows * _WARM_UP_DAYS / DAYS), -_WARM_UP_DAYS * DAY, 0.0),
    ]
    for attack, n in zip(_ATTACKS, split_count(frauds, [1] * len(_ATTACKS)), strict=True):
        if n:
            parts.append(attack(rng, world, n))
    events = joined(parts)
    events = taken(events, np.argsort(events.minute, kind="stable"))
    X = _features(rng, world, events)
    kept = events.minute >= 0
    events, X = taken(events, kept), X[kept]
    schema = payments_schema()
    return Payments(
        table=Table(X, schema.names, (events.kind > 0).astype(np.int8), source=f"synthetic payments, seed {seed}"),
        schema=schema,
        kinds=KINDS,
        kind=events.kind.astype(np.int8),
        sites=tuple(bank.name for bank in world.banks),
        site=world.bank[events.customer].astype(np.int16),
        time=np.round(events.minute * 60, 3),
        banks=world.banks,
        customer=events.customer,
        merchant=events.merchant,
    )


def _category(*names: str) -> Array:
    return np.array([list(CATEGORIES).index(name) for name in names])


def _runs(rng: np.random.Generator, n: int, length: tuple[int, int], gap: float) -> tuple[Array, Array, Array]:
    """`n` payments in runs: each one's run, its step within the run, and its minute; gaps are exponential."""
    lengths = run_lengths(rng, n, *length)
    run = np.repeat(np.arange(len(lengths)), lengths)
    first = np.cumsum(lengths) - lengths
    step = np.arange(n) - first[run]
    passed = np.cumsum(np.where(step > 0, rng.exponential(gap, n), 0))
    start = rng.uniform(0, (DAYS - 1) * DAY, len(lengths))
    return run, step, np.minimum(start[run] + passed - passed[first][run], DAYS * DAY - 0.01)


def _card_testing(rng: np.random.Generator, world: World, n: int) -> Events:
    """Three to ten tiny online payments within minutes, at one or two shops that sell at once and ask little."""
    run, _, minute = _runs(rng, n, (3, 10), 4.0)
    runs = run[-1] + 1
    customer = rng.integers(len(world.bank), size=runs)
    shops = world.any_shop(rng, customer, rng.choice(_category("digital", "transport", "vouchers"), (2, runs)), ONLINE)
    merchant = shops[(rng.random(n) < 0.3).astype(int), run]
    amount = np.exp(rng.normal(math.log(1.5), 0.6, n))
    where = world.elsewhere(rng, customer)[run] + rng.normal(0, 5, (n, 2))
    return Events(customer[run], minute, merchant, amount, where, rng.random(n) < 0.5, np.full(n, 1))


def _account_takeover(rng: np.random.Generator, world: World, n: int) -> Events:
    """Three to seven payments over hours, mostly from a new device, each about half as large again as the last."""
    run, step, minute = _runs(rng, n, (3, 7), 70.0)
    customer = rng.integers(len(world.bank), size=run[-1] + 1)
    category = rng.choice(_category("electronics", "vouchers", "digital", "clothing", "travel"), n)
    pool = np.where(rng.random(n) < 0.8, ONLINE, LOCAL)
    merchant = world.any_shop(rng, customer[run], category, pool)
    start = np.exp(rng.normal(math.log(0.8), 0.4, len(customer)))
    amount = world.mean_amount[customer][run] * start[run] * 1.5**step * np.exp(rng.normal(0, 0.25, n))
    where = world.elsewhere(rng, customer)[run] + rng.normal(0, 5, (n, 2))
    new_device = (pool == ONLINE) & (rng.random(len(customer)) < 0.7)[run]
    return Events(customer[run], minute, merchant, amount, where, new_device, np.full(n, 2))


def _merchant_collusion(rng: np.random.Generator, world: World, n: int) -> Events:
    """A local shop books round amounts at night, ten to forty in all, on the cards of customers nearby."""
    run, *_ = _runs(rng, n, (10, 40), 1.0)
    minute = rng.integers(DAYS, size=n) * DAY + (rng.normal(3.0, 1.5, n) % 24) * 60
    owner = rng.integers(len(world.bank), size=run[-1] + 1)
    category = rng.choice(_category("restaurants", "clothing", "electronics", "vouchers"), len(owner))
    merchant = world.any_shop(rng, owner, category, LOCAL)[run]
    customer = world.neighbours(rng, owner[run])
    usual = np.exp(world.price[merchant] + rng.normal(0.4, 0.5, n))
    amount = np.maximum(np.round(usual / 10), 1) * 10
    return Events(customer, minute, merchant, amount, world.shop[merchant], np.zeros(n, bool), np.full(n, 3))


def _amount_outlier(rng: np.random.Generator, world: World, n: int) -> Events:
    """An honest payment in everything but its amount, which is 5 to 40 times as large."""
    customer = rng.integers(len(world.bank), size=n)
    base = world.month(rng, n, 0.0, DAYS * DAY, customer=customer)
    # By a whole number, so that round amounts stay as frequent as they are.
    amount = base.amount * np.rint(np.exp(rng.uniform(math.log(5), math.log(40), n)))
    return dataclasses.replace(base, amount=amount, kind=np.full(n, 4))


_ATTACKS = (_card_testing, _account_takeover, _merchant_collusion, _amount_outlier)


def _features(rng: np.random.Generator, world: World, events: Events) -> Array:
    """The schema's columns of events in order of time, each from what the bank knows at that moment."""
    customer, merchant, minute = events.customer, events.merchant, events.minute
    amount = np.clip(np.round(events.amount, 2), 0.01, MAX_AMOUNT)
    hour = minute % DAY / 60
    order = np.argsort(customer, kind="stable")
    past = _past(rng, world, taken(events, order), amount[order])
    pair = customer * len(world.shop) + merchant
    seen = np.ones(len(pair), bool)
    seen[np.unique(pair, return_index=True)[1]] = False
    category = world.category[merchant]
    known = seen | (world.favourite[customer, category] == merchant[:, None]).any(axis=1)
    columns = {
        "amount": amount,
        "hour_sin": np.sin(2 * np.pi * hour / 24),
        "hour_cos": np.cos(2 * np.pi * hour / 24),
        "hours_from_own_usual": _hours_apart(hour, world.hour[customer]),
        "hours_from_merchants_usual": _hours_apart(hour, world.usual_hour[category]),
        "distance_from_home_km": np.hypot(*(world.home[customer] - events.place).T),
        "amount_to_own_mean": amount / world.mean_amount[customer],
        "merchant_mean_amount": np.exp(world.price[merchant] + 0.2),
        "merchant_disputes_per_1000": world.disputes[merchant],
        "own_share_of_category": world.taste[customer, category],
        "online": world.pool_of[merchant] == ONLINE,
        "new_merchant": ~known,
        "new_device": events.new_device,
        "other_country": world.abroad[merchant],
        "round_amount": np.rint(amount * 100) % 1000 == 0,
    }
    for name, values in past.items():
        columns[name] = np.empty(len(order))
        columns[name][order] = values
    X = np.column_stack([columns[name] for name, *_ in _COLUMNS]).astype(np.float64)
    lower, upper = np.array([column[1:3] for column in _COLUMNS]).T
    return np.clip(np.round(X, _DECIMALS), lower, upper)


def _past(rng: np.random.Generator, world: World, events: Events, amount: Array) -> dict[str, Array]:
    """Features from each card's own past, of events sorted by customer and then by time."""
    first = np.diff(events.customer, prepend=-1) != 0
    # One axis on which no card's last day reaches back to the card before.
    line = events.customer * (DAYS + 10) * DAY + events.minute
    rank = np.arange(len(line))
    hour_ago, day_ago = (np.searchsorted(line, line - span) for span in (60.0, DAY))
    spent = np.concatenate([[0.0], np.cumsum(np.rint(amount * 100))])
    # Of a card's first payment the one before lies outside the record: it was at home, a usual time ago.
    before = np.where(first[:, None], world.home[events.customer], np.roll(events.place, 1, axis=0))
    unseen = rng.exponential(1.0, len(rank)) / world.per_minute[events.customer]
    return {
        "minutes_since_last": np.where(first, unseen, np.diff(line, prepend=0.0)),
        "payments_last_hour": rank - hour_ago + 1.0,
        "payments_last_day": rank - day_ago + 1.0,
        "spent_last_day": (spent[rank + 1] - spent[day_ago]) / 100,
        "distance_from_last_km": np.hypot(*(events.place - before).T),
    }


def _hours_apart(a: Array, b: Array) -> Array:
    """The shorter way round the clock."""
    hours: Array = 12 - np.abs(np.abs(a - b) % 24 - 12)
    return hours
