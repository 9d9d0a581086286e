"""Suites: files that people write, read strictly, and the cases that they stand for."""

from __future__ import annotations

from pathlib import Path

import pytest

from securead.bench import suites
from securead.bench.records import Case
from securead.errors import FixConfigurationError, FixInputError
from securead.protocols import registry

SMALL = """
title = "Small"
about = "Two data sets."
limit_seconds = 60

[[block]]
kind = "score"
dataset = ["a", "b"]
detector = "forest"
parameters = { n_estimators = [50, 100], noise = "levels" }
engine = ["ckks", "bfv"]
role = "same"
epsilon = [1, "none"]
seed = [0, 1]

[[block]]
about = "By itself."
kind = "mechanism"
dataset = "none"
detector = "masking"
limit_seconds = 5
"""
ONE = 'kind = "train"\ndataset = "a"\ndetector = "forest"\n'


def written(folder: Path, text: str, name: str = "mine.toml") -> str:
    (folder / name).write_text(text)
    return str(folder / name)


def test_a_block_is_every_combination_of_its_values(tmp_path: Path) -> None:
    suite = suites.load(written(tmp_path, SMALL))
    assert (suite.name, suite.title, suite.about) == ("mine", "Small", "Two data sets.")
    assert len(suite.cases) == 2 * 2 * 2 * 2 * 2 + 1
    assert len({case.id for case in suite.cases}) == len(suite.cases)
    first, second, last = suite.cases[0], suite.cases[1], suite.cases[-1]
    assert first == Case(
        "mine",
        "score",
        "a",
        "forest",
        (("n_estimators", 50), ("noise", "levels")),
        epsilon=1.0,
        engine="ckks",
        role="same",
    )
    assert type(dict(first.parameters)["n_estimators"]) is int
    assert second.seed == 1, "seeds of one setting follow each other"
    assert {case.epsilon for case in suite.cases[:-1]} == {1.0, None}
    assert last == Case("mine", "mechanism", "none", "masking")
    assert (suite.limits[first.id], suite.limits[last.id]) == (60, 5)


def test_parameters_may_be_a_list_of_tables(tmp_path: Path) -> None:
    text = f'title = "T"\n[[block]]\n{ONE}parameters = [{{ a = [1, 2] }}, {{ b = true }}, {{}}]\n'
    found = [case.parameters for case in suites.load(written(tmp_path, text)).cases]
    assert found == [(("a", 1),), (("a", 2),), (("b", True),), ()]


def test_an_included_suite_keeps_its_name_and_what_is_shared_runs_once(tmp_path: Path) -> None:
    written(tmp_path, SMALL, "small.toml")
    own = f'title = "More"\ninclude = ["small.toml", "mechanisms"]\n[[block]]\n{ONE}\n' + SMALL[SMALL.index("[[") :]
    suite = suites.load(written(tmp_path, own))
    assert {case.suite for case in suite.cases} == {"small", "mechanisms", "mine"}
    assert [case for case in suite.cases if case.suite == "mine"] == [Case("mine", "train", "a", "forest")]
    assert set(suite.limits) == {case.id for case in suite.cases}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("title = ", r"mine\.toml is not TOML"),
        ('title = "T"', r"mine\.toml: the suite has no case"),
        ("", r"mine\.toml: the entry 'title' is missing"),
        ('title = "T"\nblocks = []', r"mine\.toml: unknown entry 'blocks'.*block"),
        ('title = "T"\n[block]\n' + ONE, r"mine\.toml\.block: expected a list"),
        (f'title = "T"\n[[block]]\n{ONE}[[block]]\n', r"mine\.toml\.block\[1\]: the entry 'kind' is missing"),
        (f'title = "T"\n[[block]]\n{ONE}enigne = "ckks"', r"block\[0\]: unknown entry 'enigne'.*engine"),
        (
            f'title = "T"\n[[block]]\n{ONE}rows = [1, "two"]',
            r"block\[0\]\.rows\[1\]: expected an integer \(got 'two'\)",
        ),
        (f'title = "T"\n[[block]]\n{ONE}rows = []', r"block\[0\]\.rows: an axis without values"),
        (f'title = "T"\n[[block]]\n{ONE}link = "moon"', r"block\[0\]\.link\[0\]: expected one of 'loopback', 'lan'"),
        (f'title = "T"\n[[block]]\n{ONE}rows = -1', r"block\[0\]: rows is negative"),
        (f'title = "T"\n[[block]]\n{ONE}sites = 0', r"at least one site"),
        (f'title = "T"\n[[block]]\n{ONE}epsilon = 0', r"epsilon is positive.*none"),
        (f'title = "T"\n[[block]]\n{ONE}delta = 1', r"delta lies between"),
        (f'title = "T"\n[[block]]\n{ONE}epsilon = nan', r"block\[0\]\.epsilon\[0\]: expected a finite number"),
        (f'title = "T"\n[[block]]\n{ONE}parameters = 3', r"block\[0\]\.parameters: expected a table"),
        (f'title = "T"\n[[block]]\n{ONE}parameters = {{ a = [[1]] }}', r"block\[0\]\.parameters\.a: expected numbers"),
        (f'title = "T"\n[[block]]\n{ONE}peer = "pyod"', r"block\[0\]: a block of kind 'train' names a peer"),
        ('title = "T"\n[[block]]\n' + ONE.replace("train", "peer"), r"block\[0\]: a block of peers names none"),
        (
            'title = "T"\n[[block]]\n' + ONE.replace("train", "score") + 'engine = ["clear", "ckks"]\nrole = "same"',
            r"block\[0\]: the engine 'clear' has no role 'same'.*a block of its own",
        ),
        (
            f'title = "T"\n[[block]]\n{ONE}seed = {list(range(20001))}',
            r"block\[0\]: a block has at most 20,000 cases \(got 20001\)",
        ),
        ('title = "T"\ninclude = ["mine.toml"]', r"mine\.toml\.include: the suites include each other"),
        ('title = "T"\ninclude = ["nowhere"]', r"no suite has this name.*quick"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises((FixInputError, FixConfigurationError), match=message):
        suites.load(written(tmp_path, text))


@pytest.mark.parametrize("name", ["nothing", "../suites/quick", "records.jsonl"])
def test_an_unknown_suite_is_refused_with_those_there_are(name: str) -> None:
    with pytest.raises(FixConfigurationError, match=r"Suites: .*engines, .*full, .*quick"):
        suites.load(name)


def test_only_takes_globs_over_names_and_values_of_fields(tmp_path: Path) -> None:
    cases = suites.load(written(tmp_path, SMALL)).cases
    assert {case.dataset for case in suites.only(cases, ["*-a-*"])} == {"a"}
    assert suites.only(cases, []) == cases
    assert suites.only(cases, [cases[3].id]) == (cases[3],)
    for pattern, count in (
        ("engine=ckks", 16),
        ("dataset=?", 32),
        ("epsilon=1", 16),
        ("epsilon=none", 17),
        ("n_estimators=50", 16),
        ("noise=lev*", 32),
        ("seed=1.0", 16),
        ("kind=mechanism", 1),
        ("suite=mine", 33),
    ):
        assert len(suites.only(cases, [pattern])) == count, pattern
    assert len(suites.only(cases, ["engine=ckks", "epsilon=1", "seed=0"])) == 4
    with pytest.raises(FixConfigurationError, match=r"no case has a field 'enigne'.*engine"):
        suites.only(cases, ["enigne=ckks"])
    for nothing in ("engine=paillier", "*-nowhere-*", "seed=one"):
        with pytest.raises(FixConfigurationError, match="no case fits"):
            suites.only(cases, [nothing])


def test_the_suites_that_come_along_parse_and_say_what_they_are_for() -> None:
    names = set(suites.suite_names())
    assert {"quick", "engines", "privacy", "federation", "peers", "mechanisms", "full"} <= names
    for name in names:
        suite = suites.load(name)
        assert suite.title
        assert suite.about
        file = suites.read(suites.suites_folder() / f"{name}.toml")
        assert all(block.about for block in file.block), name


def test_the_suites_hold_what_is_promised_of_them() -> None:
    privacy = suites.load("privacy").cases
    for detector in ("forest", "autoencoder"):
        for epsilon in (1.0, 3.0, None):
            own = {case.seed for case in privacy if (case.detector, case.epsilon) == (detector, epsilon)}
            assert len(own) == 5, "five seeds, and a control without noise"
    engines = {case.engine for case in suites.load("engines").cases}
    assert engines >= {"clear", *registry.engines()}
    peers = {case.peer for case in suites.load("peers").cases}
    assert peers >= {"sklearn", "pyod", "tenseal", "crypten", "phe", "concrete-ml", "spu"}
    links = {case.link for case in suites.load("engines").cases}
    assert links == {"loopback", "lan", "wan"}
    full = {case.suite for case in suites.load("full").cases}
    readme = {case.suite for case in suites.load("readme").cases}
    assert readme >= {"ckks", "bfv", "sharing", "forest", "sensors", "institutions"}
    assert full == {"engines", "privacy", "federation", "peers", "mechanisms", *readme}
    quick = suites.load("quick").cases
    generated = ("none", "generated-payments", "generated-sensors")
    assert sum(case.dataset not in generated for case in quick) * 4 < len(quick), (
        "it says something without any data of one's own"
    )
