"""Files that must survive a crash and secrets that must not be readable by others.

Guarantees: a reader of `path` sees the old content or the new, never a part (`write_atomic`); a secret is mode
0600 from its first byte (`write_secret`), and under a passphrase it is AES-256-GCM under a key from scrypt
(Percival and Josefsson 2016, RFC 7914; both from `cryptography`).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from securead.errors import FixConfigurationError, FixInputError, RetryLaterError, UseOtherKeyError

_SEALED_MAGIC = b"securead-sealed-1\n"
# A JSON list of numbers that stands on several lines. Newlines are escaped in strings, so none matches.
_NUMBERS = re.compile(r"\[\n([-+.,eE0-9\s]+)\]")
_SCRYPT_LOG_N = 17  # 128 MiB and about .3 s: OWASP's 2023 recommendation for scrypt


def write_atomic(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Write `content` to `path` so that a crash, a full disk or a concurrent reader never meets half a file."""
    try:
        _replace(path, content, mode)
    except OSError as error:  # a full disk, a missing permission, a directory in the way
        raise RetryLaterError(
            f"cannot write {path}: {error.strerror or error}",
            remedy="What stands there is whole, the old or the new: free space or fix the permission, then call again.",
        ) from error


def _replace(path: Path, content: bytes, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise
    _sync_directory(path.parent)


def _sync_directory(directory: Path) -> None:
    """Make the rename itself durable: without it a power cut may bring the old name back."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, value: Any, *, mode: int = 0o644) -> None:
    """`write_atomic` for a JSON value, indented for people; a list of numbers takes one line, not one for each."""
    text = _NUMBERS.sub(
        lambda found: "[" + " ".join(found[1].split()) + "]", json.dumps(value, indent=2, allow_nan=False)
    )
    write_atomic(path, (text + "\n").encode(), mode=mode)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep every other process and thread that calls this for `path` waiting until the block ends.

    For files that are read, changed and replaced: two that both read first would forget what one of them wrote. The
    lock is on an empty file `.NAME.lock` beside `path`, because the file itself is replaced.
    """
    lock = path.with_name(f".{path.name}.lock")
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise RetryLaterError(
            f"cannot lock {path}: {error.strerror}", remedy="Nothing was released: fix the permission."
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def held(directory: Path, *marks: str) -> Iterator[None]:
    """Keep `directory` to this process until the block ends; a second process that wants it is refused at once.

    It is new, empty, or holds one of the files or folders `marks`, by which it is known to be ours. The lock is on an
    empty file beside it.
    """
    directory = directory.resolve()
    if directory.is_dir() and any(directory.iterdir()) and not any((directory / mark).exists() for mark in marks):
        raise FixConfigurationError(
            f"{directory} holds other files", remedy="Give a folder of its own, new or empty: it is deleted in the end."
        )
    lock = directory.with_name(f".{directory.name}.lock")
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise RetryLaterError(f"cannot lock {directory}: {error.strerror}", remedy="Fix the permission.") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FixConfigurationError(
                f"another process uses {directory}", remedy="Wait for it, stop it, or give this run another folder."
            ) from None
        make_secret_directory(directory)
        yield
    finally:
        os.close(descriptor)


def discard(directory: Path) -> None:
    """Delete a directory so that no half of it is ever found under its name."""
    directory = directory.resolve()
    gone = directory.with_name(f".{directory.name}.discarded-{secrets.token_hex(4)}")
    try:
        directory.rename(gone)
        shutil.rmtree(gone)
    except OSError as error:
        raise RetryLaterError(
            f"cannot delete {directory}: {error.strerror}", remedy="All is done but this: delete it yourself."
        ) from error
    directory.with_name(f".{directory.name}.lock").unlink(missing_ok=True)


def read_bytes(path: Path, *, limit: int) -> bytes:
    """Read a file of at most `limit` bytes; a missing, unreadable or larger one is the user's to fix."""
    try:
        with path.open("rb") as file:
            content = file.read(limit + 1)
    except OSError as error:
        raise FixInputError(
            f"cannot read {path}: {error.strerror}", remedy="Check the path and its permissions."
        ) from error
    if len(content) > limit:
        raise FixInputError(f"{path} is larger than {limit} bytes", remedy="This is not a file securead wrote.")
    return content


def read_json(path: Path, *, limit: int = 64 << 20) -> Any:
    """Read a JSON file; anything else is refused with its path."""
    content = read_bytes(path, limit=limit)  # outside: a file that is missing must not be called ill-formed
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:  # an integer of thousands of digits is a plain ValueError
        raise FixInputError(f"{path} is not JSON: {error}", remedy="The file is damaged or foreign.") from error


def make_secret_directory(path: Path) -> None:
    """Create `path` for the owner's eyes only (0700); an existing directory is tightened."""
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.chmod(0o700)


def write_secret(path: Path, content: bytes, *, passphrase: str | None = None) -> None:
    """Write a secret file, mode 0600, sealed with `passphrase` when one is given."""
    write_atomic(path, seal(content, passphrase) if passphrase is not None else content, mode=0o600)


def read_secret(path: Path, *, limit: int, passphrase: str | None = None) -> bytes:
    """Read what `write_secret` wrote. A file that others can read is refused; a wrong passphrase is an error."""
    content = read_bytes(path, limit=limit + 1024)
    if path.stat().st_mode & 0o077:
        raise FixInputError(
            f"{path} is a secret, but others on this machine can read it",
            value=oct(path.stat().st_mode & 0o777),
            remedy=f"Run: chmod 600 {path}",
        )
    if not content.startswith(_SEALED_MAGIC):
        return content
    if passphrase is None:
        raise UseOtherKeyError(f"{path} is sealed with a passphrase", remedy="Give it with --passphrase-file.")
    return unseal(content, passphrase, where=str(path))


def seal(content: bytes, passphrase: str) -> bytes:
    """Encrypt and authenticate `content` under a passphrase."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    if not passphrase:
        raise FixInputError("the passphrase is empty", remedy="Give at least one character, better five words.")
    salt, nonce = secrets.token_bytes(16), secrets.token_bytes(12)
    header = _SEALED_MAGIC + bytes([_SCRYPT_LOG_N]) + salt + nonce
    return header + AESGCM(_stretch(passphrase, salt, _SCRYPT_LOG_N)).encrypt(nonce, content, header)


def unseal(sealed: bytes, passphrase: str, *, where: str = "sealed secret") -> bytes:
    """Invert `seal`, or raise `UseOtherKeyError` when the passphrase is wrong or the bytes were changed."""
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    start = len(_SEALED_MAGIC)
    header, body = sealed[: start + 29], sealed[start + 29 :]
    # The work factor is read from an untrusted file, so it is bounded before it is spent.
    if not sealed.startswith(_SEALED_MAGIC) or len(header) < start + 29 or not 14 <= header[start] <= 20:
        raise FixInputError(f"{where} is not a sealed secret", remedy="The file is damaged or foreign.")
    salt, nonce = header[start + 1 : start + 17], header[start + 17 :]
    try:
        return AESGCM(_stretch(passphrase, salt, header[start])).decrypt(nonce, body, header)
    except InvalidTag:
        raise UseOtherKeyError(
            f"{where}: the passphrase is wrong or the file was changed", remedy="Check the passphrase file."
        ) from None


def _stretch(passphrase: str, salt: bytes, log_n: int) -> bytes:
    from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

    return Scrypt(salt=salt, length=32, n=1 << log_n, r=8, p=1).derive(passphrase.encode())


@contextlib.contextmanager
def memory_path(content: bytes = b"") -> Iterator[str]:
    """A path that names memory, not disk, for libraries that can only save to and load from paths.

    A secret key that passes through it never touches a disk. Where the system has no memory files (anything but
    Linux), a mode-0600 temporary file stands in and is removed at once.
    """
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("securead", os.MFD_CLOEXEC)
        try:
            if content:
                with os.fdopen(os.dup(descriptor), "wb") as file:
                    file.write(content)
            yield f"/proc/self/fd/{descriptor}"
        finally:
            os.close(descriptor)
    else:
        descriptor, name = tempfile.mkstemp()
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
            yield name
        finally:
            os.unlink(name)
