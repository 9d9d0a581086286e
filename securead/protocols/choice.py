"""Which registered engines can carry a program: decided from its public half, before anything is imported."""

from __future__ import annotations

from securead.errors import FixConfigurationError, FixProgramError
from securead.program.program import PublicProgram
from securead.protocols import registry
from securead.protocols.engine import EngineSpec, Role


def carriers(public: PublicProgram) -> tuple[EngineSpec, ...]:
    """The engines that know all of the program's operations, by name.

    Whether parameters exist that fit is another question: `make_plan` answers it.
    """
    return tuple(spec for spec in registry.engines().values() if public.operations <= {*spec.operations})


def choose(public: PublicProgram, role: Role, *, engine: str | None = None) -> EngineSpec:
    """The engine to use for a program in a role: the one named, else the first that carries it.

    Raises `FixProgramError` when none does and `FixConfigurationError` when the one named does not.
    """
    able = [spec for spec in carriers(public) if role in spec.roles]
    if engine is not None:
        wanted = registry.spec(engine)
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
            remedy="Registered engines: " + (", ".join(registry.engines()) or "none") + ".",
        )
    return able[0]
