"""The two apps, ordinary ones on Flower's message API: bytes of ours travel in a record of Flower's.

    Message.content = RecordDict({"securead": ConfigRecord({"body": bytes, "nonce": bytes})}), message_type "train"

The nonce makes every content another one: Flower stores equal contents of several messages once, and in version 1.41
counts wrongly who still needs them when one is deleted while another arrives.

Nothing in them knows which processes carry the messages; `superlink` and `supernode` are ours, stock ones would do.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.app.error import Error
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid, ServerApp

from securead.errors import RejectMessageError

MESSAGE_TYPE = "train"
_RECORD, _BODY, _NONCE = "securead", "body", "nonce"


def wrap(body: bytes) -> RecordDict:
    """A message's content."""
    return RecordDict({_RECORD: ConfigRecord({_BODY: body, _NONCE: secrets.token_bytes(16)})})


def unwrap(message: Message) -> bytes:
    """The bytes that a message carries, or `RejectMessageError`."""
    record = message.content.get(_RECORD) if message.has_content() else None
    body = record.get(_BODY) if isinstance(record, ConfigRecord) else None
    if not isinstance(body, bytes):
        raise RejectMessageError("the message carries no bytes of ours", remedy="Who sends it is another program.")
    return body


def client_app(reply: Callable[[bytes], bytes]) -> ClientApp:
    """What a site runs: `reply` (`Participant.reply`) on every message."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        return Message(wrap(reply(unwrap(message))), reply_to=message)

    return app


def failure(message: Message, error: Exception) -> Message:
    """The reply where the app failed: what kind of error it was, never its words, which may quote records."""
    return Message(Error(code=ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason=type(error).__name__), reply_to=message)


def server_app(work: Callable[[Grid], None]) -> ServerApp:
    """What the coordinator runs: `work` over the grid of sites."""
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        work(grid)

    return app
