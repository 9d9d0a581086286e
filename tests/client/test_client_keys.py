"""Key directories: what is in which half, who may read it, and what is refused."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from small_model import small_bundle

from securead.client.keys import load_holder, load_keys, load_submitter, make_keys, read_record
from securead.errors import FixInputError, SecureadError, UseOtherKeyError
from securead.models.bundle import PublicModel


@pytest.fixture(scope="module")
def model() -> PublicModel:
    return small_bundle().public


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("role", ["same", "split"])
def test_halves_and_permissions(model: PublicModel, role: str, tmp_path: Path) -> None:
    keys = make_keys(model, role)  # type: ignore[arg-type]
    place = keys.save(tmp_path / "keys")
    assert sorted(p.name for p in (place / "public").iterdir()) == ["key.json", "model.json", "plan.json", "public.key"]
    # In role same the submitter holds this half, and the service needs the public key.
    held = ["key.json", "model.json", "plan.json", *(["public.key"] if role == "same" else []), "secret.key"]
    assert sorted(p.name for p in (place / "secret").iterdir()) == held
    assert mode(place / "secret") == 0o700
    assert mode(place / "secret" / "secret.key") == 0o600
    secret = keys.secret.to_bytes()
    assert (place / "secret" / "secret.key").read_bytes() == secret
    for file in (place / "public").iterdir():
        assert secret[-64:] not in file.read_bytes()
        assert secret[len(secret) // 2 :][:64] not in file.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["keys"]
    assert load_keys(place).record == keys.record == read_record(place / "public") == read_record(place / "secret")
    assert load_holder(place / "secret").key.key_id == keys.record.key


def test_who_can_encrypt(model: PublicModel, tmp_path: Path) -> None:
    same = make_keys(model, "same").save(tmp_path / "same")
    split = make_keys(model, "split").save(tmp_path / "split")
    assert load_submitter(same).key.to_bytes() == load_holder(same).key.to_bytes()
    assert load_submitter(split / "public").key.key_id == load_holder(split).key.key_id
    with pytest.raises(UseOtherKeyError, match="In role same"):
        load_submitter(same / "public")
    with pytest.raises(UseOtherKeyError, match="DIR/public"):
        load_submitter(split / "secret")
    with pytest.raises(UseOtherKeyError, match="DIR/secret"):
        load_holder(split / "public")


def test_a_sealed_key_needs_its_passphrase(model: PublicModel, tmp_path: Path) -> None:
    keys = make_keys(model, "same")
    place = keys.save(tmp_path / "keys", passphrase="five words are quite good")
    assert keys.secret.to_bytes()[-64:] not in (place / "secret" / "secret.key").read_bytes()
    for wrong in (None, "four words are good"):
        with pytest.raises(UseOtherKeyError):
            load_holder(place, passphrase=wrong)
    assert load_holder(place, passphrase="five words are quite good").key.key_id == keys.record.key


def test_keys_are_never_overwritten(model: PublicModel, tmp_path: Path) -> None:
    keys = make_keys(model, "same")
    (tmp_path / "empty").mkdir()
    keys.save(tmp_path / "empty")
    before = (tmp_path / "empty" / "secret" / "secret.key").read_bytes()
    with pytest.raises(FixInputError, match="exists already"):
        make_keys(model, "same").save(tmp_path / "empty")
    assert (tmp_path / "empty" / "secret" / "secret.key").read_bytes() == before
    (tmp_path / "file").write_text("x")
    with pytest.raises(FixInputError, match="exists already"):
        keys.save(tmp_path / "file")


def test_a_secret_that_others_can_read_is_refused(model: PublicModel, tmp_path: Path) -> None:
    place = make_keys(model, "same").save(tmp_path / "keys")
    (place / "secret" / "secret.key").chmod(0o644)
    with pytest.raises(FixInputError, match="chmod 600"):
        load_holder(place)


def test_files_that_were_mixed_up_are_refused(model: PublicModel, tmp_path: Path) -> None:
    one = make_keys(model, "split").save(tmp_path / "one")
    two = make_keys(model, "split").save(tmp_path / "two")
    other = make_keys(small_bundle(seed=9).public, "split").save(tmp_path / "other")
    (one / "public" / "public.key").write_bytes((two / "public" / "public.key").read_bytes())
    with pytest.raises(UseOtherKeyError, match="another key"):
        load_submitter(one)
    (two / "public" / "model.json").write_bytes((other / "public" / "model.json").read_bytes())
    with pytest.raises(FixInputError, match="do not belong together"):
        load_submitter(two)


@pytest.mark.parametrize("name", ["key.json", "model.json", "plan.json", "secret.key"])
@pytest.mark.parametrize("content", [b"", b"{}", b"[1, 2", b"\x00" * 1000, b"null"])
def test_damaged_files_are_refused(model: PublicModel, name: str, content: bytes, tmp_path: Path) -> None:
    place = make_keys(model, "same").save(tmp_path / "keys")
    (place / "secret" / name).write_bytes(content)
    with pytest.raises(SecureadError):
        load_holder(place / "secret")


def test_what_is_no_key_directory(tmp_path: Path) -> None:
    with pytest.raises(FixInputError, match="keygen"):
        load_holder(tmp_path)


def test_the_record_says_what_the_key_is_for(model: PublicModel, tmp_path: Path) -> None:
    place = make_keys(model, "split").save(tmp_path / "keys")
    record = json.loads((place / "public" / "key.json").read_text())
    assert record["role"] == "split"
    assert record["program"] == model.program.digest
    assert record["model"] == "tiny"
