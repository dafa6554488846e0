"""ValueChain, Sender, views and ChainAuthority against a chain with the real CometBFT."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

import pytest

from chain.codec.registry import message_class
from chain.coins import Coin
from chain.crypto import address as bech32
from chain.crypto.keys import PrivateKey
from chain.tx.build import Signer, build_tx
from sds_node.value_chain import (
    AccountUnknown,
    ChainAuthority,
    ChainUnavailable,
    HeightMissing,
    QueryFailed,
    Sender,
    TxRefused,
    ValueChain,
    ValueChainError,
    WrongChain,
    views,
)
from sds_node.value_chain.client import tx_hash
from tests.sds_node.value_chain.support import (
    CHAIN_ID,
    STOS,
    Chain,
    effective_of,
    network_key,
    prepay_of,
    resource_node_of,
    running,
    send_of,
)

T = TypeVar("T")
STRANGER = bytes(range(20))


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    with running(tmp_path_factory.mktemp("net")) as chain:
        yield chain


def do(net: Chain, ask: Callable[[ValueChain], Awaitable[T]]) -> T:
    """What a coroutine function makes of a client of the chain."""

    async def go() -> T:
        async with ValueChain(net.rpc) as chain:
            return await ask(chain)

    return asyncio.run(go())


def test_a_status_says_which_chain_and_where_it_stands(net: Chain) -> None:
    status = do(net, lambda chain: chain.status())
    assert (status.chain_id, status.is_catching_up, status.earliest_height, len(status.block_hash)) == (CHAIN_ID, False, 1, 32)
    assert status.height >= 1
    assert abs(status.time_s - time.time()) < 60


def test_a_query_at_a_height_gives_what_was_there_then(net: Chain) -> None:
    async def go(chain: ValueChain) -> None:
        sender = Sender(chain, net.key("carol"))
        sent = await sender.send([send_of(net.key("carol"), STRANGER, 5)])
        path, kind = "/cosmos.bank.v1beta1.Query/Balance", message_class("cosmos.bank.v1beta1.QueryBalanceResponse")
        request = message_class("cosmos.bank.v1beta1.QueryBalanceRequest")(address=bech32.encode(STRANGER), denom="wei")
        before = await chain.query(path, request, kind, sent.height - 1)
        after = await chain.query(path, request, kind, sent.height)
        assert int(after.balance.amount) == int(before.balance.amount) + 5
        assert await chain.balance_wei(STRANGER) == int(after.balance.amount)

    do(net, go)


def test_a_question_that_the_chain_refuses_keeps_its_code(net: Chain) -> None:
    request = message_class("cosmos.bank.v1beta1.QueryBalanceRequest")(address="st1nonsense", denom="wei")
    kind = message_class("cosmos.bank.v1beta1.QueryBalanceResponse")
    with pytest.raises(QueryFailed) as refused:
        do(net, lambda chain: chain.query("/cosmos.bank.v1beta1.Query/Balance", request, kind))
    assert (refused.value.codespace, refused.value.is_not_found) == ("sdk", False)
    with pytest.raises(QueryFailed):
        do(net, lambda chain: chain.query("/no.such.Query/Method", request, kind))
    with pytest.raises(QueryFailed):
        do(net, lambda chain: chain.query("/cosmos.bank.v1beta1.Query/Balance", request, kind, 10**9))


def test_a_block_tells_what_succeeded_in_it_and_nothing_of_what_failed(net: Chain) -> None:
    async def go(chain: ValueChain) -> None:
        alice, key = Sender(chain, net.key("alice")), net.key("bob")
        good = await alice.send([prepay_of(net.key("alice"), STRANGER, STOS)])
        block = await chain.block(good.height)
        (bought,) = [one for one in block.events if one.kind == "stratos.sds.v1.EventPrePay"]
        assert (bought.text("beneficiary"), bought.text("amount")) == (bech32.encode(STRANGER), f"{STOS}wei")
        assert int(bought.text("purchased_noz")) > 0
        assert (block.height, len(block.block_hash)) == (good.height, 32)
        # Two of one account, of which the second has lost its coins when its turn comes: it fails in the block, its fee is taken.
        number, sequence = await chain.account(bech32.encode(key.public_key.address))
        everything = await chain.balance_wei(key.public_key.address)
        raws = []
        for at in range(2):
            signer = Signer(key.public_key, sequence + at, number)
            message = send_of(key, STRANGER, everything - 10**16)
            raws.append(build_tx([message], fee=(Coin("wei", 10**15),), gas_limit=200_000, signers=[signer]).sign([key], CHAIN_ID))
        hashes = [await chain.broadcast(raw) for raw in raws]
        first, second = [await chain.wait(one) for one in hashes]
        assert (first.code, second.code, second.codespace) == (0, 5, "sdk")
        told = await chain.block(second.height)
        shown = [one.attributes.get("acc_seq") for one in told.events if one.kind == "tx"]
        assert f"{bech32.encode(key.public_key.address)}/{sequence + 1}" not in shown

    do(net, go)


def test_following_gives_every_height_in_order_and_waits_for_the_next(net: Chain) -> None:
    async def go(chain: ValueChain) -> list[int]:
        seen = []
        tip = await chain.committed_height()
        async for block in chain.follow(0, poll_s=0.05):
            seen.append(block.height)
            if block.height > tip + 3:
                return seen
        raise AssertionError("it has no end")

    seen = do(net, go)
    assert seen == list(range(1, len(seen) + 1))


def test_a_height_that_is_not_there_is_said_to_be_missing(net: Chain) -> None:
    with pytest.raises(HeightMissing, match="1000000"):
        do(net, lambda chain: chain.block(1_000_000))


def test_an_account_that_nobody_paid_is_unknown(net: Chain) -> None:
    with pytest.raises(AccountUnknown, match="send it coins"):
        do(net, lambda chain: chain.account(bech32.encode(b"\x07" * 20)))


@pytest.mark.parametrize("name", ["alice", "carol"])
def test_keys_of_both_kinds_send(net: Chain, name: str) -> None:
    async def go(chain: ValueChain) -> None:
        sender = Sender(chain, net.key(name))
        before = await chain.account(sender.address)
        result = await sender.send([send_of(net.key(name), STRANGER, 1), send_of(net.key(name), STRANGER, 2)], memo="two in one")
        assert result.code == 0
        assert result.gas_used > 0
        assert (await chain.account(sender.address))[1] == before[1] + 1
        found = await chain.find(result.hash)
        assert found == result

    do(net, go)


def test_many_who_send_at_once_with_one_key_all_come_through(net: Chain) -> None:
    async def go(chain: ValueChain) -> None:
        sender = Sender(chain, net.key("alice"))
        before = await chain.balance_wei(b"\x09" * 20)
        results = await asyncio.gather(*(sender.send([send_of(net.key("alice"), b"\x09" * 20, 1)]) for _ in range(5)))
        assert len({one.hash for one in results}) == 5
        assert await chain.balance_wei(b"\x09" * 20) == before + 5

    do(net, go)


def test_a_sequence_that_another_program_used_is_read_again(net: Chain) -> None:
    async def go(chain: ValueChain) -> None:
        one, other = Sender(chain, net.key("alice")), Sender(chain, net.key("alice"))
        await one.send([send_of(net.key("alice"), STRANGER, 1)])
        await other.send([send_of(net.key("alice"), STRANGER, 1)])
        assert (await one.send([send_of(net.key("alice"), STRANGER, 1)])).code == 0

    do(net, go)


def test_what_would_fail_is_refused_with_the_chains_reason_and_the_next_goes_through(net: Chain) -> None:
    async def go(chain: ValueChain) -> None:
        sender = Sender(chain, net.key("carol"))
        with pytest.raises(TxRefused, match="insufficient funds"):
            await sender.send([send_of(net.key("carol"), STRANGER, 10**30)])
        assert (await sender.send([send_of(net.key("carol"), STRANGER, 1)])).code == 0
        with pytest.raises(AccountUnknown):
            await Sender(chain, PrivateKey(b"\x11" * 32, "secp256k1")).send([send_of(net.key("carol"), STRANGER, 1)])

    do(net, go)


def test_a_lost_answer_does_not_send_twice(net: Chain) -> None:
    class Losing(ValueChain):
        lost = 0

        async def broadcast(self, raw: bytes) -> bytes:
            await super().broadcast(raw)
            if self.lost < 2:
                self.lost += 1
                await self.wait(tx_hash(raw))
                raise ChainUnavailable("the line was cut")
            return tx_hash(raw)

    async def go() -> None:
        async with Losing(net.rpc) as chain:
            sender = Sender(chain, net.key("carol"))
            before = await chain.balance_wei(b"\x0a" * 20)
            first = await sender.send([send_of(net.key("carol"), b"\x0a" * 20, 1)])
            second = await sender.send([send_of(net.key("carol"), b"\x0a" * 20, 1)])
            assert first.hash != second.hash
            assert (chain.lost, await chain.balance_wei(b"\x0a" * 20)) == (2, before + 2)

    asyncio.run(go())


def test_views_show_nodes_keys_parameters_ozone_and_rewards(net: Chain) -> None:
    async def go(chain: ValueChain) -> None:
        owner, meta = Sender(chain, net.key("alice")), net.meta
        made = await owner.send([resource_node_of(net.key("alice"), 50, 100 * STOS, beneficiary=STRANGER)])
        address = network_key(50).address
        node = await views.resource_node(chain, address)
        assert node is not None
        assert (node.owner, node.beneficiary, node.p2p_key) == (net.wallet("alice"), STRANGER, network_key(50).raw)
        assert (node.tokens_wei, node.effective_wei, node.standing) == (100 * STOS, 0, views.Standing.SUSPENDED)
        assert await views.resource_node(chain, address, made.height - 1) is None
        before = await views.ozone(chain)
        await Sender(chain, net.key("operator")).send([effective_of(net, 50, 90 * STOS)])
        node = await views.resource_node(chain, address)
        assert node is not None
        assert (node.effective_wei, node.standing) == (90 * STOS, views.Standing.ACTIVE)
        assert [one.address for one in await views.resource_nodes(chain)] == [address]
        after = await views.ozone(chain)
        assert after.deposit_wei - before.deposit_wei == 90 * STOS
        assert after.outstanding_noz >= before.outstanding_noz > 0

        (one,) = await views.meta_nodes(chain)
        assert (one.address, one.owner, one.is_active) == (meta.address, net.wallet("operator"), True)
        assert [one.address for one in await views.bonded_meta_nodes(chain)] == [meta.address]
        keys = await views.meta_keys(chain)
        assert keys == {meta.address: views.MetaKeys(meta.ledger_consensus_pubkey, meta.bls_pubkey)}
        assert await views.keys_of(chain, meta.address) == keys[meta.address]
        assert await views.keys_of(chain, address) is None

        params = await views.ledger_params(chain)
        assert (params.escrow_ratio_e18, params.retention_days, params.epoch_duration_s) == (5 * 10**17, 365, 30)
        assert params.max_wallets_per_report == 1_000
        assert await views.rewards(chain, STRANGER) == views.Rewards(0, 0)
        assert await views.last_report(chain) is None
        assert await views.committed_epoch(chain, 1) is None
        assert await views.grant_outstanding_noz(chain) == 0

    do(net, go)


def test_an_authority_knows_who_may_sign_and_nobody_before_it_has_asked(net: Chain) -> None:
    async def go(chain: ValueChain) -> None:
        now = [1_000.0]
        authority = ChainAuthority(chain, CHAIN_ID, clock=lambda: now[0])
        assert (list(authority.active_meta_nodes()), authority.ledger_key(net.meta.address), authority.age_s) == ([], None, float("inf"))
        await authority.refresh()
        now[0] += 7
        assert (authority.chain_id, list(authority.active_meta_nodes()), authority.age_s) == (CHAIN_ID, [net.meta.address], 7)
        assert authority.ledger_key(net.meta.address) == net.meta.ledger_consensus_pubkey
        assert authority.ledger_key(STRANGER) is None
        with pytest.raises(WrongChain, match=CHAIN_ID):
            await ChainAuthority(chain, "another-1").refresh()

    do(net, go)


def test_when_the_chain_is_down_followers_wait_and_authorities_keep_what_they_know(net: Chain) -> None:
    async def go() -> None:
        async with ValueChain(net.rpc) as chain:
            authority = ChainAuthority(chain, CHAIN_ID, refresh_s=0.1)
            await authority.refresh()
            seen: list[int] = []
            more = asyncio.Condition()

            async def follow(after: int) -> None:
                async for block in chain.follow(after, poll_s=0.1):
                    async with more:
                        seen.append(block.height)
                        more.notify_all()

            after = await chain.committed_height()
            tasks = [asyncio.create_task(follow(after)), asyncio.create_task(authority.run())]
            await asyncio.to_thread(net.stop)
            with pytest.raises(ChainUnavailable, match=net.rpc):
                await chain.status()
            with pytest.raises(ValueChainError):
                await authority.refresh()
            assert list(authority.active_meta_nodes()) == [net.meta.address]
            told = len(seen)
            await asyncio.to_thread(net.start)
            async with asyncio.timeout(30), more:
                await more.wait_for(lambda: len(seen) >= told + 3)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            assert seen == list(range(after + 1, after + 1 + len(seen)))
            assert authority.age_s < 30

    asyncio.run(go())
