"""authz: every kind of grant used, used up and refused, the end of grants and its bound in a block, queries, genesis, and random histories."""

from __future__ import annotations

import random
from typing import Any

import pytest

from chain.app import build_application
from chain.application import Settings
from chain.codec.json import to_json
from chain.codec.registry import message_class, pack_any
from chain.context import Context, Mode
from chain.errors import AppError, InvalidRequest, PanicError, TxDecodeError, Unauthorized, UndefinedError
from chain.gas import GasMeter
from chain.module import GenesisError
from chain.store.kv import MemoryBackend
from chain.testing.driver import Driver
from modules.staking.authorization import KINDS as STAKING
from tests.grants import AUTHZ, SEND_URL, Chain, code, execute, generic, grant, revoke, send, send_up_to
from tests.support import KEYS, balance, chain, genesis_document, key, text

ALICE, BOB, CAROL, DAVE = KEYS[2:6]
A, B, C, D = (text(one) for one in KEYS[2:6])
NEW = text(key(80))
MULTI = "/cosmos.bank.v1beta1.MsgMultiSend"


@pytest.fixture
def net() -> Chain:
    return Chain(chain())


def grants(net: Chain, granter: str = A, grantee: str = B) -> dict[str, Any]:
    """Type URL → Grant."""
    found = net.query(AUTHZ, "Grants", granter=granter, grantee=grantee).grants
    return {_type_url(one): one for one in found}


def _type_url(one: Any) -> str:
    inner = message_class(one.authorization.type_url[1:]).FromString(one.authorization.value)
    return str(inner.msg) if hasattr(inner, "msg") else SEND_URL


def events(result: Any, kind: str) -> list[dict[str, str]]:
    return [dict(attributes) for name, attributes in result.events if name == kind]


def test_a_generic_grant_works_for_its_grantee_and_its_message_until_it_is_revoked(net: Chain) -> None:
    assert code(net.run(ALICE, grant(A, B, generic()))) == ("", 0)
    before = balance(net.driver, 5)
    assert code(net.run(BOB, execute(B, send(A, D, 7)))) == ("", 0)
    assert balance(net.driver, 5) == before + 7
    assert code(net.run(CAROL, execute(C, send(A, C, 7)))) == ("authz", 2)
    other = message_class("cosmos.bank.v1beta1.MsgMultiSend")(
        inputs=[{"address": A, "coins": send(A, B, 5).amount}], outputs=[{"address": B, "coins": send(A, B, 5).amount}]
    )
    assert code(net.run(BOB, execute(B, other))) == ("authz", 2)
    assert code(net.run(ALICE, revoke(A, B))) == ("", 0)
    assert code(net.run(BOB, execute(B, send(A, D, 7)))) == ("authz", 2)
    net.holds()


def test_a_send_grant_counts_down_to_its_end_and_minds_its_list(net: Chain) -> None:
    assert code(net.run(ALICE, grant(A, B, send_up_to(100, C, NEW)))) == ("", 0)
    assert code(net.run(BOB, execute(B, send(A, B, 10)))) == ("sdk", 4)
    assert code(net.run(BOB, execute(B, send(A, C, 30), send(A, NEW, 30)))) == ("", 0)
    [left] = grants(net).values()
    assert message_class("cosmos.bank.v1beta1.SendAuthorization").FromString(left.authorization.value).spend_limit[0].amount == "40"
    assert code(net.run(BOB, execute(B, send(A, C, 41)))) == ("sdk", 5)
    last = net.run(BOB, execute(B, send(A, C, 40)))
    assert code(last) == ("", 0)
    assert events(last, f"{AUTHZ}.EventRevoke") == [{"grantee": f'"{B}"', "granter": f'"{A}"', "msg_type_url": f'"{SEND_URL}"', "msg_index": "0"}]
    assert grants(net) == {}
    assert code(net.run(BOB, execute(B, send(A, C, 1)))) == ("authz", 2)


def test_events_of_inner_messages_name_their_index_at_every_level(net: Chain) -> None:
    result = net.run(BOB, execute(B, send(B, A, 1), execute(B, send(B, C, 2))), send(B, D, 3))
    assert code(result) == ("", 0)
    found = [attributes for name, attributes in result.events if name == "transfer"][1:]
    tails = [[pair for pair in attributes if pair[0].endswith("msg_index")] for attributes in found]
    assert tails == [
        [("authz_msg_index", "0"), ("msg_index", "0")],
        [("authz_msg_index", "0"), ("authz_msg_index", "1"), ("msg_index", "0")],
        [("msg_index", "1")],
    ]


def test_when_one_inner_message_fails_nothing_is_left_of_the_others(net: Chain) -> None:
    assert code(net.run(ALICE, grant(A, B, send_up_to(100)))) == ("", 0)
    before = balance(net.driver, 4)
    failed = net.run(BOB, execute(B, send(A, C, 5), send(A, C, 6), send(B, C, 10**30)))
    assert code(failed) == ("sdk", 5)
    assert balance(net.driver, 4) == before
    assert [name for name, _ in failed.events].count("transfer") == 1, "the fee's"
    [left] = grants(net).values()
    assert message_class("cosmos.bank.v1beta1.SendAuthorization").FromString(left.authorization.value).spend_limit[0].amount == "100"


def test_a_grant_holds_through_the_second_of_its_end_and_is_gone_after(net: Chain) -> None:
    end = net.now_s + 20
    assert code(net.run(ALICE, grant(A, B, generic(), end))) == ("", 0)
    net.driver.next_block(time_step_s=end - net.now_s - 1)
    assert code(net.run(BOB, execute(B, send(A, C, 1)), step_s=1)) == ("", 0)
    assert net.now_s == end
    assert list(grants(net)) == [SEND_URL]
    assert code(net.run(BOB, execute(B, send(A, C, 1)), step_s=1)) == ("authz", 2), "removed at the begin of this block"
    assert grants(net) == {}
    net.holds()


def test_a_grant_written_over_leaves_the_queue_of_its_old_end(net: Chain) -> None:
    start = net.now_s
    ends = [start + 30, start + 60, 0, start + 90]
    for end in ends:
        assert code(net.run(ALICE, grant(A, B, generic(), end))) == ("", 0)
        net.holds()
    net.driver.next_block(time_step_s=start + 89 - net.now_s)
    assert list(grants(net)) == [SEND_URL]
    net.driver.next_block(time_step_s=2)
    assert grants(net) == {}
    net.holds()


def test_many_grants_that_end_at_once_are_removed_over_several_blocks_and_none_works_meanwhile() -> None:
    count = 2500
    driver = chain(authz_grants=0) if False else None
    app = build_application(MemoryBackend(), Settings())
    document = genesis_document(app)
    end = "2026-01-01T00:00:30Z"
    made = [
        {"granter": A, "grantee": text(key(1000 + at)), "authorization": to_json(pack_any(generic())), "expiration": end} for at in range(count - 1)
    ]
    made.append({"granter": A, "grantee": text(key(999_999)), "authorization": to_json(pack_any(generic())), "expiration": end})
    document["app_state"]["authz"] = {"authorization": made}
    driver = Driver([app], document)
    driver.start()
    net = Chain(driver)

    def left() -> int:
        return int(net.query(AUTHZ, "GranterGrants", granter=A, pagination={"limit": 1, "count_total": True}).pagination.total)

    driver.next_block(time_step_s=1)
    assert left() == count
    seen = []
    driver.next_block(time_step_s=40)
    while left():
        seen.append(left())
        net.holds()
        driver.next_block()
    assert seen == [1500, 500]
    assert driver


def test_a_grant_that_waits_for_its_removal_is_refused() -> None:
    app = build_application(MemoryBackend(), Settings())
    document = genesis_document(app)
    end = "2026-01-01T00:00:30Z"
    first = [
        {"granter": D, "grantee": text(key(1000 + at)), "authorization": to_json(pack_any(generic())), "expiration": end[:-1] + ".1Z"}
        for at in range(5)
    ]
    last = {"granter": A, "grantee": B, "authorization": to_json(pack_any(generic())), "expiration": end[:-1] + ".2Z"}
    document["app_state"]["authz"] = {"authorization": [last, *first]}
    driver = Driver([app], document)
    driver.start()
    driver.next_block()
    net = Chain(driver)
    raw = net.sign(BOB, execute(B, send(A, C, 1)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("modules.authz.keeper.MAX_PRUNED", 3)
        refused = driver.next_block([raw], process=False, time_step_s=60).results[0]
        assert code(refused) == ("authz", 6)
        assert list(grants(net)) == [SEND_URL], "it is still there, and of no use"
        assert code(net.run(ALICE, grant(A, B, generic(), net.now_s + 1000))) == ("", 0), "and may be written over"
    net.holds()
    assert code(net.run(BOB, execute(B, send(A, C, 1)))) == ("", 0)


def test_a_message_with_two_signers_or_none_cannot_be_executed(net: Chain) -> None:
    two = message_class("cosmos.bank.v1beta1.MsgMultiSend")(
        inputs=[{"address": A, "coins": send(A, B, 5).amount}, {"address": B, "coins": send(A, B, 5).amount}]
    )
    assert code(net.run(BOB, execute(B, two))) == ("authz", 9)
    none = message_class("cosmos.bank.v1beta1.MsgMultiSend")()
    assert code(net.run(BOB, execute(B, none))) == ("authz", 9)


def test_the_grantee_gets_an_account(net: Chain) -> None:
    assert code(net.run(ALICE, grant(A, NEW, generic()))) == ("", 0)
    assert net.account(key(80)) == (max(number for number, _ in map(net.account, KEYS)) + _modules(net) + 1, 0)


def _modules(net: Chain) -> int:
    return len(net.query("cosmos.auth.v1beta1", "ModuleAccounts").accounts)


def test_what_is_no_grant_is_refused(net: Chain) -> None:
    empty = message_class(f"{AUTHZ}.MsgGrant")(granter=A, grantee=B)
    assert code(net.run(ALICE, empty)) == ("sdk", 29)
    assert code(net.run(ALICE, grant(A, B, generic("no slash")))) == ("sdk", 29)
    assert code(net.run(ALICE, grant(A, B.upper(), generic()))) == ("", 0), "an address may be written in capitals"
    assert code(net.run(ALICE, grant(A, A.upper(), generic()))) == ("authz", 7)
    assert code(net.run(ALICE, grant(A, "st1nothing", generic()))) == ("sdk", 7)
    unsorted = send_up_to(5)
    unsorted.spend_limit.add(denom="abc", amount="5")
    assert code(net.run(ALICE, grant(A, B, unsorted))) == ("", 0), "as the SDK takes it"
    assert code(net.run(BOB, execute(B, send(A, C, 1)))) == ("undefined", 111222), "as the SDK panics"
    for seconds, nanos in ((253_402_300_800, 0), (-62_135_596_801, 0), (5, -1), (5, 10**9)):
        wrong = grant(A, B, generic(), 5)
        wrong.grant.expiration.seconds, wrong.grant.expiration.nanos = seconds, nanos
        with pytest.raises(TxDecodeError, match="timestamp out of range"):
            net.check(ALICE, wrong)


# --- stake authorizations ----------------------------------------------------------------------------------------------------------------------

STAKE = message_class("cosmos.staking.v1beta1.StakeAuthorization")
KIND = STAKING["cosmos.staking.v1beta1.StakeAuthorization"]


def stake(kind: int, limit: int | None = None, *, allow: tuple[str, ...] = (), deny: tuple[str, ...] = ()) -> Any:
    made = STAKE(authorization_type=kind)
    if allow:
        made.allow_list.address.extend(allow)
    if deny:
        made.deny_list.address.extend(deny)
    if limit is not None:
        made.max_tokens.denom, made.max_tokens.amount = "wei", str(limit)
    return made


def staking(name: str, amount: int, denom: str = "wei", **fields: str) -> Any:
    return message_class(f"cosmos.staking.v1beta1.{name}")(amount={"denom": denom, "amount": str(amount)}, **fields)


def context() -> Context:
    return Context("test-1", 5, 10**18, Mode.FINALIZE, GasMeter(10**6))


@pytest.mark.parametrize(
    ("kind", "message", "field"),
    [
        (1, "MsgDelegate", "validator_address"),
        (2, "MsgUndelegate", "validator_address"),
        (3, "MsgBeginRedelegate", "validator_dst_address"),
        (4, "MsgCancelUnbondingDelegation", "validator_address"),
    ],
)
def test_a_stake_grant_names_its_message_and_looks_at_the_validator_that_gets_the_stake(kind: int, message: str, field: str) -> None:
    assert KIND.type_url(stake(kind)) == f"/cosmos.staking.v1beta1.{message}"
    ctx = context()
    left = KIND.accept(ctx, stake(kind, 10, allow=("x", "v", "y")), staking(message, 4, **{field: "v"}))
    assert (left.used_up, left.updated) == (False, stake(kind, 6, allow=("x", "v", "y")))
    assert ctx.gas.consumed == 20
    assert KIND.accept(ctx, stake(kind, 10, deny=("x",)), staking(message, 10, **{field: "v"})).used_up
    assert KIND.accept(ctx, stake(kind, deny=("x",)), staking(message, 10**30, **{field: "v"})).updated == stake(kind, deny=("x",))
    with pytest.raises(Unauthorized, match="cannot delegate/undelegate to v validator"):
        KIND.accept(ctx, stake(kind, allow=("x",)), staking(message, 1, **{field: "v"}))
    with pytest.raises(Unauthorized, match="cannot delegate/undelegate to x validator"):
        KIND.accept(ctx, stake(kind, deny=("v", "x")), staking(message, 1, **{field: "x"}))
    with pytest.raises(UndefinedError, match="negative coin amount: -1wei"):
        KIND.accept(ctx, stake(kind, 10, deny=("x",)), staking(message, 11, **{field: "v"}))
    with pytest.raises(UndefinedError, match="invalid coin denoms: wei, abc"):
        KIND.accept(ctx, stake(kind, 10, deny=("x",)), staking(message, 1, "abc", **{field: "v"}))


def test_a_stake_grant_of_no_kind_or_below_nothing_is_refused(net: Chain) -> None:
    assert code(net.run(ALICE, grant(A, B, stake(0)))) == ("authz", 4)
    assert code(net.run(ALICE, grant(A, B, stake(1, -1)))) == ("authz", 12)
    assert code(net.run(ALICE, grant(A, B, stake(99)))) == ("undefined", 111222), "as the SDK panics"
    with pytest.raises(InvalidRequest):
        KIND.accept(context(), stake(1), send(A, B, 1))
    with pytest.raises(PanicError):
        KIND.accept(context(), stake(1, 2**256 - 1), staking("MsgDelegate", -(2**256 - 1), validator_address="v"))


# --- queries, genesis, histories ---------------------------------------------------------------------------------------------------------------


def test_queries_page_through_what_the_whole_lists_hold(net: Chain) -> None:
    for number, grantee in ((2, B), (2, C), (3, A), (3, C), (4, A)):
        for type_url in (SEND_URL, MULTI, f"/{AUTHZ}.MsgExec"):
            assert code(net.run(KEYS[number], grant(text(KEYS[number]), grantee, generic(type_url)))) == ("", 0)
    for method, fields, count in (
        ("GranterGrants", {"granter": A}, 6),
        ("GranteeGrants", {"grantee": A}, 6),
        ("Grants", {"granter": B, "grantee": C}, 3),
    ):
        whole = net.query(AUTHZ, method, **fields)
        assert (len(whole.grants), whole.pagination.total) == (count, count)
        assert net.pages(AUTHZ, method, "grants", 2, **fields) == (list(whole.grants), list(reversed(whole.grants)))
        assert list(net.query(AUTHZ, method, **fields, pagination={"offset": 1, "limit": 2}).grants) == list(whole.grants)[1:3]
    with pytest.raises(AppError, match="authorization not found"):
        net.query(AUTHZ, "Grants", granter=A, grantee=D, msg_type_url=SEND_URL)


def test_genesis_holds_every_grant_and_leaves_out_what_has_ended(net: Chain) -> None:
    end = net.now_s + 1000
    assert code(net.run(ALICE, grant(A, B, generic(MULTI), end), grant(A, B, send_up_to(9, C)), grant(A, C, generic(), end))) == ("", 0)
    exported = net.app.export()["authz"]
    assert sorted((one["grantee"], one["authorization"]["@type"]) for one in exported["authorization"]) == sorted(
        [
            (B, f"/{AUTHZ}.GenericAuthorization"),
            (B, "/cosmos.bank.v1beta1.SendAuthorization"),
            (C, f"/{AUTHZ}.GenericAuthorization"),
        ]
    )
    gone = {"granter": A, "grantee": D, "authorization": to_json(pack_any(generic())), "expiration": "2025-12-31T23:59:59Z"}
    app = build_application(MemoryBackend(), Settings())
    document = genesis_document(app)
    document["app_state"]["authz"] = {"authorization": [*exported["authorization"], gone]}
    driver = Driver([app], document)
    driver.start()
    driver.next_block()
    again = Chain(driver)
    again.holds()
    assert again.app.export()["authz"] == exported


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ({"granter": A, "grantee": B}, "authorization is nil"),
        ({"granter": "", "grantee": B, "authorization": to_json(pack_any(generic()))}, "empty address"),
        ({"granter": A, "grantee": B, "authorization": to_json(pack_any(send(A, B, 1)))}, "expected an authorization"),
        ({"granter": A, "grantee": B, "authorization": to_json(pack_any(generic("")))}, "cannot be empty"),
        ({"granter": A, "grantee": B, "authorization": to_json(pack_any(send_up_to(0)))}, "spend limit cannot be nil"),
        ({"granter": A, "grantee": B, "authorization": {"@type": "/x.Nothing"}}, "no type"),
    ],
)
def test_a_genesis_that_holds_no_grant_is_refused(entry: dict[str, Any], told: str) -> None:
    [module] = [one for one in build_application(MemoryBackend()).modules if one.name == "authz"]
    assert module.genesis is not None
    with pytest.raises(GenesisError, match=told):
        module.genesis.validate({"authorization": [entry]})


@pytest.mark.parametrize("seed", range(3))
def test_a_random_history_leaves_what_a_plain_book_of_it_says(seed: int) -> None:
    choose = random.Random(seed)
    net = Chain(chain())
    book: dict[tuple[int, int, str], int] = {}  # (granter, grantee, type) → end in seconds, 0 for none
    for _ in range(60):
        granter, grantee = choose.sample(range(2, 6), 2)
        type_url = choose.choice((SEND_URL, MULTI))
        a, b = text(KEYS[granter]), text(KEYS[grantee])
        time_s = net.now_s + (step := choose.choice((1, 5, 30)))
        book = {one: end for one, end in book.items() if not end or end >= time_s}
        match choose.randrange(3):
            case 0:
                end = choose.choice((0, time_s + choose.randrange(1, 4) * 20))
                assert code(net.run(KEYS[granter], grant(a, b, generic(type_url), end), step_s=step)) == ("", 0)
                book[granter, grantee, type_url] = end
            case 1:
                wanted = ("", 0) if book.pop((granter, grantee, type_url), None) is not None else ("authz", 2)
                assert code(net.run(KEYS[granter], revoke(a, b, type_url), step_s=step)) == wanted
            case _:
                wanted = ("", 0) if (granter, grantee, SEND_URL) in book else ("authz", 2)
                assert code(net.run(KEYS[grantee], execute(b, send(a, b, 1)), step_s=step)) == wanted
        net.holds()
    found = {
        (granter, grantee, type_url)
        for granter in range(2, 6)
        for grantee in range(2, 6)
        for type_url in grants(net, text(KEYS[granter]), text(KEYS[grantee]))
    }
    assert found == set(book)
