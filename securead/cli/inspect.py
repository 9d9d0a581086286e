"""`securead inspect`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from securead.client.keys import KeyRecord
    from securead.data.windows import WindowedSchema
    from securead.models.bundle import PublicModel
    from securead.program.program import PublicProgram
    from securead.protocols.engine import Plan

Pairs = tuple[tuple[str, str], ...]


def command(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A bundle, a key directory, a request or an answer.")],
) -> None:
    """Show what a bundle, a key directory or a message file says about itself.

    For a bundle: shape, digests, ranges, what each engine needs to carry it (security, sizes, error bound), from how
    many honest scores the model could be rebuilt, and the privacy statement in words. For a key directory: what its
    key is for. For a request or an answer: its headers. Opens no secret and writes nothing.

    \b
    Example:
      securead inspect bundles/payments
    """
    from securead.client.keys import KEY_FILE, SECRET_KEY_FILE, read_plan, read_record
    from securead.errors import FixInputError
    from securead.models.bundle import PUBLIC_FILE, SECRET_FILE, load_public

    screen = Console(highlight=False)
    if path.name in (SECRET_FILE, SECRET_KEY_FILE) and path.is_file():
        raise FixInputError(f"{path} is a secret, which is never opened here", remedy=f"Give its folder: {path.parent}")
    if any((half / KEY_FILE).is_file() for half in (path, path / "public", path / "secret")):
        model, plan = read_plan(path)
        _show_keys(screen, path, read_record(path), model, plan)
    elif (path / PUBLIC_FILE).is_file() or path.suffix == ".json":
        _show_bundle(screen, path, load_public(path))
    elif path.is_file():
        _show_messages(screen, path)
    else:
        raise FixInputError(
            f"{path} is nothing securead wrote",
            remedy="Give a bundle, a key directory, or a request or answer file.",
        )


def _pairs(screen: Console, title: str, pairs: Pairs) -> None:
    table = Table(title=title, title_justify="left", title_style="bold", show_header=False, box=None, padding=(0, 2))
    for name, value in pairs:
        table.add_row(Text(name), Text(value, overflow="fold"))
    screen.print(table)
    screen.print()


def _rows(screen: Console, title: str, header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, padding=(0, 2))
    for name in header:
        table.add_column(name, justify="left", header_style="dim")
    for row in rows:
        table.add_row(*map(Text, row))
    screen.print(table)
    screen.print()


def _show_bundle(screen: Console, path: Path, model: PublicModel) -> None:
    from securead.data.windows import WindowedSchema
    from securead.models.bundle import SECRET_FILE

    program = model.program
    secret = (path / SECRET_FILE).is_file() if path.is_dir() else False
    model_facts = (
        ("detector", model.detector),
        ("created", f"{model.created}, by securead {model.version}"),
        ("digest", model.digest),
        ("program digest", program.digest),
        ("threshold", f"{model.threshold.value:.6g} ({model.threshold.in_words()})"),
        ("halves here", "public and secret" if secret else "public"),
    )
    _pairs(screen, f"Model {model.name}", model_facts)
    schema = program.encoder.schema
    if isinstance(schema, WindowedSchema):
        _show_window(screen, schema)
    columns = [
        (
            column.name,
            f"{column.lower:g}",
            f"{column.upper:g}",
            column.transform,
            "-" if column.center is None else f"{column.center:.4g} +- {column.spread:.4g}",
        )
        for column in (schema.readings if isinstance(schema, WindowedSchema) else schema).columns
    ]
    bounds = f"bounds {schema.origin}; values outside: {schema.out_of_bounds}"
    what = "Channels of a reading" if isinstance(schema, WindowedSchema) else "Columns"
    _rows(screen, f"{what} ({bounds})", ("name", "lower", "upper", "transform", "scale"), columns)
    _show_program(screen, program)
    _show_plans(screen, program)
    screen.print(Text("Privacy", style="bold"))
    for sentence in model.privacy.in_words():
        screen.print(Text(sentence))
    from securead.protocols.choice import carriers

    bare = [spec.name for spec in carriers(program) if not spec.sanitised]
    fewer = f"; answers of {', '.join(bare)} are not sanitised, so a key holder needs fewer" if bare else ""
    screen.print(
        Text(
            f"The model itself: {program.honest_extraction_rows:,} honest scores suffice to solve for its secret half, "
            f"whatever the engine{fewer}."
        )
    )


def _show_window(screen: Console, schema: WindowedSchema) -> None:
    window = schema.window
    each = "readings of unknown rate" if window.period is None else f"readings, one every {window.period:g} s"
    filled = f"up to {window.fill} in a row are filled by the last before them" if window.fill else "none is filled"
    step = "cannot be seen" if window.period is None else f"is a step of more than {window.gap:g} periods"
    scale = "each gateway's own (--scale)" if window.local else "the schema's"
    facts = (
        ("a record", f"{window.length} {each}; a new one every {window.stride}"),
        ("a gap", f"{step}; a reading without a value: {window.missing}; missing readings: {filled}"),
        ("a reading that comes early or twice", window.early),
        ("scale", scale),
        ("one reading touches", f"{window.windows_per_reading} record(s)"),
    )
    _pairs(screen, "Windows", facts)


def _show_program(screen: Console, program: PublicProgram) -> None:
    from securead.program.table import PublicTable

    if isinstance(program, PublicTable):
        sizes = program.sizes
        facts = (
            ("geometry", f"{program.geometry.type_tag}, public"),
            ("tables", f"{len(sizes)}, secret"),
            ("entries", f"{sum(sizes):,}, whole numbers from 0 to {program.largest}"),
            ("score", f"a sum of {len(sizes)} entries, below 2^{program.score_bits}, in units of {program.unit:.4g}"),
        )
        _pairs(screen, "Program (tables, one entry of each added up)", facts)
        return
    steps = [
        (str(at), step.type_tag, str(step.width), str(step.fraction_bits), str(step.bound_bits))
        for at, step in enumerate(program.steps)
    ]
    terms = "; submitters add a public term" if program.public_terms else ""
    title = f"Program (degree {program.degree}, score of {program.score_bits} bits{terms})"
    _rows(screen, title, ("step", "kind", "width", "fraction bits", "largest value, bits"), steps)


def _show_plans(screen: Console, program: PublicProgram) -> None:
    from securead.errors import FixProgramError
    from securead.protocols import registry
    from securead.protocols.choice import carriers

    for spec in (*carriers(program), *carriers(program, parties=2)):
        for role in spec.roles:
            title = f"Engine {spec.name}, role {role}"
            try:
                plan = registry.plan_module(spec.name).make_plan(program, role)
            except FixProgramError as error:
                _pairs(screen, title, (("cannot carry it", str(error)),))
            else:
                _pairs(screen, title, _facts(plan, program))


def _facts(plan: Plan, program: PublicProgram) -> Pairs:
    from securead.cli.screen import size

    return (
        *plan.describe(),
        ("a request chunk, at most", size(plan.max_request_bytes)),
        ("an answer chunk, at most", size(plan.max_answer_bytes)),
        *([("public key, sent once, at most", size(most))] if (most := plan.evaluation_key_bytes) else []),
        ("tolerance of the program", f"{program.tolerance:.3g}"),
        ("plan digest", plan.digest),
    )


def _show_keys(screen: Console, path: Path, record: KeyRecord, model: PublicModel, plan: Plan) -> None:
    from securead.client.keys import PUBLIC_KEY_FILE, SECRET_KEY_FILE

    def held(name: str) -> bool:
        return any((half / name).is_file() for half in (path, path / "public", path / "secret"))

    halves = [word for word, name in (("public", PUBLIC_KEY_FILE), ("secret", SECRET_KEY_FILE)) if held(name)]
    facts = (
        ("key", record.key),
        ("role", record.role),
        ("made", record.created),
        ("halves here", " and ".join(halves) or "none"),
        ("model", f"{model.name} ({model.detector})"),
        ("model digest", model.digest),
        ("program digest", record.program),
    )
    _pairs(screen, f"Keys in {path}", facts)
    _pairs(screen, f"Engine {record.engine}, role {record.role}", _facts(plan, model.program))


def _show_messages(screen: Console, path: Path) -> None:
    from securead.cli.screen import size
    from securead.client.messages import existing_file
    from securead.errors import FixInputError, RejectMessageError
    from securead.protocols import wire

    rows: list[tuple[str, ...]] = []
    first: wire.Header | None = None
    with existing_file(path) as stream:
        try:
            for envelope in wire.read_all(stream, max_payload=path.stat().st_size):
                header = envelope.header
                first = first or header
                key = header.kind == "key"
                at = "public key" if key else f"{header.chunk + 1} of {header.chunks}"
                rows.append((at, "-" if key else str(header.rows), size(len(envelope.payload)), header.request))
        except RejectMessageError as error:
            raise FixInputError(
                f"{path}: {error.what}",
                value=error.value,
                remedy="Give a bundle, a key directory, or a whole request or answer file.",
            ) from error
    if first is None:
        raise FixInputError(f"{path} is empty", remedy="Give a request or an answer file.")
    facts = (
        ("engine and role", f"{first.engine}, {first.role}"),
        ("key", first.key),
        ("program digest", first.program),
        ("plan digest", first.plan),
    )
    # A request may open with its owner's public key.
    kind = "request" if first.kind == "key" else first.kind
    _pairs(screen, f"{kind.capitalize()} in {path}", facts)
    _rows(screen, "Chunks", ("chunk", "rows", "payload", "request"), rows)
