"""Nodes say hello: who is eligible, where each is reached, what the ledger is told, and what liars get."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nacl.signing
import pytest

from chain.codec.canonical import encode
from sds_node import asking
from sds_node.meta.nodes.hello import MOST_BEGUN, BadEndpoint, Hellos, endpoint_of, may_dial
from sds_node.meta.nodes.maintenance import allowed_until_s, used_s
from sds_node.meta.nodes.registry import Registry, prefix_of
from sds_node.meta.nodes.statuses import Statuses
from sds_node.meta.rules import tables
from sds_node.wire.errors import BadRequest, Refused
from sds_node.wire.identity import Identity
from sds_node.wire.node import Node, Server
from sds_node.wire.peer import Peer
from tests.sds_node.books.world import CHAIN_ID, DAY_S, WEI, Clock, World, message, node_key, observed_node, owner, session_key, until, world

pytestmark = pytest.mark.asyncio
ROOM = 10**9


class Meta:
    """A world that hears hellos and tells statuses."""

    def __init__(self, made: World) -> None:
        self.world = made
        contact = asking.MetaContact(p2p_key=made.wire.identity.public_key, endpoint="meta:1")
        made.registry._own = contact
        self.hellos = Hellos(made.registry, made.books, made.wire, made.clock, lambda: [contact])
        made.wire.handlers.update(self.hellos.handlers())
        self.peers: dict[Any, Peer] = {}
        self.statuses = Statuses(made.registry, made.proposer, made.clock, status_s=10)

    @property
    def registry(self) -> Registry:
        return self.world.registry

    async def hello(self, number: int, *, key: nacl.signing.SigningKey | None = None, host: str | None = None, **changes: Any) -> Any:
        """A node's hello from 127.<number>.0.1."""
        fields: dict[str, Any] = {"endpoint": ":9000", "capacity_bytes": 2 * ROOM, "free_bytes": ROOM}
        origin = (number, key, host or f"127.{number}.0.1")
        peer = self.peers.get(origin) or self.world.peer(*origin)
        self.peers[origin] = peer
        raw = await peer.ask(asking.NODE_HELLO, encode(asking.NodeHello(**fields | changes)))
        return asking.NodeWelcome.FromString(raw)

    async def row(self, number: int) -> Any:
        return await self.world.row(tables.NODE, number)

    async def settled(self) -> None:
        """Endpoints that are being dialed have been."""
        await asyncio.gather(*self.hellos._probing.values())


@asynccontextmanager
async def meta(folder: Path, nodes: int = 3) -> AsyncIterator[Meta]:
    async with world(folder, nodes=nodes) as made:
        one = Meta(made)
        yield one
        await one.hellos.close()


async def test_a_node_that_says_hello_is_eligible_and_can_be_reached(tmp_path: Path) -> None:
    async with meta(tmp_path) as one:
        welcome = await one.hello(1)
        assert (welcome.why_not_eligible, welcome.seen_host, welcome.node, welcome.next_s, welcome.score) == ("", "127.1.0.1", 1, 5, 5_000)
        assert welcome.metas[0].endpoint == "meta:1"
        contact = one.registry.contact(1)
        assert contact is not None
        assert (contact.endpoint, contact.is_online, contact.relay, contact.beneficiary) == ("127.1.0.1:9000", True, None, owner(1))
        (candidate,) = one.registry.candidates()
        assert (candidate.number, candidate.owner, candidate.prefix, candidate.free_bytes) == (1, owner(1), bytes([127, 1, 0]), ROOM)
        assert candidate.weight == ROOM * 5_000
        assert one.registry.contact(9) is None


async def test_weight_is_bounded_by_the_deposit_and_count_by_owners_and_prefixes(tmp_path: Path) -> None:
    async with meta(tmp_path, nodes=5) as one:
        await one.world.observe(observed_node(2, deposit_wei=str(WEI // 100)), observed_node(3, owner=owner(1)), observed_node(5, deposit_wei=""))
        for number in (1, 2, 3):
            await one.hello(number)
        await one.hello(4, host="127.1.0.9")
        assert "deposit" in (await one.hello(5)).why_not_eligible
        assert [candidate.number for candidate in one.registry.candidates()] == [1, 2, 3, 4]
        assert one.registry.candidates()[1].weight == 10**8 * 5_000
        assert one.registry.count() == 2  # 3 has the owner of 1, 4 its prefix


async def test_who_is_silent_for_three_intervals_is_offline(tmp_path: Path) -> None:
    async with meta(tmp_path) as one:
        await one.hello(1)
        one.world.clock.now_s += 15
        assert len(one.registry.candidates()) == 1
        one.world.clock.now_s += 1
        assert not one.registry.candidates()
        contact = one.registry.contact(1)
        assert contact is not None
        assert not contact.is_online
        assert "nothing was heard" in one.registry.why_not(1)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"free_bytes": (64 << 20) - 1}, "make room"),
        ({"is_stopping": True}, "stops"),
        ({"maintenance_until_s": 1_900_000_000}, "in maintenance until"),
        ({"wants_relay": True, "endpoint": ""}, ""),
    ],
)
async def test_a_node_hears_why_it_gets_no_shares(tmp_path: Path, changes: dict[str, Any], why: str) -> None:
    async with meta(tmp_path) as one:
        welcome = await one.hello(1, **changes)
        assert (why in welcome.why_not_eligible) if why else not welcome.why_not_eligible
        assert (await one.hello(1)).why_not_eligible == ""


async def test_a_suspended_node_hears_so_and_one_that_is_gone_or_unknown_is_refused(tmp_path: Path) -> None:
    async with meta(tmp_path) as one:
        await one.world.observe(observed_node(1, standing=2), observed_node(2, standing=4))
        assert "suspended" in (await one.hello(1)).why_not_eligible
        for number in (2, 44):
            with pytest.raises(Refused) as refused:
                await one.hello(number, host="127.0.0.1")
            assert refused.value.code == asking.UNKNOWN_NODE


async def test_a_node_behind_nat_is_reached_through_this_meta_node_while_it_holds_a_connection(tmp_path: Path) -> None:
    async with meta(tmp_path) as one:
        await one.hello(1, wants_relay=True, endpoint="")
        contact = one.registry.contact(1)
        assert contact is not None
        assert contact.relay is not None
        assert (contact.endpoint, contact.relay.endpoint) == ("", "meta:1")
        assert [candidate.number for candidate in one.registry.candidates()] == [1]
        for caller in one.world.callers:
            await caller.close()
        await until(lambda: not one.world.wire.connections)
        one.world.clock.now_s += 2
        assert not one.registry.candidates()
        assert "holds no connection" in one.registry.why_not(1)


async def test_another_host_counts_once_the_node_itself_answers_there(tmp_path: Path) -> None:
    async with meta(tmp_path) as one:
        server = Server(Node(Identity(bytes(node_key(1))), CHAIN_ID))
        host, port = await server.listen("127.9.0.1")
        assert "endpoint is not known" in (await one.hello(1, endpoint=f"{host}:{port}")).why_not_eligible
        await one.settled()
        assert (await one.hello(1, endpoint=f"{host}:{port}")).why_not_eligible == ""
        contact = one.registry.contact(1)
        assert contact is not None
        assert contact.endpoint == f"{host}:{port}"
        await server.close()


async def test_it_is_known_whether_a_node_named_its_host_itself(tmp_path: Path) -> None:
    async with meta(tmp_path) as one:
        for said, is_named in (
            ({"endpoint": ":9000"}, False),
            ({"endpoint": "127.1.0.1:9000"}, True),
            ({"endpoint": "", "wants_relay": True}, False),
        ):
            await one.hello(1, **said)
            seen = one.registry.seen_of(1)
            assert seen is not None
            assert (seen.is_named, seen.endpoint) == (is_named, "" if "wants_relay" in said else "127.1.0.1:9000")


async def test_an_endpoint_that_is_somebody_elses_is_never_told(tmp_path: Path) -> None:
    async with meta(tmp_path) as one:
        victim = Server(Node(Identity(bytes(node_key(2))), CHAIN_ID))
        host, port = await victim.listen("127.9.0.1")
        for endpoint in (f"{host}:{port}", "127.9.0.2:1"):  # another node's, nobody's
            await one.hello(1, endpoint=endpoint)
            await one.settled()
            welcome = await one.hello(1, endpoint=endpoint)
            assert "endpoint is not known" in welcome.why_not_eligible
            contact = one.registry.contact(1)
            assert contact is not None
            assert contact.endpoint == ""
        await victim.close()


@pytest.mark.parametrize(
    "endpoint", ["", "host", "host:0", "host:65536", "host:1x", "a b:1", "x" * 140 + ":1", "::1:80", "h\u00e9:1", "[::1]:99999999999"]
)
async def test_endpoints_that_are_none_are_refused(tmp_path: Path, endpoint: str) -> None:
    with pytest.raises(BadEndpoint):
        endpoint_of(endpoint)
    if endpoint in ("", "host:0"):
        async with meta(tmp_path) as one:
            with pytest.raises(Refused) as refused:
                await one.hello(1, endpoint=endpoint)
            assert refused.value.code == asking.BAD_ASK


async def test_endpoints_have_one_reading() -> None:
    assert endpoint_of("[::1]:80") == ("::1", 80)
    assert endpoint_of(":80") == ("", 80)
    assert endpoint_of("node.example:65535") == ("node.example", 65_535)
    assert prefix_of("10.1.2.3") == prefix_of("::ffff:10.1.2.9") == bytes([10, 1, 2])
    assert prefix_of("2001:db8:7::1") == bytes.fromhex("20010db80007")
    assert prefix_of("relay 00") == b""


async def test_hostile_hellos_are_refused_and_change_nothing(tmp_path: Path) -> None:
    async with meta(tmp_path) as one:
        for changes in ({"capacity_bytes": 1 << 63}, {"maintenance_until_s": -1}, {"maintenance_until_s": 1 << 60}, {"software": "s" * 200}):
            with pytest.raises(Refused) as refused:
                await one.hello(1, **changes)
            assert refused.value.code == asking.BAD_ASK
        with pytest.raises(BadRequest):
            await one.world.peer(1).ask(asking.NODE_HELLO, b"\xff\xff")
        with pytest.raises(Refused) as refused:
            await one.hello(1, key=session_key(5))
        assert refused.value.code == asking.UNKNOWN_NODE
        assert one.registry.seen_of(1) is None
        await one.hello(1, free_bytes=9 * ROOM)  # more free than there is
        assert one.registry.candidates()[0].free_bytes == 2 * ROOM


async def test_several_wallets_have_a_node_tried_and_only_a_failed_try_takes_it_out(tmp_path: Path) -> None:
    async with meta(tmp_path) as one:
        await one.hello(1)
        tried: list[int] = []
        has_answered = True

        async def attempt(number: int) -> bool:
            tried.append(number)
            return has_answered

        one.registry.attempt = attempt

        async def complain(*wallets: int) -> None:
            for number in wallets:
                one.registry.failed(1, "it does not answer", owner(number))
            await asyncio.gather(*one.registry._tries)

        await complain(*[70] * 100)
        assert not tried, "one wallet alone is nobody"
        await complain(71, 72)
        assert tried == [1]
        assert one.registry.candidates(), "three wallets with a little noz each take no honest node out"
        await complain(70, 71, 72, 73)
        assert tried == [1], "it was tried a moment ago"
        one.world.clock.now_s += 61
        has_answered = False
        await complain(74)
        await one.hello(1)
        assert tried == [1, 1]
        assert not one.registry.candidates()
        assert "several users" in one.registry.why_not(1)
        for answers, count in ((False, 3), (True, 4)):
            await one.hello(1)
            assert len(tried) == count - 1, "a hello alone is no reason to try it each second"
            one.world.clock.now_s += 61
            has_answered = answers
            await one.hello(1)
            await asyncio.gather(*one.registry._tries)
            assert len(tried) == count
            assert bool(one.registry.candidates()) == answers, "back as soon as it answers"
        one.world.clock.now_s += 61
        await one.hello(1)
        assert len(tried) == 4, "nobody complains any more"
        has_answered = False
        await complain(70, 71, 72)
        assert not one.registry.candidates()
        one.world.clock.now_s += 301
        await one.hello(1)
        assert one.registry.candidates()
        one.registry.failed(99, "no such node", owner(1))


async def test_nodes_at_one_address_are_one_network_wherever_they_call_from(tmp_path: Path) -> None:
    async with meta(tmp_path) as one:
        servers = []
        for number in (1, 2, 3):
            servers.append(Server(Node(Identity(bytes(node_key(number))), CHAIN_ID)))
            host, port = await servers[-1].listen("127.9.0.1")
            await one.hello(number, endpoint=f"{host}:{port}", host=f"127.{50 + number}.0.1")
            await one.settled()
            assert one.registry.why_not(number) == ""
            await one.hello(number, endpoint=f"{host}:{port}", host=f"127.{50 + number}.0.1")
        assert {candidate.prefix for candidate in one.registry.candidates()} == {bytes([127, 9, 0])}
        assert one.registry.count() == 1
        for server in servers:
            await server.close()


async def test_on_a_nodes_word_one_place_a_minute_is_dialed(tmp_path: Path) -> None:
    async with meta(tmp_path) as one:
        dialed: list[str] = []

        async def probe(host: str, port: int, address: bytes, seen_host: str) -> str:
            dialed.append(host)
            return ""

        one.hellos._probe = probe
        for number in range(30):
            await one.hello(1, endpoint=f"127.9.0.{number + 1}:22")
            await one.settled()
        assert dialed == ["127.9.0.1"]
        assert len(one.hellos._probed) == 1
        one.world.clock.now_s += 61
        await one.hello(1, endpoint="127.9.0.1:22")
        await one.settled()
        assert len(dialed) == 1, "what did not answer is left alone for longer"
        await one.hello(1, endpoint="127.9.0.2:22")
        await one.settled()
        assert dialed == ["127.9.0.1", "127.9.0.2"]


async def test_black_holes_of_one_node_keep_no_other_from_being_dialed(tmp_path: Path) -> None:
    async with meta(tmp_path) as one:
        never = asyncio.Event()
        dialed: list[int] = []

        async def probe(host: str, port: int, address: bytes, seen_host: str) -> str:
            dialed.append(port)
            await never.wait()
            return ""

        one.hellos._probe = probe
        for port in range(1, 101):
            await one.hello(1, endpoint=f"127.9.0.1:{port}")
        await one.hello(2, endpoint="127.9.0.2:500")
        await until(lambda: len(dialed) == 2)
        assert dialed == [1, 500]


@pytest.mark.parametrize(
    ("host", "seen_host", "may"),
    [
        ("10.0.0.5", "198.51.100.7", False),
        ("10.0.0.5", "192.168.1.2", False),
        ("10.0.0.5", "10.9.9.9", True),
        ("127.0.0.1", "198.51.100.7", False),
        ("127.9.0.1", "127.1.0.1", True),
        ("169.254.169.254", "10.0.0.1", False),
        ("::ffff:10.0.0.5", "198.51.100.7", False),
        ("::1", "2001:4860:4860::8888", False),
        ("fd00::1", "fd00::2", True),
        ("8.8.8.8", "", True),
        ("10.0.0.5", "", False),
        ("0.0.0.0", "127.0.0.1", False),
        ("224.0.0.1", "127.0.0.1", False),
        ("a name", "127.0.0.1", False),
    ],
)
async def test_private_addresses_are_dialed_for_who_is_seen_in_the_same_network(host: str, seen_host: str, may: bool) -> None:
    assert may_dial(host, seen_host) is may


async def test_a_wall_clock_that_jumps_costs_nodes_nothing(tmp_path: Path) -> None:
    async with meta(tmp_path) as one:
        monotonic = Clock()
        one.registry.monotonic = monotonic
        for number in (1, 2, 3):
            await one.hello(number)
        await one.statuses.tell()
        assert one.registry.count() == 3
        one.world.clock.now_s += DAY_S
        await one.statuses.tell()
        assert [(await one.row(number)).score for number in (1, 2, 3)] == [5_000] * 3, "neither lost for a silence nor gained for a day"
        assert one.registry.count() == 3
        monotonic.now_s += 16
        await one.statuses.tell()
        assert [(await one.row(number)).score for number in (1, 2, 3)] == [4_900] * 3
        assert one.registry.count() == 0


async def test_a_node_that_changes_all_the_time_fills_no_log(tmp_path: Path) -> None:
    async with meta(tmp_path) as one:
        await one.hello(1)
        await one.statuses.tell()
        before = one.world.ledger.head.sequence
        for number in range(20):
            await one.hello(1, endpoint=f":{8_000 + number}")
            await one.statuses.tell(with_space=False)
        assert one.world.ledger.head.sequence - before <= 3
        one.world.clock.now_s += 61
        await one.hello(1, endpoint=":8019")
        await one.statuses.tell(with_space=False)
        assert (await one.row(1)).endpoint == "127.1.0.1:8019", "what is so in the end is told"


async def test_maintenance_on_and_off_leaves_few_rows_and_does_not_go_on_for_ever(tmp_path: Path) -> None:
    async with meta(tmp_path) as one:
        for _ in range(50):
            await one.hello(1, maintenance_until_s=int(one.world.clock()) + 100)
            await one.hello(1)
            one.world.clock.now_s += 1
        assert len(await one.world.books.maintenance(1)) == 1
        for _ in range(20):
            one.world.clock.now_s += 600
            await one.hello(1, maintenance_until_s=int(one.world.clock()) + 100)
            await one.hello(1)
        assert len(await one.world.books.maintenance(1)) <= MOST_BEGUN
        assert "maintenance" in (await one.hello(1, maintenance_until_s=int(one.world.clock()) + 100)).why_not_eligible
        assert not one.registry.is_online(await one.row(1))
        assert (await one.hello(1)).why_not_eligible == ""
        one.world.clock.now_s += DAY_S
        assert "in maintenance until" in (await one.hello(1, maintenance_until_s=int(one.world.clock()) + 100)).why_not_eligible


async def test_the_ledger_is_told_what_changed_and_nothing_else(tmp_path: Path) -> None:
    async with meta(tmp_path) as one:
        await one.hello(1)
        await one.hello(2)
        assert await one.statuses.tell() == 2
        row = await one.row(1)
        assert (row.endpoint, row.prefix, row.is_online, row.free_bytes, row.capacity_bytes) == (
            "127.1.0.1:9000",
            bytes([127, 1, 0]),
            True,
            ROOM,
            2 * ROOM,
        )
        assert await one.statuses.tell() == 0
        await one.hello(1, free_bytes=ROOM - 5)
        assert await one.statuses.tell(with_space=False) == 0
        assert await one.statuses.tell() == 1
        one.world.clock.now_s += 16
        await one.hello(2)
        assert await one.statuses.tell(with_space=False) == 1
        row = await one.row(1)
        assert (row.is_online, row.score) == (False, 4_900)
        assert await one.statuses.tell() == 0


async def test_online_nodes_are_told_again_before_the_ledger_takes_them_for_silent(tmp_path: Path) -> None:
    async with meta(tmp_path) as one:
        for _ in range(20):
            await one.hello(1)
            await one.statuses.tell()
            row = await one.row(1)
            assert one.world.clock.now_s * 1_000 - row.seen_ms < 900_000
            one.world.clock.now_s += 60


async def test_hours_online_bring_score_back_and_improper_stops_cost_it_once(tmp_path: Path) -> None:
    async with meta(tmp_path) as one:
        await one.hello(1, was_killed=True)
        await one.hello(1, was_killed=True)
        await one.statuses.tell()
        assert (await one.row(1)).score == 4_800
        for _ in range(3):
            one.world.clock.now_s += 3_600
            one.registry.heard(1, _again(one))
            await one.statuses.tell()
        assert (await one.row(1)).score == 4_830


def _again(one: Meta) -> Any:
    seen = one.registry.seen_of(1)
    assert seen is not None
    seen.heard_s = one.world.clock.now_s
    return seen


async def test_who_says_that_it_stops_loses_no_score(tmp_path: Path) -> None:
    async with meta(tmp_path) as one:
        await one.hello(1)
        await one.statuses.tell()
        await one.hello(1, is_stopping=True)
        await one.statuses.tell()
        row = await one.row(1)
        assert (row.is_online, row.score) == (False, 5_000)


async def test_silence_while_this_process_stood_still_costs_no_score(tmp_path: Path) -> None:
    async with meta(tmp_path) as one:
        await one.hello(1)
        await one.statuses.tell()
        one.world.clock.now_s += 500
        await one.statuses.tell(was_away=True)
        row = await one.row(1)
        assert (row.is_online, row.score) == (False, 5_000)


async def test_the_loop_tells_changes_soon(tmp_path: Path) -> None:
    async with meta(tmp_path) as one:
        task = asyncio.create_task(one.statuses.run())
        try:
            await one.hello(1)
            await until(lambda: _is_online(one))
            row = await one.row(1)
            assert (row.is_online, row.endpoint) == (True, "127.1.0.1:9000")
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def _is_online(one: Meta) -> bool:
    return bool((await one.row(1)).is_online)


async def test_maintenance_beyond_the_budget_counts_as_offline(tmp_path: Path) -> None:
    async with meta(tmp_path) as one:
        hour = 3_600
        for round_ in range(2):
            now_s = int(one.world.clock.now_s)
            await one.hello(1, maintenance_until_s=now_s + 10 * hour)
            assert f"until {now_s + 4 * hour} s" in one.registry.why_not(1), round_
            one.world.clock.now_s += 4 * hour
            assert "longer than" in (await one.hello(1, maintenance_until_s=now_s + 10 * hour)).why_not_eligible
            assert not one.registry.is_online(await one.row(1))
            assert (await one.hello(1)).why_not_eligible == ""
        now_s = int(one.world.clock.now_s)
        assert "longer than" in (await one.hello(1, maintenance_until_s=now_s + hour)).why_not_eligible
        assert (await one.hello(1)).why_not_eligible == ""
        one.world.clock.now_s += 31 * DAY_S
        now_s = int(one.world.clock.now_s)
        assert "in maintenance" in (await one.hello(1, maintenance_until_s=now_s + hour)).why_not_eligible


async def test_the_budget_of_maintenance_is_eight_hours_in_thirty_days() -> None:
    hour = 3_600
    assert allowed_until_s([], 0, 0) == 4 * hour
    assert allowed_until_s([(0, 4 * hour)], 10 * hour, 10 * hour) == 14 * hour
    assert allowed_until_s([(0, 4 * hour), (5 * hour, 8 * hour)], 10 * hour, 10 * hour) == 11 * hour
    assert allowed_until_s([(0, 4 * hour), (5 * hour, 9 * hour)], 10 * hour, 10 * hour) == 10 * hour
    assert used_s([(0, 4 * hour)], 30 * DAY_S + hour) == 3 * hour


async def test_after_a_restart_the_ledger_still_knows_who_was_there(tmp_path: Path) -> None:
    async with meta(tmp_path) as one:
        await one.hello(1)
        await one.statuses.tell()
        again = Registry(one.world.ledger, one.world.clock, hello_s=5)
        await again.refresh()
        assert [candidate.number for candidate in again.candidates()] == [1]
        contact = again.contact(1)
        assert contact is not None
        assert (contact.endpoint, contact.is_online) == ("127.1.0.1:9000", True)
        one.world.clock.now_s += 901
        assert not again.candidates()


async def test_a_node_that_went_to_another_meta_node_is_as_the_ledger_says(tmp_path: Path) -> None:
    async with meta(tmp_path) as one:
        await one.hello(1)
        await one.statuses.tell()
        one.world.clock.now_s += 100
        await one.statuses.tell()
        assert not (await one.row(1)).is_online
        other = message("NodeSeen", node=1, endpoint="10.0.0.1:5", prefix=bytes([10, 0, 0]), capacity_bytes=ROOM, free_bytes=ROOM, is_online=True)
        await one.world.proposer.propose("node_statuses", message("NodeStatuses", nodes=[other]))  # as another meta node would say
        await one.registry.refresh()
        contact = one.registry.contact(1)
        assert contact is not None
        assert (contact.endpoint, contact.is_online) == ("10.0.0.1:5", True)
        assert [candidate.number for candidate in one.registry.candidates()] == [1]
        assert await one.statuses.tell() == 0
