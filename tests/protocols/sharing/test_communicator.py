"""The communicator against plain sums: two parties in two threads, over real links."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sharing_setting import Deployment

from securead.protocols.sharing import links
from securead.protocols.sharing.channel import HEADER
from securead.protocols.sharing.links import LinkError, Listener

torch = pytest.importorskip("torch")
communicator = pytest.importorskip("securead.protocols.sharing.communicator")
ReduceOp = torch.distributed.ReduceOp
SOON = 20.0


class Both:
    """Two communicators; `run` calls a function with each at the same time, and returns both results."""

    def __init__(self, pool: ThreadPoolExecutor, parties: tuple[Any, Any]) -> None:
        self.pool, self.parties = pool, parties

    def run(self, function: Callable[[Any], Any]) -> list[Any]:
        return [future.result(SOON) for future in [self.pool.submit(function, party) for party in self.parties]]


@pytest.fixture
def both(deployment: Deployment) -> Iterator[Both]:
    with Listener(("127.0.0.1", 0), deployment.identity("party0")) as listener, ThreadPoolExecutor(4) as pool:
        ends = []
        for _ in range(2):
            accepted = pool.submit(listener.accept, SOON)
            dialled = links.dial(listener.address, deployment.identity("party1"), "party0")
            ends.append((dialled, accepted.result(SOON)))
        (up1, up0), (down1, down0) = ends
        up0.share_fate(down0)
        up1.share_fate(down1)
        yield Both(
            pool,
            (communicator.LinkCommunicator(0, up0, down0), communicator.LinkCommunicator(1, down1, up1)),
        )
        for channel in (up0, up1, down0, down1):
            channel.close()


def words(rank: int, *shape: int) -> Any:
    generator = torch.Generator().manual_seed(100 * rank + len(shape) + sum(shape))
    return torch.randint(-(2**63), 2**63 - 1, shape, dtype=torch.long, generator=generator)


SHAPES = [(), (1,), (0,), (3, 0, 2), (5, 7), (2, 3, 4), (300, 301)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("op", [ReduceOp.SUM, ReduceOp.BXOR], ids=["sum", "xor"])
def test_all_reduce_and_reduce(both: Both, shape: tuple[int, ...], op: Any) -> None:
    a, b = words(0, *shape), words(1, *shape)
    expected = a + b if op == ReduceOp.SUM else a ^ b
    kept = [a.clone(), b.clone()]
    for result in both.run(lambda party: party.all_reduce((a, b)[party.rank], op=op)):
        assert torch.equal(result, expected)
    assert torch.equal(a, kept[0])
    assert torch.equal(b, kept[1])
    for dst in (0, 1):
        results = both.run(lambda party, dst=dst: party.reduce((a, b)[party.rank], dst, op=op))
        assert torch.equal(results[dst], expected)
        assert results[1 - dst] is None


def test_one_way_is_one_way(both: Both) -> None:
    before = [party.traffic for party in both.parties]
    both.run(lambda party: party.reduce(words(party.rank, 10), 0))
    spent = [party.traffic - earlier for party, earlier in zip(both.parties, before, strict=True)]
    assert (spent[0].bytes_sent, spent[0].bytes_received) == (0, 80 + HEADER.size)
    assert (spent[1].bytes_sent, spent[1].bytes_received) == (80 + HEADER.size, 0)
    assert [each.rounds for each in spent] == [1, 1]


def test_batches_are_one_round(both: Both) -> None:
    tensors = [[words(rank, *shape) for shape in SHAPES] for rank in (0, 1)]
    for method in (
        lambda party: party.all_reduce(tensors[party.rank], batched=True),
        lambda party: party.reduce(tensors[party.rank], 0, batched=True),
    ):
        rounds = both.parties[0].rounds
        results = both.run(method)
        assert both.parties[0].rounds == rounds + 1
        for result, a, b in zip(results[0], *tensors, strict=True):
            assert torch.equal(result, a + b)


def test_what_is_not_contiguous(both: Both) -> None:
    a, b = words(0, 30, 40), words(1, 30, 40)
    results = both.run(lambda party: party.all_reduce((a, b)[party.rank].t()[::2]))
    assert torch.equal(results[0], (a + b).t()[::2])
    assert torch.equal(results[1], results[0])


def test_large_ones_both_ways(both: Both) -> None:
    a, b = words(0, 1 << 21), words(1, 1 << 21)

    def twice(party: Any) -> Any:
        own = (a, b)[party.rank].clone()
        first = party.all_reduce(own)
        own.zero_()  # CrypTen changes tensors in place: nothing of them may still be on its way
        return first, party.all_reduce(own)

    for first, second in both.run(twice):
        assert torch.equal(first, a + b)
        assert not second.any()


def test_the_others(both: Both) -> None:
    a, b = words(0, 4, 5), words(1, 4, 5)

    def gathered(party: Any) -> Any:
        return party.all_gather((a, b)[party.rank]), party.gather((a, b)[party.rank], 1)

    results = both.run(gathered)
    for everywhere, _ in results:
        assert torch.equal(torch.stack(everywhere), torch.stack([a, b]))
    assert results[0][1] == [None]
    assert torch.equal(torch.stack(results[1][1]), torch.stack([a, b]))

    results = both.run(lambda party: party.scatter([a, b] if party.rank == 0 else None, 0, size=(4, 5)))
    assert torch.equal(results[0], a)
    assert torch.equal(results[1], b)

    targets = [a.clone(), torch.zeros_like(a)]
    both.run(lambda party: party.broadcast(targets[party.rank], 0))
    assert torch.equal(targets[1], a)
    lists = [[torch.zeros_like(a), torch.zeros_like(b)], [a.clone(), b.clone()]]
    both.run(lambda party: party.broadcast(lists[party.rank], 1, batched=True))
    assert torch.equal(lists[0][1], b)
    both.run(lambda party: party.barrier())


def test_from_one_to_the_other(both: Both) -> None:
    tensor = words(0, 1 << 20)

    def swap(party: Any) -> Any:  # both send first, as CrypTen does to set up its generators
        received = torch.zeros_like(tensor)
        requests = party.isend(tensor, 1 - party.rank), party.irecv(received, src=1 - party.rank)
        for request in requests:
            request.wait()
        assert all(request.is_completed() for request in requests)
        return received

    assert all(torch.equal(received, tensor) for received in both.run(swap))

    def one_way(party: Any) -> Any:
        if party.rank == 0:
            return party.send(tensor, 1)
        return party.recv(torch.empty_like(tensor), 0)

    assert torch.equal(both.run(one_way)[1], tensor)


def test_objects_are_json(both: Both) -> None:
    def objects(party: Any) -> Any:
        said = {"rows": [1, 2.5, None, "x"]}
        if party.rank == 0:
            party.send_obj(said, 1)
            return said, party.broadcast_obj(None, 1)
        return party.recv_obj(0), party.broadcast_obj(torch.Size([3, 4]), 1)

    first, second = both.run(objects)
    assert first[0] == second[0]
    assert first[1] == torch.Size([3, 4])
    assert isinstance(first[1], torch.Size)
    with pytest.raises(TypeError):
        both.parties[0].send_obj(object(), 1)


def test_what_is_counted(both: Both) -> None:
    both.run(lambda party: party.all_reduce(words(party.rank, 8)))
    before = both.parties[0].traffic
    both.run(lambda party: party.all_reduce(words(party.rank, 8)))
    spent = both.parties[0].traffic - before
    assert (spent.rounds, spent.bytes_sent, spent.bytes_received) == (1, 64 + HEADER.size, 64 + HEADER.size)
    assert spent.seconds_waiting > 0
    assert both.parties[0].get_communication_stats()["rounds"] == 2
    both.parties[0].reset_communication_stats()
    assert both.parties[0].rounds == 0


def test_what_is_refused(both: Both) -> None:
    party = both.parties[0]
    for wrong in (torch.zeros(3), torch.zeros(3, dtype=torch.int32)):
        with pytest.raises(TypeError, match="int64"):
            party.all_reduce(wrong)
    with pytest.raises(ValueError, match="itself"):
        party.send(words(0, 1), 0)
    with pytest.raises(ValueError, match="two parties"):
        party.reduce(words(0, 1), 2)


def test_a_party_out_of_step_breaks_both_links(both: Both) -> None:
    def out_of_step(party: Any) -> BaseException:
        with pytest.raises(LinkError) as caught:
            party.all_reduce(words(0, 3 + party.rank))
        return caught.value

    errors = both.run(out_of_step)
    assert not any(isinstance(error, RuntimeError) for error in errors)


def test_a_party_that_ends(both: Both) -> None:
    both.parties[1]._outgoing.close()
    with pytest.raises(LinkError):
        both.parties[0].all_reduce(words(0, 3))
