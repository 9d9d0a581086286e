"""Who a site is: its long-term signing key, and how others verify what it signed (SPEC.md, section 2).

ECDSA on P-256 with SHA-256 throughout (FIPS 186-5). A credential is what a verifier needs: a certificate that
`securead certs` made (DER), or, among sites of one process, the public key itself (an uncompressed point, 65 bytes).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Protocol

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from securead import certificates
from securead.errors import UseOtherKeyError

_POINT_BYTES = 65
_ECDSA = ec.ECDSA(hashes.SHA256())


class Identity:
    """One site's signing key. `credential` is public."""

    def __init__(self, name: str, key: ec.EllipticCurvePrivateKey, credential: bytes | None = None) -> None:
        self.name, self._key = name, key
        self.credential = _point(key.public_key()) if credential is None else credential

    @classmethod
    def generate(cls, name: str) -> Identity:
        """A key that lives as long as this object: for sites that share a process."""
        return cls(name, ec.generate_private_key(ec.SECP256R1()))

    @classmethod
    def from_private_bytes(cls, name: str, content: bytes) -> Identity:
        """The identity whose `private_bytes` these are."""
        key = serialization.load_der_private_key(content, password=None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise UseOtherKeyError(f"the key of {name!r} is not on P-256", remedy="Begin the run anew.")
        return cls(name, key)

    def private_bytes(self) -> bytes:
        """The key (PKCS #8), for a memory that outlives the process. A secret."""
        return self._key.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    @classmethod
    def from_member(cls, directory: Path | str, passphrase: str | None = None) -> Identity:
        """The identity in a member's directory of `securead certs`. Raises as `certificates.read_identity` does."""
        certificate, key = certificates.read_identity(directory, passphrase)
        return cls(certificates.name_of(certificate), key, certificate.public_bytes(serialization.Encoding.DER))

    def sign(self, message: bytes) -> bytes:
        """A signature (DER), another one each time."""
        return self._key.sign(message, _ECDSA)


class Roster(Protocol):
    """Decides who may take part, and verifies what they signed."""

    def verify(self, name: str, credential: bytes, message: bytes, signature: bytes) -> None:
        """Return if `name` signed `message`; raise `UseOtherKeyError` if not, or if the credential is not `name`'s."""


class Authority:
    """Whoever a deployment's authority certified, while the certificate is valid; with `names`, nobody else.

    Whoever holds the authority's key can be anyone here. Sites that do not trust its holder with that exchange their
    certificates beforehand and use `Known`.
    """

    def __init__(self, ca_certificate: Path | str, names: Collection[str] | None = None) -> None:
        self._authority = certificates.read_certificate(ca_certificate)
        self._names = None if names is None else frozenset(names)

    def verify(self, name: str, credential: bytes, message: bytes, signature: bytes) -> None:
        """Verify certificate, name and signature."""
        if self._names is not None and name not in self._names:
            raise UseOtherKeyError(f"{name!r} is none of this run's sites", value=sorted(self._names))
        certificate = certificates.verify(credential, self._authority, where=f"site {name!r}")
        if (found := certificates.name_of(certificate)) != name:
            raise UseOtherKeyError(
                f"site {name!r} presents the certificate of another name",
                value=found,
                remedy="A site's name in the recipe is the name in its certificate.",
            )
        _verify(name, certificate.public_key(), message, signature)


class Known:
    """Exactly these credentials: of the sites of one process, or certificates exchanged beforehand."""

    def __init__(self, credentials: Mapping[str, bytes]) -> None:
        self._credentials = dict(credentials)

    def verify(self, name: str, credential: bytes, message: bytes, signature: bytes) -> None:
        """Compare the credential and verify the signature."""
        if name not in self._credentials:
            raise UseOtherKeyError(f"{name!r} is none of this run's sites", value=sorted(self._credentials))
        if self._credentials[name] != credential:
            raise UseOtherKeyError(
                f"site {name!r} presents another credential than is known", remedy="Exchange certificates anew."
            )
        _verify(name, _public_key(name, credential), message, signature)


def _public_key(name: str, credential: bytes) -> object:
    try:
        if len(credential) == _POINT_BYTES:
            return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), credential)
        return x509.load_der_x509_certificate(credential).public_key()
    except ValueError as error:
        raise UseOtherKeyError(f"the credential of {name!r} is neither certificate nor public key") from error


def _verify(name: str, key: object, message: bytes, signature: bytes) -> None:
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise UseOtherKeyError(
            f"the key of {name!r} is not on P-256", remedy="Make certificates with `securead certs`."
        )
    try:
        key.verify(signature, message, _ECDSA)
    except InvalidSignature:
        raise UseOtherKeyError(
            f"the signature of {name!r} does not fit what it should have signed",
            remedy="Another key made it, or what was signed was changed on its way.",
        ) from None


def _point(key: ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
