"""`check_engine`: what every engine must satisfy, whoever wrote it."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from securead import codec
from securead.checks import programs
from securead.data.schema import Array
from securead.errors import FixInputError, FixProgramError, RejectMessageError, UseOtherKeyError
from securead.program.program import Program
from securead.program.table import PublicTable
from securead.protocols import registry
from securead.protocols.engine import Plan, RefillableKey

_CRYPTOGRAPHY = ("tenseal", "phe", "crypten", "torch", "numba")


def check_engine(name: str) -> None:
    """Run the whole suite over a registered engine; raises `AssertionError` naming the first broken promise.

    Promises: each declared role scores the sample programs whose operations the engine declares, within the plan's
    error bound, in one row and in a full chunk; plans and keys survive storage; the submitter adds public terms in role
    `same` and nobody does in role `split`; encryption is randomised and sizes stay within the plan; a wrong, foreign or
    misplaced key is `UseOtherKeyError`; an evaluation key is asked for and checked where the plan says so, and refused
    where it does not; what such a key makes ahead of time is bounded, used once and changes no score; a damaged payload
    is `RejectMessageError`; an operation that is not declared is `FixProgramError`; `plan` imports no cryptography,
    `owner` neither torch nor numba, and `blind` no `owner`. Of an engine of several parties, which has no `blind` and
    no keys, only what is about plans and imports is checked.
    """
    for check in engine_checks(name):
        check(name)


def engine_checks(name: str) -> tuple[Callable[[str], None], ...]:
    """The single checks, for test runners that report each."""
    if registry.spec(name).parties != 1:
        return (check_plan_stored, check_undeclared_operations, check_imports)
    return (
        check_roles,
        check_plan_stored,
        check_keys,
        check_evaluation_keys,
        check_refilling,
        check_payloads,
        check_queries,
        check_undeclared_operations,
        check_imports,
    )


# A sample for each kind of capability, by seed: an engine is held to those whose operations it declares.
_SAMPLES: tuple[Callable[[int], Program], ...] = (
    lambda seed: programs.small_quadratic(seed=seed),
    lambda seed: programs.small_tables(seed=seed),
)
_ALL: dict[str, Callable[[], Program]] = {
    "a polynomial": programs.small_quadratic,
    "tables": programs.small_tables,
    "a ReLU": programs.with_relu,
    "a truncation": programs.with_truncation,
}


@dataclasses.dataclass(frozen=True)
class _Run:
    """One engine in one role on a sample program, with its keys."""

    plan: Plan
    program: Program
    owner: Any
    blind: Any
    secret: Any
    public: Any

    @property
    def encryptor(self) -> Any:
        return self.owner.make_encryptor(self.plan, self.secret if self.plan.role == "same" else self.public)

    @property
    def key(self) -> Any:
        """What the service holds of this owner, if anything."""
        if not self.plan.evaluation_key_bytes:
            return None
        return self.blind.read_evaluation_key(self.plan, self.public.to_bytes())

    @property
    def evaluate(self) -> Callable[[bytes], bytes]:
        evaluator, key = self.blind.make_evaluator(self.plan, self.program), self.key
        return lambda request: bytes(evaluator.evaluate(request, key))

    def encrypt(self, Z: Array) -> bytes:
        return bytes(self.encryptor.encrypt(self.program.public.queries(Z)))

    def score(self, Z: Array) -> Array:
        request = self.encrypt(Z)
        answer = self.evaluate(request)
        assert len(request) <= self.plan.max_request_bytes, "a request is larger than the plan says"
        assert len(answer) <= self.plan.max_answer_bytes, "an answer is larger than the plan says"
        scores = self.owner.make_decryptor(self.plan, self.secret).decrypt(answer, len(Z))
        assert scores.shape == (len(Z),) and scores.dtype == np.float64, "scores are float64 of shape (rows,)"
        if self.plan.role == "same":
            scores = scores + self.program.public.decode(self.program.public.public_term(Z))
        return np.asarray(scores)


def check_roles(name: str) -> None:
    """Each declared role scores one row, two and a full chunk within the error bound, extreme records included."""
    for run in _runs(name):
        role = run.plan.role
        assert 0 <= run.plan.error_bound <= run.program.public.tolerance, (
            f"{role}: the error bound exceeds the tolerance"
        )
        assert run.plan.security_bits >= 128, f"{role}: below 128 bits of security"
        for rows in {1, min(2, run.plan.rows_per_chunk), min(run.plan.rows_per_chunk, 4096)}:
            Z = _records(run.program, rows)
            error = np.abs(run.score(Z) - run.program.public.decode(run.program.evaluate(Z))).max()
            assert error <= run.plan.error_bound, f"{role}, {rows} rows: error {error} > {run.plan.error_bound}"


def check_plan_stored(name: str) -> None:
    """A plan survives JSON, is derived the same twice, and differs between programs and roles."""
    module, digests, made = registry.plan_module(name), set(), 0
    for role in registry.spec(name).roles:
        for public in (sample(seed).public for sample in _carried(name) for seed in (0, 1)):
            plan = module.make_plan(public, role)
            again = module.plan_from_plain(json.loads(json.dumps(codec.to_plain(plan))))
            assert again == plan and again.digest == plan.digest, f"{role}: a plan does not survive JSON"
            assert module.make_plan(public, role) == plan, f"{role}: deriving a plan twice gives two plans"
            assert (plan.engine, plan.role, plan.program_digest) == (name, role, public.digest), f"{role}: misnamed"
            assert plan.describe() and plan.rows_per_chunk >= 1, f"{role}: a plan that says nothing"
            digests.add(plan.digest)
            made += 1
    assert len(digests) == made, "two plans share a digest"


def check_keys(name: str) -> None:
    """Keys survive storage under one name; any other key, program or role is refused."""
    for run, foreign in zip(_runs(name), _runs(name, seed=1), strict=True):
        role, owner, plan = run.plan.role, run.owner, run.plan
        secret, public = owner.generate_keys(plan)
        assert secret.key_id == public.key_id != run.secret.key_id, f"{role}: a pair has one name of its own"
        assert owner.secret_key_from_bytes(plan, secret.to_bytes()).key_id == secret.key_id
        assert owner.public_key_from_bytes(plan, public.to_bytes()).key_id == secret.key_id
        assert secret.to_bytes() not in repr(secret).encode() and len(repr(secret)) < 1000, "a key prints itself"
        answer = run.evaluate(run.encrypt(_records(run.program, 1)))
        other, wrong = owner.make_decryptor(plan, secret), public if role == "same" else secret
        attempts: tuple[tuple[type[Exception], Callable[[], object], str], ...] = (
            (UseOtherKeyError, lambda: other.decrypt(answer, 1), "a wrong key decrypted"),  # noqa: B023
            (
                UseOtherKeyError,
                lambda: owner.secret_key_from_bytes(plan, foreign.secret.to_bytes()),  # noqa: B023
                "a key of another model was accepted",
            ),
            (
                UseOtherKeyError,
                lambda: owner.make_encryptor(plan, wrong),  # noqa: B023
                "the other key of the pair encrypted",
            ),
            (
                FixInputError,
                lambda: owner.secret_key_from_bytes(plan, secret.to_bytes()[:-9]),  # noqa: B023
                "a truncated key was accepted",
            ),
        )
        for error, attempt, otherwise in attempts:
            _refused(error, attempt, f"{role}: {otherwise}")


def check_evaluation_keys(name: str) -> None:
    """Where a plan asks for an evaluation key, only an intact one of this plan and the request's own key will do."""
    for run, foreign in zip(_runs(name), _runs(name, seed=1), strict=True):
        role, plan, read = run.plan.role, run.plan, run.blind.read_evaluation_key
        content = run.public.to_bytes()
        if not plan.evaluation_key_bytes:
            _refused(RejectMessageError, lambda: read(plan, content), f"{role}: a key nobody needs")  # noqa: B023
            continue
        assert len(content) <= plan.evaluation_key_bytes, f"{role}: a public key is larger than the plan says"
        assert read(plan, content).key_id == run.public.key_id, f"{role}: an evaluation key has another name"
        changed = bytearray(content)
        changed[len(content) // 2] ^= 1
        for bad in (
            b"",
            content[:-1],
            content + b"\0",
            content[::-1],
            bytes(len(content)),
            bytes(changed),
            run.secret.to_bytes(),
            foreign.public.to_bytes(),
        ):
            _refused(RejectMessageError, lambda: read(plan, bad), f"{role}: a bad evaluation key")  # noqa: B023
        evaluator = run.blind.make_evaluator(plan, run.program)
        stranger = read(plan, run.owner.generate_keys(plan)[1].to_bytes())
        request = run.encrypt(_records(run.program, 1))
        for key in (None, stranger, foreign.key):
            _refused(
                RejectMessageError,
                lambda: evaluator.evaluate(request, key),  # noqa: B023
                f"{role}: evaluated without the request's own key",
            )


def check_refilling(name: str) -> None:
    """A key that makes ahead of time what its answers use up keeps to the limit; answers are right and fresh."""
    for run in _runs(name):
        key, role = run.key, run.plan.role
        if not isinstance(key, RefillableKey):
            continue
        item = key.refill()
        assert 0 < item == key.held_bytes, f"{role}: without a limit, something is made and counted"
        assert key.refill(item) == 0, f"{role}: more is held than the limit"
        assert key.refill(2 * item) == item and key.held_bytes == 2 * item, f"{role}: there was room"
        assert key.refill(0) == 0 == key.held_bytes, f"{role}: refill(0) leaves something"
        evaluator = run.blind.make_evaluator(run.plan, run.program)
        decryptor = run.owner.make_decryptor(run.plan, run.secret)
        Z = _records(run.program, 1)
        request, exact = run.encrypt(Z), run.program.public.decode(run.program.evaluate(Z))
        for _ in range(2):
            key.refill()
        answers = []
        for _ in range(3):  # the last one finds nothing
            answers.append(bytes(evaluator.evaluate(request, key)))
            scores = decryptor.decrypt(answers[-1], 1)
            if role == "same":
                scores = scores + run.program.public.decode(run.program.public.public_term(Z))
            assert np.abs(scores - exact).max() <= run.plan.error_bound, f"{role}: a wrong score after a refill"
        assert key.held_bytes == 0, f"{role}: an answer left what it used"
        assert len(set(answers)) == 3, f"{role}: two answers are masked alike"


def check_payloads(name: str) -> None:
    """Encryption is randomised; payloads that are damaged, foreign or answers to something else are refused."""
    for run, other in zip(_runs(name), _runs(name, seed=1), strict=True):
        role, evaluate = run.plan.role, run.evaluate
        Z = _records(run.program, 2)
        request = run.encrypt(Z)
        assert request != run.encrypt(Z), f"{role}: two encryptions are equal"
        decryptor = run.owner.make_decryptor(run.plan, run.secret)
        answer = evaluate(request)
        middle = len(request) // 2
        for bad in (b"", request[:-1], request[:middle], request + b"\0", bytes(len(request)), request[::-1], answer):
            _refused(RejectMessageError, lambda: evaluate(bad), f"{role}: a bad request")  # noqa: B023
        for bad in (b"", answer[:-1], answer[: len(answer) // 2], answer + b"\0", bytes(len(answer)), request):
            _refused(RejectMessageError, lambda: decryptor.decrypt(bad, 2), f"{role}: a bad answer")  # noqa: B023
        _refused(
            FixInputError,
            lambda: run.blind.make_evaluator(run.plan, other.program),  # noqa: B023
            f"{role}: a plan of another program was accepted",
        )


def check_queries(name: str) -> None:
    """Queries of a wrong shape, type or range, and more rows than a chunk holds, are refused."""
    for run in _runs(name):
        public = run.program.public
        good = public.queries(_records(run.program, 2))
        too_many = np.zeros((run.plan.rows_per_chunk + 1, good.shape[1]), dtype=np.int64)
        largest = max(public.sizes) - 1 if isinstance(public, PublicTable) else public.encoder.bound
        beyond = np.full_like(good, largest + 1)
        for bad in (good[:0], good[:, :-1], good.astype(float), good[0], beyond, -beyond, too_many):
            _refused(
                FixInputError,
                lambda: run.encryptor.encrypt(bad),  # noqa: B023
                f"{run.plan.role}: bad queries",
            )


def check_undeclared_operations(name: str) -> None:
    """A program with an operation that the engine does not declare is refused with a remedy."""
    engine, module = registry.spec(name), registry.plan_module(name)
    for what, make in _ALL.items():
        public = make().public
        if public.operations <= {*engine.operations}:
            continue
        for role in engine.roles:
            error = _refused(
                FixProgramError,
                lambda: module.make_plan(public, role),  # noqa: B023
                f"{role}: {what} was accepted",
            )
            assert getattr(error, "remedy", ""), f"{role}: the refusal of {what} names no remedy"


def check_imports(name: str) -> None:
    """What each half loads, measured in a fresh interpreter."""
    package = registry.spec(name).package
    forbidden = {
        "plan": (*_CRYPTOGRAPHY, f"{package}.owner", f"{package}.blind"),
        "owner": ("torch", "numba", f"{package}.blind"),
        "blind": (f"{package}.owner",),
    }
    if registry.spec(name).parties != 1:
        del forbidden["blind"]
    for half, modules in forbidden.items():
        script = f"import json, sys, {package}.{half}\nprint(json.dumps([m for m in {modules!r} if m in sys.modules]))"
        run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
        assert run.returncode == 0, f"`import {package}.{half}` fails:\n{run.stderr}"
        loaded = json.loads(run.stdout)
        assert not loaded, f"`import {package}.{half}` loads {loaded}"


def _carried(name: str) -> tuple[Callable[[int], Program], ...]:
    """The samples that the engine declares that it carries."""
    declared = {*registry.spec(name).operations}
    found = tuple(sample for sample in _SAMPLES if sample(0).public.operations <= declared)
    assert found, f"no sample program has operations of {sorted(declared)}: add one to securead.checks"
    return found


def _runs(name: str, *, seed: int = 0) -> Iterator[_Run]:
    """Every declared role on every sample that the engine carries."""
    owner, blind = registry.owner_module(name), registry.blind_module(name)
    for role in registry.spec(name).roles:
        for sample in _carried(name):
            program = sample(seed)
            plan = registry.plan_module(name).make_plan(program.public, role)
            yield _Run(plan, program, owner, blind, *owner.generate_keys(plan))


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
