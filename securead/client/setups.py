"""What a service publishes once for an engine, fetched in parts and kept: nothing that has come is fetched again.

Parts go to `FOLDER/DIGEST.part` as they come, so an interrupted call goes on where it stopped, in another process, too;
what is whole and has its digest becomes `FOLDER/DIGEST`, and serves all keys of that model. Where the folder cannot be
written, it is kept in memory alone. Whether the content is sound is for the engine to say.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

from securead import codec, files
from securead.client.keys import Keys
from securead.client.service import MAX_ERROR_BYTES, Service
from securead.client.watch import Silent, Watch
from securead.errors import RejectMessageError, SecureadError
from securead.protocols.engine import Plan
from securead.protocols.setup import setup_bytes

PART_BYTES = 1 << 20
_DIGEST = re.compile("[0-9a-f]{64}")
_REMEDY = "Nothing of it was kept: tell the service's operator."


@dataclass(frozen=True)
class PublishedSetup:
    """The reply to the question what is published for an engine: its SHA-256 and its length."""

    digest: str
    bytes: int


def cache_folder() -> Path:
    """Where published setups lie: in the folder that XDG_CACHE_HOME names, else in ~/.cache."""
    cache = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(cache) if cache else Path.home() / ".cache") / "securead" / "setups"


def fetch(
    service: Service, name: str, plan: Plan, *, folder: Path | None = None, watch: Watch | None = None
) -> bytes | None:
    """What the service publishes of model `name` for a plan's engine; None where the engine publishes nothing.

    Raises `FixInputError` where the service does not offer the model by this engine, and `RejectMessageError` before
    anything is read when it is larger or smaller than the plan says, and when it has not the digest that was told.
    """
    if not (size := setup_bytes(plan)):
        return None
    path = f"/v1/models/{name}/setup/{plan.engine}"
    offer = _offer(service, path)
    if offer.bytes != size:
        raise RejectMessageError(
            f"the service publishes {offer.bytes} bytes where {size} are due", where=service.url, remedy=_REMEDY
        )
    folder = cache_folder() if folder is None else folder
    kept = folder / offer.digest
    with contextlib.suppress(SecureadError):
        content = files.read_bytes(kept, limit=size)
        if hashlib.sha256(content).hexdigest() == offer.digest:
            return content
    content = _parts(service, f"{path}/{offer.digest}", size, kept.with_name(f"{kept.name}.part"), watch or Silent())
    if hashlib.sha256(content).hexdigest() != offer.digest:
        kept.with_name(f"{kept.name}.part").unlink(missing_ok=True)
        raise RejectMessageError("what the service publishes has another digest", where=service.url, remedy=_REMEDY)
    with contextlib.suppress(OSError):
        os.replace(kept.with_name(f"{kept.name}.part"), kept)
    return content


def with_published(service: Service, keys: Keys, *, watch: Watch | None = None) -> Keys:
    """Keys with what the service publishes for them, fetched where the engine asks for it, and found sound by it."""
    published = fetch(service, keys.model.name, keys.plan, watch=watch)
    if published is None:
        return keys
    whole = replace(keys, published=published)
    whole.submitter.encryptor()
    return whole


def _offer(service: Service, path: str) -> PublishedSetup:
    body = service.read(path, limit=MAX_ERROR_BYTES)
    try:
        offer = codec.from_plain(PublishedSetup, json.loads(body), where="what is published")
    except (ValueError, RecursionError, SecureadError) as error:
        raise RejectMessageError(f"the service's reply is ill-formed: {error}", where=service.url) from error
    if not _DIGEST.fullmatch(offer.digest):
        raise RejectMessageError("the service names no digest", where=service.url, value=offer.digest[:80])
    return offer


def _parts(service: Service, path: str, size: int, part: Path, watch: Watch) -> bytes:
    content = bytearray()
    with contextlib.suppress(OSError):
        content += part.read_bytes()[:size]
    with contextlib.ExitStack() as stack:
        stream = None
        with contextlib.suppress(OSError):
            part.parent.mkdir(parents=True, exist_ok=True)
            stream = stack.enter_context(part.open("r+b" if content else "wb"))
            stream.truncate(len(content))
            stream.seek(len(content))
        while len(content) < size:
            last = min(len(content) + PART_BYTES, size) - 1
            wanted = last + 1 - len(content)
            came = service.read(path, limit=wanted, part=f"{len(content)}-{last}")
            if len(came) != wanted:
                raise RejectMessageError(
                    "the service sent another part than was asked for", where=service.url, value=len(came)
                )
            content += came
            watch.rows("fetch", len(content), size)
            if stream is not None:
                try:
                    stream.write(came)
                    stream.flush()
                except OSError:  # a full disk: the content is in memory
                    stream = None
    return bytes(content)
