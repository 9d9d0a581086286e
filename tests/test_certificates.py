"""Certificates of a deployment: what is in them, who may read them, and that nothing is overwritten."""

from __future__ import annotations

import datetime
import json
import ssl
import sys
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from securead import certificates, cli, files
from securead.errors import FixConfigurationError, FixInputError, UseOtherKeyError


def read(directory: Path, name: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate((directory / name / "identity.crt").read_bytes())


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_a_deployment(tmp_path: Path) -> None:
    directory = tmp_path / "deployment"
    made = certificates.issue(directory, ("dealer", "party0", "bank-a"), days=30)
    assert [(member.name, member.serves) for member in made] == [("dealer", True), ("party0", True), ("bank-a", False)]
    authority = x509.load_pem_x509_certificate((directory / "ca.crt").read_bytes())
    assert mode(directory / "ca.key") == 0o600
    for member in made:
        certificate = read(directory, member.name)
        certificate.verify_directly_issued_by(authority)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert list(names) == [x509.DNSName(member.name)]
        uses = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        assert (ExtendedKeyUsageOID.SERVER_AUTH in uses) == member.serves
        assert ExtendedKeyUsageOID.CLIENT_AUTH in uses
        assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        assert isinstance(certificate.public_key().curve, ec.SECP256R1)
        left = member.expires - datetime.datetime.now(datetime.UTC)
        assert datetime.timedelta(days=29, hours=23) < left <= datetime.timedelta(days=30)
        assert mode(member.directory / "identity.key") == 0o600
        assert mode(member.directory) == 0o700
        assert (member.directory / "ca.crt").read_bytes() == (directory / "ca.crt").read_bytes()
        assert sorted(path.name for path in member.directory.iterdir()) == ["ca.crt", "identity.crt", "identity.key"]
        # TLS accepts the three files as they are, under its strict rules.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        context.load_cert_chain(member.directory / "identity.crt", member.directory / "identity.key")
    assert certificates.members(directory) == tuple(sorted(made, key=lambda member: member.name))


def test_the_coordinator_is_a_server(tmp_path: Path) -> None:
    """Known by that name, whatever its address is: there is no other name in its certificate."""
    coordinator, site = certificates.issue(tmp_path, ("coordinator", "bank-a"))
    assert (coordinator.serves, site.serves) == (True, False)
    names = read(tmp_path, "coordinator").extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [x509.DNSName("coordinator")]


def test_names_are_added_later(tmp_path: Path) -> None:
    certificates.issue(tmp_path, ("party0",))
    before = (tmp_path / "ca.crt").read_bytes(), (tmp_path / "party0" / "identity.crt").read_bytes()
    certificates.issue(tmp_path, ("bank-a",))
    assert ((tmp_path / "ca.crt").read_bytes(), (tmp_path / "party0" / "identity.crt").read_bytes()) == before
    read(tmp_path, "bank-a").verify_directly_issued_by(x509.load_pem_x509_certificate(before[0]))


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    certificates.issue(tmp_path, ("party0",))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(FixInputError, match="party0 exists already"):
        certificates.issue(tmp_path, ("party1", "party0"))
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    (tmp_path / "ca.key").unlink()
    with pytest.raises(FixInputError, match=r"not ca\.key"):
        certificates.issue(tmp_path, ("party1",))


def test_renewing(tmp_path: Path) -> None:
    certificates.issue(tmp_path, ("party0", "party1"), days=10)
    old = read(tmp_path, "party0")
    renewed = certificates.renew(tmp_path, "party0", days=100)
    new = read(tmp_path, "party0")
    assert (new.subject, new.issuer) == (old.subject, old.issuer)
    assert new.public_key() != old.public_key()
    assert renewed.expires == new.not_valid_after_utc > old.not_valid_after_utc + datetime.timedelta(days=80)
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {"party0", "party1"}
    with pytest.raises(FixInputError, match="no certificate of 'bank-a'"):
        certificates.renew(tmp_path, "bank-a")
    (tmp_path / "ca.key").unlink()
    with pytest.raises(FixInputError, match="where the certificates were made"):
        certificates.renew(tmp_path, "party0")


def test_renewing_that_fails_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificates.issue(tmp_path, ("party0",))
    before = read(tmp_path, "party0")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "write_secret", full)
    with pytest.raises(certificates.RetryLaterError, match="No space"):
        certificates.renew(tmp_path, "party0")
    assert read(tmp_path, "party0") == before


def test_a_passphrase_seals_and_opens(tmp_path: Path) -> None:
    certificates.issue(tmp_path, ("party0",), passphrase="correct horse")
    for key in (tmp_path / "ca.key", tmp_path / "party0" / "identity.key"):
        assert b"PRIVATE KEY" not in key.read_bytes()
        assert b"PRIVATE KEY" in files.read_secret(key, limit=1 << 16, passphrase="correct horse")
    with pytest.raises(UseOtherKeyError, match="sealed with a passphrase"):
        certificates.issue(tmp_path, ("party1",))
    with pytest.raises(UseOtherKeyError, match="wrong"):
        certificates.issue(tmp_path, ("party1",), passphrase="battery staple")
    assert not (tmp_path / "party1").exists()


@pytest.mark.parametrize("name", ["", "Party0", "a b", "../up", "-a", "a.", "x" * 64, "a/b", ".hidden", "ä"])
def test_names_that_cannot_be(tmp_path: Path, name: str) -> None:
    with pytest.raises(FixConfigurationError, match="a name is"):
        certificates.issue(tmp_path, ("party0", name))
    assert not list(tmp_path.iterdir())


def test_other_mistakes(tmp_path: Path) -> None:
    with pytest.raises(FixConfigurationError, match="twice"):
        certificates.issue(tmp_path, ("a", "a"))
    for days in (0, 3651):
        with pytest.raises(FixConfigurationError, match="valid for"):
            certificates.issue(tmp_path, ("a",), days=days)
    certificates.issue(tmp_path / "one", ("a",))
    certificates.issue(tmp_path / "two", ("a",))
    (tmp_path / "one" / "ca.crt").write_bytes((tmp_path / "two" / "ca.crt").read_bytes())
    with pytest.raises(UseOtherKeyError, match="do not belong together"):
        certificates.issue(tmp_path / "one", ("b",))
    (tmp_path / "two" / "ca.key").write_bytes(b"no key")
    with pytest.raises(FixInputError, match="no private key"):
        certificates.issue(tmp_path / "two", ("b",))


def test_an_authority_that_expires_before_its_member_would(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificates.issue(tmp_path, ("a",))
    later = certificates._now() + datetime.timedelta(days=3600)
    monkeypatch.setattr(certificates, "_now", lambda: later)
    certificates.issue(tmp_path, ("b",), days=20)
    with pytest.raises(FixConfigurationError, match="the authority itself expires"):
        certificates.issue(tmp_path, ("c",), days=100)


# The command.


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["securead", "certs", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "deployment"
    words = tmp_path / "words"
    words.write_text("five words are better here\n")
    assert run(monkeypatch, "--out", str(out), "--name", "party0", "--name", "bank-a", "--days", "20") == 0
    said = capsys.readouterr().err
    assert "valid until" in said
    assert "not sealed" in said
    assert run(monkeypatch, "--out", str(out), "--name", "bank-b", "--renew", "party0", "--json") == 0
    summary = json.loads(capsys.readouterr().out)
    assert [(member["name"], member["serves"]) for member in summary["members"]] == [
        ("bank-b", False),
        ("party0", True),
    ]
    assert run(monkeypatch, "--out", str(out)) == 0
    said = capsys.readouterr().err
    assert all(name in said for name in ("bank-a, client", "bank-b, client", "party0, server"))
    assert run(monkeypatch, "--out", str(out), "--name", "party1", "--passphrase-file", str(words)) == 0
    assert "sealed with the passphrase" in capsys.readouterr().err
    assert b"PRIVATE KEY" not in (out / "party1" / "identity.key").read_bytes()
    assert run(monkeypatch, "--out", str(out), "--name", "party1") == 2
    assert "exists already" in capsys.readouterr().err


def test_help_teaches(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "--help") == 0
    shown = capsys.readouterr().out
    assert "securead certs --out deployment --name dealer --name party0" in shown
    assert "--renew" in shown
