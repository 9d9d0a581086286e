"""`check_engine`: what every engine must satisfy, whoever wrote it."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np

from securead import codec
from securead.checks.imports import check_imports
from securead.checks.runs import ALL, carried, records, refused, runs
from securead.errors import FixInputError, FixProgramError, RejectMessageError, UseOtherKeyError
from securead.program.table import PublicTable
from securead.protocols import registry, setup
from securead.protocols.engine import PHASES, PlanModuleWithWork, RefillableKey


def check_engine(name: str) -> None:
    """Run the whole suite over a registered engine; raises `AssertionError` naming the first broken promise.

    Promises: each declared role scores the sample programs whose operations the engine declares, within the plan's
    error bound, in one row and in a full chunk; plans and keys survive storage; the submitter adds public terms in role
    `same` and nobody does in role `split`; encryption is randomised and sizes stay within the plan; a wrong, foreign or
    misplaced key is `UseOtherKeyError`; an evaluation key is asked for and checked where the plan says so, and refused
    where it does not; what such a key makes ahead of time is bounded, used once and changes no score; what a service
    publishes once has the plan's length, and is refused where it is another's; what the plan module says that requests
    cost, if it does, is exact in bytes; a damaged payload is `RejectMessageError`; an operation that is not declared is
    `FixProgramError`; `plan` imports no cryptography, `owner` neither torch nor numba, and `blind` no `owner`. Of an
    engine of several parties, which has no `blind` and no keys, only what is about plans and imports is checked.
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
        check_setup,
        check_work,
        check_undeclared_operations,
        check_imports,
    )


def check_roles(name: str) -> None:
    """Each declared role scores one row, two and a full chunk within the error bound, extreme records included."""
    for run in runs(name):
        role = run.plan.role
        assert 0 <= run.plan.error_bound <= run.program.public.tolerance, (
            f"{role}: the error bound exceeds the tolerance"
        )
        assert run.plan.security_bits >= 128, f"{role}: below 128 bits of security"
        for rows in {1, min(2, run.plan.rows_per_chunk), min(run.plan.rows_per_chunk, 4096)}:
            Z = records(run.program, rows)
            error = np.abs(run.score(Z) - run.program.public.decode(run.program.evaluate(Z))).max()
            assert error <= run.plan.error_bound, f"{role}, {rows} rows: error {error} > {run.plan.error_bound}"


def check_plan_stored(name: str) -> None:
    """A plan survives JSON, is derived the same twice, and differs between programs and roles."""
    module, digests, made = registry.plan_module(name), set(), 0
    for role in registry.spec(name).roles:
        for public in (sample(seed).public for sample in carried(name) for seed in (0, 1)):
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
    for run, foreign in zip(runs(name), runs(name, seed=1), strict=True):
        role, owner, plan = run.plan.role, run.owner, run.plan
        secret, public = owner.generate_keys(plan)
        assert secret.key_id == public.key_id != run.secret.key_id, f"{role}: a pair has one name of its own"
        assert owner.secret_key_from_bytes(plan, secret.to_bytes()).key_id == secret.key_id
        assert owner.public_key_from_bytes(plan, public.to_bytes()).key_id == secret.key_id
        assert secret.to_bytes() not in repr(secret).encode() and len(repr(secret)) < 1000, "a key prints itself"
        answer = run.evaluate(run.encrypt(records(run.program, 1)))
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
                lambda: run.encryptor_with(wrong),  # noqa: B023
                "the other key of the pair encrypted",
            ),
            (
                FixInputError,
                lambda: owner.secret_key_from_bytes(plan, secret.to_bytes()[:-9]),  # noqa: B023
                "a truncated key was accepted",
            ),
        )
        for error, attempt, otherwise in attempts:
            refused(error, attempt, f"{role}: {otherwise}")


def check_evaluation_keys(name: str) -> None:
    """Where a plan asks for an evaluation key, only an intact one of this plan and the request's own key will do."""
    for run, foreign in zip(runs(name), runs(name, seed=1), strict=True):
        role, plan, read = run.plan.role, run.plan, run.blind.read_evaluation_key
        content = run.public.to_bytes()
        if not plan.evaluation_key_bytes:
            refused(RejectMessageError, lambda: read(plan, content), f"{role}: a key nobody needs")  # noqa: B023
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
            refused(RejectMessageError, lambda: read(plan, bad), f"{role}: a bad evaluation key")  # noqa: B023
        evaluator = run.evaluator_of(run.program)
        stranger = read(plan, run.owner.generate_keys(plan)[1].to_bytes())
        request = run.encrypt(records(run.program, 1))
        for key in (None, stranger, foreign.key):
            refused(
                RejectMessageError,
                lambda: evaluator.evaluate(request, key),  # noqa: B023
                f"{role}: evaluated without the request's own key",
            )


def check_refilling(name: str) -> None:
    """A key that makes ahead of time what its answers use up keeps to the limit; answers are right and fresh."""
    for run in runs(name):
        key, role = run.key, run.plan.role
        if not isinstance(key, RefillableKey):
            continue
        item = key.refill()
        assert 0 < item == key.held_bytes, f"{role}: without a limit, something is made and counted"
        assert key.refill(item) == 0, f"{role}: more is held than the limit"
        assert key.refill(2 * item) == item and key.held_bytes == 2 * item, f"{role}: there was room"
        assert key.refill(0) == 0 == key.held_bytes, f"{role}: refill(0) leaves something"
        evaluator = run.evaluator_of(run.program)
        decryptor = run.owner.make_decryptor(run.plan, run.secret)
        Z = records(run.program, 1)
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
    for run, other in zip(runs(name), runs(name, seed=1), strict=True):
        role, evaluate = run.plan.role, run.evaluate
        Z = records(run.program, 2)
        request = run.encrypt(Z)
        assert request != run.encrypt(Z), f"{role}: two encryptions are equal"
        decryptor = run.owner.make_decryptor(run.plan, run.secret)
        answer = evaluate(request)
        middle = len(request) // 2
        for bad in (b"", request[:-1], request[:middle], request + b"\0", bytes(len(request)), request[::-1], answer):
            refused(RejectMessageError, lambda: evaluate(bad), f"{role}: a bad request")  # noqa: B023
        for bad in (b"", answer[:-1], answer[: len(answer) // 2], answer + b"\0", bytes(len(answer)), request):
            refused(RejectMessageError, lambda: decryptor.decrypt(bad, 2), f"{role}: a bad answer")  # noqa: B023
        refused(
            FixInputError,
            lambda: run.evaluator_of(other.program),  # noqa: B023
            f"{role}: a plan of another program was accepted",
        )


def check_queries(name: str) -> None:
    """Queries of a wrong shape, type or range, and more rows than a chunk holds, are refused."""
    for run in runs(name):
        public = run.program.public
        good = public.queries(records(run.program, 2))
        too_many = np.zeros((run.plan.rows_per_chunk + 1, good.shape[1]), dtype=np.int64)
        largest = max(public.sizes) - 1 if isinstance(public, PublicTable) else public.encoder.bound
        beyond = np.full_like(good, largest + 1)
        for bad in (good[:0], good[:, :-1], good.astype(float), good[0], beyond, -beyond, too_many):
            refused(
                FixInputError,
                lambda: run.encryptor.encrypt(bad),  # noqa: B023
                f"{run.plan.role}: bad queries",
            )


def check_setup(name: str) -> None:
    """What a service publishes once has the plan's length; damaged, foreign or missing, both halves refuse it."""
    for run, foreign in zip(runs(name), runs(name, seed=1), strict=True):
        role, made = run.plan.role, run.setup
        assert (made is not None) == registry.spec(name).setup, f"{role}: a setup is made where the engine says so"
        if made is None or foreign.setup is None:
            continue
        published, secret = made.published, made.secret
        assert len(registry.spec(name).roles) == 1, "an engine with a setup has one role"
        assert len(published) == setup.setup_bytes(run.plan), f"{role}: what is published has another length"
        assert secret not in repr(made).encode() and len(repr(made)) < 1000, f"{role}: a setup prints itself"
        changed = bytearray(published)
        changed[len(published) // 2] ^= 1
        bad = (b"", published[:-1], published + b"\0", bytes(len(published)), bytes(changed), foreign.setup.published)
        for content in bad:
            try:
                encryptor = setup.make_encryptor(run.plan, run.secret, content)
            except (FixInputError, RejectMessageError, UseOtherKeyError):
                continue
            # Damage that no owner can see: a request then names what it was made from, and the service refuses it.
            request = encryptor.encrypt(run.program.public.queries(records(run.program, 1)))
            refused(UseOtherKeyError, lambda: run.evaluate(request), f"{role}: an altered publication")  # noqa: B023
        for other in (b"", secret[:-1], bytes(len(secret)), foreign.setup.secret):
            try:
                setup.make_evaluator(run.plan, run.program, other)
            except (FixInputError, UseOtherKeyError):
                continue
            raise AssertionError(f"{role}: a setup's secret that is none was accepted")


def check_work(name: str) -> None:
    """What a plan module says that requests cost, if it does: exact in bytes, something in every phase but `offline`,
    and never less for more records.
    """
    module = registry.plan_module(name)
    for run in runs(name) if isinstance(module, PlanModuleWithWork) else ():
        role, public, sizes = run.plan.role, run.program.public, sorted({1, min(3, run.plan.rows_per_chunk)})
        told = [module.work(run.plan, public, rows) for rows in sizes]  # type: ignore[attr-defined]
        for rows, work in zip(sizes, told, strict=True):
            request = run.encrypt(records(run.program, rows))
            sent, came = len(request), len(run.evaluate(request))
            assert work.up_bytes == sent, f"{role}, {rows} rows: work says {work.up_bytes} bytes up, {sent} went"
            assert work.down_bytes == came, f"{role}, {rows} rows: work says {work.down_bytes} bytes down, {came} came"
            for phase in ("client", "server", "holder"):
                assert sum(work.of(phase).values()) > 0, f"{role}: no work in the phase {phase}"
        for phase in PHASES:
            few, many = told[0].of(phase), told[-1].of(phase)
            assert few.keys() == many.keys(), f"{role}: kinds of work depend on the number of records"
            assert all(few[name] <= many[name] for name in few), f"{role}: less work for more records ({phase})"


def check_undeclared_operations(name: str) -> None:
    """A program with an operation that the engine does not declare is refused with a remedy."""
    engine, module = registry.spec(name), registry.plan_module(name)
    for what, make in ALL.items():
        public = make().public
        if engine.carries(public):
            continue
        for role in engine.roles:
            error = refused(
                FixProgramError,
                lambda: module.make_plan(public, role),  # noqa: B023
                f"{role}: {what} was accepted",
            )
            assert getattr(error, "remedy", ""), f"{role}: the refusal of {what} names no remedy"
