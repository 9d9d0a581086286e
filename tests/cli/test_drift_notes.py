"""`securead score` and `decrypt` remember scores beside the secret key, and say when they leave what they were."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from small_model import records, securead, served, small_bundle, write_csv

from securead.client import drift


@pytest.mark.timeout(180)
def test_drift_is_noted_by_score_and_decrypt(tmp_path: Path) -> None:
    bundle = small_bundle().save(tmp_path / "bundle")
    usual = write_csv(tmp_path / "usual.csv", records(drift.BLOCK * drift.BLOCKS))
    other = write_csv(tmp_path / "other.csv", (2 * records(1000, seed=3)).clip(-4, 4))
    keys, out = tmp_path / "keys", tmp_path / "scores.csv"
    with served(tmp_path, bundle) as service:
        server = ("--server", service.url)

        def call(*arguments: object) -> str:
            ended = securead(*arguments)
            assert ended.returncode == 0, ended.stderr
            return ended.stderr

        call("keygen", *server, "--model", "tiny", "--out", keys)
        scoring = (*server, "--model", "tiny", "--out", out, "--keys", keys)
        assert "Drift" not in call("score", usual, *scoring)
        remembered = keys / "secret" / drift.DRIFT_FILE
        assert remembered.stat().st_mode & 0o077 == 0
        call("encrypt", other, "--keys", keys, "--out", tmp_path / "request")
        call("submit", tmp_path / "request", *server, "--out", tmp_path / "answer")
        for _ in range(2):  # the same answer counts once
            local = ("--local", tmp_path / "request.local")
            said = call("decrypt", tmp_path / "answer", "--keys", keys, "--out", out, *local)
            assert "Drift: recent scores are higher" in " ".join(said.split())
        assert json.loads(remembered.read_text())["scores"] == 6000
        remembered.write_text("[")
        assert "Drift is not watched" in call("score", other, *scoring)
