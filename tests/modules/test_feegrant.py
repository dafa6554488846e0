"""feegrant: every kind of allowance used, used up and refused, who pays, periods, pruning, queries, genesis, and what is stored."""

from __future__ import annotations

from typing import Any

import pytest

from chain.app import build_application
from chain.application import Settings
from chain.codec.json import to_json
from chain.codec.registry import message_class, pack_any, unpack_any
from chain.codec.times import NANOS, sortable
from chain.coins import Coin
from chain.context import Context, Mode
from chain.crypto import address as bech32
from chain.errors import AppError, InvalidAddress, InvalidRequest, NotFound, TxDecodeError, UndefinedError
from chain.events import EventList
from chain.gas import GasMeter
from chain.module import GenesisError
from chain.store.kv import MemoryBackend
from chain.store.state import State
from chain.testing.driver import Driver
from modules.bank.keeper import BankSend
from modules.feegrant import allowances
from modules.feegrant import keeper as limits
from modules.feegrant.errors import NoAllowance
from tests.grants import FEEGRANT, SEND_URL, Chain, allow, basic, code, coins, disallow, only_for, periodic, prune, send
from tests.support import FEE, GAS, GOV, KEYS, at_end_of, balance, chain, genesis_document, key, text

ALICE, BOB, CAROL, DAVE = KEYS[2:6]
A, B, C, D = (text(one) for one in KEYS[2:6])
PRICE = FEE[0].amount
_END_S = 253_402_300_800
GRANT_URL = f"/{FEEGRANT}.MsgGrantAllowance"
POOR = key(70)
P = text(POOR)


@pytest.fixture
def net() -> Chain:
    return Chain(chain())


def left(net: Chain, granter: str = A, grantee: str = B) -> Any:
    """The allowance as a query shows it."""
    return unpack_any(net.query(FEEGRANT, "Allowance", granter=granter, grantee=grantee).allowance.allowance)


def is_gone(net: Chain, granter: str = A, grantee: str = B) -> bool:
    try:
        left(net, granter, grantee)
    except NotFound:
        return True
    return False


def events(result: Any, kind: str) -> list[dict[str, str]]:
    return [dict(attributes) for name, attributes in result.events if name == kind]


def stored(net: Chain, prefix: bytes) -> list[bytes]:
    """Keys of the store under a prefix."""
    with net.app.store.view() as view:
        return [found for found, _ in view.store("feegrant").iterate(prefix, bytes([prefix[0] + 1]))]


def raw(address: str) -> bytes:
    return b"\x14" + bech32.decode(address)


def both(net: Chain, private: Any, *messages: Any, **options: Any) -> tuple[tuple[str, int], tuple[str, int]]:
    """(CheckTx's code, a block's code) of one transaction."""
    given = net.sign(private, *messages, **{"gas": GAS, **options})
    return code(net.driver.check_tx(given)), code(net.driver.next_block([given], process=False).results[0])


# --- who pays --------------------------------------------------------------------------------------------------------------------


def test_the_granter_pays_and_is_the_fee_payer_of_the_event(net: Chain) -> None:
    assert code(net.run(ALICE, allow(A, B, basic()))) == ("", 0)
    before = balance(net.driver, 2), balance(net.driver, 3)
    result = net.run(BOB, send(B, D, 7), granter=A)
    assert code(result) == ("", 0)
    assert (balance(net.driver, 2), balance(net.driver, 3)) == (before[0] - PRICE, before[1] - 7)
    assert {"fee": f"{PRICE}wei", "fee_payer": A} in events(result, "tx")
    parties = {"granter": A, "grantee": B}
    assert (events(result, "use_feegrant"), events(result, "update_feegrant")) == ([parties], [parties])


def test_an_account_without_coins_can_send_what_another_pays_for(net: Chain) -> None:
    """The grant opens the grantee's account: its first transaction sets its key."""
    assert code(net.run(ALICE, allow(A, P, basic(3 * PRICE)))) == ("", 0)
    note = allow(P, C, basic(5))
    assert both(net, POOR, note) == (("sdk", 5), ("sdk", 5))
    assert both(net, POOR, note, granter=A) == (("", 0), ("", 0))
    assert net.account(POOR)[1] == 1
    assert left(net, A, P).spend_limit == coins(2 * PRICE)


def test_without_an_allowance_nobody_pays_for_another(net: Chain) -> None:
    before = [balance(net.driver, number) for number in (2, 3)]
    assert both(net, BOB, send(B, D, 7), granter=A) == (("sdk", 38), ("sdk", 38))
    told = net.run(BOB, send(B, D, 7), granter=A).log
    assert told == f"{A} does not allow to pay fees for {B}: fee-grant not found: not found"
    assert code(net.run(ALICE, allow(A, B, basic()))) == ("", 0)
    assert code(net.run(ALICE, send(A, D, 7), granter=B)) == ("sdk", 38), "the other way is another allowance"
    assert [balance(net.driver, number) for number in (2, 3)] == [before[0] - PRICE, before[1]]
    assert net.account(BOB)[1] == 0


def test_a_granter_without_enough_is_no_help_and_loses_nothing_of_his_allowance(net: Chain) -> None:
    assert code(net.run(ALICE, send(A, P, PRICE + 5))) == ("", 0)
    assert code(net.run(POOR, allow(P, B, basic(10 * PRICE)))) == ("", 0)
    assert both(net, BOB, send(B, D, 7), granter=P) == (("sdk", 5), ("sdk", 5))
    assert left(net, P, B).spend_limit == coins(10 * PRICE)


def test_ones_own_address_as_granter_needs_no_allowance(net: Chain) -> None:
    before = balance(net.driver, 3)
    result = net.run(BOB, send(B, D, 7), granter=B)
    assert code(result) == ("", 0)
    assert (balance(net.driver, 3), events(result, "use_feegrant")) == (before - PRICE - 7, [])


def test_the_fee_of_a_transaction_whose_message_fails_comes_from_the_allowance_too(net: Chain) -> None:
    assert code(net.run(ALICE, allow(A, B, basic(5 * PRICE)))) == ("", 0)
    before = balance(net.driver, 2)
    assert code(net.run(BOB, send(B, D, 10**30), granter=A)) == ("sdk", 5)
    assert left(net).spend_limit == coins(4 * PRICE)
    assert balance(net.driver, 2) == before - PRICE


def test_a_transaction_that_does_not_pass_the_ante_chain_takes_nothing(net: Chain) -> None:
    assert code(net.run(ALICE, allow(A, B, basic(5 * PRICE)))) == ("", 0)
    before = balance(net.driver, 2)
    assert code(net.driver.next_block([net.sign(BOB, send(B, D, 7), granter=A, ahead=3)], process=False).results[0]) == ("sdk", 32)
    assert (left(net).spend_limit, balance(net.driver, 2)) == (coins(5 * PRICE), before)


def test_checks_count_down_on_their_own_and_leave_when_the_allowance_has_gone(net: Chain) -> None:
    """CheckTx sees what it has let in before; a recheck drops what the block has left no allowance for; simulation asks for one, too."""
    assert code(net.run(ALICE, allow(A, B, basic(2 * PRICE)))) == ("", 0)
    answers = [code(net.check(BOB, send(B, D, 7), granter=A, gas=GAS, ahead=ahead)) for ahead in range(3)]
    assert answers == [("", 0), ("", 0), ("sdk", 38)], "the second took the last coin, and with it the allowance"
    assert len(net.driver.mempool) == 2
    net.driver.next_block([net.sign(ALICE, disallow(A, B))])
    net.driver.recheck()
    assert net.driver.mempool == {}
    with pytest.raises(AppError, match="does not allow to pay fees"):
        net.app.simulate(net.sign(BOB, send(B, D, 7), granter=A))


# --- limits ----------------------------------------------------------------------------------------------------------------------


def test_a_basic_allowance_counts_down_and_is_removed_with_its_last_coin(net: Chain) -> None:
    assert code(net.run(ALICE, allow(A, B, basic(2 * PRICE)))) == ("", 0)
    assert both(net, BOB, send(B, D, 1), granter=A, fee=(Coin("wei", 2 * PRICE + 1),)) == (("feegrant", 2), ("feegrant", 2))
    assert code(net.run(BOB, send(B, D, 1), granter=A)) == ("", 0)
    last = net.run(BOB, send(B, D, 1), granter=A)
    assert code(last) == ("", 0)
    parties = {"granter": A, "grantee": B}
    assert [events(last, f"{kind}_feegrant") for kind in ("revoke", "use", "update")] == [[parties], [parties], []]
    assert is_gone(net)
    assert code(net.run(BOB, send(B, D, 1), granter=A)) == ("sdk", 38)


def test_a_limit_in_another_denom_pays_no_wei(net: Chain) -> None:
    assert code(net.run(ALICE, allow(A, B, basic(10 * PRICE, "abc")))) == ("", 0)
    assert code(net.run(BOB, send(B, D, 1), granter=A)) == ("feegrant", 2)
    assert left(net).spend_limit == coins(10 * PRICE, "abc")


def test_an_allowance_holds_through_the_second_of_its_end_and_is_gone_after(net: Chain) -> None:
    end = net.now_s + 20
    assert code(net.run(ALICE, allow(A, B, basic(end_s=end)), step_s=5)) == ("", 0)
    assert code(net.run(BOB, send(B, D, 1), granter=A, step_s=end - net.now_s)) == ("", 0)
    assert not is_gone(net), "the block's end removes what ended before its time, and that is now"
    before = balance(net.driver, 2)
    assert code(net.run(BOB, send(B, D, 1), granter=A, step_s=1)) == ("feegrant", 3)
    assert balance(net.driver, 2) == before
    assert is_gone(net)


def test_a_periodic_allowance_fills_up_each_period(net: Chain) -> None:
    """By the SDK's arithmetic: the next period follows the last one, or after a pause of more than a period begins with the use."""
    net.driver.next_block()
    start = net.now_s
    made = periodic(10 * PRICE, "wei", 2 * PRICE, 0, period_s=100)
    made.period_reset.seconds = start + 50
    assert code(net.run(ALICE, allow(A, B, made), step_s=1)) == ("", 0)
    assert code(net.run(BOB, send(B, D, 1), granter=A, step_s=48)) == ("feegrant", 2), "nothing can be spent yet"

    def used(step_s: int) -> tuple[tuple[str, int], int, int, int]:
        """(code, may be spent now, left in all, seconds from the start to the next period)."""
        result = code(net.run(BOB, send(B, D, 1), granter=A, step_s=step_s))
        found = left(net)
        spendable = int(found.period_can_spend[0].amount) // PRICE if found.period_can_spend else 0
        return result, spendable, int(found.basic.spend_limit[0].amount) // PRICE, found.period_reset.seconds - start

    assert used(1) == (("", 0), 1, 9, 150), "the reset's own second begins the period"
    assert used(99) == (("", 0), 0, 8, 150)
    assert used(0) == (("feegrant", 2), 0, 8, 150)
    assert used(100) == (("", 0), 1, 7, 250), "at 249: the period from 150 on, kept in step"
    assert used(101) == (("", 0), 1, 6, 350), "at 350: the end of the next one is not before now"
    assert used(500) == (("", 0), 1, 5, 950), "at 850: after a pause it begins anew"


def test_a_period_gives_no_more_than_is_left_in_all_and_the_last_coin_removes_it(net: Chain) -> None:
    made = periodic(3 * PRICE, "wei", 2 * PRICE, 2 * PRICE, period_s=10)
    made.period_reset.seconds = net.now_s + 10_000
    assert code(net.run(ALICE, allow(A, B, made))) == ("", 0)
    for _ in range(2):
        assert code(net.run(BOB, send(B, D, 1), granter=A)) == ("", 0)
    assert code(net.run(BOB, send(B, D, 1), granter=A)) == ("feegrant", 2)
    assert code(net.run(BOB, send(B, D, 1), granter=A, step_s=10_000)) == ("", 0)
    assert is_gone(net)


def test_a_periodic_allowance_without_a_limit_in_all_lasts(net: Chain) -> None:
    made = periodic(0, "wei", PRICE, PRICE, period_s=10)
    made.ClearField("period_reset")
    assert code(net.run(ALICE, allow(A, B, made))) == ("", 0)
    assert left(net).period_reset.seconds == -62_135_596_800, "no time is Go's, the year 1"
    for _ in range(3):
        assert code(net.run(BOB, send(B, D, 1), granter=A, step_s=11)) == ("", 0)
    assert left(net).period_reset.seconds > net.now_s


def test_a_period_of_centuries_is_taken_and_one_beyond_the_year_9999_cannot_be_written(net: Chain) -> None:
    made = periodic(0, "wei", PRICE, PRICE)
    made.period.seconds, made.period_reset.seconds = (1 << 63) // NANOS, 0
    assert code(net.run(ALICE, allow(A, B, made))) == ("", 0)
    assert code(net.run(BOB, send(B, D, 1), granter=A)) == ("", 0)
    end = left(net).period_reset.seconds
    made.period_reset.seconds = _END_S - 1
    assert code(net.run(ALICE, allow(A, C, made))) == ("", 0)
    assert net.now_s < end < _END_S
    late = allowances.unpack(pack_any(made))
    ctx = Context("test-1", 5, (_END_S - 1) * NANOS, Mode.FINALIZE, GasMeter(10**6), EventList(), b"")
    assert not allowances.accept(ctx, late, (Coin("wei", 5),), [SEND_URL])
    with pytest.raises(UndefinedError, match="beyond the year 9999"):
        allowances.pack(late)


def test_an_allowance_for_some_messages_pays_for_nothing_else(net: Chain) -> None:
    assert code(net.run(ALICE, allow(A, B, only_for(basic(9 * PRICE), SEND_URL, GRANT_URL)))) == ("", 0)
    assert code(net.run(BOB, send(B, D, 1), allow(B, C, basic()), granter=A, gas=400_000)) == ("", 0)
    assert unpack_any(left(net).allowance).spend_limit == coins(8 * PRICE)
    assert both(net, BOB, send(B, D, 1), disallow(B, C), granter=A) == (("feegrant", 7), ("feegrant", 7))
    assert code(net.run(BOB, send(B, D, 1), granter=A, fee=(Coin("wei", 9 * PRICE),))) == ("feegrant", 2)
    assert code(net.run(BOB, send(B, D, 1), granter=A, fee=(Coin("wei", 8 * PRICE),))) == ("", 0)
    assert is_gone(net)


@pytest.mark.parametrize(("names", "messages"), [(1, 1), (3, 1), (3, 5)])
def test_names_and_messages_cost_ten_gas_each(names: int, messages: int) -> None:
    ctx = Context("test-1", 5, 5 * NANOS, Mode.FINALIZE, GasMeter(10**6), EventList(), b"")
    made = only_for(basic(), SEND_URL, *(f"/other{number}" for number in range(1, names)))
    assert not allowances.accept(ctx, made, (Coin("wei", 5),), [SEND_URL] * messages)
    assert ctx.gas.consumed == 10 * (names + messages)


def test_allowances_nest_as_deep_as_a_transaction_may_and_all_of_them_are_asked(net: Chain) -> None:
    made = basic(2 * PRICE, end_s=net.now_s + 100)
    for _ in range(7):
        made = only_for(made, SEND_URL)
    assert code(net.run(ALICE, allow(A, B, made))) == ("", 0)
    assert code(net.run(BOB, send(B, D, 1), granter=A)) == ("", 0)
    assert code(net.run(BOB, send(B, D, 1), granter=A, step_s=200)) == ("feegrant", 3)
    assert is_gone(net)
    for _ in range(3):
        made = only_for(made, SEND_URL)
    with pytest.raises(AppError, match="nest deeper"):
        net.sign(ALICE, allow(A, B, made))


# --- messages --------------------------------------------------------------------------------------------------------------------

REFUSED: dict[str, tuple[Any, tuple[str, int]]] = {
    "to oneself": (allow(A, A, basic()), ("sdk", 7)),
    "to oneself in capitals": (allow(A, A.upper(), basic()), ("sdk", 7)),
    "to nobody": (allow(A, "", basic()), ("sdk", 7)),
    "to no address": (allow(A, "st1xyz", basic()), ("sdk", 7)),
    "what is no allowance": (message_class(f"{FEEGRANT}.MsgGrantAllowance")(granter=A, grantee=B), ("feegrant", 5)),
    "an end before now": (allow(A, B, basic(end_s=5)), ("sdk", 18)),
    "an end before 1970": (allow(A, B, basic(end_s=-5)), ("feegrant", 4)),
    "a limit of nothing": (allow(A, B, message_class(f"{FEEGRANT}.BasicAllowance")(spend_limit=[{"denom": "wei", "amount": "0"}])), ("sdk", 10)),
    "a limit below nothing": (allow(A, B, message_class(f"{FEEGRANT}.BasicAllowance")(spend_limit=[{"denom": "wei", "amount": "-5"}])), ("sdk", 10)),
    "a limit that comes twice": (allow(A, B, message_class(f"{FEEGRANT}.BasicAllowance")(spend_limit=[*coins(5), *coins(5)])), ("sdk", 10)),
    "no limit of a period": (allow(A, B, periodic(9, "wei", 0, 0)), ("sdk", 10)),
    "a period in another denom": (
        allow(A, B, message_class(f"{FEEGRANT}.PeriodicAllowance")(basic=basic(9), period_spend_limit=coins(5, "abc"))),
        ("sdk", 10),
    ),
    "a period below nothing": (allow(A, B, periodic(9, "wei", 5, 5, period_s=-1)), ("feegrant", 4)),
    "for no messages": (allow(A, B, only_for(basic())), ("feegrant", 6)),
    "for messages, and nothing in it": (allow(A, B, message_class(f"{FEEGRANT}.AllowedMsgAllowance")(allowed_messages=[SEND_URL])), ("feegrant", 5)),
    "for messages, with a bad limit inside": (allow(A, B, only_for(periodic(9, "wei", 0, 0), SEND_URL)), ("sdk", 10)),
    "to a module without an account": (allow(A, bech32.encode(bech32.module_address("sds")), basic()), ("", 0)),
    "revoking from oneself": (disallow(A, A), ("sdk", 7)),
    "revoking what was never granted": (disallow(A, C), ("sdk", 38)),
}


@pytest.fixture(scope="module")
def shared() -> Chain:
    return Chain(chain())


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_is_refused(shared: Chain, name: str) -> None:
    message, expected = REFUSED[name]
    before = stored(shared, b"\x00")
    result = shared.run(ALICE, message)
    assert code(result) == expected, result.log
    if expected[1]:
        assert stored(shared, b"\x00") == before


def test_an_any_of_another_kind_never_comes_to_the_module(net: Chain) -> None:
    given = message_class(f"{FEEGRANT}.MsgGrantAllowance")(granter=A, grantee=B, allowance=pack_any(send(A, B, 1)))
    with pytest.raises(TxDecodeError, match="against interface"):
        net.sign(ALICE, given)
    with pytest.raises(NoAllowance):
        allowances.unpack(pack_any(send(A, B, 1)))


def test_there_is_one_allowance_of_a_pair_until_it_is_revoked(net: Chain) -> None:
    granted = net.run(ALICE, allow(A, B, basic(5)))
    assert events(granted, "set_feegrant") == [{"granter": A, "grantee": B, "msg_index": "0"}]
    assert code(net.run(ALICE, allow(A, B, basic(6)))) == ("sdk", 18)
    assert left(net).spend_limit == coins(5)
    assert code(net.run(BOB, allow(B, A, basic(7)))) == ("", 0), "the other way is another allowance"
    revoked = net.run(ALICE, disallow(A, B))
    assert events(revoked, "revoke_feegrant") == [{"granter": A, "grantee": B, "msg_index": "0"}]
    assert (is_gone(net), is_gone(net, B, A)) == (True, False)
    assert code(net.run(ALICE, allow(A, B, basic(6)))) == ("", 0)


def test_the_grantee_gets_an_account_unless_he_may_not_receive(net: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AppError):
        net.account(POOR)
    assert code(net.run(ALICE, allow(A, P, basic()))) == ("", 0)
    assert net.account(POOR)[1] == 0
    blocked = text(key(71))
    monkeypatch.setattr(BankSend, "is_blocked", lambda _, address: address == bech32.decode(blocked))
    result = net.run(ALICE, allow(A, blocked, basic()))
    assert code(result) == ("sdk", 4)
    assert f"{blocked} is not allowed to receive funds" in result.log
    with pytest.raises(AppError):
        net.account(key(71))


# --- the end ---------------------------------------------------------------------------------------------------------------------


def grantees(count: int) -> list[str]:
    return [text(key(number)) for number in range(200, 200 + count)]


def test_what_has_ended_is_removed_some_in_each_block_and_anybody_may_remove_more(net: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits.FeegrantKeeper.prune, "__defaults__", (4,))
    end = net.now_s + 60
    for number in range(0, 12, 4):
        messages = [allow(A, one, basic(end_s=end + at)) for at, one in enumerate(grantees(12)[number : number + 4], number)]
        assert code(net.run(ALICE, *messages, gas=2_000_000, step_s=1)) == ("", 0)
    assert len(stored(net, b"\x01")) == 12
    net.driver.next_block(time_step_s=end + 11 - net.now_s)
    assert len(stored(net, b"\x00")) == 8
    assert not [one for one in grantees(4) if not is_gone(net, A, one)], "the oldest go first"
    monkeypatch.setattr("modules.feegrant.messages.MAX_PRUNED_BY_MESSAGE", 3)
    pruned = net.run(DAVE, prune(D), step_s=0)
    assert events(pruned, "prune_feegrant") == [{"pruner": D, "msg_index": "0"}]
    assert len(stored(net, b"\x00")) == 8 - 3 - 4
    net.driver.next_block(time_step_s=0)
    assert not is_gone(net, A, grantees(12)[11]), "its end is now, and not before"
    net.driver.next_block(time_step_s=1)
    assert (stored(net, b"\x00"), stored(net, b"\x01")) == ([], [])


def test_a_block_removes_at_most_200_and_a_message_75(net: Chain) -> None:
    """The bounds that the SDK has, on real numbers: 300 allowances end together."""
    assert (limits.MAX_PRUNED_BY_BLOCK, limits.MAX_PRUNED_BY_MESSAGE) == (200, 75)
    end = net.now_s + 1000
    who = grantees(300)
    for number in range(0, 300, 100):
        messages = [allow(A, one, basic(end_s=end)) for one in who[number : number + 100]]
        assert code(net.run(ALICE, *messages, gas=20_000_000, fee=(Coin("wei", 100 * PRICE),))) == ("", 0)
    net.driver.next_block(time_step_s=2000)
    assert len(stored(net, b"\x00")) == len(stored(net, b"\x01")) == 100
    assert code(net.run(DAVE, prune(D), gas=2_000_000)) == ("", 0)
    assert stored(net, b"\x00") == []


def test_revoking_takes_the_queue_entry_of_the_other_way(net: Chain) -> None:
    """As SDK 0.50.9: an allowance that was granted again goes when the end of the first one comes."""
    end = net.now_s + 100
    assert code(net.run(ALICE, allow(A, B, basic(end_s=end)))) == ("", 0)
    assert code(net.run(BOB, allow(B, A, basic(end_s=end)))) == ("", 0)
    entries = [b"\x01" + sortable(end) + raw(grantee) + raw(granter) for grantee, granter in ((B, A), (A, B))]
    assert stored(net, b"\x01") == sorted(entries)
    assert code(net.run(ALICE, disallow(A, B))) == ("", 0)
    assert stored(net, b"\x01") == entries[:1]
    assert code(net.run(ALICE, allow(A, B, basic(9)))) == ("", 0)
    net.driver.next_block(time_step_s=200)
    assert (is_gone(net), is_gone(net, B, A)) == (True, False), "the one without an end is gone, the ended one stays"
    assert code(net.run(ALICE, send(A, D, 1), granter=B)) == ("feegrant", 3)


def test_keys_are_the_sdks(net: Chain) -> None:
    end = net.now_s + 100
    assert code(net.run(ALICE, allow(A, B, basic(end_s=end)))) == ("", 0)
    assert stored(net, b"\x00") == [b"\x00" + raw(B) + raw(A)]
    assert stored(net, b"\x01") == [b"\x01" + sortable(end) + raw(B) + raw(A)]


# --- queries and genesis -----------------------------------------------------------------------------------------------------------


def test_queries_page_through_what_the_whole_lists_hold(net: Chain) -> None:
    pairs = [(2, B), (2, C), (2, D), (3, A), (3, C), (4, A), (5, A)]
    for number, grantee in pairs:
        assert code(net.run(KEYS[number], allow(text(KEYS[number]), grantee, basic(number)))) == ("", 0)
    for method, fields, expected in (
        ("Allowances", {"grantee": A}, sorted([(B, A), (C, A), (D, A)], key=lambda pair: bech32.decode(pair[0]))),
        ("AllowancesByGranter", {"granter": A}, sorted([(A, B), (A, C), (A, D)], key=lambda pair: bech32.decode(pair[1]))),
    ):
        whole = net.query(FEEGRANT, method, **fields)
        assert [(one.granter, one.grantee) for one in whole.allowances] == expected
        assert whole.pagination.total == 3
        assert net.pages(FEEGRANT, method, "allowances", 1, **fields) == (list(whole.allowances), list(reversed(whole.allowances)))
        counted = net.query(FEEGRANT, method, **fields, pagination={"offset": 1, "limit": 1, "count_total": True})
        assert (list(counted.allowances), counted.pagination.total) == (list(whole.allowances)[1:2], 3)
        huge = net.query(FEEGRANT, method, **fields, pagination={"limit": 2**64 - 1, "key": b"\x00"})
        assert list(huge.allowances) == list(whole.allowances)
        assert not net.query(FEEGRANT, method, **fields, pagination={"limit": 5, "key": b"\xff" * 300}).allowances
        for pagination in ({"offset": 2**64 - 1}, {"offset": 1, "key": b"\x01"}):
            with pytest.raises(InvalidRequest):
                net.query(FEEGRANT, method, **fields, pagination=pagination)
        with pytest.raises(InvalidAddress):
            net.query(FEEGRANT, method)


def loaded(section: Any) -> Chain:
    app = build_application(MemoryBackend(), Settings(invariant_period=1))
    document = genesis_document(app)
    document["app_state"]["feegrant"] = section
    driver = Driver([app], document)
    driver.start()
    driver.next_block()
    return Chain(driver)


def test_a_chain_goes_on_from_its_export_and_leaves_out_what_has_ended(net: Chain) -> None:
    end = net.now_s + 10**6
    used = periodic(9 * PRICE, "wei", 2 * PRICE, 2 * PRICE, end_s=end)
    assert code(net.run(ALICE, allow(A, B, only_for(used, SEND_URL)), allow(A, C, basic(5, end_s=end)), allow(A, P, basic()), gas=600_000)) == ("", 0)
    assert code(net.run(BOB, send(B, D, 1), granter=A)) == ("", 0)
    exported = net.app.export()["feegrant"]
    assert len(exported["allowances"]) == 3
    gone = {"granter": A, "grantee": D, "allowance": to_json(pack_any(basic(end_s=1_000)))}
    again = loaded({"allowances": [*exported["allowances"], gone]})
    assert again.app.export()["feegrant"] == exported
    assert stored(again, b"\x01") == stored(net, b"\x01")
    assert unpack_any(left(again).allowance).period_can_spend == coins(PRICE)
    assert again.account(POOR)[1] == 0
    assert code(again.run(BOB, send(B, D, 1), granter=A)) == ("", 0)


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ({"granter": A, "grantee": B}, "allowance should not be empty"),
        ({"granter": "", "grantee": B, "allowance": to_json(pack_any(basic()))}, "empty address"),
        ({"granter": A, "grantee": B, "allowance": to_json(pack_any(send(A, B, 1)))}, "failed to get allowance"),
        ({"granter": A, "grantee": B, "allowance": to_json(pack_any(only_for(basic())))}, "shouldn't be empty"),
        ({"granter": A, "grantee": C, "allowance": to_json(pack_any(basic()))}, "a second allowance"),
        ({"granter": A, "grantee": B, "allowance": {"@type": "/x.Y"}}, "no type"),
        ({"granter": A, "grantee": B, "more": 1}, "no such field"),
    ],
)
def test_a_bad_section_is_refused_before_anything_is_written(net: Chain, entry: dict[str, Any], told: str) -> None:
    genesis = next(module for module in net.app.modules if module.name == "feegrant").genesis
    good = {"granter": A, "grantee": C, "allowance": to_json(pack_any(basic()))}
    genesis.validate({"allowances": [good]})
    with pytest.raises(GenesisError, match=told):
        genesis.validate({"allowances": [good, entry]})


def test_an_allowance_that_makes_no_sense_breaks_the_invariant(net: Chain) -> None:
    module = next(one for one in net.app.modules if one.name == "feegrant")
    check = module.invariants["every allowance makes sense"]
    assert code(net.run(ALICE, allow(A, B, basic(5)))) == ("", 0)
    with net.app.store.view() as view:
        state = State(view, net.app.store.names)
        assert check(state) is None
        bad = message_class(f"{FEEGRANT}.Grant")(granter=A, grantee=B, allowance=pack_any(only_for(basic())))
        state.store("feegrant").set(b"\x00" + raw(B) + raw(A), bad.SerializeToString())
        assert check(state) == f"the allowance of {A} to {B}: allowed messages shouldn't be empty: allowed messages are empty"


def test_a_module_may_grant_and_then_pays_as_anybody_does(net: Chain) -> None:
    at_end_of(net.app, {net.driver.height + 1: allow(GOV, B, basic())})
    net.driver.next_block()
    assert not is_gone(net, GOV, B)
    assert code(net.run(BOB, send(B, D, 1), granter=GOV)) == ("sdk", 5), "it has nothing"
