"""A private certificate authority for one deployment, and the certificates of its members.

    DIR/ca.crt           whom all members believe; public
    DIR/ca.key           makes new members: 0600, for whoever runs the deployment, never handed out
    DIR/NAME/            what the member NAME is handed: ca.crt, identity.crt, identity.key (0600)

Guarantees: nothing is overwritten; a member's directory appears whole or not at all; keys are 0600 from their first
byte and sealed when a passphrase is given (`securead.files`); a certificate has exactly one name, a DNS name (RFC
5280, section 4.2.1.6), and that of a client cannot act as a server. Keys are ECDSA on P-256, which TLS 1.3 (RFC 8446,
section 9.1) makes mandatory. There is no revocation list: a member is excluded by a new authority, or by expiry.
"""

from __future__ import annotations

import datetime
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from securead import files
from securead.errors import FixConfigurationError, FixInputError, RetryLaterError, UseOtherKeyError

SERVERS = ("coordinator", "dealer", "party0", "party1")  # the roles that are dialled; every other name is a client's
CA_CERTIFICATE, CA_KEY = "ca.crt", "ca.key"
CERTIFICATE, KEY = "identity.crt", "identity.key"
DAYS, AUTHORITY_DAYS = 365, 3650
NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?")
_SKEW = datetime.timedelta(minutes=5)  # clocks of two institutions differ
_MAX_BYTES = 1 << 16


@dataclass(frozen=True)
class Member:
    """One certificate: whose, where, and until when."""

    name: str
    directory: Path
    expires: datetime.datetime
    serves: bool


def issue(
    directory: Path | str, names: Sequence[str], *, days: int = DAYS, passphrase: str | None = None
) -> tuple[Member, ...]:
    """Make certificates for `names`, and the authority first where DIR/ca.key does not exist.

    Checks everything before it writes anything. `passphrase` opens DIR/ca.key if that is sealed, and seals the keys
    that are made. Raises `FixConfigurationError` for a name or a number of days that cannot be, `FixInputError` when a
    name has a certificate already, `UseOtherKeyError` when the authority's files do not belong together.
    """
    directory = Path(directory)
    _check(names, days)
    for name in names:
        if (directory / name).exists():
            raise FixInputError(
                f"{directory / name} exists already", remedy="Nothing is overwritten: renew it, or choose another name."
            )
    with files.locked(directory / CA_KEY):
        certificate, key = _authority(directory, days, passphrase)
        return tuple(_member(directory, name, days, passphrase, certificate, key) for name in names)


def renew(directory: Path | str, name: str, *, days: int = DAYS, passphrase: str | None = None) -> Member:
    """A new key and certificate for a name that has one; the old ones, valid until they expire, are deleted here."""
    directory = Path(directory)
    _check((name,), days)
    if not (directory / name / CERTIFICATE).is_file():
        raise FixInputError(f"{directory} has no certificate of {name!r}", remedy="Make it: give it as a new name.")
    if not (directory / CA_KEY).is_file():
        raise FixInputError(f"{directory} holds no {CA_KEY}", remedy="Renew where the certificates were made.")
    with files.locked(directory / CA_KEY):
        certificate, key = _authority(directory, days, passphrase)
        old = directory / f".{name}.old"
        shutil.rmtree(old, ignore_errors=True)
        (directory / name).rename(old)
        try:
            member = _member(directory, name, days, passphrase, certificate, key)
        except BaseException:
            old.rename(directory / name)
            raise
        shutil.rmtree(old)
        return member


def members(directory: Path | str) -> tuple[Member, ...]:
    """Everyone with a certificate in a deployment's directory, by name."""
    found = []
    for path in sorted(Path(directory).glob(f"*/{CERTIFICATE}")):
        if not path.parent.name.startswith("."):
            found.append(read_member(path.parent))
    return tuple(found)


def read_member(directory: Path | str) -> Member:
    """Whose certificate a member's directory holds, and until when."""
    directory = Path(directory)
    certificate = read_certificate(directory / CERTIFICATE)
    try:
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except (ValueError, x509.ExtensionNotFound) as error:
        raise UseOtherKeyError(f"{directory / CERTIFICATE} is no member's certificate") from error
    serves = ExtendedKeyUsageOID.SERVER_AUTH in usage
    return Member(name_of(certificate), directory, certificate.not_valid_after_utc, serves)


def read_identity(
    directory: Path | str, passphrase: str | None = None
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """Certificate and key in a member's directory. Raises `UseOtherKeyError` unless they belong together."""
    directory = Path(directory)
    certificate, key = read_certificate(directory / CERTIFICATE), _read_key(directory / KEY, passphrase)
    if key.public_key() != certificate.public_key():
        raise UseOtherKeyError(f"{KEY} and {CERTIFICATE} in {directory} do not belong together")
    return certificate, key


def name_of(certificate: x509.Certificate) -> str:
    """The member's name: the subject's common name, which is also among the DNS names (others are its hosts)."""
    try:
        (subject,) = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        alternative = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        name = str(subject.value)
        if name not in alternative.get_values_for_type(x509.DNSName):
            raise ValueError("no DNS name of that name")
    except (ValueError, x509.ExtensionNotFound) as error:
        raise UseOtherKeyError(
            "this is no member's certificate", remedy="Make certificates with `securead certs`."
        ) from error
    return name


def verify(content: bytes, authority: x509.Certificate, *, where: str) -> x509.Certificate:
    """The certificate of a member, now valid, in DER. Raises `UseOtherKeyError` if `authority` did not issue it so."""
    try:
        certificate = x509.load_der_x509_certificate(content)
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm) as error:
        raise UseOtherKeyError(
            "the certificate was not issued by this deployment's authority",
            where=where,
            remedy="All members use certificates of one authority.",
        ) from error
    try:
        issues = authority.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        belongs = not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        if not (issues and belongs and ExtendedKeyUsageOID.CLIENT_AUTH in usage):
            raise ValueError("made for something else")
    except (ValueError, x509.ExtensionNotFound) as error:
        raise UseOtherKeyError(
            "the certificate is no member's", where=where, remedy="A member presents its identity.crt."
        ) from error
    now = datetime.datetime.now(datetime.UTC)
    for each in (certificate, authority):
        if not each.not_valid_before_utc <= now <= each.not_valid_after_utc:
            raise UseOtherKeyError(
                "the certificate is expired or not valid yet",
                where=where,
                value=f"{each.not_valid_before_utc:%Y-%m-%d} to {each.not_valid_after_utc:%Y-%m-%d}",
                remedy="Renew it with `securead certs`, or set the clock.",
            )
    return certificate


def _check(names: Sequence[str], days: int) -> None:
    for name in names:
        if not NAME.fullmatch(name):
            raise FixConfigurationError(
                "a name is 1 to 63 of a-z, 0-9, - and ., not - or . at an end",
                value=name,
                remedy="As in party0 or bank-a.",
            )
    if len(set(names)) != len(names):
        raise FixConfigurationError("a name is given twice", value=sorted(names), remedy="Give each name once.")
    if not 1 <= days <= AUTHORITY_DAYS:
        raise FixConfigurationError(
            f"a certificate is valid for 1 to {AUTHORITY_DAYS} days", value=days, remedy="Choose another --days."
        )


def _authority(
    directory: Path, days: int, passphrase: str | None
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """The authority in `directory`, made if there is none. Its key is written last: with it, the authority exists."""
    if (directory / CA_KEY).exists():
        certificate = read_certificate(directory / CA_CERTIFICATE)
        key = _read_key(directory / CA_KEY, passphrase)
        if key.public_key() != certificate.public_key():
            raise UseOtherKeyError(
                f"{CA_KEY} and {CA_CERTIFICATE} in {directory} do not belong together", remedy="They were mixed up."
            )
        if certificate.not_valid_after_utc < _now() + datetime.timedelta(days=days):
            raise FixConfigurationError(
                f"the authority itself expires on {certificate.not_valid_after_utc:%Y-%m-%d}",
                value=days,
                remedy="Choose fewer --days, or make a new authority in another directory, for all members.",
            )
        return certificate, key
    if (directory / CA_CERTIFICATE).exists() and any(directory.glob(f"*/{CERTIFICATE}")):
        raise FixInputError(
            f"{directory} holds certificates but not {CA_KEY}", remedy="Add members where the authority's key is."
        )
    key = ec.generate_private_key(ec.SECP256R1())
    # One number in the subject, so that two deployments' authorities are told apart by more than their keys.
    subject = _subject(f"securead authority {x509.random_serial_number() % 10**8:08d}")
    usage = _usage(key_cert_sign=True, crl_sign=True)
    builder = (
        _builder(subject, subject, key.public_key(), AUTHORITY_DAYS + 1)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    certificate = builder.sign(key, hashes.SHA256())
    files.write_atomic(directory / CA_CERTIFICATE, certificate.public_bytes(serialization.Encoding.PEM))
    files.write_secret(directory / CA_KEY, _pem(key), passphrase=passphrase)
    return certificate, key


def _member(
    directory: Path,
    name: str,
    days: int,
    passphrase: str | None,
    authority: x509.Certificate,
    authority_key: ec.EllipticCurvePrivateKey,
) -> Member:
    key = ec.generate_private_key(ec.SECP256R1())
    uses = [ExtendedKeyUsageOID.CLIENT_AUTH] + ([ExtendedKeyUsageOID.SERVER_AUTH] if name in SERVERS else [])
    certificate = (
        _builder(_subject(name), authority.subject, key.public_key(), days)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(
                authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
            ),
            critical=False,
        )
        .sign(authority_key, hashes.SHA256())
    )
    fresh = directory / f".{name}.new"
    try:
        shutil.rmtree(fresh, ignore_errors=True)  # of a run that was cut off
        files.make_secret_directory(fresh)
        files.write_atomic(fresh / CA_CERTIFICATE, authority.public_bytes(serialization.Encoding.PEM))
        files.write_atomic(fresh / CERTIFICATE, certificate.public_bytes(serialization.Encoding.PEM))
        files.write_secret(fresh / KEY, _pem(key), passphrase=passphrase)
        fresh.rename(directory / name)
    except OSError as error:
        raise RetryLaterError(
            f"cannot write {directory / name}: {error.strerror}", remedy="Free space or fix the permission; call again."
        ) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return read_member(directory / name)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(_now() - _SKEW)
        .not_valid_after(_now() + datetime.timedelta(days=days))
    )


def _usage(*, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def read_certificate(path: Path | str) -> x509.Certificate:
    """One certificate (PEM); raises `FixInputError` for anything else."""
    content = files.read_bytes(Path(path), limit=_MAX_BYTES)  # outside: a missing file must not be called ill-formed
    try:
        return x509.load_pem_x509_certificate(content)
    except ValueError as error:
        raise FixInputError(f"{path} is no certificate", remedy="The file is damaged or foreign.") from error


def _read_key(path: Path, passphrase: str | None) -> ec.EllipticCurvePrivateKey:
    try:
        content = files.read_secret(path, limit=_MAX_BYTES, passphrase=passphrase)
        key = serialization.load_pem_private_key(content, password=None)
    except (ValueError, TypeError) as error:
        if isinstance(error, FixInputError):
            raise
        raise FixInputError(f"{path} is no private key", remedy="The file is damaged or foreign.") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise FixInputError(f"{path} is no key on P-256", remedy="The file is foreign.")
    return key


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC).replace(microsecond=0)
