"""What a node's beneficiary earned: on the chain (to withdraw, maturing, when) and not yet there (escrow, earned, held).

    chain ─ Withdrawals of the beneficiary ─┐
    a meta node ─ node.earnings ────────────┴─► one answer; what cannot be asked is told as a problem

Source: docs/adr/0009 (node.earnings); modules/pot/README.md (Maturity).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from chain.coins import parse_wire_int
from chain.crypto import address as bech32
from chain.errors import AppError
from sds_node.value_chain import views
from sds_node.value_chain.client import ValueChain, ValueChainError
from sds_node.wire.errors import WireError

MAX_UPCOMING: Final = 100


async def on_chain(chain: ValueChain, wallet: str) -> dict[str, Any]:
    """Wei as texts, and what matures when (the next 100 rewards). Raises ValueChainError."""
    rewards = await views.rewards(chain, bech32.decode(wallet))
    found = await views.ask(chain, "/stratos.pot.v1.Query/Withdrawals", wallet_address=wallet, pagination={"limit": MAX_UPCOMING})
    try:
        upcoming = [
            {
                "reward_epoch": int(one.reward_epoch),
                "maturity_epoch": int(one.maturity_epoch),
                "amount_wei": str(
                    parse_wire_int(one.mining_wei or "0") + parse_wire_int(one.traffic_wei or "0") - parse_wire_int(one.slashed_wei or "0")
                ),
                "not_before_s": int(one.earliest_time.seconds),
            }
            for one in found.upcoming[:MAX_UPCOMING]
        ]
        debt_wei = parse_wire_int(found.slashing_debt_wei or "0")
    except AppError as error:
        raise ValueChainError(f"the chain tells of rewards that are no numbers ({error}): is its node of the right version?") from None
    return {
        "wallet": wallet,
        "mature_wei": str(rewards.mature_wei),
        "immature_wei": str(rewards.immature_wei),
        "slashing_debt_wei": str(debt_wei),
        "upcoming": upcoming,
    }


async def all_earnings(chain: ValueChain, wallet: str, of_network: Callable[[], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
    """``chain``, ``network`` (each None when it cannot be had) and ``problems``, which say why."""
    answer: dict[str, Any] = {"chain": None, "network": None, "problems": []}
    try:
        answer["chain"] = await on_chain(chain, wallet)
    except (ValueChainError, AppError) as error:
        answer["problems"].append(f"what is on the chain: {error}")
    try:
        answer["network"] = await of_network()
    except WireError as error:
        answer["problems"].append(f"what is not on the chain yet: {error}")
    return answer
