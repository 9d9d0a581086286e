"""Which registered engines can carry a program: decided from its public half, before anything is imported.

An engine of several parties is no half of a scoring service and needs no keys, so it is never chosen for one.
"""

from __future__ import annotations

from securead.errors import FixConfigurationError, FixProgramError
from securead.program.program import PublicProgram
from securead.protocols import registry
from securead.protocols.engine import EngineSpec, Role


def carriers(public: PublicProgram, *, parties: int = 1) -> tuple[EngineSpec, ...]:
    """The engines of so many parties that know all of the program's operations and its degree, by name.

    Whether parameters exist that fit is another question: `make_plan` answers it.
    """
    return tuple(spec for spec in registry.engines().values() if spec.parties == parties and spec.carries(public))


def choose(public: PublicProgram, role: Role, *, engine: str | None = None) -> EngineSpec:
    """The engine to use for a program in a role: the one named, else the first that carries it.

    Raises `FixProgramError` when none does and `FixConfigurationError` when the one named does not.
    """
    able = [spec for spec in carriers(public) if role in spec.roles]
    if engine is not None:
        wanted = registry.spec(engine)
        if wanted.parties != 1:
            raise FixConfigurationError(
                f"the engine {engine!r} computes among {wanted.parties} parties, not at a scoring service",
                remedy=f"It needs no keys. Score with: securead score --engine {engine} --parties CONFIG.",
            )
        if wanted not in able:
            raise FixConfigurationError(
                f"the engine {engine!r} does not carry this program in role {role!r}",
                remedy="Engines that do: " + (", ".join(spec.name for spec in able) or "none") + ".",
            )
        return wanted
    if not able:
        raise FixProgramError(
            f"no registered engine carries this program in role {role!r}",
            value=sorted(public.operations),
            remedy=remedy_for_none(public),
        )
    return able[0]


def remedy_for_none(public: PublicProgram) -> str:
    """What to do when no engine of a scoring service carries a program: name the engines of two parties that do."""
    able = [spec.name for spec in carriers(public, parties=2)]
    if able:
        return f"Two parties that do not collude can: serve it by {' or '.join(able)} (`securead party`)."
    return "Registered engines: " + (", ".join(registry.engines()) or "none") + "."
