"""Keys, "encryption", decryption."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass

import numpy as np

from asking_engine import keys
from asking_engine.keys import PublicKey
from asking_engine.plan import KEY_BYTES, AskingPlan
from securead.errors import RejectMessageError, UseOtherKeyError


@dataclass(frozen=True)
class SecretKey:
    public: PublicKey

    @property
    def key_id(self) -> str:
        return self.public.key_id

    def to_bytes(self) -> bytes:
        return b"secret" + self.public.to_bytes()


def generate_keys(plan: AskingPlan) -> tuple[SecretKey, PublicKey]:
    public = PublicKey(plan.digest, secrets.token_bytes(KEY_BYTES))
    return SecretKey(public), public


def secret_key_from_bytes(plan: AskingPlan, content: bytes) -> SecretKey:
    return SecretKey(keys.read(plan, content.removeprefix(b"secret")))


def public_key_from_bytes(plan: AskingPlan, content: bytes) -> PublicKey:
    return keys.read(plan, content)


@dataclass(frozen=True)
class Encryptor:
    plan: AskingPlan

    def encrypt(self, queries: np.ndarray) -> bytes:
        return os.urandom(16) + queries.astype("<i8").tobytes()


@dataclass(frozen=True)
class Decryptor:
    plan: AskingPlan
    key: SecretKey

    def decrypt(self, answer: bytes, rows: int) -> np.ndarray:
        if len(answer) != 16 + 8 * rows:
            raise RejectMessageError("not an answer")
        masked = np.frombuffer(answer[16:], dtype="<u8")
        scores = masked - self.key.public.mask(answer[:16], rows)
        if scores.max() >= 1 << self.plan.score_bits:
            raise UseOtherKeyError("the answer is for another key")
        return scores.astype(float) * self.plan.unit


def make_encryptor(plan: AskingPlan, key: SecretKey | PublicKey) -> Encryptor:
    if isinstance(key, SecretKey) != (plan.role == "same"):
        raise UseOtherKeyError("the other key of the pair")
    return Encryptor(plan)


def make_decryptor(plan: AskingPlan, key: SecretKey) -> Decryptor:
    return Decryptor(plan, key)
