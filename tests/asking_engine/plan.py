"""Parameters: there is little to derive."""

from __future__ import annotations

from dataclasses import dataclass

from securead import codec
from securead.program.program import PublicProgram
from securead.protocols.engine import EngineSpec, Role

ENGINE = EngineSpec(
    name="asking",
    package="asking_engine",
    roles=("same", "split"),
    operations=("lookup",),
    extra="none",
    summary="lookups in the clear under a mask: for tests of evaluation keys",
)
KEY_BYTES = 3000


@dataclass(frozen=True)
class AskingPlan:
    role: Role
    program_digest: str
    tables: int
    unit: float
    score_bits: int
    rows_per_chunk: int = 16
    error_bound: float = 1e-9
    security_bits: int = 128
    evaluation_key_bytes: int = KEY_BYTES + 100

    engine = "asking"

    @property
    def digest(self) -> str:
        return codec.digest(self, domain="tests.asking_engine.v1")

    @property
    def max_request_bytes(self) -> int:
        return 64 + 8 * self.tables * self.rows_per_chunk

    @property
    def max_answer_bytes(self) -> int:
        return 64 + 8 * self.rows_per_chunk

    def describe(self) -> tuple[tuple[str, str], ...]:
        return (("engine", "none that protects anything"),)


def make_plan(public: PublicProgram, role: Role) -> AskingPlan:
    return AskingPlan(role, public.digest, len(public.sizes), public.unit, public.score_bits)


def plan_from_plain(plain: object) -> AskingPlan:
    return codec.from_plain(AskingPlan, plain, where="plan")
