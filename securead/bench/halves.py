"""One half of an engine as a process of its own: what a measurement drives, and what the suite's checks rely on.

    python -m securead.bench.halves owner|blind PACKAGE FOLDER

FOLDER holds plan.json, public.json and, for `blind` alone, secret.json: a bundle. The half serves one connection after
another, one message at a time, until standard input closes. Whatever an engine needs of its other half has to pass
through these messages: what it leaves in memory is not there, and files and connections that it opens elsewhere are
counted. Every reply tells the seconds that the call took, what it opened, and the half's peak memory.
"""

from __future__ import annotations

import importlib
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from securead import files
from securead.bench.frames import Frames
from securead.bench.processes import own_peak
from securead.data.schema import Array
from securead.errors import SecureadError
from securead.models import bundle
from securead.protocols.engine import FloodReader

PLAN_FILE = "plan.json"
Done = tuple[dict[str, Any], bytes]
Operation = Callable[[dict[str, Any], bytes], Done]
_OUTWARDS = ("open", "mmap.__new__", "socket.connect", "socket.bind", "subprocess.Popen", "os.posix_spawn")
_opened = [0]


class Half:
    """What both kinds share: the plan, and messages by name of operation."""

    def __init__(self, package: str, folder: Path) -> None:
        plans: Any = importlib.import_module(f"{package}.plan")
        self.plan = plans.plan_from_plain(files.read_json(folder / PLAN_FILE, limit=bundle.MAX_PUBLIC_BYTES))
        self.operations: dict[str, Operation] = {"hello": lambda head, payload: ({}, b"")}

    def answer(self, head: dict[str, Any], payload: bytes) -> Done:
        """Do as told; what fails is told, too."""
        operation, before = self.operations[head["do"]], _opened[0]
        cpu, wall = time.process_time(), time.perf_counter()
        try:
            told, content = operation(head, payload)
        except (SecureadError, ValueError, RuntimeError) as error:  # the latter two from SEAL
            told, content = {"refused": str(error)}, b""
        spent = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}
        return {**told, **spent, "opened": _opened[0] - before, "peak": own_peak()}, content


class OwnerHalf(Half):
    """A submitter or a key holder: makes keys, encrypts, decrypts."""

    def __init__(self, package: str, folder: Path) -> None:
        super().__init__(package, folder)
        self._owner: Any = importlib.import_module(f"{package}.owner")
        self._program = bundle.load_public(folder).program
        self._secret: Any = None
        self._public: Any = None
        self._encryptor: Any = None
        self._decryptor: Any = None
        self._terms: Array | None = None
        self._published: tuple[bytes, ...] = ()
        self.operations |= {
            "published": self._take_published,
            "keys": self._keys,
            "take": self._take,
            "encrypt": self._encrypt,
            "decrypt": self._decrypt,
            "pry": self._pry,
            "floods": self._floods,
        }

    def _keys(self, head: dict[str, Any], payload: bytes) -> Done:
        self._secret, self._public = self._owner.generate_keys(self.plan)
        self._decryptor = self._owner.make_decryptor(self.plan, self._secret)
        if self.plan.role == "same":
            self._encryptor = self._owner.make_encryptor(self.plan, self._secret, *self._published)
        return {}, self._public.to_bytes()

    def _take_published(self, head: dict[str, Any], payload: bytes) -> Done:
        """What the service publishes, where its engine has a setup."""
        self._published = (payload,)
        return {}, b""

    def _take(self, head: dict[str, Any], payload: bytes) -> Done:
        """A submitter's public key in role `split`."""
        self._public = self._owner.public_key_from_bytes(self.plan, payload)
        self._encryptor = self._owner.make_encryptor(self.plan, self._public, *self._published)
        return {}, b""

    def _encrypt(self, head: dict[str, Any], payload: bytes) -> Done:
        X = np.frombuffer(payload).reshape(head["shape"])
        Z, _ = self._program.encoder.encode(X)
        request = bytes(self._encryptor.encrypt(self._program.queries(Z)))
        if self.plan.role == "same":
            self._terms = self._program.decode(self._program.public_term(Z))
        return {"bytes": len(request)}, request

    def _decrypt(self, head: dict[str, Any], payload: bytes) -> Done:
        scores = self._decryptor.decrypt(payload, head["rows"])
        if self._terms is not None:
            scores = scores + self._terms
        return {}, np.asarray(scores, dtype=np.float64).tobytes()

    def _floods(self, head: dict[str, Any], payload: bytes) -> Done:
        """How far two answers are apart in standard deviations of a flood, where the engine's decryptor can tell."""
        if not isinstance(self._decryptor, FloodReader):
            return {"told": False}, b""
        first = head["first"]
        found = self._decryptor.in_floods(payload[:first], payload[first:], head["rows"])
        if found is None:
            return {"told": False}, b""
        return {"told": True}, np.asarray(found, dtype=np.float64).tobytes()

    def _pry(self, head: dict[str, Any], payload: bytes) -> Done:
        """Open an answer with a key that was not asked for, even if the answer's name for its key is changed to it."""
        secret, _ = self._owner.generate_keys(self.plan)
        own, other = bytes.fromhex(self._public.key_id), bytes.fromhex(secret.key_id)
        scores = self._owner.make_decryptor(self.plan, secret).decrypt(payload.replace(own, other), head["rows"])
        if self._terms is not None:
            scores = scores + self._terms
        return {}, np.asarray(scores, dtype=np.float64).tobytes()


class BlindHalf(Half):
    """The service: holds the model and owners' public keys, evaluates."""

    def __init__(self, package: str, folder: Path) -> None:
        super().__init__(package, folder)
        self._blind: Any = importlib.import_module(f"{package}.blind")
        program = bundle.load(folder).program
        make_setup = getattr(self._blind, "make_setup", None)
        self._setup: Any = None if make_setup is None else make_setup(self.plan, program)
        secret = () if self._setup is None else (self._setup.secret,)
        self._evaluator = self._blind.make_evaluator(self.plan, program, *secret)
        self._key: Any = None
        self.operations |= {
            "setup": self._publish,
            "key": self._take_key,
            "refill": self._refill,
            "held": self._held,
            "evaluate": self._evaluate,
        }

    def _publish(self, head: dict[str, Any], payload: bytes) -> Done:
        """What everybody gets who asks, where the engine has a setup."""
        return {}, b"" if self._setup is None else self._setup.published

    def _take_key(self, head: dict[str, Any], payload: bytes) -> Done:
        self._key = self._blind.read_evaluation_key(self.plan, payload)
        return {}, b""

    def _refill(self, head: dict[str, Any], payload: bytes) -> Done:
        """Make what `times` answers will use up, where the engine can."""
        refill = getattr(self._key, "refill", None)
        return {"made": sum(refill() for _ in range(head["times"])) if callable(refill) else 0}, b""

    def _held(self, head: dict[str, Any], payload: bytes) -> Done:
        return {"held": getattr(self._key, "held_bytes", 0)}, b""

    def _evaluate(self, head: dict[str, Any], payload: bytes) -> Done:
        answer = bytes(self._evaluator.evaluate(payload, self._key, rows=head["rows"]))
        return {"bytes": len(answer)}, answer


def serve(half: Half) -> None:
    """Serve connections from this machine for ever; the first line of output says where."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        while True:
            frames = Frames(listener.accept()[0])
            while (message := frames.receive()) is not None:
                frames.send(*half.answer(*message))
            frames.close()


def watch_openings() -> None:
    """Count from now on what Python code of this process opens: files by name, mappings, connections, processes.

    Files in memory, which SEAL's objects pass through, are reached through this process's own descriptors.
    """

    def heard(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in _OUTWARDS or (event == "open" and _own(arguments[0])):
            return
        _opened[0] += 1

    def _own(path: object) -> bool:
        return isinstance(path, int) or str(path).startswith(("/proc/self/", "/dev/urandom"))

    sys.addaudithook(heard)


def main() -> None:
    """The command line."""
    kind, package, folder = sys.argv[1:]

    def end() -> None:
        while os.read(0, 4096):
            pass
        os._exit(0)

    threading.Thread(target=end, daemon=True).start()
    watch_openings()
    serve((BlindHalf if kind == "blind" else OwnerHalf)(package, Path(folder)))


if __name__ == "__main__":
    main()
