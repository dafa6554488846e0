"""Messages beside a plain send, of which simd and our application must say the same."""

from __future__ import annotations

from typing import Any

from chain.codec.canonical import encode
from chain.codec.registry import message_class
from chain.coins import Coin, to_messages
from chain.crypto import address as bech32
from tests.support import KEYS, key

STAKE = "stake"


def samples(owner: str) -> dict[str, list[tuple[str, bytes]]]:
    """name → messages (type URL, bytes) of ``owner``; each makes accounts that nothing else makes."""
    fresh = (bech32.encode(key(number).public_key.address, "cosmos") for number in range(80, 99))
    old = bech32.encode(KEYS[3].public_key.address, "cosmos")
    five = to_messages((Coin(STAKE, 5),))

    def vesting(name: str, **fields: Any) -> tuple[str, bytes]:
        one = message_class(f"cosmos.vesting.v1beta1.{name}")(from_address=owner, to_address=next(fresh), **fields)
        return f"/cosmos.vesting.v1beta1.{name}", encode(one)

    multi = message_class("cosmos.bank.v1beta1.MsgMultiSend")(
        inputs=[{"address": owner, "coins": to_messages((Coin(STAKE, 15),))}],
        outputs=[{"address": old, "coins": five}, {"address": next(fresh), "coins": five}, {"address": old, "coins": five}],
    )
    one_send, another = (message_class("cosmos.bank.v1beta1.MsgSend")(from_address=owner, to_address=next(fresh), amount=five) for _ in range(2))
    periods = [{"length": 1000, "amount": five}, {"length": 2000, "amount": five}]
    return {
        "a send that makes an account": [("/cosmos.bank.v1beta1.MsgSend", encode(one_send))],
        "a multi-send": [("/cosmos.bank.v1beta1.MsgMultiSend", encode(multi))],
        "continuous vesting": [vesting("MsgCreateVestingAccount", amount=five, end_time=2_000_000_000)],
        "delayed vesting": [vesting("MsgCreateVestingAccount", amount=five, end_time=2_000_000_000, delayed=True)],
        "a permanent lock": [vesting("MsgCreatePermanentLockedAccount", amount=five)],
        "periodic vesting": [vesting("MsgCreatePeriodicVestingAccount", start_time=2_000_000_000, vesting_periods=periods)],
        "two messages": [vesting("MsgCreatePermanentLockedAccount", amount=five), ("/cosmos.bank.v1beta1.MsgSend", encode(another))],
    }
