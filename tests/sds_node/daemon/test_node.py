"""A resource node that runs beside meta nodes on loopback: what it tells them, and how it stops."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from sds_node import asking
from sds_node.client.get import ShareToGet, get_share
from sds_node.client.placing import NodeFailed
from sds_node.client.put import put_share
from sds_node.merkle import leaf_count
from sds_node.resource.daemon.config import MetaNode
from sds_node.resource.daemon.handing import REFUSED
from sds_node.resource.daemon.home import Home, HomeError
from sds_node.resource.daemon.node import NodeBroken, ResourceNode
from sds_node.transfers import Run
from sds_node.wire.errors import Refused, Unreachable
from tests.sds_node.daemon.meta import SETTLED, Metas, issuer, meta_nodes, running, settings, until
from tests.sds_node.data.network import Clock, Issuer, content, lone
from tests.sds_node.documenting import NOW_S

pytestmark = pytest.mark.asyncio


async def test_a_node_says_hello_and_tells_what_it_was_answered(tmp_path: Path) -> None:
    async with meta_nodes() as [meta], running(tmp_path / "home", meta) as node:
        await meta.until(lambda: bool(meta.hellos))
        hello = meta.hellos[0]
        assert node.listening is not None
        assert hello.endpoint == f"127.0.0.1:{node.listening[1]}"
        assert (hello.kept_bytes, hello.was_killed, hello.is_stopping, hello.maintenance_until_s) == (0, False, False, 0)
        assert hello.free_bytes > 0
        assert hello.capacity_bytes >= hello.free_bytes
        await _until_online(node)
        [told] = (await node.status())["meta_nodes"]
        assert (told["score"], told["standing"], told["shares"], told["problem"]) == (5_000, "active", 3, "")


async def test_a_changed_state_is_told_at_once(tmp_path: Path) -> None:
    async with meta_nodes() as [meta], running(tmp_path / "home", meta) as node:
        await _until_online(node)
        [answer] = await node.set_maintenance(3_600)
        assert answer["was_told"]
        assert meta.hellos[-1].maintenance_until_s == NOW_S + 3_600
        await node.set_maintenance(0)
        assert meta.hellos[-1].maintenance_until_s == 0
        node.leave()
        await meta.until(lambda: bool(meta.hellos[-1].free_bytes == 0))


async def test_maintenance_is_remembered_over_a_restart_and_bounded(tmp_path: Path) -> None:
    clock = Clock()
    async with running(tmp_path / "home", clock=clock) as node:
        await node.set_maintenance(600)
        with pytest.raises(ValueError, match="4 hours"):
            await node.set_maintenance(5 * 3_600)
    async with running(tmp_path / "home", clock=clock) as node:
        assert node.maintenance_until_s == NOW_S + 600
        clock.now_s += 601
        assert node.maintenance_until_s == 0


async def test_a_node_that_was_killed_says_so_once(tmp_path: Path) -> None:
    Home(tmp_path / "home").make(settings())
    Home(tmp_path / "home").begin_run(NOW_S)  # and never ended
    async with meta_nodes() as [meta]:
        async with running(tmp_path / "home", config=settings(meta)) as node:
            await _until_online(node)
            assert meta.hellos[0].was_killed
            node.announce()
            await meta.until(lambda: not meta.hellos[-1].was_killed)
        async with running(tmp_path / "home", config=settings(meta)) as node:
            await _until_online(node)
        assert [one.was_killed for one in meta.hellos].count(True) == 1


async def test_a_kill_that_no_meta_node_heard_of_is_not_forgotten(tmp_path: Path) -> None:
    Home(tmp_path / "home").make(settings())
    Home(tmp_path / "home").begin_run(NOW_S)
    async with running(tmp_path / "home"):
        pass
    assert Home(tmp_path / "home").state().was_killed


async def test_other_meta_nodes_are_learned_if_the_chain_knows_them(tmp_path: Path) -> None:
    async with meta_nodes(3) as [first, second, third]:
        contacts = [{"p2p_key": one.server.node.identity.public_key, "endpoint": f"{one.host}:{one.port}"} for one in (second, third) if one.server]
        first.welcome["metas"] = [*contacts, {"p2p_key": b"no key", "endpoint": "x"}, {"p2p_key": contacts[0]["p2p_key"], "endpoint": "nowhere"}]
        async with running(tmp_path / "home", first, authority=Metas((1, 2))) as node:
            await second.until(lambda: bool(second.hellos))
            assert set(node.links) == {first.address, second.address}
            assert not third.hellos


async def test_a_refused_hello_is_told_in_words_and_tried_again(tmp_path: Path) -> None:
    async with meta_nodes() as [meta]:
        meta.refusal = Refused(asking.UNKNOWN_NODE, "the chain knows no node with this key: register it")
        async with running(tmp_path / "home", meta) as node:
            [link] = node.links.values()
            await until(lambda: "register it" in link.problem)
            assert any("no meta node answers" in one for one in node.problems())
            meta.refusal = None
            node.announce()
            await _until_online(node)
            assert not any("no meta node answers" in one for one in node.problems())


async def test_an_answer_that_is_no_welcome_is_a_problem_and_no_failure(tmp_path: Path) -> None:
    async with meta_nodes() as [meta]:
        meta.raw_answer = b"\xff\xff\xff"
        async with running(tmp_path / "home", meta) as node:
            await meta.until(lambda: bool(meta.hellos))
            [link] = node.links.values()
            await until(lambda: "no NodeWelcome" in link.problem)
            assert node.failed is not None
            assert not node.failed.done()


async def test_what_a_put_and_a_get_earn_is_handed_in_and_settled(tmp_path: Path) -> None:
    data = content(1, 40_000)
    async with meta_nodes() as [meta], running(tmp_path / "home", meta, hand_every_s=0.05, held_s=0.05) as node:
        await _until_online(node)
        user = issuer(node)
        try:
            await put(user, data)
            await meta.until(lambda: len(meta.leaves) == 1)
            assert await _get(user, data) == data
            await meta.until(lambda: len(meta.leaves) == 2)
            assert sum(leaf.noz for leaf in meta.leaves) > 0
            meta.state = SETTLED
            await until(lambda: node.hander.count["settled"] == 2)
            async with asyncio.timeout(30):
                while (status := await node.status())["pending_receipts"]:  # noqa: ASYNC110 - counted before it is noted
                    await asyncio.sleep(0.01)
            assert status["receipts"] == {"held": 2, "settled": 2}
            assert status["copies"] == 1
            values = await node.values()
            assert values["ppd_receipts_bytes_total"] == {("put",): 40_000, ("get",): 40_000}
            assert values["ppd_transfers_total"] == {("put", "done"): 1, ("get", "done"): 1}
        finally:
            await user.caller.close()


@pytest.mark.parametrize(("changes", "is_kept"), [((), False), (("confirm",), True), (("confirm", "trash"), True)])
async def test_evidence_of_a_refused_put_is_kept_if_the_ledger_has_its_share_here(tmp_path: Path, changes: tuple[str, ...], is_kept: bool) -> None:
    data = content(1, 40_000)
    async with meta_nodes() as [meta], running(tmp_path / "home", meta, hand_every_s=0.05, held_s=0.05) as node:
        await _until_online(node)
        user = issuer(node)
        await put(user, data)
        await user.caller.close()
        await meta.until(lambda: len(meta.leaves) == 1)
        keys = [copy.key for copy in node.store.copies(lone(data).share_root)]
        for change in changes:
            assert getattr(node.store, change)(keys) == [], "all of them"
        meta.state = REFUSED
        await until(lambda: node.hander.count["refused"] == 1)
        async with asyncio.timeout(30):
            while (await node.status())["pending_receipts"]:  # noqa: ASYNC110 - counted before it is noted
                await asyncio.sleep(0.01)
        assert node.home.refused_path.exists() is is_kept


async def test_a_stopping_node_says_so_hands_in_and_leaves_no_marker(tmp_path: Path) -> None:
    data = content(2, 20_000)
    async with meta_nodes() as [meta], running(tmp_path / "home", meta) as node:
        await _until_online(node)
        user = issuer(node)
        await put(user, data)
        await node.stop()
        assert meta.hellos[-1].is_stopping
        assert len(meta.leaves) == 1
        assert not (tmp_path / "home" / "running").exists()
        await user.caller.close()
    async with running(tmp_path / "home") as node:
        assert not node.state.was_killed
        assert (await node.status())["copies"] == 1


async def test_a_transfer_under_way_ends_before_the_node_does(tmp_path: Path) -> None:
    data = content(6, 150_000)
    async with meta_nodes() as [meta], running(tmp_path / "home", meta) as node:
        await _until_online(node)
        user = issuer(node, up_bytes_per_s=100_000)
        putting = asyncio.ensure_future(put(user, data))
        await until(lambda: node.ended.total() == 0 and len(node.service._active) == 1)
        await node.stop(drain_s=60)
        await putting
        assert node.ended["put", "done"] == 1
        assert len(meta.leaves) == 1, "its receipt went out, too"
        await user.caller.close()


async def test_a_transfer_that_does_not_end_is_cut_off(tmp_path: Path) -> None:
    data = content(7, 5_000_000)
    async with running(tmp_path / "home") as node:
        user = issuer(node, up_bytes_per_s=100_000)
        putting = asyncio.ensure_future(put(user, data))
        await until(lambda: len(node.service._active) == 1)
        await node.stop(drain_s=0.05)
        with pytest.raises(NodeFailed):
            await putting
        await user.caller.close()
    assert not (tmp_path / "home" / "running").exists()


async def test_a_clock_that_is_wrong_is_a_problem(tmp_path: Path) -> None:
    clock = Clock(NOW_S + 100)
    async with meta_nodes() as [meta], running(tmp_path / "home", meta, clock=clock) as node:
        await _until_online(node)
        assert any("100 s ahead" in one for one in node.problems())


async def test_no_transfer_begins_while_a_node_drains_and_no_put_while_it_leaves(tmp_path: Path) -> None:
    data = content(3, 20_000)
    async with running(tmp_path / "home") as node:
        user = issuer(node)
        try:
            node.leave()
            with pytest.raises(NodeFailed, match="leaving"):
                await put(user, data)
            node.is_draining = True
            with pytest.raises(NodeFailed, match="stopping"):
                await _get(user, data)
            node.is_draining = False
        finally:
            await user.caller.close()


async def test_earnings_come_from_a_meta_node_that_answers(tmp_path: Path) -> None:
    async with meta_nodes() as [meta]:
        async with running(tmp_path / "home", meta) as node:
            await _until_online(node)
            told = await node.earnings()
            assert (told["escrow_noz"], told["earned_noz"], told["held_noz"], told["shares"]) == ("10", "20", "30", 3)
        async with running(tmp_path / "other") as node:
            with pytest.raises(Unreachable):
                await node.earnings()


async def test_receipts_of_a_meta_node_that_left_go_to_another(tmp_path: Path) -> None:
    data, authority = content(4, 20_000), Metas((1, 2))
    async with meta_nodes(2) as [_, second], running(tmp_path / "home", second, authority=authority) as node:
        await _until_online(node)
        user = issuer(node)
        await put(user, data)
        await node.hander.round()
        assert not second.leaves, "the issuer is active: others will tell where it is"
        authority.numbers = (2,)
        await node.hander.round()
        assert len(second.leaves) == 1
        await user.caller.close()


async def test_receipts_of_a_meta_node_that_stays_away_go_to_another(tmp_path: Path) -> None:
    data, at = content(5, 20_000), {"s": 1_000.0}
    options: dict[str, Any] = {"authority": Metas((1, 2)), "monotonic": lambda: at["s"]}
    async with meta_nodes(2) as [first, second], running(tmp_path / "home", first, second, **options) as node:
        await until(lambda: all(link.is_online for link in node.links.values()))
        user = issuer(node)
        await first.close()
        await put(user, data)
        at["s"] += 3 * 600 + 1  # beyond what the first one's answer is good for, and longer than it is waited for
        node.announce()
        await until(lambda: node.links[second.address].is_online)
        await second.until(lambda: bool(second.leaves))  # the welcome has receipts handed in
        assert not first.leaves
        await user.caller.close()


async def test_a_welcome_that_never_ends_is_cut_off(tmp_path: Path) -> None:
    async with meta_nodes() as [meta]:
        meta.raw_answer = bytes(1 << 20)
        async with running(tmp_path / "home", meta) as node:
            [link] = node.links.values()
            await until(lambda: bool(meta.hellos) and link.problem != "it has not answered yet")
            assert not link.is_online


async def test_figures_of_a_meta_node_are_bounded_before_they_are_used(tmp_path: Path) -> None:
    async with meta_nodes() as [meta]:
        meta.welcome = {"next_s": 4_000_000_000, "standing": 99, "score": 1, "why_not_eligible": "x" * 50_000}
        async with running(tmp_path / "home", meta) as node:
            await _until_online(node)
            [told] = (await node.status())["meta_nodes"]
            assert (told["standing"], len(told["why_not_eligible"])) == ("unknown", 1_000)
            assert next(iter(node.links.values())).next_s == 600


async def test_a_disk_that_is_full_ends_no_running_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Home(tmp_path / "home").make(settings())
    Home(tmp_path / "home").begin_run(NOW_S)  # and never ended
    is_full = True
    real = Home.remember

    def remember(self: Home, **changes: Any) -> Any:
        if is_full:
            raise HomeError("state.json cannot be written (No space left on device)")
        return real(self, **changes)

    async with meta_nodes() as [meta], running(tmp_path / "home") as node:
        assert node.state.was_killed
        monkeypatch.setattr(Home, "remember", remember)
        node._link(MetaNode(meta.address, meta.host, meta.port))
        await _until_online(node)
        assert [one.was_killed for one in meta.hellos] == [True]
        await node.set_maintenance(600)
        assert (meta.hellos[-1].was_killed, meta.hellos[-1].maintenance_until_s) == (False, NOW_S + 600)
        assert any("is not on disk" in one for one in node.problems())
        assert Home(tmp_path / "home").state().was_killed
        is_full = False
        node.announce()
        await until(lambda: not Home(tmp_path / "home").state().was_killed)
        assert Home(tmp_path / "home").state().maintenance_until_s == NOW_S + 600
        assert not any("is not on disk" in one for one in node.problems())


async def test_a_meta_node_that_is_learned_while_maintenance_is_announced_does_no_harm(tmp_path: Path) -> None:
    async with meta_nodes(2) as [first, second], running(tmp_path / "home", first, authority=Metas((1, 2))) as node:
        await _until_online(node)
        assert second.server is not None
        first.welcome["metas"] = [{"p2p_key": second.server.node.identity.public_key, "endpoint": f"{second.host}:{second.port}"}]
        told = await node.set_maintenance(60)
        assert [one["was_told"] for one in told] == [True]
        assert len(node.links) == 2


async def test_a_part_that_fails_is_told(tmp_path: Path) -> None:
    async def broken() -> None:
        raise ValueError("a defect")

    async with running(tmp_path / "home", background=(broken,)) as node:
        assert node.failed is not None
        with pytest.raises(NodeBroken, match="background 0"):
            await asyncio.wait_for(asyncio.shield(node.failed), 10)


async def put(user: Issuer, data: bytes) -> None:
    await put_share(user.session, user.for_share(user.nodes[0], lone(data).share_root, len(data)), lone(data), data)


async def _get(user: Issuer, data: bytes) -> bytes:
    share, into = lone(data), bytearray(len(data))
    place = user.to_read(user.nodes[0], share.share_root, len(data))
    wanted = ShareToGet(share.segment_root, 0, 1, len(data))
    await get_share(user.session, place, wanted, [Run(0, leaf_count(len(data)))], memoryview(into))
    return bytes(into)


async def _until_online(node: ResourceNode) -> None:
    await until(lambda: any(link.is_online for link in node.links.values()))
