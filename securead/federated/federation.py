"""How sites and coordinator work together in a run: what everyone agrees on before a round begins."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from securead import codec
from securead.data.schema import Schema
from securead.errors import FixConfigurationError
from securead.federated.robust import Bound, Rule
from securead.models.estimator import AnomalyDetector
from securead.privacy.plan import PrivacyPlan

_SMALLEST_GROUP = 2


@dataclass(frozen=True)
class Federation:
    """How updates are aggregated, and what a run survives.

    aggregation: "plain" shows the coordinator every site's update (noised, if the run is private); "masked" only sums,
        behind masks of pairs; "paillier" only sums, encrypted under a key that all sites hold and it does not.
    minimum_sites: fewer end the run; by default 2, or 1 where there is one site and nothing to mask.
    round_timeout: seconds that a site has to answer.
    attempts: how often a round of hidden sums is begun, each time among those who are left.
    rule, attackers: how contributions are combined, and how many that lie are reckoned with (`federated.robust`).
    groups: of how many groups a run of hidden sums with a robust rule sees the sums; 0 for one sum of all.
    max_records, max_change: how far one site may move the model: records that its counts may claim, and the L2 change
        of averaged weights in a round.
    """

    aggregation: Literal["plain", "masked", "paillier"] = "plain"
    minimum_sites: int | None = None
    round_timeout: float = 60.0
    attempts: int = 3
    rule: Rule = "sum"
    groups: int = 0
    attackers: int = 1
    max_records: int | None = None
    max_change: float | None = None

    def __post_init__(self) -> None:
        if self.minimum_sites is not None and self.minimum_sites < (2 if self.hidden else 1):
            raise FixConfigurationError(
                "minimum_sites is at least 1, and 2 where updates are hidden",
                value=self.minimum_sites,
                remedy="The sum of one site's update is the update.",
            )
        if not (0 < self.round_timeout < math.inf):
            raise FixConfigurationError("round_timeout is a positive number of seconds", value=self.round_timeout)
        if not 1 <= self.attempts <= 16:
            raise FixConfigurationError("a round has 1 to 16 attempts", value=self.attempts, remedy="3 is usual.")
        if self.groups and (not self.hidden or self.groups < 0):
            raise FixConfigurationError(
                "groups are of masked or encrypted sums",
                value=self.groups,
                remedy='Set aggregation = "masked", or leave groups out.',
            )
        if self.rule != "sum" and self.hidden and self.groups < 3:
            raise FixConfigurationError(
                f"the rule {self.rule!r} compares contributions, and a {self.aggregation} run shows one sum",
                value=f"groups = {self.groups}",
                remedy="Set groups = 3 or more (each of two sites or more), or use plain aggregation.",
            )
        if self.rule == "krum" and self.hidden:
            raise FixConfigurationError(
                "Krum needs to see single updates, which masking and encryption hide",
                remedy="Use median or trimmed on group sums, or plain aggregation.",
            )
        if self.attackers < 1:
            raise FixConfigurationError("a rule reckons with 1 attacker or more", value=self.attackers)
        if self.max_records is not None and self.max_records < 1:
            raise FixConfigurationError("max_records is at least 1", value=self.max_records)
        if self.max_change is not None and not (0 < self.max_change < math.inf):
            raise FixConfigurationError("max_change is a positive number", value=self.max_change)

    @property
    def hidden(self) -> bool:
        """Whether the coordinator sees sums only."""
        return self.aggregation != "plain"

    @property
    def bound(self) -> Bound | None:
        """How far one site may move the model, or None."""
        if self.max_records is None and self.max_change is None:
            return None
        return Bound(self.max_records, self.max_change)

    def least(self, sites: int) -> int:
        """With how many of `sites` a round counts. Raises `FixConfigurationError` where there cannot be so many."""
        least = self.minimum_sites or (2 if self.hidden else min(2, sites))
        if least > sites or (self.groups and sites < self.groups * _SMALLEST_GROUP):
            raise FixConfigurationError(
                "there are too few sites for this federation",
                value=f"{sites} sites, at least {max(least, self.groups * _SMALLEST_GROUP)}",
                remedy="Name more sites, or lower minimum_sites or groups.",
            )
        return least

    def smallest_sum(self, sites: int) -> int:
        """Of how many sites a hidden sum is formed at least."""
        return _SMALLEST_GROUP if self.groups else max(_SMALLEST_GROUP, self.least(sites))


@dataclass(frozen=True, eq=False)
class Terms:
    """What all participants of a run hold beforehand: nobody takes part on other terms than its own."""

    detector: AnomalyDetector
    names: tuple[str, ...]
    schema: Schema
    privacy: PrivacyPlan | None
    federation: Federation = dataclasses.field(default_factory=Federation)

    def digests(self) -> Mapping[str, str]:
        """A digest of every part, so that those who differ can be told in what."""
        parameters = sorted((key, repr(value)) for key, value in self.detector.get_params(deep=False).items())
        parts = {
            "detector": f"{type(self.detector).__qualname__} {parameters}",
            "schema": codec.canonical_bytes(self.schema).decode(),
            "privacy": json.dumps(None if self.privacy is None else dataclasses.asdict(self.privacy), sort_keys=True),
            "sites": json.dumps(list(self.names)),
            "federation": json.dumps(dataclasses.asdict(self.federation), sort_keys=True),
        }
        return {name: hashlib.sha256(content.encode()).hexdigest() for name, content in parts.items()}

    @property
    def fingerprint(self) -> str:
        """What makes two runs the same run."""
        return hashlib.sha256(json.dumps(self.digests(), sort_keys=True).encode()).hexdigest()
