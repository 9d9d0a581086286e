"""`check_engine`: what every engine must satisfy, whoever wrote it."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from securead import codec
from securead.checks import programs
from securead.data.schema import Array
from securead.errors import FixInputError, FixProgramError, RejectMessageError, UseOtherKeyError
from securead.program.polynomial import Program
from securead.protocols import registry
from securead.protocols.engine import Plan, Role

_CRYPTOGRAPHY = ("tenseal", "phe", "crypten", "torch", "numba")


def check_engine(name: str) -> None:
    """Run the whole suite over a registered engine; raises `AssertionError` naming the first broken promise.

    Promises: each declared role scores a small program within the plan's error bound, in one row and in a full chunk;
    plans and keys survive storage; the submitter adds public terms in role `same` and nobody does in role `split`;
    encryption is randomised and sizes stay within the plan; a wrong, foreign or misplaced key is `UseOtherKeyError`;
    a damaged payload is `RejectMessageError`; a step that is not declared is `FixProgramError`; `plan` imports no
    cryptography, `owner` neither torch nor numba, and `blind` no `owner`.
    """
    for check in engine_checks(name):
        check(name)


def engine_checks(name: str) -> tuple[Callable[[str], None], ...]:
    """The single checks that apply to this engine, for test runners that report each."""
    polynomial = "polynomial" in registry.spec(name).program_kinds
    scoring = (check_roles, check_plan_stored, check_keys, check_payloads, check_records, check_unsupported_steps)
    return (*(scoring if polynomial else ()), check_imports)


@dataclasses.dataclass(frozen=True)
class _Run:
    """One engine in one role on the small program, with its keys."""

    plan: Plan
    program: Program
    owner: Any
    blind: Any
    secret: Any
    public: Any

    @property
    def encryptor(self) -> Any:
        return self.owner.make_encryptor(self.plan, self.secret if self.plan.role == "same" else self.public)

    def score(self, Z: Array) -> Array:
        request = self.encryptor.encrypt(Z)
        answer = self.blind.make_evaluator(self.plan, self.program).evaluate(request)
        assert len(request) <= self.plan.max_request_bytes, "a request is larger than the plan says"
        assert len(answer) <= self.plan.max_answer_bytes, "an answer is larger than the plan says"
        scores = self.owner.make_decryptor(self.plan, self.secret).decrypt(answer, len(Z))
        assert scores.shape == (len(Z),) and scores.dtype == np.float64, "scores are float64 of shape (rows,)"
        if self.plan.role == "same":
            scores = scores + self.program.public.decode(self.program.public.public_term(Z))
        return np.asarray(scores)


def check_roles(name: str) -> None:
    """Each declared role scores one row and a full chunk within the error bound, extreme records included."""
    for role in registry.spec(name).roles:
        run = _run(name, role)
        assert 0 < run.plan.error_bound <= run.program.public.tolerance, (
            f"{role}: the error bound exceeds the tolerance"
        )
        assert run.plan.security_bits >= 128, f"{role}: below 128 bits of security"
        for rows in {1, min(run.plan.rows_per_chunk, 4096)}:
            Z = _records(run.program, rows)
            error = np.abs(run.score(Z) - run.program.public.decode(run.program.evaluate(Z))).max()
            assert error <= run.plan.error_bound, f"{role}, {rows} rows: error {error} > {run.plan.error_bound}"


def check_plan_stored(name: str) -> None:
    """A plan survives JSON, is derived the same twice, and differs between programs and roles."""
    module, digests = registry.plan_module(name), set()
    for role in registry.spec(name).roles:
        for seed in (0, 1):
            public = programs.small_quadratic(seed=seed).public
            plan = module.make_plan(public, role)
            again = module.plan_from_plain(json.loads(json.dumps(codec.to_plain(plan))))
            assert again == plan and again.digest == plan.digest, f"{role}: a plan does not survive JSON"
            assert module.make_plan(public, role) == plan, f"{role}: deriving a plan twice gives two plans"
            assert (plan.engine, plan.role, plan.program_digest) == (name, role, public.digest), f"{role}: misnamed"
            assert plan.describe() and plan.rows_per_chunk >= 1, f"{role}: a plan that says nothing"
            digests.add(plan.digest)
    assert len(digests) == 2 * len(registry.spec(name).roles), "two plans share a digest"


def check_keys(name: str) -> None:
    """Keys survive storage under one name; any other key, program or role is refused."""
    for role in registry.spec(name).roles:
        run = _run(name, role)
        secret, public = run.owner.generate_keys(run.plan)
        assert secret.key_id == public.key_id != run.secret.key_id, f"{role}: a pair has one name of its own"
        assert run.owner.secret_key_from_bytes(run.plan, secret.to_bytes()).key_id == secret.key_id
        assert run.owner.public_key_from_bytes(run.plan, public.to_bytes()).key_id == secret.key_id
        assert secret.to_bytes() not in repr(secret).encode() and len(repr(secret)) < 1000, "a key prints itself"
        answer = run.blind.make_evaluator(run.plan, run.program).evaluate(
            run.encryptor.encrypt(_records(run.program, 1))
        )
        other = run.owner.make_decryptor(run.plan, secret)
        _refused(UseOtherKeyError, lambda: other.decrypt(answer, 1), f"{role}: a wrong key decrypted")  # noqa: B023
        foreign = _run(name, role, seed=1).secret.to_bytes()
        _refused(
            UseOtherKeyError,
            lambda: run.owner.secret_key_from_bytes(run.plan, foreign),  # noqa: B023
            f"{role}: a key of another model was accepted",
        )
        wrong = public if role == "same" else secret
        _refused(
            UseOtherKeyError,
            lambda: run.owner.make_encryptor(run.plan, wrong),  # noqa: B023
            f"{role}: the other key of the pair encrypted",
        )
        _refused(
            FixInputError,
            lambda: run.owner.secret_key_from_bytes(run.plan, secret.to_bytes()[:-9]),  # noqa: B023
            f"{role}: a truncated key was accepted",
        )


def check_payloads(name: str) -> None:
    """Encryption is randomised; payloads that are damaged, foreign or answers to something else are refused."""
    for role in registry.spec(name).roles:
        run, other = _run(name, role), _run(name, role, seed=1)
        Z = _records(run.program, 2)
        request = run.encryptor.encrypt(Z)
        assert request != run.encryptor.encrypt(Z), f"{role}: two encryptions are equal"
        evaluator = run.blind.make_evaluator(run.plan, run.program)
        decryptor = run.owner.make_decryptor(run.plan, run.secret)
        answer = evaluator.evaluate(request)
        middle = len(request) // 2
        for bad in (b"", request[:-1], request[:middle], request + b"\0", bytes(len(request)), request[::-1], answer):
            _refused(RejectMessageError, lambda: evaluator.evaluate(bad), f"{role}: a bad request")  # noqa: B023
        for bad in (b"", answer[:-1], answer[: len(answer) // 2], answer + b"\0", bytes(len(answer)), request):
            _refused(RejectMessageError, lambda: decryptor.decrypt(bad, 2), f"{role}: a bad answer")  # noqa: B023
        _refused(
            FixInputError,
            lambda: run.blind.make_evaluator(run.plan, other.program),  # noqa: B023
            f"{role}: a plan of another program was accepted",
        )


def check_records(name: str) -> None:
    """Records of a wrong shape, type or range, and more rows than a chunk holds, are refused."""
    for role in registry.spec(name).roles:
        run = _run(name, role)
        good = _records(run.program, 2)
        too_many = np.zeros((run.plan.rows_per_chunk + 1, good.shape[1]), dtype=np.int64)
        beyond = np.full_like(good, run.program.public.encoder.bound + 1)
        for bad in (good[:0], good[:, :-1], good.astype(float), good[0], beyond, -beyond, too_many):
            _refused(FixInputError, lambda: run.encryptor.encrypt(bad), f"{role}: bad records")  # noqa: B023


def check_unsupported_steps(name: str) -> None:
    """A program with a step that the engine does not declare is refused with a remedy."""
    engine, module = registry.spec(name), registry.plan_module(name)
    if "relu" in engine.steps:
        return
    for role in engine.roles:
        error = _refused(
            FixProgramError,
            lambda: module.make_plan(programs.with_relu().public, role),  # noqa: B023
            f"{role}: a ReLU was accepted",
        )
        assert getattr(error, "remedy", ""), f"{role}: the refusal names no remedy"


def check_imports(name: str) -> None:
    """What each half loads, measured in a fresh interpreter."""
    package = registry.spec(name).package
    forbidden = {
        "plan": (*_CRYPTOGRAPHY, f"{package}.owner", f"{package}.blind"),
        "owner": ("torch", "numba", f"{package}.blind"),
        "blind": (f"{package}.owner",),
    }
    for half, modules in forbidden.items():
        script = f"import json, sys, {package}.{half}\nprint(json.dumps([m for m in {modules!r} if m in sys.modules]))"
        run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
        assert run.returncode == 0, f"`import {package}.{half}` fails:\n{run.stderr}"
        loaded = json.loads(run.stdout)
        assert not loaded, f"`import {package}.{half}` loads {loaded}"


def _run(name: str, role: Role, *, seed: int = 0) -> _Run:
    program = programs.small_quadratic(seed=seed)
    plan = registry.plan_module(name).make_plan(program.public, role)
    owner, blind = registry.owner_module(name), registry.blind_module(name)
    return _Run(plan, program, owner, blind, *owner.generate_keys(plan))


def _records(program: Program, rows: int) -> Array:
    """Encoded records: extremes first, then uniform ones."""
    bound, width = program.public.encoder.bound, program.public.encoder.width
    rng = np.random.default_rng(rows)
    Z = rng.integers(-bound, bound, size=(rows, width), endpoint=True)
    extremes = min(rows, 8)
    Z[:extremes] = rng.choice([-bound, bound], size=(extremes, width))
    return Z


def _refused(kind: type[Exception], call: Callable[[], object], otherwise: str) -> Exception:
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"{otherwise}: {kind.__name__} was expected")
