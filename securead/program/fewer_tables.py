"""Smaller table programs: fewer tables and fewer bits an entry, made of a program alone, whoever fitted it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from securead.errors import FixProgramError
from securead.program import table
from securead.program.builder import integer_table_program
from securead.program.geometry import Bins, Trees
from securead.program.program import Program


def entry_bits(program: Program) -> int:
    """The bits of a table program's largest entry."""
    return max(1, max(int(entries.max()) for entries in _halves(program)[1].tables).bit_length())


def fewer_tables(program: Program, kept: Sequence[int], *, bits: int | None = None) -> Program:
    """The tables `kept`, in their order, scaled so that the score stays the mean over tables that it was.

    With `bits` fewer than entries have, entries are rounded to multiples of a coarser unit; else they are the same
    integers. A score is off by half a unit a table at most, which the program's tolerance grows by.
    """
    public, secret = _halves(program)
    kept = sorted({int(at) for at in kept})
    if not kept or not 0 <= kept[0] <= kept[-1] < len(secret.tables):
        raise FixProgramError(
            f"a program keeps 1 to {len(secret.tables)} of its tables", value=len(kept), remedy="Name some that exist."
        )
    tables = [secret.tables[at] for at in kept]
    unit, largest = public.unit * len(secret.tables) / len(kept), public.largest
    tolerance, top = public.tolerance, max(int(entries.max()) for entries in tables)
    if bits is not None and not 1 <= bits <= table.MAX_ENTRY_BITS:
        raise FixProgramError(f"an entry has 1 to {table.MAX_ENTRY_BITS} bits", value=bits, remedy="Name fewer.")
    if bits is not None and top.bit_length() > bits:
        largest = (1 << bits) - 1
        tables = [np.rint(entries * (largest / top)).astype(np.int64) for entries in tables]
        unit *= top / largest
        tolerance += len(kept) * unit / 2 * (1 + 1e-9)
    return integer_table_program(
        public.encoder,
        _geometry(public.geometry, kept),
        tables,
        largest=largest,
        unit=unit,
        tolerance=tolerance,
        honest_extraction_rows=max(1, public.honest_extraction_rows - _unknowns(secret, set(kept))),
    )


def _unknowns(secret: table.SecretTable, kept: set[int]) -> int:
    """What the tables that go had to hide: entries less one a table, for constants move between tables."""
    return sum(len(entries) - 1 for at, entries in enumerate(secret.tables) if at not in kept)


def _geometry(geometry: Trees | Bins, kept: list[int]) -> Trees | Bins:
    if isinstance(geometry, Bins):
        return Bins(tuple(geometry.columns[at] for at in kept), tuple(geometry.edges[at] for at in kept))
    trees = len(geometry.sizes)

    def of(flat: tuple[int, ...]) -> tuple[int, ...]:
        each = len(flat) // trees
        return tuple(value for at in kept for value in flat[at * each : (at + 1) * each])

    return Trees(geometry.depth, of(geometry.columns), of(geometry.weights), of(geometry.thresholds))


def _halves(program: Program) -> tuple[table.PublicTable, table.SecretTable]:
    public, secret = program.public, program.secret
    if not isinstance(public, table.PublicTable) or not isinstance(secret, table.SecretTable):
        raise FixProgramError("not a program of tables", value=sorted(public.operations), remedy="Use `Sketch`.")
    return public, secret
