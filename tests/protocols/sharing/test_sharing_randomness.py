"""No generator of torch is ever used; ours are keyed, agree where they must, and stop after a fork or a session."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from two_parties import computed, two_parties

from securead.checks import programs
from securead.protocols.sharing import dealing, owner, shares
from securead.protocols.sharing.plan import make_plan

PROGRAMS = (programs.small_quadratic, programs.with_relu, programs.with_truncation, programs.small_tables)


def without_torchs_generators(rank: int, communicator: Any, stock: Any, *arguments: Any) -> Any:
    """Compute with everything in torch that draws or seeds replaced by an error; the process ends after it."""
    import torch

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("torch's generator was used")

    drawing = ["randint", "rand", "randn", "randperm", "normal", "bernoulli", "multinomial", "poisson", "seed"]
    drawing += ["manual_seed", "randint_like", "rand_like", "randn_like", "get_rng_state", "set_rng_state"]
    for name in drawing:
        setattr(torch, name, refuse)
    for name in ("random_", "uniform_", "normal_", "bernoulli_", "exponential_", "cauchy_", "geometric_"):
        setattr(torch.Tensor, name, refuse)
    torch.Generator = refuse  # type: ignore[assignment,misc]
    return [computed(rank, communicator, stock, *each) for each in arguments]


def test_circuits_use_no_generator_of_torch() -> None:
    tasks: tuple[list[Any], list[Any]] = ([], [])
    expected = []
    for make in PROGRAMS:
        program = make()
        plan, models = make_plan(program.public, "same"), shares.split_model(program, 1.0)
        Z = np.ones((3, program.public.encoder.width), dtype=np.int64)
        for verdict in (False, True):
            payloads = owner.split_queries(plan, owner.words_of(plan, program.public, Z))
            keys = os.urandom(32), os.urandom(32)
            dealt = dealing.deal(plan.correlations(3, verdict), *keys)
            for rank in (0, 1):
                chunk = (payloads[rank], 3, keys[rank], None if rank else dealt)
                tasks[rank].append((plan, models[rank], [chunk], verdict))
            expected.append((plan, verdict, program.evaluate(Z)))
    with two_parties() as parties:
        both = parties.run(without_torchs_generators, (tuple(tasks[0]), tuple(tasks[1])))
    for (plan, verdict, scores), left, right in zip(expected, *both, strict=True):
        if verdict:
            owner.join_verdicts(plan, left[0], right[0], 3)
        elif not plan.failure_probability:
            assert owner.join_scores(plan, left[0], right[0], 3).tolist() == scores.tolist()


def generators(rank: int, communicator: Any, stock: Any) -> Any:
    import torch

    from securead.protocols.sharing import randomness, runtime

    crypten = runtime.crypten()
    from crypten.mpc.primitives import ArithmeticSharedTensor, BinarySharedTensor

    found = {
        "arithmetic": ArithmeticSharedTensor.PRZS((64,)).share.numpy(),
        "binary": BinarySharedTensor.PRZS((64,)).share.numpy(),
        "bits": BinarySharedTensor.rand((64,), bits=3).share.numpy(),
        "local": ArithmeticSharedTensor.PRSS((64,)).share.numpy(),
        "problems": [],
    }

    def problem(what: Any) -> None:
        try:
            what()
            found["problems"].append("none")
        except (TypeError, KeyError, RuntimeError, ValueError) as error:
            found["problems"].append(type(error).__name__)

    problem(crypten._setup_prng)
    problem(lambda: crypten.manual_seed(1, 2, 3))
    problem(crypten.init if not crypten.is_initialized() else lambda: runtime.start(rank, communicator, stock))
    problem(lambda: randomness.generate_random_ring_element((1,), generator=torch.Generator()))
    problem(lambda: randomness.generate_random_ring_element((1,), ring_size=2**32))
    randomness.forget()
    problem(lambda: ArithmeticSharedTensor.PRZS((1,)))
    problem(lambda: ArithmeticSharedTensor.PRSS((1,)))
    return found


def test_generators_agree_where_they_must_and_forget() -> None:
    with two_parties() as parties:
        first, second = parties.run(generators, ((), ()))
        again, _ = parties.run(generators, ((), ()))
    assert not (first["arithmetic"] + second["arithmetic"]).any()
    assert not (first["binary"] ^ second["binary"]).any()
    assert first["arithmetic"].all()
    assert (first["local"] != second["local"]).all()
    assert set(first["bits"].tolist()) <= set(range(8))
    assert (first["arithmetic"] != again["arithmetic"]).all()
    assert first["problems"] == second["problems"]
    assert "none" not in first["problems"]
