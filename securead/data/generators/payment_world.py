"""The world of synthetic card payments: banks with habits, customers, merchants, and how honest payments come about.

See `securead.data.generators.payments` for what it is modelled on. All numbers are guesses of ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_lowercase

import numpy as np

from securead.data.generators.generated import split_count
from securead.data.schema import Array

DAYS = 30
DAY = 1440.0  # minutes
PAYMENTS_PER_CUSTOMER = 40

# A merchant's number is (category * 3 + pool) * size of a pool + place in the pool.
LOCAL, ONLINE, ABROAD = range(3)

# Category: share of payments, typical log euro, usual hour, share online, disputes per 1,000, share of round amounts.
CATEGORIES = {
    "groceries": (0.26, 3.3, 17.0, 0.10, 0.5, 0.02),
    "restaurants": (0.16, 3.1, 19.5, 0.15, 0.8, 0.06),
    "transport": (0.12, 1.4, 9.0, 0.50, 0.5, 0.05),
    "fuel": (0.08, 3.8, 8.5, 0.02, 0.6, 0.25),
    "digital": (0.11, 1.7, 20.5, 0.97, 4.0, 0.03),
    "clothing": (0.08, 3.9, 15.0, 0.60, 2.0, 0.03),
    "electronics": (0.05, 4.8, 16.0, 0.65, 4.0, 0.04),
    "pharmacy": (0.07, 2.9, 11.5, 0.15, 0.5, 0.02),
    "travel": (0.03, 5.2, 14.0, 0.85, 3.0, 0.04),
    "vouchers": (0.04, 3.8, 13.0, 0.45, 6.0, 0.60),
}
_SHARE, _LEVEL, _HOUR, _ONLINE_SHARE, _DISPUTES, _ROUND = np.array(list(CATEGORIES.values())).T


@dataclass(frozen=True)
class Bank:
    """One bank's habits: typical amount relative to the others', the usual hour, online payments relative to the
    others', and the share of customers who travel abroad within the month."""

    name: str
    amount_factor: float
    usual_hour: float
    online_factor: float
    travellers: float


@dataclass(frozen=True, eq=False)
class Events:
    """What happened, before any feature: one entry per payment.

    `minute` counts from the month's start, `place` `(n, 2)` is in km.
    """

    customer: Array
    minute: Array
    merchant: Array
    amount: Array
    place: Array
    new_device: Array
    kind: Array


def taken(events: Events, rows: Array) -> Events:
    """The events at `rows`, indices or a mask."""
    return Events(*(values[rows] for values in vars(events).values()))


def joined(parts: Sequence[Events]) -> Events:
    """All events, one part after the other."""
    return Events(*map(np.concatenate, zip(*(vars(part).values() for part in parts), strict=True)))


class World:
    """Banks, customers and merchants, and how an honest payment comes about.

    Each bank has a home region, a disc in a flat country; four in five of its customers live there.
    """

    def __init__(self, rng: np.random.Generator, rows: int, banks: int) -> None:
        def spaced(low: float, high: float) -> Array:
            """Habits that differ for certain: evenly spaced, in random order."""
            return rng.permutation(np.linspace(low, high, banks)) if banks > 1 else np.array([(low + high) / 2])

        habits = np.column_stack(
            [np.exp(spaced(-0.4, 0.4)), spaced(12.0, 18.0), spaced(0.6, 1.5), spaced(0.08, 0.3)]
        ).round(3)
        self.banks = tuple(
            Bank(f"bank-{letter}", *row.tolist()) for letter, row in zip(ascii_lowercase, habits, strict=False)
        )
        n = max(4 * banks, rows // PAYMENTS_PER_CUSTOMER)
        sizes = split_count(n - banks, [1 / i for i in range(1, banks + 1)])
        self.bank = np.repeat(np.arange(banks), np.array(sizes) + 1)
        mix = rng.gamma(30 * _SHARE, size=(banks, len(_SHARE)))
        mix /= mix.sum(axis=1, keepdims=True)
        self.usual_hour = _HOUR
        # Customers: level of amounts, usual hour, payments a day, taste, home and one journey.
        factor, hour, self.online_factor, travellers = habits[self.bank].T
        self.level = np.log(factor) + rng.normal(0, 0.35, n)
        self.hour = (hour + rng.normal(0, 2.0, n)) % 24
        velocity = rng.gamma(3.0, size=n) + 0.3
        velocity *= (np.bincount(self.bank) / np.bincount(self.bank, velocity))[self.bank]
        self.per_minute = velocity * PAYMENTS_PER_CUSTOMER / (DAYS * DAY)
        self.taste = rng.gamma(8 * mix[self.bank] + 0.05)
        self.taste /= self.taste.sum(axis=1, keepdims=True)
        self.centre = rng.uniform(0, 700, size=(banks, 2))
        self.region = np.where(rng.random(n) < 0.8, self.bank, rng.integers(banks, size=n))
        self.home = self.centre[self.region] + rng.normal(0, 12, size=(n, 2))
        far, angle = np.exp(rng.normal(7.0, 0.7, n)), rng.uniform(0, 2 * np.pi, n)
        self.away = self.home + np.clip(far, 250, 9000)[:, None] * np.column_stack([np.cos(angle), np.sin(angle)])
        start, length = rng.uniform(-3, DAYS, n), rng.uniform(2, 9, n)
        self.leaves = np.where(rng.random(n) < travellers, start * DAY, np.inf)
        self.returns = self.leaves + length * DAY
        # Merchants; those of a pool belong to the regions in turn.
        self.pool = banks * max(10, n // (20 * banks))
        count = len(_SHARE) * 3 * self.pool
        self.category = np.arange(count) // (3 * self.pool)
        self.pool_of = np.arange(count) // self.pool % 3
        self.shop = self.centre[np.arange(count) % self.pool % banks] + rng.normal(0, 12, size=(count, 2))
        self.price = _LEVEL[self.category] + rng.normal(0, 0.45, count)
        self.disputes = _DISPUTES[self.category] * rng.gamma(4.0, 0.25, count)
        # Of online shops one in twelve sits abroad, as all of the third pool do.
        abroad_online = (self.pool_of == ONLINE) & (rng.random(count) < 1 / 12)
        self.abroad = (self.pool_of == ABROAD) | abroad_online
        # Two favourites in each category, one local and one online: the bank has seen them all before the month.
        self.favourite = np.stack(
            [self.any_shop(rng, np.arange(n)[:, None], np.arange(len(_SHARE)), p) for p in (LOCAL, ONLINE)], axis=-1
        )
        spend = (self.taste * np.exp(_LEVEL + 0.3)).sum(axis=1) * np.exp(self.level)
        self.mean_amount = spend * np.exp(rng.normal(0, 0.1, n))

    def any_shop(self, rng: np.random.Generator, customer: Array, category: Array, pool: Array | int) -> Array:
        """A merchant of this category and pool; a local one in the customer's region, one time in eight elsewhere."""
        shape = np.broadcast_shapes(np.shape(customer), np.shape(category), np.shape(pool))
        regions = len(self.banks)
        anywhere = rng.integers(self.pool, size=shape)
        near = anywhere // regions * regions + self.region[customer]
        local = (np.asarray(pool) == LOCAL) & (rng.random(shape) < 7 / 8)
        number: Array = (category * 3 + pool) * self.pool + np.where(local, near, anywhere)
        return number

    def month(
        self, rng: np.random.Generator, n: int, start: float, stop: float, *, customer: Array | None = None
    ) -> Events:
        """`n` honest payments between two minutes, of these customers or of all by their velocity.

        A quarter of them follow another payment of the same customer on an outing.
        """
        if customer is None:
            # One draw in each of n equal slices, so that no bank comes out empty.
            places = (np.arange(n) + rng.random(n)) / n * self.per_minute.sum()
            customer = np.minimum(np.searchsorted(np.cumsum(self.per_minute), places), len(self.bank) - 1)
        category = self.categories(rng, customer)
        base = np.where(rng.random(n) < 0.5, self.hour[customer], _HOUR[category]) + rng.normal(0, 2.4, n)
        hour = np.where(rng.random(n) < 0.04, rng.uniform(0, 24, n), base) % 24
        minute = start + rng.integers(round((stop - start) / DAY), size=n) * DAY + hour * 60
        # Customers are sorted, so the payment before is often the same card's: go on an outing with it.
        again = np.flatnonzero((rng.random(n) < 0.25) & (np.diff(customer, prepend=-1) == 0))
        minute[again] = minute[again - 1] + rng.exponential(25.0, len(again)) + 1
        minute = start + (minute - start) % (stop - start)
        return self.honest(rng, customer, minute, category)

    def categories(self, rng: np.random.Generator, customer: Array) -> Array:
        """What is bought, by the customer's taste."""
        drawn = rng.random((len(customer), 1)) > np.cumsum(self.taste, axis=1)[customer]
        category: Array = np.minimum(drawn.sum(axis=1), len(_SHARE) - 1)
        return category

    def honest(self, rng: np.random.Generator, customer: Array, minute: Array, category: Array) -> Events:
        """Where, at whose and for how much honest customers pay at given minutes."""
        n = len(customer)
        away = (minute >= self.leaves[customer]) & (minute < self.returns[customer])
        online = rng.random(n) < np.minimum(_ONLINE_SHARE[category] * self.online_factor[customer], 0.99)
        favourite = ~(away & ~online) & (rng.random(n) < 0.75)
        pool = np.where(online, ONLINE, np.where(away, ABROAD, LOCAL))
        merchant = np.where(
            favourite,
            self.favourite[customer, category, online.astype(int)],
            self.any_shop(rng, customer, category, pool),
        )
        here = np.where(away[:, None], self.away[customer], self.home[customer])
        # Online, the address of the device places it to within some ten kilometres.
        where = np.where((online | away)[:, None], here + rng.normal(0, 8, (n, 2)), self.shop[merchant])
        new_device = online & (rng.random(n) < np.where(away, 0.15, 0.04))
        amount = np.exp(self.price[merchant] + self.level[customer] + rng.normal(0, 0.5, n))
        rounded = rng.random(n) < _ROUND[category]
        amount = np.where(rounded, np.ceil(amount / 10) * 10, amount)
        return Events(customer, minute, merchant, amount, where, new_device, np.zeros(n, int))

    def elsewhere(self, rng: np.random.Generator, customer: Array) -> Array:
        """Where a thief sits: another region, abroad, or, through a borrowed address, near the customer."""
        n = len(customer)
        u, angle = rng.random(n), rng.uniform(0, 2 * np.pi, n)
        far = np.where(u < 0.35, 15.0, np.where(u < 0.65, 200.0, 2500.0)) * np.exp(rng.normal(0, 0.5, n))
        direction = np.column_stack([np.cos(angle), np.sin(angle)])
        where: Array = self.home[customer] + np.clip(far, 1, 9000)[:, None] * direction
        return where

    def neighbours(self, rng: np.random.Generator, customer: Array) -> Array:
        """For each customer a random one of the same region."""
        order = np.argsort(self.region, kind="stable")
        counts = np.bincount(self.region, minlength=len(self.banks))
        first = np.cumsum(counts) - counts
        region = self.region[customer]
        found: Array = order[first[region] + rng.integers(counts[region])]
        return found
