"""Grants and allowances made, used, refused and taken back, step by step, for simd and for our application with simd's prefixes.

Every fee is in a denom that nobody paid before, so that the collector's balance is the same on both sides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from chain.codec.canonical import encode
from chain.codec.registry import message_class
from chain.coins import Coin, Coins
from chain.crypto import address as bech32
from chain.tx import signing
from chain.tx.build import Signer, build_tx
from tests.grants import (
    AUTHZ,
    END_S,
    FEEGRANT,
    SEND_URL,
    allow,
    basic,
    coins,
    disallow,
    execute,
    generic,
    grant,
    only_for,
    periodic,
    prune,
    revoke,
    send,
    send_up_to,
)
from tests.support import CHAIN_ID, KEYS, key

KNOWN = {"a": KEYS[2], "b": KEYS[3], "c": KEYS[4], "new": key(70)}
"""Who takes part; the last one's account is made by a grant."""
A, B, C, NEW = (bech32.encode(private.public_key.address, "cosmos") for private in KNOWN.values())
NOBODY = bech32.encode(key(71).public_key.address, "cosmos")
SIGNERS = dict(zip((A, B, C, NEW), KNOWN.values(), strict=True))
FEE_DENOMS = ("feea", "feeb", "feec", "feed", "feee", "feef", "feeg", "feeh")
COINS = {"wei": 10**24, **dict.fromkeys(FEE_DENOMS, 10**6)}


@dataclass
class Step:
    """One transaction: what it is called, who signs it, what it holds, who pays."""

    name: str
    signer: str
    messages: list[Any]
    fee: Coins = ()
    granter: str = ""
    gas: int = 400_000


def steps() -> Iterator[Step]:
    multi = "/cosmos.bank.v1beta1.MsgMultiSend"
    duplicates = send_up_to(5, A, A)
    two_coins = basic(300, "feed", END_S)
    two_coins.spend_limit.extend(coins(600, "feeh"))
    for name in (A, B, C):
        yield Step(f"a key becomes known: {name}", name, [send(name, name, 1)])
    yield Step("a generic grant", A, [grant(A, B, generic())])
    yield Step("the same with an end", A, [grant(A, B, generic(), END_S)])
    yield Step("the same again", A, [grant(A, B, generic(), END_S)])
    yield Step("the same with a later end", A, [grant(A, B, generic(), END_S + 1)])
    yield Step("two more with that end", A, [grant(A, B, generic(multi), END_S + 1), grant(A, B, generic(f"/{AUTHZ}.MsgExec"), END_S + 1)])
    yield Step("a grant that makes an account", A, [grant(A, NEW, generic(multi), END_S)])
    yield Step("a send grant", A, [grant(A, C, send_up_to(100, B, NEW), END_S)])
    yield Step("its use", C, [execute(C, send(A, NEW, 40))])
    yield Step("its use for another", C, [execute(C, send(A, C, 10))])
    yield Step("its use beyond the limit", C, [execute(C, send(A, B, 61))])
    yield Step("its use to the last coin", C, [execute(C, send(A, B, 60))])
    yield Step("its use once more", C, [execute(C, send(A, B, 1))])
    yield Step("two of two signers", B, [execute(B, send(B, A, 3), send(A, NEW, 4)), send(B, A, 1)])
    yield Step("one's own, three deep", B, [execute(B, execute(B, execute(B, send(B, A, 5))))])
    yield Step("a granted MsgExec", B, [execute(B, execute(A, send(A, B, 7)))])
    yield Step("one that fails inside", B, [execute(B, send(B, A, 5), send(A, B, 10**25))])
    yield Step("of one who granted nothing", B, [execute(B, send(C, B, 7))])
    yield Step("nothing to execute", B, [execute(B)])
    yield Step("taken back", A, [revoke(A, B)])
    yield Step("taken back twice", A, [revoke(A, B)])
    yield Step("taken back from oneself", A, [revoke(A, A)])
    yield Step("taken back for nothing", A, [revoke(A, B, "")])
    yield Step("a grant to oneself", A, [grant(A, A, generic())])
    yield Step("a grant for no message", A, [grant(A, B, generic("/cosmos.bank.v1beta1.MsgNothing"))])
    yield Step("a grant for an empty name", A, [grant(A, B, generic(""))])
    yield Step("a grant that has ended", A, [grant(A, B, generic(), 5)])
    yield Step("a send grant without a limit", A, [grant(A, B, send_up_to(0))])
    yield Step("a send grant with a twin", A, [grant(A, B, duplicates)])
    yield Step("a grant of what is none", A, [grant(A, B, send(A, B, 1))])
    yield Step("a new account's grant", A, [grant(A, NOBODY, send_up_to(7))])

    yield Step("an allowance", A, [allow(A, B, basic(10_000, "feea"))])
    yield Step("the same allowance again", A, [allow(A, B, basic(10_000, "feea"))])
    yield Step("an allowance to oneself", A, [allow(A, A, basic(10_000, "feea"))])
    yield Step("a fee from it", B, [send(B, A, 1)], to_fee("feea", 4_000), A)
    yield Step("a fee beyond it", B, [send(B, A, 1)], to_fee("feea", 7_000), A)
    yield Step("a fee in another coin", B, [send(B, A, 1)], to_fee("feeb", 5), A)
    yield Step("no fee from it", B, [send(B, A, 1)], (), A)
    yield Step("a fee from oneself", B, [send(B, A, 1)], to_fee("feeb", 5), B)
    yield Step("a fee nobody granted", C, [send(C, A, 1)], to_fee("feec", 5), A)
    yield Step("a periodic allowance", A, [allow(A, C, periodic(10_000, "feec", 1_000, 900, end_s=END_S))])
    yield Step("a fee in the period", C, [send(C, A, 1)], to_fee("feec", 600), A)
    yield Step("a fee beyond the period's", C, [send(C, A, 1)], to_fee("feec", 301), A)
    yield Step("an allowance for some messages", A, [allow(A, NEW, only_for(two_coins, SEND_URL, multi))])
    yield Step("a fee for one of them", NEW, [send(NEW, A, 1)], to_fee("feed", 300), A)
    yield Step("a fee for another", NEW, [revoke(NEW, A)], to_fee("feed", 300), A)
    yield Step("a fee to the last coin", NEW, [send(NEW, A, 1), send(NEW, B, 1)], to_fee("feeh", 600), A)
    yield Step("a fee once it is used up", NEW, [send(NEW, A, 1)], to_fee("feed", 1), A)
    yield Step("an allowance without limits", C, [allow(C, NOBODY, basic())])
    yield Step("an allowance with an end", C, [allow(C, B, basic(5, "feee", END_S))])
    yield Step("an allowance taken back", C, [disallow(C, B)])
    yield Step("an allowance taken back twice", C, [disallow(C, B)])
    yield Step("taken from oneself", C, [disallow(C, C)])
    yield Step("nothing to prune", C, [prune(C)])
    yield Step("an allowance of something else", C, [allow(C, B, send(C, B, 1))])
    yield Step("an allowance that has ended", C, [allow(C, B, basic(5, "feee", 5))])
    yield Step("an allowance before 1970", C, [allow(C, B, basic(5, "feee", -5))])
    yield Step("a negative allowance", C, [allow(C, B, basic(-5, "feea"))])
    yield Step("a negative period", C, [allow(C, B, periodic(9, "feee", 5, 5, -3600))])
    yield Step("a period without a limit", C, [allow(C, B, periodic(9, "feee", 0, 5))])
    yield Step("a negative rest of a period", C, [allow(C, B, periodic(9, "feee", 5, -5))])
    yield Step("for no messages", C, [allow(C, B, only_for(basic()))])
    other = periodic(9, "feee", 5, 5)
    other.period_spend_limit[0].denom = "feef"
    yield Step("a period's limit in another coin", C, [allow(C, B, other)])


def to_fee(denom: str, amount: int) -> Coins:
    return (Coin(denom, amount),)


def questions() -> dict[str, tuple[str, Any]]:
    """name → (path, request) of what is asked in the end."""

    def ask(service: str, method: str, **fields: Any) -> tuple[str, Any]:
        return f"/{service}.Query/{method}", message_class(f"{service}.Query{method}Request")(**fields)

    return {
        "grants": ask(AUTHZ, "Grants", granter=A, grantee=B),
        "one grant": ask(AUTHZ, "Grants", granter=A, grantee=NOBODY, msg_type_url=SEND_URL),
        "no grants": ask(AUTHZ, "Grants", granter=C, grantee=B),
        "a page of grants": ask(AUTHZ, "Grants", granter=A, grantee=B, pagination={"limit": 1}),
        "granter's": ask(AUTHZ, "GranterGrants", granter=A),
        "granter's, from the end": ask(AUTHZ, "GranterGrants", granter=A, pagination={"limit": 2, "reverse": True, "count_total": True}),
        "grantee's": ask(AUTHZ, "GranteeGrants", grantee=NEW),
        "grantee's, paged": ask(AUTHZ, "GranteeGrants", grantee=B, pagination={"limit": 1}),
        "allowance": ask(FEEGRANT, "Allowance", granter=A, grantee=B),
        "periodic allowance": ask(FEEGRANT, "Allowance", granter=A, grantee=C),
        "allowances": ask(FEEGRANT, "Allowances", grantee=B),
        "granter's allowances": ask(FEEGRANT, "AllowancesByGranter", granter=C),
        "granter's allowances, paged": ask(FEEGRANT, "AllowancesByGranter", granter=A, pagination={"limit": 1, "count_total": True}),
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
        made = build_tx(step.messages, fee=step.fee, gas_limit=step.gas, signers=[signer], granter=step.granter)
        document = signing.direct_bytes(encode(made.body), encode(made.auth_info), CHAIN_ID, self.account_number(step.signer))
        found = self.submit(made.encode([private.sign(document)]))
        if "events" in found:
            self.sequences[step.signer] = sequence + 1
        return found
