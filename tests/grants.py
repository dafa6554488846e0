"""Messages of authz and feegrant, made from addresses as text, amounts of one coin; and a chain to send them to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from chain.codec.registry import message_class, pack_any
from chain.coins import Coin, Coins, to_messages
from chain.crypto.keys import PrivateKey
from chain.testing.driver import Driver, TxResult
from chain.tx.build import Signer, build_tx
from tests.support import CHAIN_ID, FEE, GAS, text

AUTHZ, FEEGRANT = "cosmos.authz.v1beta1", "cosmos.feegrant.v1beta1"
SEND_URL = "/cosmos.bank.v1beta1.MsgSend"
END_S = 4_102_444_800  # 2100-01-01


def coins(amount: int, denom: str = "wei") -> list[Any]:
    return to_messages((Coin(denom, amount),)) if amount else []


def send(sender: str, to: str, amount: int) -> Any:
    return message_class("cosmos.bank.v1beta1.MsgSend")(from_address=sender, to_address=to, amount=coins(amount))


def generic(type_url: str = SEND_URL) -> Any:
    return message_class(f"{AUTHZ}.GenericAuthorization")(msg=type_url)


def send_up_to(amount: int, *allowed: str) -> Any:
    return message_class("cosmos.bank.v1beta1.SendAuthorization")(spend_limit=coins(amount), allow_list=allowed)


def grant(granter: str, grantee: str, authorization: Any, end_s: int = 0) -> Any:
    made = message_class(f"{AUTHZ}.MsgGrant")(granter=granter, grantee=grantee)
    made.grant.authorization.CopyFrom(pack_any(authorization))
    if end_s:
        made.grant.expiration.seconds = end_s
    return made


def execute(grantee: str, *messages: Any) -> Any:
    return message_class(f"{AUTHZ}.MsgExec")(grantee=grantee, msgs=[pack_any(one) for one in messages])


def revoke(granter: str, grantee: str, type_url: str = SEND_URL) -> Any:
    return message_class(f"{AUTHZ}.MsgRevoke")(granter=granter, grantee=grantee, msg_type_url=type_url)


def basic(limit: int = 0, denom: str = "wei", end_s: int = 0) -> Any:
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
    return message_class(f"{FEEGRANT}.MsgGrantAllowance")(granter=granter, grantee=grantee, allowance=pack_any(allowance))


def disallow(granter: str, grantee: str) -> Any:
    return message_class(f"{FEEGRANT}.MsgRevokeAllowance")(granter=granter, grantee=grantee)


def prune(pruner: str) -> Any:
    return message_class(f"{FEEGRANT}.MsgPruneAllowances")(pruner=pruner)


class Chain:
    """A chain in process that signs with an account's number and sequence as they are now."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.app: Any = driver.apps[0]

    def account(self, private: PrivateKey) -> tuple[int, int]:
        """(number, sequence)."""
        info = self.query("cosmos.auth.v1beta1", "AccountInfo", address=text(private)).info
        return info.account_number, info.sequence

    def query(self, service: str, method: str, **fields: Any) -> Any:
        """The answer of a module's query. Raises AppError."""
        return self.app.query_rpc(f"/{service}.Query/{method}", message_class(f"{service}.Query{method}Request")(**fields))[0]

    def pages(self, service: str, method: str, items: str, limit: int, **fields: Any) -> tuple[list[Any], list[Any]]:
        """All entries of a listing, read ``limit`` at a time from its beginning, and from its end."""

        def walk(reverse: bool) -> Iterator[Any]:
            at = b""
            while True:
                page = self.query(service, method, **fields, pagination={"limit": limit, "key": at, "reverse": reverse})
                yield from getattr(page, items)
                at = page.pagination.next_key
                if not at:
                    return

        return list(walk(False)), list(walk(True))

    def sign(
        self, private: PrivateKey, *messages: Any, fee: Coins = FEE, granter: str = "", gas: int = 2 * GAS, ahead: int = 0, **options: Any
    ) -> bytes:
        """A transaction, ``ahead`` of the account's sequence by so many."""
        number, sequence = self.account(private)
        signer = Signer(private.public_key, sequence + ahead, number)
        return build_tx(messages, fee=fee, gas_limit=gas, signers=[signer], granter=granter, **options).sign([private], CHAIN_ID)

    def run(self, private: PrivateKey, *messages: Any, step_s: int | None = None, **options: Any) -> TxResult:
        """The result of one transaction in a block of its own, ``step_s`` seconds after the last."""
        return self.driver.next_block([self.sign(private, *messages, **options)], process=False, time_step_s=step_s).results[0]

    def check(self, private: PrivateKey, *messages: Any, **options: Any) -> Any:
        """What CheckTx says of one transaction."""
        return self.driver.check_tx(self.sign(private, *messages, **options))

    @property
    def now_s(self) -> int:
        return self.driver.time_ns // 10**9

    def holds(self) -> None:
        """Raise AssertionError unless every invariant holds."""
        assert self.app.broken_invariants() == []


def code(result: Any) -> tuple[str, int]:
    return result.codespace, result.code
