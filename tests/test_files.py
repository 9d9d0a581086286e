"""Files across crashes, full disks and foreign eyes. Tests run as root too, so failures are provoked, not chmodded."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from securead import files
from securead.errors import FixInputError, RetryLaterError, UseOtherKeyError

OLD, NEW = b"old content", b"new content, longer than the old"
PASSPHRASE = "correct horse battery staple"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def raising(error: BaseException) -> Callable[..., None]:
    def fail(*arguments: object, **options: object) -> None:
        raise error

    return fail


@pytest.fixture(autouse=True)
def umask() -> object:
    """A generous umask, so that only explicit modes can make a file private."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.fixture
def cheap_scrypt(monkeypatch: pytest.MonkeyPatch) -> None:
    """The least work factor that `unseal` accepts: these tests are about bytes, not about guessing."""
    monkeypatch.setattr(files, "_SCRYPT_LOG_N", 14)


def test_write_then_read(tmp_path: Path) -> None:
    path = tmp_path / "made" / "on the way" / "file"
    files.write_atomic(path, OLD)
    assert files.read_bytes(path, limit=len(OLD)) == OLD
    assert mode(path) == 0o644
    files.write_atomic(path, NEW, mode=0o640)
    assert path.read_bytes() == NEW
    assert mode(path) == 0o640
    assert os.listdir(path.parent) == ["file"], "no temporary file stays"


FULL = OSError(errno.ENOSPC, "No space left on device")
DENIED = PermissionError(errno.EACCES, "Permission denied")


@pytest.mark.parametrize("call", ["replace", "fsync", "fchmod"])
@pytest.mark.parametrize("error", [FULL, DENIED], ids=["full", "denied"])
def test_a_failed_write_keeps_the_old_content_and_can_be_retried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, error: OSError
) -> None:
    path = tmp_path / "file"
    files.write_atomic(path, OLD)
    with monkeypatch.context() as patch:
        patch.setattr(os, call, raising(error))
        with pytest.raises(RetryLaterError, match=rf"cannot write .*file: {error.strerror}") as refused:
            files.write_atomic(path, NEW)
    assert refused.value.__cause__ is error
    assert path.read_bytes() == OLD
    assert os.listdir(tmp_path) == ["file"], "no half-written file stays"
    files.write_atomic(path, NEW)
    assert path.read_bytes() == NEW


@pytest.mark.parametrize("call", ["replace", "fsync"])
def test_a_crash_in_the_middle_keeps_the_old_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "file"
    files.write_atomic(path, OLD)
    monkeypatch.setattr(os, call, raising(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        files.write_atomic(path, NEW)
    assert path.read_bytes() == OLD
    assert os.listdir(tmp_path) == ["file"]


def test_a_process_killed_before_the_rename_leaves_the_old_content(tmp_path: Path) -> None:
    """The hardest crash: no handler runs at all."""
    path = tmp_path / "file"
    files.write_atomic(path, OLD)
    child = os.fork()
    if not child:
        try:
            os.replace = lambda *_: os._exit(9)
            files.write_atomic(path, NEW)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert path.read_bytes() == OLD


def test_content_is_on_the_disk_before_its_name_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    fsync, replace = os.fsync, os.replace

    def note_fsync(descriptor: int) -> None:
        kind = "directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"
        done.append(f"sync {kind} of {os.fstat(descriptor).st_size if kind == 'file' else 'it'}")
        fsync(descriptor)

    def note_replace(source: str, target: Path) -> None:
        done.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "replace", note_replace)
    files.write_atomic(tmp_path / "file", NEW)
    assert done == [f"sync file of {len(NEW)}", "rename", "sync directory of it"]


def test_a_directory_that_cannot_be_synced_is_reported_and_the_new_content_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    files.write_atomic(path, OLD)
    monkeypatch.setattr(files, "_sync_directory", raising(OSError("bare, without strerror")))
    with pytest.raises(RetryLaterError, match="bare, without strerror") as refused:
        files.write_atomic(path, NEW)
    assert path.read_bytes() == NEW
    assert "the old or the new" in refused.value.remedy, "it does not claim that the old content is there"


def test_a_directory_in_the_way_and_a_file_as_parent_are_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "directory" / "x").mkdir(parents=True)
    with pytest.raises(RetryLaterError, match=r"cannot write .*directory"):
        files.write_atomic(tmp_path / "directory", NEW)
    (tmp_path / "file").write_bytes(OLD)
    with pytest.raises(RetryLaterError, match="cannot write"):
        files.write_atomic(tmp_path / "file" / "below", NEW)
    assert (tmp_path / "file").read_bytes() == OLD


def test_json_round_trip_and_what_is_no_json(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    files.write_json(path, {"a": [1, 0.1, None, "ü"]})
    assert files.read_json(path) == {"a": [1, 0.1, None, "ü"]}
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(path, {"a": float("nan")})
    assert files.read_json(path) == {"a": [1, 0.1, None, "ü"]}, "the refused value did not replace the old one"


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe", b"[" * 200_000, b"1" * 5000, b'{"a":' * 100_000, b"{} {}", b"PK\x03\x04"],
    ids=["empty", "cut", "not utf-8", "deep list", "long integer", "deep table", "two values", "zip"],
)
def test_a_damaged_json_file_is_refused_with_its_path(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "value.json"
    path.write_bytes(content)
    with pytest.raises(FixInputError, match=r"value\.json is not JSON"):
        files.read_json(path)


def test_reading_is_limited_and_exact_at_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert files.read_bytes(path, limit=5) == b"12345"
    with pytest.raises(FixInputError, match="larger than 4 bytes"):
        files.read_bytes(path, limit=4)
    with pytest.raises(FixInputError, match="larger than 4 bytes"):
        files.read_json(path, limit=4)


def test_an_endless_file_is_refused_without_reading_it_all() -> None:
    with pytest.raises(FixInputError, match="larger than 100 bytes"):
        files.read_bytes(Path("/dev/zero"), limit=100)


def test_a_missing_file_and_a_directory_are_refused_with_their_path(tmp_path: Path) -> None:
    with pytest.raises(FixInputError, match=r"cannot read .*absent: No such file"):
        files.read_bytes(tmp_path / "absent", limit=9)
    with pytest.raises(FixInputError, match=r"cannot read .*absent: No such file"):
        files.read_json(tmp_path / "absent")
    with pytest.raises(FixInputError, match=r"cannot read .*: Is a directory"):
        files.read_bytes(tmp_path, limit=9)


def test_a_secret_is_private_from_its_first_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    fsync = os.fsync

    def look(descriptor: int) -> None:
        seen.extend(mode(p) for p in tmp_path.iterdir() if p.is_file())
        fsync(descriptor)

    fdopen = os.fdopen

    def look_earlier(descriptor: int, how: str) -> object:
        seen.append(stat.S_IMODE(os.fstat(descriptor).st_mode))
        return fdopen(descriptor, how)

    monkeypatch.setattr(os, "fsync", look)
    monkeypatch.setattr(os, "fdopen", look_earlier)
    files.write_secret(tmp_path / "key", b"secret")
    assert len(seen) >= 3
    assert set(seen) == {0o600}
    assert mode(tmp_path / "key") == 0o600
    assert files.read_secret(tmp_path / "key", limit=6) == b"secret"


def test_a_secret_replaces_a_public_file_by_a_private_one(tmp_path: Path) -> None:
    path = tmp_path / "key"
    files.write_atomic(path, OLD)
    files.write_secret(path, b"secret")
    assert mode(path) == 0o600


@pytest.mark.parametrize("bits", [0o040, 0o020, 0o010, 0o004, 0o002, 0o001])
def test_a_secret_that_others_can_touch_is_refused(tmp_path: Path, bits: int) -> None:
    path = tmp_path / "key"
    files.write_secret(path, b"hidden content")
    path.chmod(0o600 | bits)
    with pytest.raises(FixInputError, match="others on this machine can read it") as refused:
        files.read_secret(path, limit=100)
    assert refused.value.value == oct(0o600 | bits)
    assert refused.value.remedy == f"Run: chmod 600 {path}"
    assert "hidden content" not in str(refused.value)
    path.chmod(0o400)
    assert files.read_secret(path, limit=100) == b"hidden content"


def test_a_secret_directory_is_for_its_owner_and_an_open_one_is_tightened(tmp_path: Path) -> None:
    files.make_secret_directory(tmp_path / "a" / "b")
    assert mode(tmp_path / "a" / "b") == 0o700
    (tmp_path / "c").mkdir(mode=0o777)
    files.make_secret_directory(tmp_path / "c")
    assert mode(tmp_path / "c") == 0o700


def test_a_sealed_secret_at_full_strength(tmp_path: Path) -> None:
    path = tmp_path / "key"
    files.write_secret(path, b"the secret key", passphrase=PASSPHRASE)
    sealed = path.read_bytes()
    assert mode(path) == 0o600
    assert b"the secret key" not in sealed
    assert sealed[len(b"securead-sealed-1\n")] == 17, "OWASP's work factor"
    assert files.read_secret(path, limit=14, passphrase=PASSPHRASE) == b"the secret key"


@pytest.mark.usefixtures("cheap_scrypt")
def test_a_sealed_secret_needs_its_passphrase(tmp_path: Path) -> None:
    path = tmp_path / "key"
    files.write_secret(path, b"x", passphrase=PASSPHRASE)
    with pytest.raises(UseOtherKeyError, match=r"sealed with a passphrase.*--passphrase-file"):
        files.read_secret(path, limit=100)
    for wrong in ("", "x", PASSPHRASE + " ", PASSPHRASE.upper()):
        with pytest.raises(UseOtherKeyError, match="passphrase is wrong") as refused:
            files.read_secret(path, limit=100, passphrase=wrong)
        assert str(path) in str(refused.value)
        assert PASSPHRASE not in str(refused.value)


@pytest.mark.usefixtures("cheap_scrypt")
def test_sealing_twice_gives_unrelated_bytes() -> None:
    a, b = files.seal(b"same", PASSPHRASE), files.seal(b"same", PASSPHRASE)
    start = len(b"securead-sealed-1\n") + 1
    assert a[start : start + 16] != b[start : start + 16], "fresh salt"
    assert a[start + 16 : start + 28] != b[start + 16 : start + 28], "fresh nonce"
    assert files.unseal(a, PASSPHRASE) == files.unseal(b, PASSPHRASE) == b"same"


@pytest.mark.usefixtures("cheap_scrypt")
@pytest.mark.parametrize("content", [b"", b"x", bytes(1000)], ids=["empty", "one byte", "many"])
def test_sealed_content_of_any_length_comes_back(content: bytes) -> None:
    assert files.unseal(files.seal(content, "ü"), "ü") == content


def test_an_empty_passphrase_is_refused() -> None:
    with pytest.raises(FixInputError, match="passphrase is empty"):
        files.seal(b"x", "")


@pytest.mark.usefixtures("cheap_scrypt")
def test_every_truncation_of_a_sealed_secret_is_refused() -> None:
    sealed = files.seal(b"x", PASSPHRASE)
    header = len(b"securead-sealed-1\n") + 29
    assert len(sealed) == header + 1 + 16
    for length in range(len(sealed)):
        # Within the header it is no sealed secret at all; from there on the tag is what is missing.
        expected = FixInputError if length < header else UseOtherKeyError
        with pytest.raises(expected):
            files.unseal(sealed[:length], PASSPHRASE)
    with pytest.raises(UseOtherKeyError):
        files.unseal(sealed + b"\0", PASSPHRASE)


@pytest.mark.usefixtures("cheap_scrypt")
def test_a_flipped_bit_in_any_part_of_a_sealed_secret_is_refused() -> None:
    sealed, magic = files.seal(b"secret", PASSPHRASE), len(b"securead-sealed-1\n")
    for at in (0, magic - 1, magic, magic + 1, magic + 16, magic + 17, magic + 28, magic + 29, len(sealed) - 1):
        changed = bytearray(sealed)
        changed[at] ^= 1
        with pytest.raises((UseOtherKeyError, FixInputError)):
            files.unseal(bytes(changed), PASSPHRASE)


@pytest.mark.parametrize("log_n", [0, 13, 21, 63, 255])
@pytest.mark.usefixtures("cheap_scrypt")
def test_an_absurd_work_factor_is_refused_before_it_is_spent(monkeypatch: pytest.MonkeyPatch, log_n: int) -> None:
    sealed = bytearray(files.seal(b"x", PASSPHRASE))
    sealed[len(b"securead-sealed-1\n")] = log_n
    monkeypatch.setattr(files, "_stretch", raising(AssertionError("the work was spent")))
    with pytest.raises(FixInputError, match="not a sealed secret"):
        files.unseal(bytes(sealed), PASSPHRASE)


def test_foreign_bytes_are_no_sealed_secret() -> None:
    with pytest.raises(FixInputError, match="here is not a sealed secret"):
        files.unseal(b"-----BEGIN AGE ENCRYPTED FILE-----" * 3, PASSPHRASE, where="here")


def test_a_memory_path_works_as_a_file_and_never_lies_on_a_disk() -> None:
    with files.memory_path(b"secret key") as name:
        assert os.readlink(name).startswith("/memfd:"), "an anonymous memory file, linked in no directory"
        assert os.stat(name).st_nlink == 0
        assert Path(name).read_bytes() == b"secret key"
        Path(name).write_bytes(b"longer than before")
        assert Path(name).read_bytes() == b"longer than before"
        descriptor = int(name.rpartition("/")[2])
        assert not os.get_inheritable(descriptor), "a child process does not inherit the secret"
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_a_memory_path_starts_empty_and_is_closed_after_an_error() -> None:
    with contextlib.suppress(KeyError), files.memory_path() as name:
        assert Path(name).read_bytes() == b""
        descriptor = int(name.rpartition("/")[2])
        raise KeyError
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_without_memory_files_a_private_temporary_one_stands_in_and_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "memfd_create")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with contextlib.suppress(KeyError), files.memory_path(b"secret") as name:
        assert Path(name).parent == tmp_path
        assert Path(name).read_bytes() == b"secret"
        assert mode(Path(name)) == 0o600
        raise KeyError
    assert os.listdir(tmp_path) == []
