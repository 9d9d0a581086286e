"""Identities from `securead certs`: who is believed, and who is not."""

from __future__ import annotations

import datetime
from pathlib import Path

import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from securead import certificates
from securead.errors import FixInputError, UseOtherKeyError
from securead.privacy.site import Kept
from securead.protocols.masking.identity import Authority, Identity, Known
from securead.protocols.masking.masker import Masker
from securead.protocols.masking.masks import unmask

NAMES = ("bank-a", "bank-b", "bank-c")


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("deployment")
    certificates.issue(directory, NAMES)
    return directory


def test_a_masked_round_of_members(deployment: Path) -> None:
    sites = {
        name: Masker(
            "run",
            Identity.from_member(deployment / name),
            Authority(deployment / name / "ca.crt", NAMES),
            Kept(),
            minimum=2,
            attempts=1,
        )
        for name in NAMES
    }
    adverts = [site.advert() for site in sites.values()]
    values = {name: np.arange(10) * (at + 1) for at, name in enumerate(NAMES)}
    signatures = {name: site.agree(0, 1, adverts, values[name]) for name, site in sites.items()}
    messages = {name: site.mask(0, 1, signatures, values[name]) for name, site in sites.items()}
    assert unmask(messages, NAMES).tolist() == (np.arange(10) * 6).tolist()


def refused(roster: Authority | Known, identity: Identity, match: str, *, name: str = "bank-a") -> None:
    with pytest.raises(UseOtherKeyError, match=match):
        roster.verify(name, identity.credential, b"message", identity.sign(b"message"))


def test_members_are_believed(deployment: Path) -> None:
    identity = Identity.from_member(deployment / "bank-a")
    assert identity.name == "bank-a"
    for roster in (Authority(deployment / "ca.crt"), Known({"bank-a": identity.credential})):
        roster.verify("bank-a", identity.credential, b"message", identity.sign(b"message"))
        with pytest.raises(UseOtherKeyError, match="signature of 'bank-a'"):
            roster.verify("bank-a", identity.credential, b"massage", identity.sign(b"message"))


def test_another_authority(deployment: Path, tmp_path: Path) -> None:
    certificates.issue(tmp_path, ("bank-a",))
    refused(Authority(deployment / "ca.crt"), Identity.from_member(tmp_path / "bank-a"), "not issued by this")


def test_an_authority_of_the_same_name(deployment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = certificates.read_certificate(deployment / "ca.crt")
    monkeypatch.setattr(certificates.x509, "random_serial_number", lambda: 5)
    certificates.issue(tmp_path, ("bank-a",))
    key = ec.generate_private_key(ec.SECP256R1())
    theirs = certificates.read_certificate(tmp_path / "bank-a" / "identity.crt")
    builder = certificates._builder(theirs.subject, ours.subject, key.public_key(), 10)
    for extension in theirs.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    forged = builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    credential = forged.public_bytes(certificates.serialization.Encoding.DER)
    refused(Authority(deployment / "ca.crt"), Identity("bank-a", key, credential), "not issued by this")


def test_an_expired_certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = certificates._now
    for name, days in (("old", -40), ("early", 40)):
        monkeypatch.setattr(certificates, "_now", lambda days=days: real() + datetime.timedelta(days=days))
        certificates.issue(tmp_path / name, ("bank-a",), days=30)
        monkeypatch.undo()
        refused(
            Authority(tmp_path / name / "ca.crt"), Identity.from_member(tmp_path / name / "bank-a"), "expired or not"
        )


def test_another_name(deployment: Path) -> None:
    other = Identity.from_member(deployment / "bank-b")
    refused(Authority(deployment / "ca.crt"), other, "another name")
    refused(Authority(deployment / "ca.crt", ("bank-a",)), other, "none of this run's sites", name="bank-b")
    refused(Known({"bank-a": other.credential}), other, "none of this run's sites", name="bank-b")


def test_a_host_is_no_name(tmp_path: Path) -> None:
    """A certificate may bear DNS names of hosts beside the member's; they are nobody's identity."""
    certificates.issue(tmp_path, ("bank-b",))
    authority, key = certificates._authority(tmp_path, 1, None)
    own = ec.generate_private_key(ec.SECP256R1())
    made = {}
    for names in (("bank-b", "bank-a"), ("bank-a",)):
        extensions = [
            x509.BasicConstraints(ca=False, path_length=None),
            x509.ExtendedKeyUsage([certificates.ExtendedKeyUsageOID.CLIENT_AUTH]),
            x509.SubjectAlternativeName([x509.DNSName(name) for name in names]),
        ]
        builder = certificates._builder(certificates._subject("bank-b"), authority.subject, own.public_key(), 1)
        for extension in extensions:
            builder = builder.add_extension(extension, critical=False)
        credential = builder.sign(key, hashes.SHA256()).public_bytes(certificates.serialization.Encoding.DER)
        made[names] = Identity("bank-a", own, credential)
    roster = Authority(tmp_path / "ca.crt")
    refused(roster, made["bank-b", "bank-a"], "another name")
    refused(roster, made["bank-a",], "no member's certificate")
    two = made["bank-b", "bank-a"]
    roster.verify("bank-b", two.credential, b"message", two.sign(b"message"))


def test_an_authority_is_no_member(deployment: Path) -> None:
    _, key = certificates._authority(deployment, 1, None)
    certificate = certificates.read_certificate(deployment / "ca.crt")
    credential = certificate.public_bytes(certificates.serialization.Encoding.DER)
    refused(Authority(deployment / "ca.crt"), Identity("bank-a", key, credential), "no member's")


@pytest.mark.parametrize("credential", [b"", b"\x30\x03\x02\x01\x00", bytes(65), b"\x04" + bytes(64)])
def test_no_credential(deployment: Path, credential: bytes) -> None:
    identity = Identity("bank-a", ec.generate_private_key(ec.SECP256R1()), credential)
    refused(Authority(deployment / "ca.crt"), identity, "not issued by this")
    refused(Known({"bank-a": credential}), identity, "neither certificate nor public key")


def test_a_certificate_known_beforehand(deployment: Path, tmp_path: Path) -> None:
    """Who holds the authority's key can make a second bank-a: who exchanged certificates is not deceived."""
    first = Identity.from_member(deployment / "bank-a")
    second_key = ec.generate_private_key(ec.SECP256R1())
    roster = Known({"bank-a": first.credential})
    roster.verify("bank-a", first.credential, b"message", first.sign(b"message"))
    refused(roster, Identity("bank-a", second_key), "another credential")
    refused(roster, Identity("bank-a", second_key, first.credential), "signature of 'bank-a'")


def test_keys_of_another_curve() -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    name = certificates._subject("bank-a")
    made = certificates._builder(name, name, key.public_key(), 1).sign(key, hashes.SHA256())
    credential = made.public_bytes(certificates.serialization.Encoding.DER)
    refused(Known({"bank-a": credential}), Identity("bank-a", key, credential), "not on P-256")


def test_files_that_do_not_belong_together(deployment: Path, tmp_path: Path) -> None:
    for name, source in (("identity.crt", "bank-a"), ("identity.key", "bank-b")):
        target = tmp_path / name
        target.write_bytes((deployment / source / name).read_bytes())
        target.chmod(0o600)
    with pytest.raises(UseOtherKeyError, match="do not belong together"):
        Identity.from_member(tmp_path)
    with pytest.raises(FixInputError, match="cannot read"):
        Identity.from_member(tmp_path / "nobody")


def test_a_sealed_key(tmp_path: Path) -> None:
    certificates.issue(tmp_path, ("bank-a",), passphrase="five words")
    assert Identity.from_member(tmp_path / "bank-a", "five words").name == "bank-a"
    with pytest.raises(UseOtherKeyError, match="passphrase"):
        Identity.from_member(tmp_path / "bank-a")
