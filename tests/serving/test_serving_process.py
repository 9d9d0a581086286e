"""The service as a process: where it may listen, what it says, how it ends, what it never loads."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import pytest
from small_model import ROOT, URL_PREFIX, records, securead, served, small_bundle

from securead.client import Client
from securead.errors import FixConfigurationError, RetryLaterError
from securead.serving import serve
from securead.serving.process import Address

BUNDLE = small_bundle()


def test_answers_on_kept_connections_are_not_held_back() -> None:
    """Small writes leave at once: else every call after a connection's first waits 40 ms for an acknowledgement."""
    with Address(no_tls=True).listen() as listening, socket.create_connection(listening.getsockname()):
        accepted, _ = listening.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"no_tls": True, "host": "0.0.0.0"},
        {"no_tls": True, "host": "example.org"},
        {"no_tls": True, "host": "192.168.0.1"},
        {"no_tls": True, "tls_cert": Path("a"), "tls_key": Path("b")},
        {"tls_cert": Path("a")},
        {"tls_key": Path("a")},
        {"no_tls": True, "port": 70000},
    ],
    ids=str,
)
def test_addresses_that_are_refused(arguments: dict[str, object]) -> None:
    with pytest.raises(FixConfigurationError) as caught:
        Address(**arguments)  # type: ignore[arg-type]
    assert caught.value.remedy


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.8.0.1"])
def test_loopback_needs_no_tls(host: str) -> None:
    address = Address(host=host, no_tls=True)
    with address.listen() as listening:
        assert address.url(listening) == f"http://{host}:{listening.getsockname()[1]}"


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = Address(no_tls=True, port=other.getsockname()[1])
        with pytest.raises(FixConfigurationError, match="cannot listen"):
            address.listen()


def test_serve_as_a_library_ends_what_it_started(tmp_path: Path) -> None:
    X = records(20)
    with serve([BUNDLE], passphrase="five words are quite good") as service, Client(service.url) as client:
        scores = client.score("tiny", X)
        assert [offer.name for offer in client.models()] == ["tiny"]
        assert client.model("tiny").digest == BUNDLE.public.digest
        assert client.score("tiny", X[:3]).scores.shape == (3,)
    np.testing.assert_allclose(scores.scores, BUNDLE.program.score(X), atol=1e-4)
    assert len(scores) == 20
    assert scores.is_anomaly.dtype == bool
    assert scores.bytes_up > scores.bytes_down > 0
    assert min(scores.timings.encrypt, scores.timings.decrypt, scores.timings.server) > 0
    with pytest.raises(ProcessLookupError):
        os.kill(service.pid, 0)


def test_serve_reports_why_it_did_not_start() -> None:
    with (
        pytest.raises(RetryLaterError, match="known seed"),
        serve([small_bundle(noise_source="seeded-study")]),
    ):
        pass


def test_sigterm_ends_it_cleanly_and_owners_are_never_loaded(tmp_path: Path) -> None:
    """A request is scored by a service that lists, at its end, every module it has loaded."""
    path = BUNDLE.save(tmp_path / "bundle")
    script = (
        "import sys\n"
        "from securead.cli import main\n"
        f"sys.argv = ['securead', 'serve', {str(path)!r}, '--no-tls', '--port', '0', '--workers', '1']\n"
        "try:\n    main()\n"
        "finally:\n    print('\\n'.join(sorted(sys.modules)), flush=True)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        url = process.stdout.readline().removeprefix(URL_PREFIX).strip()
        with Client(url) as client:
            assert len(client.score("tiny", records(5))) == 5
        process.send_signal(signal.SIGTERM)
        modules, errors = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    loaded = modules.split()
    assert process.returncode == 0
    assert "securead.protocols.ckks.blind" in loaded
    assert not [name for name in loaded if name.startswith("securead.") and name.endswith(".owner")]
    assert not [name for name in loaded if name.startswith("securead.client")]
    assert "Traceback" not in errors
    assert "not sanitised" not in errors


def test_it_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    path = BUNDLE.save(tmp_path / "bundle")
    arguments = ["serve", str(path), "--no-tls", "--port", "0", "--until-stdin-closes"]
    process = subprocess.Popen(
        [sys.executable, "-m", "securead", *arguments],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline().startswith(URL_PREFIX)
        process.stdin.close()
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_an_oversized_body_gets_413_from_the_real_service(tmp_path: Path) -> None:
    path = BUNDLE.save(tmp_path / "bundle")
    with served(tmp_path, path, arguments=("--no-tls", "--max-body", "5000")) as service:

        def endless() -> object:
            for _ in range(1000):
                yield b"x" * 1000

        for content in (b"x" * (32 << 20), endless()):
            reply = httpx.post(f"{service.url}/v1/models/tiny/score", content=content, timeout=30)
            assert reply.status_code == 413
            assert reply.json()["error"] == "RejectMessageError"
        assert httpx.get(f"{service.url}/healthz").status_code == 200
        assert service.terminate() == 0


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ((), "needs a certificate"),
        (("--no-tls", "--host", "0.0.0.0"), "this machine only"),
        (("--tls-cert", "missing.pem", "--tls-key", "missing.pem"), "cannot use the certificate"),
        (("--no-tls", "--workers", "2", "--host", "0.0.0.0"), "this machine only"),
        (("--tls-cert", "missing.pem", "--tls-key", "missing.pem", "--workers", "2"), "cannot use the certificate"),
        (("--no-tls", "--workers", "0"), "range"),
        (("--no-tls", "--engine", "sharing"), "among several parties"),
        (("--no-tls", "--engine", "bfv"), "none of the engines that were named"),
    ],
)
def test_refusals_on_the_command_line(arguments: tuple[str, ...], reason: str, tmp_path: Path) -> None:
    path = BUNDLE.save(tmp_path / "bundle")
    run = securead("serve", path, "--port", "0", *arguments)
    assert run.returncode == 2
    assert reason in run.stderr
    assert "Traceback" not in run.stderr
    assert run.stdout == ""


def test_a_sealed_bundle_needs_its_passphrase(tmp_path: Path) -> None:
    path = BUNDLE.save(tmp_path / "bundle", passphrase="five words are quite good")
    (tmp_path / "words").write_text("five words are quite good\n")
    run = securead("serve", path, "--no-tls", "--port", "0")
    assert run.returncode == 2
    assert "--passphrase-file" in run.stderr
    with served(tmp_path, path, arguments=("--no-tls", "--passphrase-file", str(tmp_path / "words"))) as service:
        assert httpx.get(f"{service.url}/healthz").status_code == 200
