"""A site's end of Flower: its node, which fetches messages, runs the site's app on them and pushes the replies.

Flower's own parts: the Fleet client, its signatures and messages. One process is both node and app: nothing is started
for a message, and no app (FAB) that a coordinator may offer is ever fetched, installed or run.
"""

from __future__ import annotations

import contextlib
import ipaddress
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx
from flwr.app import Context, Message, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.clientapp import ClientApp
from flwr.common.serde import message_to_proto
from flwr.proto.fleet_pb2 import ActivateNodeRequest, DeactivateNodeRequest, PullMessagesRequest, PushMessagesRequest
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.node_pb2 import Node
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_protobuf_utils import (
    make_confirm_message_received_fn_protobuf,
    make_pull_object_fn_protobuf,
    make_push_object_fn_protobuf,
)
from flwr.supercore.inflatable.inflatable_utils import (
    ObjectPullError,
    ObjectPushError,
    pull_and_inflate_object_from_tree,
    push_objects,
)
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
from flwr.supercore.primitives.asymmetric import generate_key_pairs, public_key_to_bytes
from flwr.supercore.protobuf.client import ProtobufCall, ProtobufRequestContext
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from securead.errors import RejectMessageError, RetryLaterError, UseOtherKeyError
from securead.federated.flower.apps import failure
from securead.federated.flower.fleet import MAX_REQUEST_BYTES, REPLACED, ROLE, STRANGER, TAKEN, UNSIGNED
from securead.protocols.sharing.links import Address, Identity

_TIMEOUT_SECONDS = 30.0
_HEARTBEAT_SECONDS, _HEARTBEAT_INTERVAL = 2.0, 1800.0  # how often; and what Flower is told: the gate knows better
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0
_BROKEN = (httpx.HTTPError, ObjectPullError, ObjectPushError)  # of a connection, which may be made anew
_CLOCK_SECONDS = 5.0  # Flower refuses a signature that is from further ahead


class Supernode:
    """Takes part at the coordinator of an address as the site that `identity` names.

    `patience`: seconds without the coordinator after which it gives up. `say` is told, once each, what it waits for.
    """

    def __init__(
        self,
        address: Address,
        identity: Identity,
        app: ClientApp,
        *,
        patience: float = 600.0,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._address, self._identity, self._app = address, identity, app
        self._patience, self._say, self._said = patience, say, ""
        self._private, self._public = generate_key_pairs()  # of this process
        _ = identity.client  # a wrong key is told now

    def run(self, finished: Callable[[], bool]) -> None:
        """Answer messages until, after one, `finished()`.

        Raises `UseOtherKeyError` where the coordinator is not who it should be or does not want this site, and
        `RetryLaterError` where it cannot be reached for as long as patience lasts. An error of the app is raised here;
        the coordinator is told its kind.
        """
        heard, pause = time.monotonic(), _FIRST_PAUSE
        while True:
            try:
                with self._client() as client, self._activated(client) as node:
                    self._tell(f"connected to the coordinator at {self._where}")
                    while True:
                        heard, pause = time.monotonic(), _FIRST_PAUSE
                        message = _pull(client, node)
                        if message is None:
                            continue
                        self._answer(client, node, message)
                        if finished():
                            return
            except _BROKEN as error:
                problem = self._problem(error)
            if finished():
                return  # the last reply was lost, and nobody will ask again
            if time.monotonic() - heard > self._patience:
                raise RetryLaterError(
                    f"gave up: {problem}", remedy="Start the site again when the coordinator runs: nothing is lost."
                )
            self._tell(f"waiting: {problem}")
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _answer(self, client: FleetHttpClient, node: Node, message: Message) -> None:
        context = Context(message.metadata.run_id, node.node_id, {}, RecordDict(), {})
        try:
            reply = self._app(message, context)
        except Exception as error:
            with contextlib.suppress(httpx.HTTPError, ObjectPushError):
                _push(client, node, failure(message, error))
            raise
        _push(client, node, reply)

    @contextlib.contextmanager
    def _client(self) -> Iterator[FleetHttpClient]:
        version = RuntimeVersionHttpInterceptor(component_name="SuperNode")
        signed = NodeAuthHttpInterceptor(self._private, self._public)
        with _Client(self._address, self._identity.client, interceptors=(version, signed, _Dialled())) as client:
            yield client

    @contextlib.contextmanager
    def _activated(self, client: FleetHttpClient) -> Iterator[Node]:
        response = client.ActivateNode(
            ActivateNodeRequest(public_key=public_key_to_bytes(self._public), heartbeat_interval=_HEARTBEAT_INTERVAL)
        )
        node, ended = Node(node_id=response.node_id), threading.Event()

        def live() -> None:
            request = SendNodeHeartbeatRequest(node=node, heartbeat_interval=_HEARTBEAT_INTERVAL)
            while not ended.wait(_HEARTBEAT_SECONDS):
                with contextlib.suppress(httpx.HTTPError, RuntimeError, ValueError):  # the other thread will notice
                    client.SendNodeHeartbeat(request)

        heart = threading.Thread(target=live, daemon=True)
        heart.start()
        comes_back = False
        try:
            yield node
        except _BROKEN:
            comes_back = True
            raise
        finally:
            ended.set()
            if not comes_back:
                with contextlib.suppress(httpx.HTTPError):
                    client.DeactivateNode(DeactivateNodeRequest(node_id=node.node_id))

    @property
    def _where(self) -> str:
        return f"{self._address[0]}:{self._address[1]}"

    def _tell(self, text: str) -> None:
        if text != self._said:
            self._said = text
            self._say(text)

    def _problem(self, error: Exception) -> str:
        """What is wrong, in words; raises where waiting does not help."""
        if isinstance(error, httpx.HTTPStatusError):
            return self._refused(error.response)
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLEOFError | ssl.SSLZeroReturnError):
                told = getattr(cause, "verify_message", None) or cause.reason or str(cause)
                raise UseOtherKeyError(
                    f"no trust between {self._identity.name} and the coordinator at {self._where}: {told}",
                    remedy="Check the address, the names, the authority and the dates of both certificates.",
                ) from error
            cause = cause.__cause__ or cause.__context__
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            return f"the coordinator at {self._where} cannot be reached"
        return f"the connection to the coordinator at {self._where} broke"

    def _refused(self, response: httpx.Response) -> str:
        status = response.status_code
        try:
            detail = str(response.json()["detail"])[:200]
        except (ValueError, KeyError, TypeError):
            detail = f"HTTP {status}"
        if status == STRANGER:
            raise UseOtherKeyError(
                f"the coordinator at {self._where} does not want this site: {detail}",
                remedy="Its recipe and the certificate have to name the same site.",
            )
        if status == UNSIGNED and (ahead := _seconds_ahead(response)) is not None and abs(ahead) > _CLOCK_SECONDS:
            return f"this machine's clock is {ahead:+.0f} s off the coordinator's, set both"
        if status == TAKEN:
            return f"{detail}: this one waits until that one is gone"
        if status == REPLACED:
            return "the coordinator was started anew"
        return f"the coordinator at {self._where} refuses: {detail}"


class _Client(FleetHttpClient):
    """Flower's Fleet client, with our certificate, for a host whose name does not matter: its certificate's does."""

    def __init__(self, address: Address, trust: ssl.SSLContext, *, interceptors: tuple[object, ...]) -> None:
        host, port = address
        super().__init__(
            f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}",
            interceptors=interceptors,  # type: ignore[arg-type]
            verify=trust,
            timeout=_TIMEOUT_SECONDS,
        )
        self._client.close()
        self._client = httpx.Client(
            verify=trust,
            timeout=_TIMEOUT_SECONDS,
            # A proxy named in the environment has no business with a coordinator on this machine.
            trust_env=not _is_loopback(host),
            headers={"accept-encoding": "identity"},
            event_hooks={"response": [_refuse_large]},
        )


class _Dialled:
    """Makes TLS look for the coordinator's role in its certificate, instead of the host that was dialled."""

    def intercept(self, context: ProtobufRequestContext, call_next: ProtobufCall) -> httpx.Response:
        context.request.extensions["sni_hostname"] = ROLE
        return call_next(context)


def _pull(client: FleetHttpClient, node: Node) -> Message | None:
    """The next message, or None when there was none for as long as the coordinator held the request."""
    response = client.PullMessages(PullMessagesRequest(node=node))
    if not response.messages_list:
        return None
    run_id, tree = response.messages_list[0].metadata.run_id, response.message_object_trees[0]
    message = pull_and_inflate_object_from_tree(
        tree,
        make_pull_object_fn_protobuf(client.PullObject, node, run_id),
        make_confirm_message_received_fn_protobuf(client.ConfirmMessageReceived, node, run_id),
        return_type=Message,
    )
    message.metadata.__dict__["_message_id"] = tree.object_id
    return message


def _push(client: FleetHttpClient, node: Node, reply: Message) -> None:
    reply.metadata.__dict__["_message_id"] = reply.object_id
    with no_object_id_recompute():
        response = client.PushMessages(
            PushMessagesRequest(
                node=node,
                messages_list=[message_to_proto(remove_content_from_message(reply))],
                message_object_trees=[get_object_tree(reply)],
            )
        )
        # None of them is wanted where nobody waits for the reply any more.
        push_objects(
            get_all_nested_objects(reply),
            make_push_object_fn_protobuf(client.PushObject, node, reply.metadata.run_id, response.session_id),
            object_ids_to_push=set(response.objects_to_push),
        )


def _refuse_large(response: httpx.Response) -> None:
    length = response.headers.get("content-length", "")
    if not length.isdecimal() or int(length) > MAX_REQUEST_BYTES:
        raise RejectMessageError("the coordinator sent a message that is too large, or of unknown length")


def _seconds_ahead(response: httpx.Response) -> float | None:
    """How much this machine's clock is ahead of the coordinator's."""
    try:
        return (datetime.now(UTC) - parsedate_to_datetime(response.headers["date"])).total_seconds()
    except (KeyError, ValueError, TypeError):
        return None


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
