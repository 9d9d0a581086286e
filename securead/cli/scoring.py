"""`securead encrypt`, `submit`, `decrypt`, and `score`, the three in one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from securead.cli import options

Data = Annotated[Path, typer.Argument(metavar="DATA", help="Records: .npz (array X), .csv with a header or .parquet.")]
Scores = Annotated[Path, typer.Option("--out", metavar="FILE", help="The CSV file to write: row,score,anomaly.")]


def encrypt(
    data: Data,
    keys: Annotated[Path, typer.Option("--keys", metavar="DIR", help="The key directory (role split: DIR/public).")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The request file to write.")],
    reorder: options.Reorder = False,
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

    \b
    Example:
      securead encrypt transactions.csv --keys keys --out request
    """
    from securead.cli.screen import ProgressBar, finish
    from securead.client import messages, workflow
    from securead.client.keys import load_submitter

    messages.refuse_overwriting(out, data, keys)
    submitter = load_submitter(keys, passphrase=options.passphrase(passphrase_file))
    records = workflow.read_records(data, submitter.model.program.encoder.schema, reorder=reorder)
    with ProgressBar() as watch:
        summary = workflow.encrypt_file(records, submitter, out, watch=watch)
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

    Do not hand raw scores to the service or to strangers: a CKKS secret key can be computed from them. To tell others
    some scores or verdicts, use securead share, which makes them fit or refuses.

    \b
    Example:
      securead decrypt answer --keys keys --out scores.csv
    """
    from securead.cli.screen import ProgressBar, finish
    from securead.client import messages, workflow
    from securead.client.keys import load_holder

    messages.refuse_overwriting(out, keys)
    holder = load_holder(keys, passphrase=options.passphrase(passphrase_file))
    with ProgressBar() as watch:
        summary = workflow.decrypt_file(answer, holder, out, local=local, request=request_id, watch=watch)
    finish(summary, "decrypted", out, as_json=as_json)


def score(
    data: Data,
    server: options.Server,
    model: Annotated[str, typer.Option("--model", metavar="NAME", help="The model's name at the service.")],
    out: Scores,
    keys: Annotated[
        Path | None,
        typer.Option("--keys", metavar="DIR", help="A whole key directory; without it keys live in memory only."),
    ] = None,
    reorder: options.Reorder = False,
    ca: options.Ca = None,
    patience: options.Patience = 60.0,
    passphrase_file: options.PassphraseFile = None,
    as_json: options.Json = False,
) -> None:
    """Encrypt records, have them scored and decrypt the scores: encrypt, submit and decrypt in one.

    The service sees ciphertext and how many rows there are, and a public key where its engine masks answers, never a
    record or a score. Writes a CSV file row,score,anomaly, readable by you alone.

    \b
    Example:
      securead score transactions.csv --server https://scores.example.org --model payments --out scores.csv
    """
    import time

    from securead.cli.screen import ProgressBar, finish
    from securead.client import messages, workflow
    from securead.client.keys import load_keys, make_keys
    from securead.client.results import Summary, write_scores
    from securead.client.service import Service
    from securead.errors import UseOtherKeyError

    start = time.perf_counter()
    messages.refuse_overwriting(out, data, *([] if keys is None else [keys]))
    messages.refuse_unwritable(out)
    with ProgressBar() as watch, Service(server, ca=ca, patience=patience, watch=watch) as service:
        if keys is None:
            pair = make_keys(service.model(model), "same")
        else:
            pair = load_keys(keys, passphrase=options.passphrase(passphrase_file))
        if pair.model.name != model:
            raise UseOtherKeyError(
                f"the keys in {keys} are for another model",
                value=pair.model.name,
                remedy=f"Make keys for it: securead keygen --server {server} --model {model} --out DIR",
            )
        records = workflow.read_records(data, pair.model.program.encoder.schema, reorder=reorder)
        scores = workflow.score_records(service, pair, records, watch=watch)
    write_scores(out, scores)
    summary = Summary(
        rows=len(scores),
        chunks=-(-len(scores) // pair.plan.rows_per_chunk),
        seconds=time.perf_counter() - start,
        bytes=scores.bytes_up + scores.bytes_down,
        clipped=scores.clipped,
        anomalies=int(scores.is_anomaly.sum()),
        server_seconds=scores.timings.server,
        encrypt_seconds=scores.timings.encrypt,
        decrypt_seconds=scores.timings.decrypt,
        bytes_up=scores.bytes_up,
        bytes_down=scores.bytes_down,
    )
    finish(summary, "scored", out, as_json=as_json)
