"""`securead encrypt`, `submit`, `decrypt`, and `score`, the three in one, or by two parties."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from securead.cli import options

if TYPE_CHECKING:
    from securead.data.schema import Array, Schema
    from securead.data.windows import Windows

    Records = tuple[Array, Windows | None]

Data = Annotated[Path, typer.Argument(metavar="DATA", help="Records: .npz (array X), .csv with a header or .parquet.")]
Scores = Annotated[Path, typer.Option("--out", metavar="FILE", help="The CSV file to write: row,score,anomaly.")]


def read_for(data: Path, schema: Schema, *, scale: Path | None, time: str | None, reorder: bool) -> Records:
    """Records as the model takes them, and the windows that they are, where they are windows."""
    from securead.client import workflow
    from securead.client.positions import read_windows
    from securead.data.windows import WindowedSchema
    from securead.errors import FixConfigurationError

    if isinstance(schema, WindowedSchema):
        windows = read_windows(data, schema, scale=scale, time=time, reorder=reorder)
        return windows.X, windows
    if scale is not None or time is not None:
        raise FixConfigurationError(
            "--scale and --time are for models of windows", remedy="This model scores single records: leave them out."
        )
    return workflow.read_records(data, schema, reorder=reorder), None


def encrypt(
    data: Data,
    keys: Annotated[Path, typer.Option("--keys", metavar="DIR", help="The key directory (role split: DIR/public).")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The request file to write.")],
    reorder: options.Reorder = False,
    scale: options.Scale = None,
    time: options.Time = None,
    passphrase_file: options.PassphraseFile = None,
    as_json: options.Json = False,
) -> None:
    """Encrypt records into a request file.

    Columns must be the model's, in its order (or give --reorder); a label column is left out; an .npz without column
    names is taken in the model's order. Values out of the schema's bounds are clipped and counted, or refused, as
    the model's schema says.

    Writes FILE, which only the key holder can open. Where the service needs the public key to mask its answers, FILE
    opens with it. In role same it may also write FILE.local, readable by you alone: the part of the scores that you
    compute yourself. It says something about your records: never send it; decrypt needs it.

    Where the model scores windows, DATA is one gateway's readings in order of time; FILE.windows (mode 0600) then says
    with which reading each window ends, and decrypt tells it when that file lies beside the answer.

    \b
    Example:
      securead encrypt transactions.csv --keys keys --out request
    """
    from securead.cli.screen import ProgressBar, finish
    from securead.client import messages, workflow
    from securead.client.keys import load_submitter

    messages.refuse_overwriting(out, data, keys)
    submitter = load_submitter(keys, passphrase=options.passphrase(passphrase_file))
    schema = submitter.model.program.encoder.schema
    records, windows = read_for(data, schema, scale=scale, time=time, reorder=reorder)
    with ProgressBar() as watch:
        summary = workflow.encrypt_file(records, submitter, out, watch=watch, windows=windows)
    finish(summary, "encrypted", out, as_json=as_json)


def submit(
    request: Annotated[Path, typer.Argument(metavar="FILE", help="What `securead encrypt` wrote.")],
    server: options.Server,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The answer file to write.")],
    ca: options.Ca = None,
    patience: options.Patience = 60.0,
    as_json: options.Json = False,
) -> None:
    """Send a request file to the service and collect its encrypted answer.

    Needs no key. The service sees ciphertext, how many rows there are and which key they are for; where its engine
    masks answers, also the public key that the request file then carries. If it is restarted meanwhile, chunks are
    sent again; if you interrupt this, the same call goes on where it stopped (FILE.part).

    Writes the answer file, which only the key holder can open.

    \b
    Example:
      securead submit request --server https://scores.example.org --out answer
    """
    from securead.cli.screen import ProgressBar, finish
    from securead.client import workflow
    from securead.client.service import Service

    with ProgressBar() as watch, Service(server, ca=ca, patience=patience, watch=watch) as service:
        summary = workflow.submit_file(request, service, out, watch=watch)
    finish(summary, "submitted", out, as_json=as_json)


def decrypt(
    answer: Annotated[Path, typer.Argument(metavar="ANSWER", help="What `securead submit` wrote.")],
    keys: Annotated[Path, typer.Option("--keys", metavar="DIR", help="The key directory, or DIR/secret.")],
    out: Scores,
    local: Annotated[
        Path | None,
        typer.Option("--local", metavar="FILE", help="The request's .local file; looked for beside ANSWER."),
    ] = None,
    request_id: Annotated[
        str | None,
        typer.Option("--request-id", metavar="ID", help="Insist on this request (encrypt --json tells its id)."),
    ] = None,
    passphrase_file: options.PassphraseFile = None,
    as_json: options.Json = False,
) -> None:
    """Decrypt an answer into scores.

    An answer that is incomplete, replayed, or for another key, model or request is refused. Writes a CSV file
    row,score,anomaly, readable by you alone; a score above the model's threshold is an anomaly.

    A summary of scores is kept in DIR/secret/drift.json, readable by you alone. After the first 5,000 it warns when
    scores leave what they were.

    Do not hand raw scores to the service or to strangers: a CKKS secret key can be computed from them. To tell others
    some scores or verdicts, use securead share, which makes them fit or refuses.

    \b
    Example:
      securead decrypt answer --keys keys --out scores.csv
    """
    from securead.cli.screen import ProgressBar, finish
    from securead.client import messages, workflow
    from securead.client.drift import DRIFT_FILE
    from securead.client.keys import load_holder, secret_half

    messages.refuse_overwriting(out, keys)
    holder = load_holder(keys, passphrase=options.passphrase(passphrase_file))
    with ProgressBar() as watch:
        history = secret_half(keys) / DRIFT_FILE
        summary = workflow.decrypt_file(
            answer, holder, out, local=local, request=request_id, history=history, watch=watch
        )
    finish(summary, "decrypted", out, as_json=as_json)


def score(
    data: Data,
    out: Scores,
    server: Annotated[
        str | None, typer.Option("--server", metavar="URL", help="The scoring service, https://HOST[:PORT].")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", metavar="NAME", help="The model's name at the service.")
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option("--engine", metavar="NAME", help="sharing, or the service's engine (default: it fits)."),
    ] = None,
    parties: Annotated[
        Path | None,
        typer.Option(
            "--parties", metavar="CONFIG", help="Engine sharing: a TOML file that says where both parties are."
        ),
    ] = None,
    verdicts: Annotated[
        bool, typer.Option("--verdicts", help="Engine sharing: write row,anomaly; nobody learns a score, nor do you.")
    ] = False,
    keys: Annotated[
        Path | None,
        typer.Option("--keys", metavar="DIR", help="A whole key directory; without it keys live in memory only."),
    ] = None,
    reorder: options.Reorder = False,
    scale: options.Scale = None,
    time: options.Time = None,
    ca: options.Ca = None,
    patience: Annotated[
        float | None,
        typer.Option(
            "--patience",
            metavar="SECONDS",
            min=0.0,
            help="How long to keep trying who is away (default: 60 for a service, for parties what CONFIG says).",
        ),
    ] = None,
    passphrase_file: options.PassphraseFile = None,
    as_json: options.Json = False,
) -> None:
    """Have records scored unseen: by a service (encrypt, submit and decrypt in one), or by two parties.

    With --server and --model: the service sees ciphertext and how many rows there are, and a public key where its
    engine masks answers, never a record or a score.

    With --engine sharing --parties CONFIG: each of two parties is sent one share of the records, which tells nothing by
    itself; as long as they do not collude, they see how many rows there are and who asks. CONFIG has the entries party0
    and party1 (HOST:PORT), identity (your directory of securead certs), model (model.json of securead split), and if
    wanted lanes and patience. Needs no keys.

    Writes a CSV file row,score,anomaly, readable by you alone; where the model scores windows of readings also
    reading,time, the row of each window's last reading in DATA (from 0) and its time.

    \b
    Examples:
      securead score transactions.csv --server https://scores.example.org --model payments --out scores.csv
      securead score transactions.csv --engine sharing --parties client.toml --out scores.csv
    """
    from securead.errors import FixConfigurationError

    if (parties is not None) != (engine == "sharing"):
        raise FixConfigurationError(
            "--engine sharing and --parties go together", remedy="Give both, or --server and --model instead."
        )
    if parties is not None:
        from securead.cli.sharing import score_by_parties

        if server is not None or model is not None or keys is not None or ca is not None:
            raise FixConfigurationError(
                "--server, --model, --keys and --ca are for a service",
                remedy="Two parties are named, with all that belongs to them, in the file of --parties.",
            )
        score_by_parties(
            data,
            parties,
            out,
            verdicts=verdicts,
            reorder=reorder,
            scale=scale,
            time=time,
            patience=patience,
            passphrase=options.passphrase(passphrase_file),
            as_json=as_json,
        )
        return
    if server is None or model is None or verdicts:
        raise FixConfigurationError(
            "--verdicts is for --engine sharing" if verdicts else "who is to score is missing",
            remedy="Give --server URL and --model NAME, or --engine sharing and --parties CONFIG.",
        )
    _score_by_service(
        data,
        server,
        model,
        out,
        engine=engine,
        keys=keys,
        reorder=reorder,
        scale=scale,
        time_column=time,
        ca=ca,
        patience=60.0 if patience is None else patience,
        passphrase=options.passphrase(passphrase_file),
        as_json=as_json,
    )


def _score_by_service(
    data: Path,
    server: str,
    model: str,
    out: Path,
    *,
    engine: str | None,
    keys: Path | None,
    reorder: bool,
    scale: Path | None,
    time_column: str | None,
    ca: Path | None,
    patience: float,
    passphrase: str | None,
    as_json: bool,
) -> None:
    import time

    from securead.cli.screen import ProgressBar, finish
    from securead.client import messages, workflow
    from securead.client.drift import DRIFT_FILE, noted
    from securead.client.keys import load_keys, make_keys, secret_half
    from securead.client.positions import Positions
    from securead.client.results import Summary, write_scores
    from securead.client.service import Service
    from securead.client.setups import with_published
    from securead.errors import UseOtherKeyError

    start = time.perf_counter()
    messages.refuse_overwriting(out, data, *([] if keys is None else [keys]))
    messages.refuse_unwritable(out)
    with ProgressBar() as watch, Service(server, ca=ca, patience=patience, watch=watch) as service:
        if keys is None:
            pair = with_published(service, make_keys(service.model(model), "same", engine=engine), watch=watch)
        else:
            pair = load_keys(keys, passphrase=passphrase)
        if pair.model.name != model:
            raise UseOtherKeyError(
                f"the keys in {keys} are for another model",
                value=pair.model.name,
                remedy=f"Make keys for it: securead keygen --server {server} --model {model} --out DIR",
            )
        schema = pair.model.program.encoder.schema
        records, windows = read_for(data, schema, scale=scale, time=time_column, reorder=reorder)
        scores = workflow.score_records(service, pair, records, watch=watch)
    write_scores(out, scores, None if windows is None else Positions.of(windows, ""))
    summary = Summary(
        rows=len(scores),
        chunks=-(-len(scores) // pair.plan.rows_per_chunk),
        seconds=time.perf_counter() - start,
        bytes=scores.bytes_up + scores.bytes_down,
        clipped=scores.clipped if windows is None else windows.clipped,
        anomalies=int(scores.is_anomaly.sum()),
        server_seconds=scores.timings.server,
        encrypt_seconds=scores.timings.encrypt,
        decrypt_seconds=scores.timings.decrypt,
        bytes_up=scores.bytes_up,
        bytes_down=scores.bytes_down,
        notes=() if keys is None else noted(secret_half(keys) / DRIFT_FILE, pair.model, scores.scores),
    )
    finish(summary, "scored", out, as_json=as_json)
