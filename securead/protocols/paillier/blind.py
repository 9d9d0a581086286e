"""The half that answers what it cannot read. It holds the key under which its tables are published, never an owner's.

An answer is the low bits of a decryption and nothing else of it: the whole would be an oracle that opens the tables.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
from typing import Any, NoReturn

import numpy as np

from securead.errors import FixInputError, RejectMessageError, UseOtherKeyError
from securead.program.program import Program
from securead.program.table import SecretTable
from securead.protocols import engine
from securead.protocols.paillier import messages, moduli, published
from securead.protocols.paillier.keys import PrivateKey, check_ciphertext
from securead.protocols.paillier.messages import PUBLISH_AGAIN, Answer
from securead.protocols.paillier.plan import PaillierPlan, carried
from securead.protocols.paillier.powers import whole
from securead.protocols.setup import Progress, Setup

_FACTOR_USES = 32


def make_setup(plan: PaillierPlan, program: Program, *, progress: Progress | None = None) -> Setup:
    """A fresh key, and the tables encrypted under it: some 10 ms of a core an entry, on all cores where gmpy2 is.

    The key serves this one program, for as long as its publication is offered.
    """
    _check(plan, program)
    if not isinstance(program.secret, SecretTable):
        raise TypeError(program.secret)
    key = PrivateKey.generate()
    public = published.make(plan, key, np.concatenate(program.secret.tables).tolist(), progress)
    return Setup(public, messages.secret_to_bytes(plan, hashlib.sha256(public).digest(), key))


def check_setup(plan: PaillierPlan, program: Program, setup: Setup) -> None:
    """Raise `UseOtherKeyError` unless a stored setup is this program's and its secret that of what is published."""
    evaluator = make_evaluator(plan, program, setup.secret)
    if len(setup.published) != plan.setup_bytes or not evaluator.published(setup.published):
        raise UseOtherKeyError("published tables and their secret do not belong together", remedy=PUBLISH_AGAIN)


def make_evaluator(plan: PaillierPlan, program: Program, secret: bytes = b"") -> Evaluator:
    """Prepare to answer requests under `plan` from what was published with `secret`."""
    _check(plan, program)
    if not secret:
        raise FixInputError("blind lookups need the secret of published tables", remedy=PUBLISH_AGAIN)
    return Evaluator(plan, *messages.secret_from_bytes(plan, secret))


def read_evaluation_key(plan: PaillierPlan, content: bytes) -> NoReturn:
    """No owner's key is asked for: always `RejectMessageError`."""
    raise RejectMessageError("the engine paillier takes no key of an owner", remedy="Send requests only.")


class Evaluator:
    """Answers requests it cannot read, from any number of threads."""

    def __init__(self, plan: PaillierPlan, name: bytes, key: PrivateKey) -> None:
        self._plan, self._name, self._key = plan, name, key
        self._factor = _Factor(key)

    def published(self, content: bytes) -> bool:
        """Whether requests made from `content` are this one's to answer."""
        return hashlib.sha256(content).digest() == self._name

    def evaluate(self, request: bytes, key: engine.EvaluationKey | None = None, *, rows: int | None = None) -> bytes:
        """The answer payload. Raises `RejectMessageError` for anything but a well-formed request.

        A request from another publication than this service's is `UseOtherKeyError`. One for another number of rows
        than the message says is refused, because rows are what a service meters, and what an answer's bits go by.
        """
        plan, sent = self._plan, messages.read_request(self._plan, request)
        if rows not in (None, sent.rows):
            raise RejectMessageError("a request holds another number of rows than it claims", value=(rows, sent.rows))
        if sent.name != self._name:
            raise UseOtherKeyError(
                "the request is from other published tables than this service's",
                value=sent.name.hex()[:16],
                remedy="Fetch them again (`securead keygen`) and encrypt again.",
            )
        check_ciphertext(sent.ciphertext, self._key.n, where="request")
        low = self._decrypted(sent.ciphertext) & (1 << plan.score_bits * sent.rows) - 1
        return Answer(sent.rows, sent.key_id, sent.salt, low).to_bytes(plan)

    def _decrypted(self, ciphertext: int) -> int:
        """What phe decrypts; exponentiations are of numbers that the sender does not know."""
        n = self._key.n
        plaintext, factor = self._factor.take()
        return int((self._key.decrypt(int(ciphertext * factor % (n * n))) - plaintext) % n)


class _Factor:
    """A random plaintext and its encryption: squared from one use to the next, and drawn anew now and then."""

    def __init__(self, key: PrivateKey) -> None:
        self._key, self._uses, self._lock = key, 0, threading.Lock()
        self._plaintext, self._ciphertext = 0, whole(1)

    def take(self) -> tuple[int, Any]:
        n = self._key.n
        with self._lock:
            if self._uses % _FACTOR_USES == 0:
                self._plaintext = secrets.randbelow(n)
                power = self._key.nth_power(moduli.random_unit(n))
                self._ciphertext = (1 + self._plaintext * whole(n)) * power % (n * n)
            else:
                self._plaintext = 2 * self._plaintext % n
                self._ciphertext = self._ciphertext * self._ciphertext % (n * n)
            self._uses += 1
            return self._plaintext, self._ciphertext


def _check(plan: PaillierPlan, program: Program) -> None:
    carried(program.public)
    if plan.program_digest != program.digest:
        raise FixInputError(
            "the plan was made for another program",
            value=plan.program_digest[:16],
            remedy="Derive the plan from this program's public half.",
        )
