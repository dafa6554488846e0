"""Proposals of every kind, whose messages are the parameters of every module within what a chain survives; deposits, votes, cancelling."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from chain.codec.registry import message_class, pack_any
from tests.simulation.operations.staking import validators
from tests.simulation.world import GOV, Account, Kind, World, coin

V1, V1BETA1 = "cosmos.gov.v1", "cosmos.gov.v1beta1"
MIN_DEPOSIT = 10**19
DEPOSIT_PERIOD, VOTING_PERIOD = 1, 2


def prepare(section: Any, choose: random.Random) -> None:
    section["params"] |= {
        "min_deposit": [coin(MIN_DEPOSIT)],
        "expedited_min_deposit": [coin(5 * MIN_DEPOSIT)],
        "max_deposit_period": f"{choose.choice((30, 60))}s",
        "voting_period": f"{choose.choice((40, 80))}s",
        "expedited_voting_period": "20s",
        "burn_vote_quorum": choose.random() < 0.5,
        "burn_proposal_deposit_prevote": choose.random() < 0.5,
        "min_initial_deposit_ratio": choose.choice(("0.000000000000000000", "0.100000000000000000")),
        "proposal_cancel_dest": choose.choice(("", GOV)),
    }


# --- what a proposal carries ----------------------------------------------------------------------------------------------------

Change = Callable[[random.Random, Any], None]


def _set(name: str, *values: Any) -> Change:
    return lambda choose, params: setattr(params, name, choose.choice(values))


def _seconds(name: str, *values: int) -> Change:
    return lambda choose, params: setattr(getattr(params, name), "seconds", choose.choice(values))


def _dec(*hundredths: int) -> tuple[str, ...]:
    return tuple(str(value * 10**16) for value in hundredths)


CHANGES: dict[str, tuple[Change, ...]] = {
    "cosmos.auth.v1beta1": (
        _set("max_memo_characters", 100, 256),
        _set("tx_size_cost_per_byte", 5, 10, 20),
        _set("sig_verify_cost_secp256k1", 500, 1000),
    ),
    "cosmos.bank.v1beta1": (_set("default_send_enabled", True),),
    "cosmos.staking.v1beta1": (
        _set("max_validators", 4, 5, 6, 8),
        _set("max_entries", 2, 3, 7),
        _set("historical_entries", 0, 3, 20),
        _seconds("unbonding_time", 20, 100, 400),
        _set("min_commission_rate", *_dec(0, 1, 5)),
    ),
    "cosmos.distribution.v1beta1": (_set("community_tax", *_dec(0, 2, 50)), _set("withdraw_addr_enabled", True, False)),
    "cosmos.mint.v1beta1": (_set("inflation_max", *_dec(20, 30)), _set("goal_bonded", *_dec(10, 67)), _set("blocks_per_year", 1000, 100_000)),
    "cosmos.slashing.v1beta1": (
        _set("signed_blocks_window", 10, 12, 20),
        _seconds("downtime_jail_duration", 60, 100),
        _set("slash_fraction_downtime", b"0", b"10000000000000000"),
    ),
    "cosmos.crisis.v1beta1": (),
    "stratos.sds.v1": (_set("bond_denom", "wei", "stake"),),
    "stratos.pot.v1": (
        _set("mature_epoch", 1, 3, 6),
        _set("epoch_duration_s", 0, 1, 10),
        _set("mining_cap_ratio", "0", *_dec(40, 100)),
        _set("max_wallets_per_report", 0, 5, 1000),
        _set("community_tax", *_dec(0, 2, 100)),
    ),
    "stratos.settlement.v1": (
        _set("challenge_blocks", 3, 30, 600),
        _set("challenge_bond_wei", str(10**15), str(10**18)),
        _set("fraud_slash_ratio", *_dec(0, 10, 50)),
        _set("audits_per_day", 1, 100),
    ),
    "stratos.grant.v1": (
        _set("min_pool_funding_wei", str(10**15), str(10**18)),
        _set("max_open_campaigns_per_pool", 1, 3, 10),
        _set("longest_validity_s", 100, 10_000),
    ),
    V1: (
        _seconds("voting_period", 30, 60),
        _seconds("max_deposit_period", 30, 60),
        _set("burn_vote_veto", True, False),
        _set("quorum", *_dec(20, 34)),
    ),
}


def change_parameters(choose: random.Random, world: World) -> Any:
    """MsgUpdateParams with the parameters as they are, but for one of them. At times too much is wrong, and the proposal fails."""
    package = choose.choice([one for one in CHANGES if one.split(".")[1] in world.modules])
    message = message_class(f"{package}.MsgUpdateParams")(authority=GOV)
    if package == "cosmos.crisis.v1beta1":
        message.constant_fee.CopyFrom(message_class("cosmos.base.v1beta1.Coin")(**coin(choose.choice((0, 10**18, choose.randint(1, 10**18))))))
        return message
    message.params.CopyFrom(world.ask(f"{package}.Query/Params").params)
    choose.choice(CHANGES[package])(choose, message.params)
    return message


def change_consensus(choose: random.Random, world: World) -> Any:
    message = message_class("cosmos.consensus.v1.MsgUpdateParams")(authority=GOV)
    params = world.ask("cosmos.consensus.v1.Query/Params").params
    for part in ("block", "evidence", "validator"):
        getattr(message, part).CopyFrom(getattr(params, part))
    message.block.max_bytes = choose.choice((500_000, 1_000_000, 2_000_000))
    message.block.max_gas = choose.choice((-1, 10**9, 10**10))
    return message


def spend_pool(choose: random.Random, world: World) -> Any:
    amount = [coin(choose.randint(1, 10**16))]
    return message_class("cosmos.distribution.v1beta1.MsgCommunityPoolSpend")(authority=GOV, recipient=world.someone().text, amount=amount)


def enable_sends(choose: random.Random, world: World) -> Any:
    message = message_class("cosmos.bank.v1beta1.MsgSetSendEnabled")(authority=GOV)
    message.send_enabled.add(denom=choose.choice(("stake", "other")), enabled=choose.random() < 0.5)
    return message


def plan_upgrade(choose: random.Random, world: World) -> Any:
    """Far beyond every history: a chain that upgrades stops."""
    message = message_class("cosmos.upgrade.v1beta1.MsgSoftwareUpgrade")(authority=GOV)
    message.plan.name, message.plan.height = f"v{choose.randint(2, 5)}", world.driver.height + 10**6
    return message


def cancel_upgrade(choose: random.Random, world: World) -> Any:
    return message_class("cosmos.upgrade.v1beta1.MsgCancelUpgrade")(authority=GOV)


def send_too_much(choose: random.Random, world: World) -> Any:
    """More than the module's account has: fails, and undoes the message before it. (What it has are deposits, which have to be paid back.)"""
    return message_class("cosmos.bank.v1beta1.MsgSend")(from_address=GOV, to_address=world.someone().text, amount=[coin(10**30)])


def legacy_text(choose: random.Random, world: World) -> Any:
    content = message_class(f"{V1BETA1}.TextProposal")(title="an old one", description="x" * choose.randint(1, 50))
    return message_class(f"{V1}.MsgExecLegacyContent")(authority=GOV, content=pack_any(content))


CARRIED = (
    *(change_parameters,) * 8,
    *(change_consensus, spend_pool, spend_pool, enable_sends, plan_upgrade, cancel_upgrade, legacy_text, send_too_much),
)

# --- operations -----------------------------------------------------------------------------------------------------------------


def _initial(choose: random.Random) -> list[Any]:
    return [coin(choose.choice((MIN_DEPOSIT // 5, MIN_DEPOSIT, MIN_DEPOSIT, 5 * MIN_DEPOSIT, 1)))]


def submit(choose: random.Random, world: World) -> Any:
    carried = [choose.choice(CARRIED)(choose, world) for _ in range(choose.choice((0, 1, 1, 1, 2)))]
    return message_class(f"{V1}.MsgSubmitProposal")(
        messages=[pack_any(one) for one in carried],
        initial_deposit=_initial(choose),
        proposer=world.someone().text,
        metadata="",
        title="a proposal",
        summary="what it is for",
        expedited=choose.random() < 0.2,
    )


def submit_legacy(choose: random.Random, world: World) -> Any:
    content = message_class(f"{V1BETA1}.TextProposal")(title="text", description="y" * choose.randint(1, 50))
    return message_class(f"{V1BETA1}.MsgSubmitProposal")(content=pack_any(content), initial_deposit=_initial(choose), proposer=world.someone().text)


def proposals(world: World, status: int) -> list[Any]:
    found: list[Any] = list(world.ask(f"{V1}.Query/Proposals", proposal_status=status, pagination={"limit": 200}).proposals)
    return found


def _proposal(choose: random.Random, world: World, *statuses: int) -> Any | None:
    found = [one for status in statuses for one in proposals(world, status)]
    return choose.choice(found) if found else None


def deposit(choose: random.Random, world: World) -> Any:
    found = _proposal(choose, world, DEPOSIT_PERIOD, VOTING_PERIOD)
    if found is None:
        return None
    kind = message_class(f"{choose.choice((V1, V1BETA1))}.MsgDeposit")
    return kind(proposal_id=found.id, depositor=world.someone().text, amount=[coin(choose.choice((MIN_DEPOSIT // 10, MIN_DEPOSIT)))])


def _voter(choose: random.Random, world: World) -> Account:
    """Mostly somebody whose vote counts."""
    known = [one for one in (world.by_text(each.operator_address) for each in validators(world)) if one is not None]
    return choose.choice(known) if choose.random() < 0.8 else world.someone()


def vote(choose: random.Random, world: World) -> Any:
    found = _proposal(choose, world, VOTING_PERIOD)
    if found is None:
        return None
    option = choose.choice((1, 1, 1, 1, 1, 1, 1, 2, 3, 4)) if found.id % 4 else choose.choice((1, 2, 4, 4))
    return message_class(f"{choose.choice((V1, V1, V1BETA1))}.MsgVote")(proposal_id=found.id, voter=_voter(choose, world).text, option=option)


def vote_weighted(choose: random.Random, world: World) -> Any:
    found = _proposal(choose, world, VOTING_PERIOD)
    if found is None:
        return None
    package = choose.choice((V1, V1BETA1))
    first = choose.randint(1, 9)
    parts = {1: first, choose.choice((2, 3, 4)): 10 - first}
    options = [{"option": option, "weight": f"0.{tenths}" if package == V1 else str(tenths * 10**17)} for option, tenths in parts.items()]
    return message_class(f"{package}.MsgVoteWeighted")(proposal_id=found.id, voter=_voter(choose, world).text, options=options)


def cancel(choose: random.Random, world: World) -> Any:
    found = _proposal(choose, world, DEPOSIT_PERIOD, VOTING_PERIOD)
    if found is None:
        return None
    return message_class(f"{V1}.MsgCancelProposal")(proposal_id=found.id, proposer=found.proposer)


OPERATIONS = (
    Kind("proposal", 12, submit),
    Kind("legacy proposal", 2, submit_legacy),
    Kind("deposit", 8, deposit),
    Kind("vote", 60, vote),
    Kind("weighted vote", 12, vote_weighted),
    Kind("cancel proposal", 2, cancel),
)
