"""Flower's two ends in one process: who is let in, what passes, what a broken connection or a failing app does."""

from __future__ import annotations

import os
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from securead.certificates import issue
from securead.errors import FixConfigurationError, InstallExtraError, RetryLaterError, UseOtherKeyError
from securead.federated.flower import installed
from securead.protocols.sharing.links import Identity, parse_address

pytest.importorskip("flwr")
installed.require()

from flwr.app import Message  # noqa: E402
from flwr.proto.fleet_pb2 import PullMessagesRequest  # noqa: E402
from flwr.proto.node_pb2 import Node as ProtoNode  # noqa: E402
from flwr.serverapp import Grid  # noqa: E402

from securead.federated.flower.apps import MESSAGE_TYPE, client_app, server_app, unwrap, wrap  # noqa: E402
from securead.federated.flower.superlink import Superlink  # noqa: E402
from securead.federated.flower.supernode import Supernode, _pull  # noqa: E402
from securead.federated.flower.transport import FlowerTransport  # noqa: E402

SITES = ("bank-a", "bank-b", "bank-c")
Reply = Callable[[bytes], bytes]


@pytest.fixture(scope="module")
def certs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certs")
    issue(folder, ("coordinator", *SITES, "bank-x"))
    issue(folder / "other", ("coordinator", "bank-a"))
    return folder


class Site:
    """A site's node in a thread; it ends after the message "finish"."""

    def __init__(self, link: Superlink, directory: Path, reply: Reply = lambda body: b"re:" + body) -> None:
        self.said: list[str] = []
        self.error: BaseException | None = None
        self._over = False

        def answer(body: bytes) -> bytes:
            self._over = body == b"finish"
            return reply(body)

        identity = Identity.load(directory)
        self.node = Supernode(
            parse_address(link.address), identity, client_app(answer), patience=1.0, say=self.said.append
        )
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.node.run(lambda: self._over)
        except BaseException as error:
            self.error = error

    def ended(self) -> BaseException | None:
        """How it ended."""
        self.thread.join(10)
        assert not self.thread.is_alive()
        return self.error


class Coordinator:
    """A link with its transport, and what it was told."""

    def __init__(self, link: Superlink) -> None:
        self.link = link
        self.trouble: list[tuple[str, str]] = []
        self.transport = FlowerTransport(
            link.grid,
            name=link.grid.name,
            forget=link.grid.forget,
            trouble=lambda address, text: self.trouble.append((address.partition("#")[0], text)),
        )

    def await_sites(self, *names: str) -> None:
        """Wait until these are there, and nobody else."""
        start = time.monotonic()
        while sorted(self.transport.certified(each) or "" for each in self.transport.present()) != sorted(names):
            assert time.monotonic() - start < 10, self.transport.present()
            time.sleep(0.01)

    def ask(self, body: bytes, seconds: float = 10.0) -> dict[str, bytes]:
        """The answers of all who are there, by name."""
        found: dict[str, bytes] = {}
        self.transport.exchange_bytes(
            dict.fromkeys(self.transport.present(), body),
            seconds=seconds,
            arrived=lambda address, content: found.__setitem__(address.partition("#")[0], content),
        )
        return found


@pytest.fixture
def coordinator(certs: Path) -> Iterator[Coordinator]:
    with Superlink(Identity.load(certs / "coordinator"), SITES) as link:
        yield Coordinator(link)


def call(link: Superlink, directory: Path | None, path: str, *, ca: Path, **options: object) -> httpx.Response:
    """A request by hand."""
    context = ssl.create_default_context(cafile=ca / "ca.crt")
    if directory is not None:
        context.load_cert_chain(directory / "identity.crt", directory / "identity.key")
    with httpx.Client(verify=context, trust_env=False) as client:
        request = client.build_request("POST", f"https://{link.address}{path}", **options)  # type: ignore[arg-type]
        request.extensions["sni_hostname"] = "coordinator"
        return client.send(request)


def test_messages_pass_in_both_directions(coordinator: Coordinator, certs: Path) -> None:
    sites = [Site(coordinator.link, certs / name) for name in SITES]
    coordinator.await_sites(*SITES)
    assert coordinator.ask(b"hello") == dict.fromkeys(SITES, b"re:hello")
    large = os.urandom(3 << 20)
    assert coordinator.ask(large) == dict.fromkeys(SITES, b"re:" + large)
    for address in coordinator.transport.present():
        sent, received = coordinator.transport.traffic(address)
        assert (sent, received) == (5 + len(large), 5 + len(large) + 6)
    start = time.monotonic()
    for _ in range(10):
        coordinator.ask(b"again")
    assert time.monotonic() - start < 10  # about 1 s where nothing else runs
    coordinator.ask(b"finish")
    assert [site.ended() for site in sites] == [None] * 3
    coordinator.await_sites()
    assert not coordinator.trouble


def test_nothing_of_a_run_stays_in_memory(coordinator: Coordinator, certs: Path) -> None:
    site = Site(coordinator.link, certs / "bank-a")
    coordinator.await_sites("bank-a")
    for _ in range(3):
        coordinator.ask(b"x" * 1000)
    state = coordinator.link.state
    assert (len(state.message_ins_store), len(state.message_res_store)) == (0, 0)
    assert not state.object_store.store  # type: ignore[attr-defined]
    coordinator.ask(b"finish")
    assert site.ended() is None


def test_a_slow_site_is_not_waited_for_and_its_late_answer_is_dropped(coordinator: Coordinator, certs: Path) -> None:
    release = threading.Event()

    def slow(body: bytes) -> bytes:
        if body == b"first":
            release.wait(10)
        return body

    sites = [Site(coordinator.link, certs / "bank-a", slow), Site(coordinator.link, certs / "bank-b")]
    coordinator.await_sites("bank-a", "bank-b")
    start = time.monotonic()
    assert coordinator.ask(b"first", seconds=0.5) == {"bank-b": b"re:first"}
    assert 0.5 <= time.monotonic() - start < 3
    coordinator.await_sites("bank-a", "bank-b")  # slow is not gone
    release.set()
    assert coordinator.ask(b"second") == {"bank-a": b"second", "bank-b": b"re:second"}
    coordinator.ask(b"finish")
    assert [site.ended() for site in sites] == [None] * 2


def test_an_app_that_fails_tells_its_kind_and_no_more(coordinator: Coordinator, certs: Path) -> None:
    def fail(body: bytes) -> bytes:
        raise ZeroDivisionError("row 7: 4711.00")

    site = Site(coordinator.link, certs / "bank-a", fail)
    coordinator.await_sites("bank-a")
    assert coordinator.ask(b"x") == {}
    assert coordinator.trouble == [("bank-a", "its app failed: ZeroDivisionError")]
    assert isinstance(site.ended(), ZeroDivisionError)


def test_an_answer_counts_although_its_site_has_left(coordinator: Coordinator, certs: Path) -> None:
    """The last answer of a site is followed at once by its good-bye."""
    site = Site(coordinator.link, certs / "bank-a")
    coordinator.await_sites("bank-a")
    grid = coordinator.link.grid
    (node,) = grid.get_node_ids()
    (identity,) = grid.push_messages([Message(wrap(b"finish"), node, MESSAGE_TYPE)])
    assert site.ended() is None
    coordinator.await_sites()
    assert [unwrap(reply) for reply in grid.pull_messages([identity])] == [b"re:finish"]
    assert not list(grid.pull_messages([identity]))


def test_a_second_process_waits_for_the_first(coordinator: Coordinator, certs: Path) -> None:
    first = Site(coordinator.link, certs / "bank-a", lambda body: b"first")
    coordinator.await_sites("bank-a")
    second = Site(coordinator.link, certs / "bank-a", lambda body: b"second")
    second.node._patience = 30.0
    start = time.monotonic()
    while not any("another process takes part as 'bank-a'" in each for each in second.said):
        assert time.monotonic() - start < 10, second.said
        time.sleep(0.01)
    assert coordinator.ask(b"x") == {"bank-a": b"first"}
    assert coordinator.ask(b"finish") == {"bank-a": b"first"}
    assert first.ended() is None
    start = time.monotonic()
    while coordinator.ask(b"x", seconds=0.5) != {"bank-a": b"second"}:
        assert time.monotonic() - start < 10
    coordinator.ask(b"finish")
    assert second.ended() is None


def test_strangers_are_refused(coordinator: Coordinator, certs: Path, tmp_path: Path) -> None:
    unknown = Site(coordinator.link, certs / "bank-x").ended()
    assert isinstance(unknown, UseOtherKeyError)
    assert "'bank-x' is not one of the recipe's sites" in str(unknown)
    foreign = Site(coordinator.link, certs / "other" / "bank-a").ended()
    assert isinstance(foreign, UseOtherKeyError)
    assert "no trust between bank-a and the coordinator" in str(foreign)
    assert not coordinator.transport.present()
    # One whose certificate is of our authority, but who is not the coordinator.
    with pytest.raises(FixConfigurationError, match="for the name 'coordinator'"):
        Superlink(Identity.load(certs / "bank-x"), SITES)


def test_a_coordinator_of_another_authority_is_refused(certs: Path) -> None:
    with Superlink(Identity.load(certs / "other" / "coordinator"), SITES) as link:
        error = Site(link, certs / "bank-a").ended()
    assert isinstance(error, UseOtherKeyError)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/control/start-run",
        "/v1/control/register-node",
        "/v1/runtime/acquire-task",
        "/v1/runtime/push-messages",
        "/v1/fleet/register-node",
        "/v1/fleet/get-fab",
        "/v1/fleet/../control/start-run",
        "/docs",
        "/openapi.json",
        "/",
    ],
)
def test_there_is_nothing_but_what_a_site_needs(coordinator: Coordinator, certs: Path, path: str) -> None:
    answer = call(coordinator.link, certs / "bank-a", path, ca=certs, content=b"")
    assert answer.status_code == 404


def test_a_caller_needs_a_certificate(coordinator: Coordinator, certs: Path) -> None:
    with pytest.raises(httpx.TransportError):
        call(coordinator.link, None, "/v1/fleet/pull-messages", ca=certs, content=b"")
    with pytest.raises(httpx.TransportError):
        call(coordinator.link, certs / "other" / "bank-a", "/v1/fleet/pull-messages", ca=certs, content=b"")


def test_requests_are_of_the_certificates_own_node(coordinator: Coordinator, certs: Path) -> None:
    """Neither without Flower's signature, nor with another site's node, nor without end."""
    site = Site(coordinator.link, certs / "bank-a")
    coordinator.await_sites("bank-a")
    (address,) = coordinator.transport.present()
    body = PullMessagesRequest(node=ProtoNode(node_id=int(address.partition("#")[2]))).SerializeToString()
    kind = {"content-type": "application/x-protobuf"}
    for name in ("bank-a", "bank-b"):
        answer = call(coordinator.link, certs / name, "/v1/fleet/pull-messages", ca=certs, content=body, headers=kind)
        assert answer.status_code == 410
    answer = call(
        coordinator.link,
        certs / "bank-b",
        "/v1/fleet/push-object",
        ca=certs,
        content=(b"x" for _ in range(3)),
        headers=kind,
    )
    assert answer.status_code == 413
    coordinator.ask(b"finish")
    assert site.ended() is None


def test_a_message_that_a_broken_connection_lost_comes_again(coordinator: Coordinator, certs: Path) -> None:
    site = Supernode(parse_address(coordinator.link.address), Identity.load(certs / "bank-a"), client_app(bytes))
    answers: list[dict[str, bytes]] = []
    asking = threading.Thread(target=lambda: answers.append(coordinator.ask(b"once")))

    def fetch_and_break() -> None:
        with site._client() as client, site._activated(client) as node:
            coordinator.await_sites("bank-a")
            asking.start()
            assert _pull(client, node) is not None
            raise httpx.ReadError("as if the cable was pulled")

    with pytest.raises(httpx.ReadError):
        fetch_and_break()
    again = threading.Thread(target=lambda: site.run(lambda: True))
    again.start()
    asking.join(10)
    again.join(10)
    assert answers == [{"bank-a": b"once"}]


def test_a_coordinator_that_is_started_anew_at_its_place(certs: Path) -> None:
    identity = Identity.load(certs / "coordinator")
    with Superlink(identity, SITES) as link:
        port = parse_address(link.address)[1]
        site = Site(link, certs / "bank-a")
        site.node._patience = 30.0
        Coordinator(link).await_sites("bank-a")
    with Superlink(identity, SITES, port=port) as link:
        coordinator = Coordinator(link)
        coordinator.await_sites("bank-a")
        assert coordinator.ask(b"finish") == {"bank-a": b"re:finish"}
        assert site.ended() is None
        assert any("waiting" in each for each in site.said)
        with pytest.raises(FixConfigurationError, match="cannot listen"):
            Superlink(identity, SITES, port=port)


def test_a_coordinator_whose_machine_slept(coordinator: Coordinator, certs: Path) -> None:
    """Flower has ended the run meanwhile; the next exchange is in another one."""
    site = Site(coordinator.link, certs / "bank-a")
    coordinator.await_sites("bank-a")
    before = coordinator.link.grid.run.run_id
    for record in coordinator.link.state.task_token_store.values():
        record.active_until -= timedelta(hours=1)
    coordinator.link.stay_alive()
    assert coordinator.link.grid.run.run_id != before
    assert coordinator.ask(b"finish") == {"bank-a": b"re:finish"}
    assert site.ended() is None


def test_patience_ends(certs: Path) -> None:
    with Superlink(Identity.load(certs / "coordinator"), SITES) as link:
        site = Site(link, certs / "bank-a")
        Coordinator(link).await_sites("bank-a")
    error = site.ended()
    assert isinstance(error, RetryLaterError)
    assert "gave up" in str(error)


def test_the_app_is_run_on_the_grid(coordinator: Coordinator, certs: Path) -> None:
    site = Site(coordinator.link, certs / "bank-a")
    coordinator.await_sites("bank-a")
    seen: list[int] = []

    def work(grid: Grid) -> None:
        seen.extend(grid.get_node_ids())
        assert grid.run.run_id
        assert [node.node_id for node in grid.get_nodes()] == seen
        messages = [Message(wrap(b"finish"), node, MESSAGE_TYPE) for node in grid.get_node_ids()]
        assert [unwrap(reply) for reply in grid.send_and_receive(messages, timeout=10)] == [b"re:finish"]

    coordinator.link.run(server_app(work))
    assert len(seen) == 1
    assert site.ended() is None


def test_flower_keeps_to_itself(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert os.environ["FLWR_TELEMETRY_ENABLED"] == "0"
    assert os.environ["FLWR_DISABLE_UPDATE_CHECK"] == "1"
    assert os.environ["FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION"] == "1"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InstallExtraError, match=r"securead\[flower\]"):
        installed.require()
