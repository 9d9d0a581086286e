"""The whole path with real processes: a service, and the command line as its client, in both roles."""

from __future__ import annotations

import datetime
import ipaddress
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_model import COLUMNS, ROOT, Served, read_scores, records, securead, served, small_bundle, write_csv

from securead.client import Client, load_keys
from securead.errors import UseOtherKeyError
from securead.protocols import wire

BUNDLE, OTHER = small_bundle(), small_bundle(name="other", seed=7)
ROWS = 5000  # two chunks
X = records(ROWS)
EXPECTED = BUNDLE.program.score(X)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("place")
    BUNDLE.save(folder / "bundle")
    OTHER.save(folder / "other-bundle")
    write_csv(folder / "data.csv", X)
    return folder


@pytest.fixture(scope="module")
def service(place: Path) -> Iterator[Served]:
    arguments = ("--no-tls", "--workers", "2")
    with served(place, place / "bundle", place / "other-bundle", arguments=arguments) as running:
        yield running


def call(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command that must succeed."""
    ended = securead(*arguments, **environment)
    assert ended.returncode == 0, ended.stderr
    return ended


def refused(*arguments: object) -> str:
    """What a command says that must be refused."""
    ended = securead(*arguments)
    assert ended.returncode == 2, (ended.stdout, ended.stderr)
    assert "Traceback" not in ended.stderr
    assert ended.stderr.startswith("error: ") or "\nerror: " in ended.stderr
    return ended.stderr


@pytest.fixture(scope="module")
def keys(service: Served, place: Path) -> dict[str, Path]:
    for role in ("same", "split"):
        call("keygen", "--server", service.url, "--model", "tiny", "--role", role, "--out", place / role)
    return {role: place / role for role in ("same", "split")}


def test_role_same_step_by_step(service: Served, place: Path, keys: dict[str, Path], tmp_path: Path) -> None:
    request, answer, out = tmp_path / "request", tmp_path / "answer", tmp_path / "scores.csv"
    encrypted = json.loads(
        call("encrypt", place / "data.csv", "--keys", keys["same"], "--out", request, "--json").stdout
    )
    submitted = json.loads(call("submit", request, "--server", service.url, "--out", answer, "--json").stdout)
    decrypted = json.loads(call("decrypt", answer, "--keys", keys["same"], "--out", out, "--json").stdout)
    scores, flags = read_scores(out)
    np.testing.assert_allclose(scores, EXPECTED, atol=BUNDLE.public.program.tolerance)
    assert encrypted["rows"] == submitted["rows"] == decrypted["rows"] == ROWS
    assert submitted["server_seconds"] > 0
    assert decrypted["anomalies"] == flags.sum() > 0
    assert encrypted["request"] == submitted["request"] == decrypted["request"]
    # Without its local notes the answer cannot be completed, and the error says what to do.
    (tmp_path / "request.local").rename(tmp_path / "elsewhere")
    assert "--local" in refused("decrypt", answer, "--keys", keys["same"], "--out", tmp_path / "again.csv")
    call("decrypt", answer, "--keys", keys["same"], "--out", out, "--local", tmp_path / "elsewhere")


def test_role_split_with_the_parties_apart(service: Served, place: Path, keys: dict[str, Path], tmp_path: Path) -> None:
    """The submitter has DIR/public only, the key holder DIR/secret and the answer only."""
    submitter, holder = tmp_path / "submitter", tmp_path / "holder"
    submitter.mkdir()
    holder.mkdir()
    (submitter / "public").mkdir()
    for file in (keys["split"] / "public").iterdir():
        (submitter / "public" / file.name).write_bytes(file.read_bytes())
    call("encrypt", place / "data.csv", "--keys", submitter / "public", "--out", submitter / "request")
    call("submit", submitter / "request", "--server", service.url, "--out", submitter / "answer")
    assert sorted(p.name for p in submitter.iterdir()) == ["answer", "public", "request"]
    said = refused("decrypt", submitter / "answer", "--keys", submitter / "public", "--out", submitter / "scores.csv")
    assert "no secret key" in said
    (submitter / "answer").rename(holder / "answer")
    call("decrypt", holder / "answer", "--keys", keys["split"] / "secret", "--out", holder / "scores.csv")
    np.testing.assert_allclose(read_scores(holder / "scores.csv")[0], EXPECTED, atol=1e-4)


@pytest.mark.parametrize("role", [None, "same", "split"])
def test_score_in_one(role: str | None, service: Served, place: Path, keys: dict[str, Path], tmp_path: Path) -> None:
    extra = ("--keys", keys[role]) if role else ()
    out = tmp_path / "scores.csv"
    base = ("score", place / "data.csv", "--server", service.url, "--model", "tiny", "--out", out, "--json")
    summary = json.loads(call(*base, *extra).stdout)
    np.testing.assert_allclose(read_scores(out)[0], EXPECTED, atol=1e-4)
    assert summary["rows"] == ROWS
    assert summary["bytes"] == summary["bytes_up"] + summary["bytes_down"]
    assert summary["clipped"] == 0
    assert summary["server_seconds"] > 0


def test_sealed_keys(service: Served, place: Path, tmp_path: Path) -> None:
    words = tmp_path / "words"
    words.write_text("five words are quite good\n")
    base = ("--server", service.url, "--model", "tiny")
    call("keygen", *base, "--out", tmp_path / "keys", "--passphrase-file", words)
    encrypt = ("encrypt", place / "data.csv", "--keys", tmp_path / "keys", "--out", tmp_path / "request")
    assert "--passphrase-file" in refused(*encrypt)
    call(*encrypt, SECUREAD_PASSPHRASE="five words are quite good")


def test_what_the_service_offers_and_refuses(
    service: Served, place: Path, keys: dict[str, Path], tmp_path: Path
) -> None:
    request = tmp_path / "request"
    said = refused("keygen", "--server", service.url, "--model", "payments", "--out", tmp_path / "k")
    assert "tiny, other" in said
    assert not (tmp_path / "k").exists()
    out = tmp_path / "scores.csv"
    base = ("--server", service.url, "--model", "other", "--out", out)
    assert "another model" in refused("score", place / "data.csv", *base, "--keys", keys["same"])
    call("encrypt", place / "data.csv", "--keys", keys["same"], "--out", request)
    content = request.read_bytes()
    for damaged in (content[:-5], content[: len(content) // 2], b"", content + b"x", b"\x00" * 1000):
        (tmp_path / "damaged").write_bytes(damaged)
        refused("submit", tmp_path / "damaged", "--server", service.url, "--out", tmp_path / "answer")
    assert not (tmp_path / "answer").exists()


def test_a_foreign_ciphertext_reaches_the_service_and_is_refused(
    service: Served, place: Path, keys: dict[str, Path], tmp_path: Path
) -> None:
    """A well-formed envelope around bytes that are no ciphertext: the service says so, the client passes it on."""
    call("encrypt", place / "data.csv", "--keys", keys["same"], "--out", tmp_path / "request")
    with (tmp_path / "request").open("rb") as stream:
        envelopes = list(wire.read_all(stream, max_payload=1 << 30))
    forged = [replace(e, payload=b"\x00" * len(e.payload)) for e in envelopes]
    (tmp_path / "forged").write_bytes(b"".join(e.to_bytes() for e in forged))
    said = refused("submit", tmp_path / "forged", "--server", service.url, "--out", tmp_path / "answer")
    assert "the service says" in said


@pytest.mark.parametrize("fault", ["nan", "missing", "unknown", "order", "empty", "text"])
def test_ill_formed_records(fault: str, service: Served, keys: dict[str, Path], tmp_path: Path) -> None:
    bad = X[:10].copy()
    data = tmp_path / "data.csv"
    match fault:
        case "nan":
            bad[4, 1] = np.nan
            write_csv(data, bad)
        case "missing":
            write_csv(data, bad[:, :4], COLUMNS[:4])
        case "unknown":
            write_csv(data, np.hstack([bad, bad[:, :1]]), (*COLUMNS, "weight"))
        case "order":
            write_csv(data, bad[:, ::-1], COLUMNS[::-1])
        case "empty":
            write_csv(data, bad[:0])
        case "text":
            data.write_text(",".join(COLUMNS) + "\n1,2,three,4,5\n")
    named = {"nan": "row 4, column 'age'", "missing": "count", "unknown": "weight", "order": "--reorder",
             "empty": "no records", "text": "three"}  # fmt: skip
    said = refused("encrypt", data, "--keys", keys["same"], "--out", tmp_path / "request")
    assert named[fault] in said
    assert not (tmp_path / "request").exists()
    if fault == "order":
        call("encrypt", data, "--keys", keys["same"], "--out", tmp_path / "request", "--reorder")


def test_clipped_values_are_reported(service: Served, tmp_path: Path) -> None:
    wild = X[:10].copy()
    wild[2:5, 3] = 50.0
    data = write_csv(tmp_path / "data.csv", wild)
    base = ("score", data, "--server", service.url, "--model", "tiny", "--out", tmp_path / "scores.csv")
    ended = call(*base, "--json")
    assert json.loads(ended.stdout)["clipped_columns"] == {"distance": 3}
    assert "3 values lay out of bounds and were moved to them: distance 3" in ended.stderr


def test_the_service_is_restarted_in_the_middle_of_a_submission(
    place: Path, keys: dict[str, Path], tmp_path: Path
) -> None:
    """Killed while the client waits; the client says what it awaits, goes on by itself, and nothing is lost."""
    many = records(9 * 4096)
    write_csv(tmp_path / "data.csv", many)
    call("encrypt", tmp_path / "data.csv", "--keys", keys["same"], "--out", tmp_path / "request")
    part, answer = tmp_path / "answer.part", tmp_path / "answer"
    with served(tmp_path, place / "bundle") as first:
        port = first.port
        command = ("submit", tmp_path / "request", "--server", first.url, "--out", answer, "--json")
        submit = subprocess.Popen(
            [sys.executable, "-m", "securead", *map(str, command)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            while not (part.exists() and part.stat().st_size):
                assert submit.poll() is None, submit.communicate()
                time.sleep(0.002)
            first.process.kill()
            first.process.wait()
            assert not answer.exists(), "the submission was over before the service was killed"
            time.sleep(0.3)
            with served(tmp_path, place / "bundle", port=port):
                out, errors = submit.communicate(timeout=90)
        finally:
            submit.kill()
            submit.wait()
    assert submit.returncode == 0, errors
    assert "waiting: " in errors
    assert json.loads(out)["rows"] == len(many)
    call("decrypt", answer, "--keys", keys["same"], "--out", tmp_path / "scores.csv")
    np.testing.assert_allclose(read_scores(tmp_path / "scores.csv")[0], BUNDLE.program.score(many), atol=1e-4)


def test_a_model_that_was_replaced_is_noticed(place: Path, keys: dict[str, Path], tmp_path: Path) -> None:
    newer = small_bundle(seed=3).save(tmp_path / "newer")
    call("encrypt", place / "data.csv", "--keys", keys["same"], "--out", tmp_path / "request")
    with served(tmp_path, newer) as running:
        submit = ("submit", tmp_path / "request", "--server", running.url, "--out", tmp_path / "answer")
        assert "fetch the model again" in refused(*submit)
        base = ("--server", running.url, "--model", "tiny", "--out", tmp_path / "scores.csv")
        assert "Fetch the model again" in refused("score", place / "data.csv", *base, "--keys", keys["same"])
        with Client(running.url) as client, pytest.raises(UseOtherKeyError):
            client.score("tiny", X[:5], load_keys(keys["same"]))


def test_an_oversized_message_is_refused_with_413(place: Path, keys: dict[str, Path], tmp_path: Path) -> None:
    call("encrypt", place / "data.csv", "--keys", keys["same"], "--out", tmp_path / "request")
    with served(tmp_path, place / "bundle", arguments=("--no-tls", "--max-body", "9999")) as running:
        said = refused("submit", tmp_path / "request", "--server", running.url, "--out", tmp_path / "answer")
    assert "larger than the 9999 bytes" in said


def test_threads_share_a_service(service: Served) -> None:
    """More clients at once than the queue holds: the ones turned away come again."""
    results: list[np.ndarray] = []

    def score() -> None:
        with Client(service.url) as client:
            results.append(client.score("tiny", X[:100]).scores)

    threads = [threading.Thread(target=score) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 12
    for scores in results:
        np.testing.assert_allclose(scores, EXPECTED[:100], atol=1e-4)


def test_no_secret_reaches_public_files_or_the_service(keys: dict[str, Path], service: Served) -> None:
    for directory in keys.values():
        secret = (directory / "secret" / "secret.key").read_bytes()
        pieces = [secret[i : i + 48] for i in range(len(secret) // 3, len(secret) - 48, len(secret) // 7)]
        for file in (directory / "public").iterdir():
            content = file.read_bytes()
            assert not any(piece in content for piece in pieces), file.name
    errors = service.errors.read_text()
    assert "Traceback" not in errors
    assert not re.search(r"\d+\.\d{6,}", errors), "numbers with many digits look like records"


# TLS.


def self_signed(folder: Path, host: str) -> tuple[Path, Path]:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(host))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    cert_file, key_file = folder / f"{host}.pem", folder / f"{host}.key"
    cert_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    key_file.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))
    return cert_file, key_file


def test_tls(place: Path, tmp_path: Path) -> None:
    cert, key = self_signed(tmp_path, "127.0.0.1")
    stranger, stranger_key = self_signed(tmp_path, "127.0.0.2")
    out = tmp_path / "scores.csv"
    small = write_csv(tmp_path / "small.csv", X[:20])

    def score(url: str, *extra: object) -> tuple[object, ...]:
        return ("score", small, "--server", url, "--model", "tiny", "--out", out, "--patience", "2", *extra)

    with served(tmp_path, place / "bundle", arguments=("--tls-cert", str(cert), "--tls-key", str(key))) as running:
        assert running.url.startswith("https://")
        call(*score(running.url, "--ca", cert))
        np.testing.assert_allclose(read_scores(out)[0], EXPECTED[:20], atol=1e-4)
        assert "--ca" in refused(*score(running.url))
        assert "not trusted" in refused(*score(running.url, "--ca", stranger))
        assert "gave up" in refused(*score(running.url.replace("https", "http")))
    arguments = ("--tls-cert", str(stranger), "--tls-key", str(stranger_key))
    with served(tmp_path, place / "bundle", arguments=arguments) as running:
        said = refused(*score(running.url, "--ca", stranger))
        assert "not trusted" in said, "a certificate for another address"
    with served(tmp_path, place / "bundle") as running:
        assert "speak https" in refused(*score(running.url.replace("http", "https"), "--ca", cert))
