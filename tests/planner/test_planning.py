"""The planner: its goals, its order of trust, limits and their smallest change, and a reason for everything."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from types import SimpleNamespace

import pytest
from made_up_costs import model, profile_for
from small_model import small_bundle

import securead
from securead.checks import programs
from securead.errors import FixConfigurationError, FixInputError
from securead.planner.limits import broken
from securead.planner.planning import Choice, NothingFitsError, plan
from securead.planner.words import commands, plain
from securead.program.program import Program
from securead.protocols import registry
from securead.protocols.engine import EngineSpec

QUADRATIC, TABLES = programs.small_quadratic(), programs.small_tables()
PROFILE = profile_for(QUADRATIC.public, TABLES.public)


def choose(program: Program = QUADRATIC, **arguments: object) -> Choice:
    return plan(model(program), **{"profile": PROFILE, **arguments})  # type: ignore[arg-type]


def test_it_is_part_of_the_package() -> None:
    assert securead.plan is plan


@pytest.mark.parametrize("program", [QUADRATIC, TABLES], ids=["polynomial", "tables"])
def test_every_engine_and_role_is_there_and_each_has_a_reason(program: Program) -> None:
    choice = choose(program)
    there = {(each.engine, each.role) for each in (*choice.options, *choice.refusals)}
    assert there == {(name, role) for name, spec in registry.engines().items() for role in spec.roles}
    assert len(there) == len(choice.options) + len(choice.refusals)
    assert all(each.reason for each in (*choice.options, *choice.refusals))
    assert {each.engine for each in choice.options} == {
        n for n, s in registry.engines().items() if s.carries(program.public)
    }


def test_figures_are_the_plans_own() -> None:
    for option in choose().options:
        made = registry.plan_module(option.engine).make_plan(QUADRATIC.public, option.role)
        assert option.rows == option.rows_per_chunk == made.rows_per_chunk
        assert (option.error_bound, option.security_bits) == (made.error_bound, made.security_bits)
        assert option.up_bytes <= made.max_request_bytes or option.parties > 1
        assert (option.degree, option.weight_bits) == (2, max(QUADRATIC.public.steps[1].gain_bits))  # type: ignore[union-attr]
        if option.ring_dimension is not None:
            assert (option.security_2018, option.security_2024) == (128, 128)


def test_throughput_takes_full_chunks_and_the_most_rows_a_second() -> None:
    choice = choose(goal="throughput")
    best = choice.chosen
    assert best.rows == best.rows_per_chunk > 1
    same_trust = [each for each in choice.options if each.tier == best.tier and each.rows_per_second]
    assert best.rows_per_second == max(each.rows_per_second or 0.0 for each in same_trust)
    assert best.reason.startswith("chosen: the most rows a second")


def test_latency_takes_one_record_and_the_shortest_request() -> None:
    choice = choose(TABLES, goal="latency", link="wan")
    best = choice.chosen
    assert all(each.rows == 1 for each in choice.options)
    times = [each.times.request for each in choice.options if each.tier == best.tier and each.times]
    assert best.times is not None
    assert best.times.request == min(times)
    assert best.times.link >= 2 * 0.02


def test_the_goal_changes_with_speed_alone() -> None:
    fast = {"ckks": 1.0, "ckks-row": 1000.0}
    slow = {"ckks": 1000.0, "ckks-row": 1.0}
    found = [choose(goal="latency", profile=profile_for(QUADRATIC.public, speed=speed)) for speed in (fast, slow)]
    assert [each.chosen.engine for each in found] == ["ckks-row", "ckks"]


def test_the_link_counts() -> None:
    near, far = (choose(goal="latency", link=link).chosen for link in ("loopback", "1Mb/s,10ms"))
    assert near.times is not None
    assert far.times is not None
    assert near.times.link == 0
    assert far.times.link == pytest.approx(0.02 + (far.up_bytes + far.down_bytes) / 125e3)
    assert far.rows_per_second == pytest.approx(1 / far.times.up)  # the upload is the busiest of all


def test_speed_buys_no_trust() -> None:
    quick = profile_for(QUADRATIC.public, speed={"sharing": 1e6})
    choice = choose(profile=quick)
    (shared,) = [each for each in choice.options if each.engine == "sharing"]
    assert shared.rows_per_second > choice.chosen.rows_per_second  # type: ignore[operator]
    assert choice.chosen.parties == 1
    assert "must not collude" in shared.reason
    assert "least trust" in choice.chosen.reason
    assert "do not collude" in shared.trust
    named = choose(profile=quick, engine="sharing")
    assert named.chosen.engine == "sharing"
    assert [each.reason for each in named.options if each.engine == "ckks"] == ["engine sharing was asked for"] * 2
    # Where no service of its own keeps the limits, parties are taken, and it says so.
    tight = choose(profile=quick, max_up=0.06)
    assert tight.chosen.engine == "sharing"
    assert "no option that needs less trust fits" in tight.chosen.reason


def test_answers_that_are_not_sanitised_come_last(monkeypatch: pytest.MonkeyPatch) -> None:
    bare = {name: spec for name, spec in registry.engines().items() if name in ("ckks", "ckks-row", "sharing")}
    bare["ckks"] = dataclasses.replace(bare["ckks"], sanitised=False)
    monkeypatch.setattr(registry, "engines", lambda: bare)
    choice = choose(profile=profile_for(QUADRATIC.public, speed={"ckks": 1e6}))
    assert choice.chosen.engine == "ckks-row"
    assert [each.engine for each in choice.options][-2:] == ["ckks", "ckks"]
    assert all("not sanitised" in each.reason for each in choice.options[-2:])
    assert all("weights" in each.leakage for each in choice.options[-2:])


@pytest.mark.parametrize("name", ["max_up", "max_down", "max_ms", "max_error"])
def test_each_limit_rejects_with_the_figure_and_the_change_does_it(name: str) -> None:
    free = choose()
    figure = {
        "max_up": lambda o: o.up_per_row / 1e3,
        "max_down": lambda o: o.down_per_row / 1e3,
        "max_ms": lambda o: 1e3 * o.times.request,
        "max_error": lambda o: o.error_bound,
    }[name]
    few = [each for each in free.options if each.engine != "sharing"]
    limit = min(figure(each) for each in few) * 0.7
    choice = choose(**{name: limit}, role="same", engine="ckks")
    assert not choice.fits
    with pytest.raises(NothingFitsError) as refused:
        _ = choice.chosen
    assert refused.value.choice is choice
    assert choice.change is not None
    assert "--" in str(refused.value)
    assert choice.change.words in str(refused.value)
    # The change does what it says: apply it, and the named option is the one.
    again = {name: limit, "role": "same", "engine": "ckks"} | {each.name: each.needed for each in choice.change.parts}
    assert choose(**again).chosen.engine == choice.change.option.engine


def test_the_smallest_change_is_the_smallest() -> None:
    limits = {"max_up": 0.05, "max_down": 0.02, "max_ms": 1e-3, "max_error": 1e-9}
    for names in itertools.chain.from_iterable(itertools.combinations(limits, count) for count in (1, 2, 3, 4)):
        asked = {name: limits[name] for name in names}
        choice = choose(**asked)
        if choice.fits:
            continue
        assert choice.change is not None
        parts = choice.change.parts
        fewest = min(len(broken(option, choice.limits)) for option in choice.options)
        assert len(parts) == fewest
        assert choose(**asked | {each.name: each.needed for each in parts}).fits
        for left_out in parts if len(parts) > 1 else ():  # no part of it is for nothing
            some = {each.name: each.needed for each in parts if each is not left_out}
            again = choose(**asked | some)
            assert not again.fits or again.chosen != choice.change.option


def test_a_condition_is_a_change_like_any_other() -> None:
    choice = choose(role="split", max_up=0.11)
    assert not choice.fits
    words = {each.change.words for each in [choice] if each.change}
    assert words
    assert choice.change is not None
    assert {each.name for each in choice.change.parts} <= {"role", "max_up"}
    assert len(choice.change.parts) == 1


def test_without_a_profile_bytes_decide_and_times_cannot_be_promised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for profile in (None, "default"):
        choice = choose(profile=profile)
        assert choice.ranked_by == "bytes a record"
        assert any("securead plan --calibrate" in note for note in choice.notes)
        sizes = [each.up_per_row + each.down_per_row for each in choice.options if each.tier == 0]
        assert sizes == sorted(sizes)
        assert all(each.times is None and each.rows_per_second is None for each in choice.options)
    late = choose(profile=None, max_ms=100)
    assert not late.fits
    assert all("cannot be promised" in each.reason for each in late.options)
    assert late.change is not None
    assert "leave --max-ms out" in late.change.words.lower()


def test_an_engine_that_says_nothing_of_its_work_is_listed_and_never_first(monkeypatch: pytest.MonkeyPatch) -> None:
    real = registry.plan_module
    silent = SimpleNamespace(make_plan=real("ckks-row").make_plan)
    monkeypatch.setattr(registry, "plan_module", lambda name: silent if name == "ckks-row" else real(name))
    choice = choose(goal="latency")
    rows = [each for each in choice.options if each.engine == "ckks-row"]
    assert len(rows) == 2
    assert all(each.times is None and each.unpredicted == "the engine does not say what requests cost" for each in rows)
    assert all("not predicted" in each.reason for each in rows)
    assert choice.chosen.engine == "ckks"


def test_an_engine_that_is_not_in_the_profile_says_so() -> None:
    known = dataclasses.replace(PROFILE, engines=tuple(e for e in PROFILE.engines if e.engine != "ckks-row"))
    (one, two) = [each for each in choose(profile=known).options if each.engine == "ckks-row"]
    assert one.unpredicted == two.unpredicted == "the profile knows nothing of the engine: calibrate again"


def test_of_several_bundles_the_one_that_serves_the_goal_is_taken_and_none_is_changed() -> None:
    wide, narrow = programs.forest(40, 5, features=4), programs.forest(8, 4, features=4)
    profile = profile_for(wide.public)
    choice = plan([model(wide, "wide"), model(narrow, "narrow")], profile=profile)
    assert choice.chosen.bundle == "narrow"
    assert {each.program for each in choice.options} == {wide.digest, narrow.digest}
    assert {each.bundle for each in choice.options} == {"wide", "narrow"}


def test_bundles_of_the_same_name_are_told_apart_and_those_of_other_columns_refused() -> None:
    twins = [model(programs.small_tables(seed=seed)) for seed in (0, 1)]
    assert len({each.bundle for each in plan(twins, profile=None).options}) == 2
    with pytest.raises(FixConfigurationError, match="not of one detector"):
        plan([model(programs.small_tables()), model(programs.forest(4, 3, features=6))], profile=None)
    with pytest.raises(FixConfigurationError, match="no bundle"):
        plan([], profile=None)


def test_bundles_are_read_from_where_they_lie(tmp_path: Path) -> None:
    bundle = small_bundle()
    folder = bundle.save(tmp_path / "a bundle")
    (folder / "secret.json").unlink()  # no secret is opened
    for given in (bundle, bundle.public, folder, str(folder), folder / "public.json"):
        assert plan(given, profile=None).chosen.program == bundle.public.program.digest


def test_what_no_engine_carries_is_refused_with_every_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    only = {"bfv": registry.engines()["bfv"]}
    monkeypatch.setattr(registry, "engines", lambda: only)
    choice = choose()
    assert choice.options == ()
    with pytest.raises(NothingFitsError, match="bfv: it does not know"):
        _ = choice.chosen


def test_what_makes_no_sense_is_refused() -> None:
    for arguments in ({"max_up": 0.0}, {"max_ms": -1.0}, {"max_down": float("nan")}, {"rows": 0}, {"engine": "none"}):
        with pytest.raises(FixConfigurationError):
            choose(**arguments)
    with pytest.raises(FixInputError, match="another machine"):
        choose(profile=dataclasses.replace(PROFILE, machine="another"))


@pytest.mark.parametrize("program", [QUADRATIC, TABLES], ids=["polynomial", "tables"])
def test_the_next_commands_name_the_engine(program: Program) -> None:
    for option in choose(program).options:
        said = commands(option)
        assert all(line.startswith("securead ") for line in said)
        assert any(option.engine in line for line in said)
        assert ("securead split" in said[0]) == (option.parties > 1)
        assert any("publish" in line for line in said) == registry.spec(option.engine).setup


def test_json_has_everything() -> None:
    import json

    for choice in (choose(), choose(max_up=1e-4)):
        told = json.loads(json.dumps(plain(choice), allow_nan=False))
        assert told["fits"] == choice.fits == (told["chosen"] is not None)
        assert (told["smallest_change"] is None) == choice.fits
        assert len(told["options"]) == len(choice.options)
        assert len(told["refusals"]) == len(choice.refusals)
        assert all(each["up_bytes_per_row"] > 0 and each["reason"] for each in told["options"])


def test_made_up_engines_need_no_special_case(monkeypatch: pytest.MonkeyPatch) -> None:
    real, engines = registry.plan_module, registry.engines()
    new = EngineSpec("new", "nowhere", ("same",), ("lookup",), "none", "made up", sanitised=True)
    monkeypatch.setattr(registry, "engines", lambda: {**engines, "new": new})
    monkeypatch.setattr(registry, "plan_module", lambda name: real("bfv" if name == "new" else name))
    (found,) = [each for each in choose(TABLES).options if each.engine == "new"]
    assert found.unpredicted == "the profile knows nothing of the engine: calibrate again"
