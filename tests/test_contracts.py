"""Contracts against code: every folder of `protocols/` is complete, verifies itself, and is what the library does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from securead import codec, errors
from securead.program.polynomial import PublicPolynomial, SecretPolynomial, Weights
from securead.program.program import Program, PublicProgram
from securead.program.table import PublicTable, SecretTable
from securead.protocols import registry, setup

CONTRACTS = Path(__file__).resolve().parent.parent / "protocols"
NAMES = sorted(path.name for path in CONTRACTS.iterdir() if path.is_dir() and not path.name.startswith(("_", ".")))
ENGINES = sorted(set(NAMES) & set(registry.engines()))
# Engines of several parties, and protocols that are no engines, are held to their vectors by tests of their own:
# tests/protocols/<name>/.
ONE_PARTY = {name for name in ENGINES if registry.spec(name).parties == 1}


def vectors(name: str) -> dict[str, Any]:
    return json.loads((CONTRACTS / name / "vectors.json").read_text(encoding="utf-8"))


def cases(section: str) -> list[Any]:
    return [
        pytest.param(name, case, id=f"{name}: {case['name']}")
        for name in ENGINES
        for case in vectors(name).get(section, [])
    ]


def public_of(case: dict[str, Any]) -> PublicProgram:
    kind = PublicTable if case["public"]["type"] == "table" else PublicPolynomial
    return codec.from_plain(kind, case["public"], where=case["name"])


def program_of(case: dict[str, Any]) -> Program:
    public, key = public_of(case), bytes.fromhex(case["commitment_key"])
    if isinstance(public, PublicTable):
        return Program(public, SecretTable(tuple(np.array(t, dtype=np.int64) for t in case["tables"]), key))

    def exact(integers: list[Any]) -> np.ndarray:
        array = np.array(integers, dtype=object)
        return array.astype(np.int64) if all(abs(v) < 2**62 for v in array.ravel()) else array

    weights = {
        int(at): Weights(tuple(exact(m) for m in item["matrices"]), exact(item["offset"]))
        for at, item in case["weights"].items()
    }
    return Program(public, SecretPolynomial(weights, key))


def test_every_engine_has_a_contract() -> None:
    assert set(registry.engines()) <= set(NAMES), "write protocols/<engine>/ with SPEC.md, vectors.json, reference.py"


def test_the_table_names_every_contract() -> None:
    text = (CONTRACTS / "README.md").read_text(encoding="utf-8")
    assert text.lstrip().startswith("|"), "protocols/README.md opens with its table"
    assert all(f"({name}/SPEC.md)" in text for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_contract_is_complete(name: str) -> None:
    for file in ("SPEC.md", "vectors.json", "reference.py"):
        assert (CONTRACTS / name / file).is_file(), f"protocols/{name}/{file} is missing"
    assert {"source", "generator"} <= set(vectors(name)), "vectors say where they come from"
    reference = (CONTRACTS / name / "reference.py").read_text(encoding="utf-8")
    assert "import securead" not in reference, "a reference stands alone"
    assert "from securead" not in reference, "a reference stands alone"


@pytest.mark.parametrize("name", NAMES)
def test_reference_verifies_its_vectors(name: str, tmp_path: Path) -> None:
    script = CONTRACTS / name / "reference.py"
    run = subprocess.run([sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize(("name", "case"), cases("programs"))
def test_library_reproduces_programs(name: str, case: dict[str, Any]) -> None:
    program = program_of(case)
    program.public.check(program.secret)
    Z = np.array(case["inputs"], dtype=np.int64)
    assert program.digest == case["digest"]
    assert list(program.evaluate(Z)) == case["scores"]
    if "queries" in case:
        assert program.public.queries(Z).tolist() == case["queries"]
    assert list(program.public.public_term(Z)) == case["public_terms"]


@pytest.mark.parametrize(("name", "case"), cases("programs"))
def test_library_reproduces_plans(name: str, case: dict[str, Any]) -> None:
    public = program_of(case).public
    for plain, digest in zip(case["plans"], case["plan_digests"], strict=True):
        plan = registry.plan_module(name).make_plan(public, plain["role"])
        assert codec.to_plain(plan) == plain
        assert plan.digest == digest


@pytest.mark.parametrize(("name", "case"), [case for case in cases("programs") if case.values[0] in ONE_PARTY])
def test_engine_reproduces_scores(name: str, case: dict[str, Any]) -> None:
    program, Z = program_of(case), np.array(case["inputs"], dtype=np.int64)
    owner, blind = registry.owner_module(name), registry.blind_module(name)
    for role in registry.spec(name).roles:
        plan = registry.plan_module(name).make_plan(program.public, role)
        secret, public = owner.generate_keys(plan)
        made = setup.make_setup(plan, program)
        encryptor = setup.make_encryptor(plan, secret if role == "same" else public, made and made.published)
        request = encryptor.encrypt(program.public.queries(Z))
        key = blind.read_evaluation_key(plan, public.to_bytes()) if plan.evaluation_key_bytes else None
        answer = setup.make_evaluator(plan, program, made and made.secret).evaluate(request, key)
        expected = np.array(case["scores"], dtype=object)
        expected = expected - np.array(case["public_terms"], dtype=object) if role == "same" else expected
        scores = owner.make_decryptor(plan, secret).decrypt(answer, len(Z))
        assert np.abs(scores - program.public.decode(expected)).max() <= plan.error_bound <= program.public.tolerance


@pytest.mark.parametrize(("name", "case"), cases("refusals"))
def test_library_refuses_programs(name: str, case: dict[str, Any]) -> None:
    public = public_of(case)
    for role in registry.spec(name).roles:
        with pytest.raises(getattr(errors, case["expected"])) as caught:
            registry.plan_module(name).make_plan(public, role)
        assert caught.value.remedy


@pytest.mark.parametrize(("name", "case"), cases("payloads"))
def test_library_refuses_payloads(name: str, case: dict[str, Any]) -> None:
    program = program_of(vectors(name)["programs"][0])
    plan = registry.plan_module(name).make_plan(program.public, "same")
    blind, key = registry.blind_module(name), None
    if plan.evaluation_key_bytes:
        _, public = registry.owner_module(name).generate_keys(plan)
        key = blind.read_evaluation_key(plan, public.to_bytes())
    made = setup.make_setup(plan, program)
    with pytest.raises(getattr(errors, case["expected"])):
        setup.make_evaluator(plan, program, made and made.secret).evaluate(bytes.fromhex(case["payload"]), key)
