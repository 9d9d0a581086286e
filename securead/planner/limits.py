"""What people ask of an option: limits, what breaks them, and the smallest change with which something fits.

A change is a set of limits to relax to stated values, or of conditions (role, engine) to drop. The smallest one is that
of the fewest parts; of those, one that needs no more trust; of those, the one that relaxes least (the product of needed
value over limit; dropping a condition counts as a factor of four).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from securead.errors import FixConfigurationError
from securead.planner.options import Option

RoleWanted = Literal["same", "split", "any"]
_DROPPING = 4.0


@dataclass(frozen=True)
class Limits:
    """None: no limit. Up and down in KB (1,000 bytes) a record, `max_ms` of a request, `max_error` of a score."""

    max_up: float | None = None
    max_down: float | None = None
    max_ms: float | None = None
    max_error: float | None = None
    role: RoleWanted = "any"
    engine: str | None = None

    def __post_init__(self) -> None:
        for name in ("max_up", "max_down", "max_ms", "max_error"):
            value = getattr(self, name)
            if value is not None and not (0 < value < math.inf or (name == "max_error" and value == 0)):
                raise FixConfigurationError(
                    f"{name} is a positive number", value=value, remedy="Leave it out for no limit."
                )


@dataclass(frozen=True)
class Broken:
    """A limit that an option breaks. `needed`: the least value that it keeps; None where no value would do."""

    name: str
    limit: float | str
    needed: float | str | None

    @property
    def cost(self) -> float:
        """How much it takes to relax it."""
        if isinstance(self.limit, str) or isinstance(self.needed, str):
            return _DROPPING
        if self.needed is None:
            return 10 * _DROPPING
        return self.needed / self.limit if self.limit else math.inf

    @property
    def words(self) -> str:
        """Why an option is rejected."""
        match self.name:
            case "role" | "engine":
                return f"{self.name} {self.limit} was asked for"
            case "max_up":
                return f"{_number(self.needed)} KB up a record, over {_number(self.limit)}"
            case "max_down":
                return f"{_number(self.needed)} KB down a record, over {_number(self.limit)}"
            case "max_error":
                return f"error bound {_number(self.needed)}, over {_number(self.limit)}"
            case _:
                if self.needed is None:
                    return f"no predicted time, so {_number(self.limit)} ms cannot be promised"
                return f"{_number(self.needed)} ms a request, over {_number(self.limit)}"

    @property
    def change(self) -> str:
        """What to do about it."""
        flag = "--" + self.name.replace("_", "-")
        if self.name == "role":
            return f"allow role {self.needed} ({flag} {self.needed})"
        if self.name == "engine":
            return f"take the engine {self.needed} ({flag} {self.needed})"
        if self.needed is None:
            return f"leave {flag} out"
        return f"raise {flag} from {_number(self.limit)} to {_number(self.needed)}"


def broken(option: Option, limits: Limits) -> tuple[Broken, ...]:
    """Every limit that an option breaks; needed values are rounded up, so that naming them is enough."""
    found = []
    if limits.role not in ("any", option.role):
        found.append(Broken("role", limits.role, option.role))
    if limits.engine is not None and limits.engine != option.engine:
        found.append(Broken("engine", limits.engine, option.engine))
    if limits.max_up is not None and option.up_per_row > 1e3 * limits.max_up:
        found.append(Broken("max_up", limits.max_up, _above(option.up_per_row / 1e3)))
    if limits.max_down is not None and option.down_per_row > 1e3 * limits.max_down:
        found.append(Broken("max_down", limits.max_down, _above(option.down_per_row / 1e3)))
    if limits.max_error is not None and option.error_bound > limits.max_error:
        found.append(Broken("max_error", limits.max_error, _above(option.error_bound)))
    if limits.max_ms is not None:
        if option.times is None:
            found.append(Broken("max_ms", limits.max_ms, None))
        elif option.times.request * 1e3 > limits.max_ms:
            found.append(Broken("max_ms", limits.max_ms, _above(option.times.request * 1e3)))
    return tuple(found)


@dataclass(frozen=True)
class Change:
    """What to relax, and the option that then fits."""

    parts: tuple[Broken, ...]
    option: Option

    @property
    def words(self) -> str:
        """One sentence."""
        what = " and ".join(part.change for part in self.parts)
        option = self.option
        return f"{what[:1].upper()}{what[1:]}: then {option.engine}, role {option.role}, fits {option.bundle}."


def smallest_change(options: Sequence[Option], limits: Limits) -> Change | None:
    """The smallest change with which one of the options fits; None where there are no options."""
    changes = [Change(broken(option, limits), option) for option in options]
    return min(changes, key=_size, default=None)


def _size(change: Change) -> tuple[int, int, float]:
    return len(change.parts), change.option.tier, math.prod(part.cost for part in change.parts)


def _above(value: float) -> float:
    """The value rounded up to three significant digits."""
    if value <= 0:
        return 0.0
    step = 10.0 ** (math.floor(math.log10(value)) - 2)
    rounded = math.ceil(value / step) * step
    # Printed digits are what people type: of the two next to it, the one that is not below.
    found = float(f"{rounded:.3g}")
    return found if found >= value else float(f"{found + step:.3g}")


def _number(value: float | str | None) -> str:
    if not isinstance(value, float | int):
        return str(value)
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
