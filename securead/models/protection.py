"""What a detector's rounds cost each site, and what that amounts to in the end: from a plan to a privacy statement."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from securead.data.schema import Schema
from securead.data.windows import WindowedSchema, windows_per_reading
from securead.models import local
from securead.privacy.budget import Budget
from securead.privacy.plan import PrivacyPlan, accountant_name
from securead.privacy.site import Kept, Protected
from securead.privacy.statement import PrivacyStatement, Release, SiteGuarantee

if TYPE_CHECKING:
    from securead.models.estimator import AnomalyDetector


def protect(
    detector: AnomalyDetector,
    plan: PrivacyPlan,
    budget: Budget,
    *,
    job: str,
    schema: Schema,
    kept: Kept | None = None,
) -> Protected:
    """One site's releaser for a whole training run; refuses now, before any record is read, what cannot be paid.

    `kept` is what the site remembers of the run, where it resumes a broken one under the same `job`; the caller has it
    `recall` what that had paid for, once it is certain that this is the same run.
    """
    stages = detector.stages()
    multipliers, group = plan.noise_multipliers(stages), windows_per_reading(schema)
    site = Protected(budget.ledger.owner, job, plan, budget, stages, multipliers, kept or Kept(), group)
    site.refuse_unless_affordable()
    return site


def statement(
    detector: AnomalyDetector,
    plan: PrivacyPlan,
    schema: Schema,
    stages: Sequence[str],
    records: Sequence[SiteGuarantee],
    readings: Sequence[SiteGuarantee] = (),
) -> PrivacyStatement:
    """The privacy statement of a finished run, in words: its stages, and what each site's budget has spent."""
    multipliers = plan.noise_multipliers(detector.stages())
    observed = schema.origin == "observed"
    not_covered = ["column names, bounds and the number of sites, which are public"]
    if observed:
        not_covered.append("the column bounds, which stand in for a declared schema here and reveal extreme records")
    return PrivacyStatement(
        private=plan.noise_source == "system",
        delta=plan.delta,
        sites=tuple(records),
        releases=tuple(
            Release(what, multiplier, count)
            for (what, multiplier), count in Counter(
                (detector.stage_in_words(stage), multipliers[stage]) for stage in stages
            ).items()
        ),
        neighboring_relation=f"add or remove one {'window' if isinstance(schema, WindowedSchema) else 'record'}",
        accountant=accountant_name(),
        noise_source=plan.noise_source,
        not_covered=tuple(not_covered),
        observed_bounds=observed,
        readings=local.guarantee_of_readings(readings, schema),
    )
