"""Grants and allowances made, used, refused and taken back, step by step, for simd and for our application with simd's prefixes.

Every fee is in a denom that nobody paid before, so that the collector's balance is the same on both sides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from chain.codec.canonical import encode
from chain.codec.registry import message_class, pack_any
from chain.coins import Coin, Coins, to_messages
from chain.crypto import address as bech32
from chain.tx import signing
from chain.tx.build import Signer, build_tx
from tests.support import CHAIN_ID, KEYS, key

NEW = key(70)
"""A key whose account a grant makes, at sequence 0."""
SIGNERS = {"a": KEYS[2], "b": KEYS[3], "c": KEYS[4], "new": NEW}
STAKE = "stake"
FEE_DENOMS = ("feea", "feeb", "feec", "feed", "feee", "feef", "feeg", "feeh")
COINS = {STAKE: 10**11, **dict.fromkeys(FEE_DENOMS, 10**6)}
END_S = 4_102_444_800  # 2100-01-01
AUTHZ, FEEGRANT = "cosmos.authz.v1beta1", "cosmos.feegrant.v1beta1"
SEND_URL = "/cosmos.bank.v1beta1.MsgSend"


def text(name: str) -> str:
    raw = SIGNERS[name].public_key.address if name in SIGNERS else key(71).public_key.address
    return bech32.encode(raw, "cosmos")


@dataclass
class Step:
    """One transaction: what it is called, who signs it, what it holds, who pays."""

    name: str
    signer: str
    messages: list[Any]
    fee: Coins = ()
    granter: str = ""
    gas: int = 400_000


def coins(amount: int, denom: str = STAKE) -> list[Any]:
    return to_messages((Coin(denom, amount),)) if amount else []


def send(sender: str, to: str, amount: int) -> Any:
    return message_class("cosmos.bank.v1beta1.MsgSend")(from_address=text(sender), to_address=text(to), amount=coins(amount))


def generic(type_url: str = SEND_URL) -> Any:
    return message_class(f"{AUTHZ}.GenericAuthorization")(msg=type_url)


def send_up_to(amount: int, *allowed: str) -> Any:
    return message_class("cosmos.bank.v1beta1.SendAuthorization")(spend_limit=coins(amount), allow_list=[text(one) for one in allowed])


def grant(granter: str, grantee: str, authorization: Any, end_s: int = 0) -> Any:
    made = message_class(f"{AUTHZ}.MsgGrant")(granter=text(granter), grantee=text(grantee))
    made.grant.authorization.CopyFrom(pack_any(authorization))
    if end_s:
        made.grant.expiration.seconds = end_s
    return made


def execute(grantee: str, *messages: Any) -> Any:
    return message_class(f"{AUTHZ}.MsgExec")(grantee=text(grantee), msgs=[pack_any(one) for one in messages])


def revoke(granter: str, grantee: str, type_url: str = SEND_URL) -> Any:
    return message_class(f"{AUTHZ}.MsgRevoke")(granter=text(granter), grantee=text(grantee), msg_type_url=type_url)


def basic(limit: int = 0, denom: str = "feea", end_s: int = 0) -> Any:
    made = message_class(f"{FEEGRANT}.BasicAllowance")(spend_limit=coins(limit, denom))
    if end_s:
        made.expiration.seconds = end_s
    return made


def periodic(limit: int, denom: str, period_limit: int, can_spend: int, period_s: int = 3600, end_s: int = 0) -> Any:
    made = message_class(f"{FEEGRANT}.PeriodicAllowance")(basic=basic(limit, denom, end_s), period_spend_limit=coins(period_limit, denom))
    made.period_can_spend.extend(coins(can_spend, denom))
    made.period.seconds, made.period_reset.seconds = period_s, END_S
    return made


def only_for(allowance: Any, *type_urls: str) -> Any:
    return message_class(f"{FEEGRANT}.AllowedMsgAllowance")(allowance=pack_any(allowance), allowed_messages=type_urls)


def allow(granter: str, grantee: str, allowance: Any) -> Any:
    return message_class(f"{FEEGRANT}.MsgGrantAllowance")(granter=text(granter), grantee=text(grantee), allowance=pack_any(allowance))


def disallow(granter: str, grantee: str) -> Any:
    return message_class(f"{FEEGRANT}.MsgRevokeAllowance")(granter=text(granter), grantee=text(grantee))


def prune(pruner: str) -> Any:
    return message_class(f"{FEEGRANT}.MsgPruneAllowances")(pruner=text(pruner))


def steps() -> Iterator[Step]:
    multi = "/cosmos.bank.v1beta1.MsgMultiSend"
    duplicates = send_up_to(5, "a", "a")
    two_coins = basic(300, "feed", END_S)
    two_coins.spend_limit.extend(coins(600, "feeh"))
    for name in ("a", "b", "c"):
        yield Step(f"{name}'s key becomes known", name, [send(name, name, 1)])
    yield Step("a generic grant", "a", [grant("a", "b", generic())])
    yield Step("the same with an end", "a", [grant("a", "b", generic(), END_S)])
    yield Step("the same again", "a", [grant("a", "b", generic(), END_S)])
    yield Step("the same with a later end", "a", [grant("a", "b", generic(), END_S + 1)])
    yield Step("two more with that end", "a", [grant("a", "b", generic(multi), END_S + 1), grant("a", "b", generic(f"/{AUTHZ}.MsgExec"), END_S + 1)])
    yield Step("a grant that makes an account", "a", [grant("a", "new", generic(multi), END_S)])
    yield Step("a send grant", "a", [grant("a", "c", send_up_to(100, "b", "new"), END_S)])
    yield Step("its use", "c", [execute("c", send("a", "new", 40))])
    yield Step("its use for another", "c", [execute("c", send("a", "c", 10))])
    yield Step("its use beyond the limit", "c", [execute("c", send("a", "b", 61))])
    yield Step("its use to the last coin", "c", [execute("c", send("a", "b", 60))])
    yield Step("its use once more", "c", [execute("c", send("a", "b", 1))])
    yield Step("two of two signers", "b", [execute("b", send("b", "a", 3), send("a", "new", 4)), send("b", "a", 1)])
    yield Step("one's own, three deep", "b", [execute("b", execute("b", execute("b", send("b", "a", 5))))])
    yield Step("a granted MsgExec", "b", [execute("b", execute("a", send("a", "b", 7)))])
    yield Step("one that fails inside", "b", [execute("b", send("b", "a", 5), send("a", "b", 10**15))])
    yield Step("of one who granted nothing", "b", [execute("b", send("c", "b", 7))])
    yield Step("nothing to execute", "b", [execute("b")])
    yield Step("taken back", "a", [revoke("a", "b")])
    yield Step("taken back twice", "a", [revoke("a", "b")])
    yield Step("taken back from oneself", "a", [revoke("a", "a")])
    yield Step("taken back for nothing", "a", [revoke("a", "b", "")])
    yield Step("a grant to oneself", "a", [grant("a", "a", generic())])
    yield Step("a grant for no message", "a", [grant("a", "b", generic("/cosmos.bank.v1beta1.MsgNothing"))])
    yield Step("a grant for an empty name", "a", [grant("a", "b", generic(""))])
    yield Step("a grant that has ended", "a", [grant("a", "b", generic(), 5)])
    yield Step("a send grant without a limit", "a", [grant("a", "b", send_up_to(0))])
    yield Step("a send grant with a twin", "a", [grant("a", "b", duplicates)])
    yield Step("a grant of what is none", "a", [grant("a", "b", send("a", "b", 1))])
    yield Step("a new account's grant", "a", [grant("a", "nobody", send_up_to(7))])

    yield Step("an allowance", "a", [allow("a", "b", basic(10_000))])
    yield Step("the same allowance again", "a", [allow("a", "b", basic(10_000))])
    yield Step("an allowance to oneself", "a", [allow("a", "a", basic(10_000))])
    yield Step("a fee from it", "b", [send("b", "a", 1)], to_fee("feea", 4_000), "a")
    yield Step("a fee beyond it", "b", [send("b", "a", 1)], to_fee("feea", 7_000), "a")
    yield Step("a fee in another coin", "b", [send("b", "a", 1)], to_fee("feeb", 5), "a")
    yield Step("no fee from it", "b", [send("b", "a", 1)], (), "a")
    yield Step("a fee from oneself", "b", [send("b", "a", 1)], to_fee("feeb", 5), "b")
    yield Step("a fee nobody granted", "c", [send("c", "a", 1)], to_fee("feec", 5), "a")
    yield Step("a periodic allowance", "a", [allow("a", "c", periodic(10_000, "feec", 1_000, 900, end_s=END_S))])
    yield Step("a fee in the period", "c", [send("c", "a", 1)], to_fee("feec", 600), "a")
    yield Step("a fee beyond the period's", "c", [send("c", "a", 1)], to_fee("feec", 301), "a")
    yield Step("an allowance for some messages", "a", [allow("a", "new", only_for(two_coins, SEND_URL, multi))])
    yield Step("a fee for one of them", "new", [send("new", "a", 1)], to_fee("feed", 300), "a")
    yield Step("a fee for another", "new", [revoke("new", "a")], to_fee("feed", 300), "a")
    yield Step("a fee to the last coin", "new", [send("new", "a", 1), send("new", "b", 1)], to_fee("feeh", 600), "a")
    yield Step("a fee once it is used up", "new", [send("new", "a", 1)], to_fee("feed", 1), "a")
    yield Step("an allowance without limits", "c", [allow("c", "nobody", basic())])
    yield Step("an allowance with an end", "c", [allow("c", "b", basic(5, "feee", END_S))])
    yield Step("an allowance taken back", "c", [disallow("c", "b")])
    yield Step("an allowance taken back twice", "c", [disallow("c", "b")])
    yield Step("taken from oneself", "c", [disallow("c", "c")])
    yield Step("nothing to prune", "c", [prune("c")])
    yield Step("an allowance of something else", "c", [allow("c", "b", send("c", "b", 1))])
    yield Step("an allowance that has ended", "c", [allow("c", "b", basic(5, "feee", 5))])
    yield Step("an allowance before 1970", "c", [allow("c", "b", basic(5, "feee", -5))])
    yield Step("a negative allowance", "c", [allow("c", "b", basic(-5))])
    yield Step("a negative period", "c", [allow("c", "b", periodic(9, "feee", 5, 5, -3600))])
    yield Step("a period without a limit", "c", [allow("c", "b", periodic(9, "feee", 0, 5))])
    yield Step("a negative rest of a period", "c", [allow("c", "b", periodic(9, "feee", 5, -5))])
    yield Step("for no messages", "c", [allow("c", "b", only_for(basic()))])
    other = periodic(9, "feee", 5, 5)
    other.period_spend_limit[0].denom = "feef"
    yield Step("a period's limit in another coin", "c", [allow("c", "b", other)])


def to_fee(denom: str, amount: int) -> Coins:
    return (Coin(denom, amount),)


def questions() -> dict[str, tuple[str, Any]]:
    """name → (path, request) of what is asked in the end."""

    def ask(service: str, method: str, **fields: Any) -> tuple[str, Any]:
        return f"/{service}.Query/{method}", message_class(f"{service}.Query{method}Request")(**fields)

    a, b, c, new = (text(name) for name in ("a", "b", "c", "new"))
    return {
        "grants": ask(AUTHZ, "Grants", granter=a, grantee=b),
        "one grant": ask(AUTHZ, "Grants", granter=a, grantee=text("nobody"), msg_type_url=SEND_URL),
        "no grants": ask(AUTHZ, "Grants", granter=c, grantee=b),
        "a page of grants": ask(AUTHZ, "Grants", granter=a, grantee=b, pagination={"limit": 1}),
        "granter's": ask(AUTHZ, "GranterGrants", granter=a),
        "granter's, from the end": ask(AUTHZ, "GranterGrants", granter=a, pagination={"limit": 2, "reverse": True, "count_total": True}),
        "grantee's": ask(AUTHZ, "GranteeGrants", grantee=new),
        "grantee's, paged": ask(AUTHZ, "GranteeGrants", grantee=b, pagination={"limit": 1}),
        "allowance": ask(FEEGRANT, "Allowance", granter=a, grantee=b),
        "periodic allowance": ask(FEEGRANT, "Allowance", granter=a, grantee=c),
        "allowances": ask(FEEGRANT, "Allowances", grantee=b),
        "granter's allowances": ask(FEEGRANT, "AllowancesByGranter", granter=c),
        "granter's allowances, paged": ask(FEEGRANT, "AllowancesByGranter", granter=a, pagination={"limit": 1, "count_total": True}),
    }


@dataclass
class Player:
    """Signs and submits the steps; ``submit(raw)`` gives {"code", "codespace", "log"} of CheckTx, and of the block also "gas_used", "events"."""

    submit: Callable[[bytes], dict[str, Any]]
    account_number: Callable[[str], int]
    sequences: dict[str, int] = field(default_factory=dict)

    def play(self, step: Step) -> dict[str, Any]:
        private, sequence = SIGNERS[step.signer], self.sequences.get(step.signer, 0)
        signer = Signer(private.public_key, sequence)
        made = build_tx(step.messages, fee=step.fee, gas_limit=step.gas, signers=[signer], granter=text(step.granter) if step.granter else "")
        document = signing.direct_bytes(encode(made.body), encode(made.auth_info), CHAIN_ID, self.account_number(step.signer))
        found = self.submit(made.encode([private.sign(document)]))
        if "events" in found:
            self.sequences[step.signer] = sequence + 1
        return found
