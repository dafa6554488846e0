"""A chain with something of every kind in flight: what unbonds, moves, is voted on, granted, owed, missed, vesting and in jail.

KEYS 0 to 3 are validators of 3000, 2000, 1000 and 1000 units of power; 3 is jailed for its absence and 2 begins to be absent. KEYS 4 and 5
and a vesting account delegate. ``take_off`` starts it all, ``land`` brings it to its end; both send the same bytes to whatever driver they are given.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from chain.app import build_application
from chain.cli.genesis import tx_message
from chain.codec.json import to_json
from chain.codec.registry import message_class, pack_any
from chain.coins import Coin
from chain.crypto import address as bech32
from chain.crypto.keys import public_key_to_any
from chain.store.kv import MemoryBackend
from chain.testing.driver import Driver
from chain.testing.validators import ValidatorKey
from chain.tx.build import Signer, build_tx
from genesis import build
from tests import grants
from tests.support import CHAIN_ID, GOV, KEYS, genesis_document, key, text

UNIT = 10**15
START_S = 1_767_225_600
GAS = 600_000
FEE = (Coin("wei", GAS * 10**9),)
PEOPLE = [*KEYS, key(6)]
VESTING = 6
"""Its coins vest for 5000 s; all but a tenth of them."""
STAKES = (3000, 2000, 1000, 1000)
WINDOW, JAIL_S = 10, 300
UNBONDING_S, VOTING_S, DEPOSIT_S, PERIOD_S = 900, 600, 800, 100
STRANGER = text(key(60))
EXPIRING_S = START_S + 700
"""When a grant and an allowance end."""


def who(number: int) -> str:
    return text(PEOPLE[number])


def operator(number: int) -> str:
    return bech32.encode(PEOPLE[number].public_key.address, bech32.VALIDATOR)


def cons(number: int) -> bytes:
    return ValidatorKey.numbered(number).address


def coin(units: int) -> dict[str, str]:
    return {"denom": "wei", "amount": str(units * UNIT)}


def staking(name: str, **fields: Any) -> Any:
    return message_class(f"cosmos.staking.v1beta1.{name}")(**fields)


def gov(name: str, **fields: Any) -> Any:
    return message_class(f"cosmos.gov.v1.{name}")(**fields)


def create_validator(number: int, units: int, *, key_number: int | None = None) -> Any:
    message = staking(
        "MsgCreateValidator",
        description={"moniker": str(number)},
        validator_address=operator(number),
        pubkey=public_key_to_any(ValidatorKey.numbered(number if key_number is None else key_number).public_key),
        min_self_delegation="1",
        value=coin(units),
    )
    message.commission.rate, message.commission.max_rate, message.commission.max_change_rate = str(10**17), str(2 * 10**17), str(10**16)
    return message


def delegate(number: int, to: int, units: int) -> Any:
    return staking("MsgDelegate", delegator_address=who(number), validator_address=operator(to), amount=coin(units))


def undelegate(number: int, from_: int, units: int) -> Any:
    return staking("MsgUndelegate", delegator_address=who(number), validator_address=operator(from_), amount=coin(units))


def redelegate(number: int, source: int, destination: int, units: int) -> Any:
    addresses = {"validator_src_address": operator(source), "validator_dst_address": operator(destination)}
    return staking("MsgBeginRedelegate", delegator_address=who(number), amount=coin(units), **addresses)


def unjail(number: int) -> Any:
    return message_class("cosmos.slashing.v1beta1.MsgUnjail")(validator_addr=operator(number))


def propose(number: int, deposit_units: int, *messages: Any) -> Any:
    made = [pack_any(one) for one in messages]
    return gov("MsgSubmitProposal", messages=made, initial_deposit=[coin(deposit_units)], proposer=who(number), title="t", summary="s")


def vote(number: int, proposal: int) -> Any:
    return gov("MsgVote", proposal_id=proposal, voter=who(number), option=1)


def document() -> dict[str, Any]:
    app = build_application(MemoryBackend())
    made = genesis_document(app)
    address, funds = PEOPLE[VESTING].public_key.address, (Coin("wei", 10_000 * UNIT),)
    account = build.vesting_account(address, funds, (Coin("wei", 9000 * UNIT),), START_S, START_S + 5000)
    build.add_account(made, address, funds, account=account)
    made["app_state"]["genutil"]["gen_txs"] = []
    for number, units in enumerate(STAKES):
        signers = [Signer(PEOPLE[number].public_key, 0, 0)]
        raw = build_tx([create_validator(number, units)], fee=(), gas_limit=GAS, signers=signers).sign([PEOPLE[number]], CHAIN_ID)
        made["app_state"]["genutil"]["gen_txs"].append(to_json(tx_message(raw)))
    state = made["app_state"]
    state["staking"]["params"]["unbonding_time"] = f"{UNBONDING_S}s"
    state["slashing"]["params"].update(
        signed_blocks_window=str(WINDOW),
        min_signed_per_window="0.5",
        downtime_jail_duration=f"{JAIL_S}s",
        slash_fraction_downtime="0.01",
    )
    state["gov"]["params"].update(min_deposit=[coin(100)], expedited_min_deposit=[coin(500)])
    state["gov"]["params"].update(voting_period=f"{VOTING_S}s", expedited_voting_period="60s", max_deposit_period=f"{DEPOSIT_S}s")
    return made


class Flight:
    """A driver, and the next sequence of everybody."""

    def __init__(self, driver: Driver, sequences: Sequence[int] | None = None) -> None:
        self.driver = driver
        self.sequences = list(sequences or (1, 1, 1, 1, 0, 0, 0))
        """The validators have signed their genesis transactions."""

    @property
    def app(self) -> Any:
        return self.driver.apps[0]

    def block(self, *sent: tuple[int, Any], granter: str = "", absent: Sequence[int] = (), step_s: int = 5) -> None:
        """A block of one transaction for each (signer, message); every one must succeed. ``absent``: validators that did not vote."""
        raws = []
        for number, message in sent:
            signer = Signer(PEOPLE[number].public_key, self.sequences[number], number)
            self.sequences[number] += 1
            raws.append(build_tx([message], fee=FEE, gas_limit=GAS, signers=[signer], granter=granter).sign([PEOPLE[number]], CHAIN_ID))
        last = self.driver.blocks.get(self.driver.height)
        silent = [at for at, one in enumerate(last.validators if last is not None else ()) if one.address in [cons(number) for number in absent]]
        for (number, message), result in zip(sent, self.driver.next_block(raws, absent=silent, time_step_s=step_s).results, strict=True):
            assert result.code == 0, f"{message.DESCRIPTOR.name} of {number}: {result.log}"

    def ask(self, path: str, **fields: Any) -> Any:
        service, _, method = path.rpartition("/")
        request = message_class(f"{service.rpartition('.')[0]}.Query{method}Request")(**fields)
        return to_json(self.app.query_rpc(f"/{path}", request)[0])

    def spendable(self, number: int) -> int:
        return int(self.ask("cosmos.bank.v1beta1.Query/SpendableBalanceByDenom", address=who(number), denom="wei")["balance"]["amount"])

    def validator(self, number: int) -> Any:
        return self.ask("cosmos.staking.v1beta1.Query/Validator", validator_addr=operator(number))["validator"]

    def missed(self, number: int) -> int:
        address = bech32.encode(cons(number), bech32.CONSENSUS)
        found = self.ask("cosmos.slashing.v1beta1.Query/SigningInfo", cons_address=address)["val_signing_info"]
        return int(found["missed_blocks_counter"])

    # --- before ---------------------------------------------------------------------------------------------------------------

    def take_off(self) -> None:
        """Ends after a block without transactions, so that no fee waits to be shared out."""
        self.block()
        self.block((4, delegate(4, 0, 900)), (5, delegate(5, 1, 800)), (VESTING, delegate(VESTING, 0, 5000)))
        while not self.validator(3)["jailed"]:
            self.block(absent=[3])
        fund = message_class("cosmos.distribution.v1beta1.MsgFundCommunityPool")(depositor=who(5), amount=[coin(500)])
        spend = message_class("cosmos.distribution.v1beta1.MsgCommunityPoolSpend")(authority=GOV, recipient=STRANGER, amount=[coin(300)])
        self.block((4, propose(4, 100, spend)), (5, fund))
        self.block((0, vote(0, 1)), (4, gov("MsgDeposit", proposal_id=1, depositor=who(4), amount=[coin(7)])), (5, propose(5, 30, spend)))
        self.block((1, vote(1, 1)), (4, undelegate(4, 0, 200)), (5, redelegate(5, 1, 2, 100)), (VESTING, undelegate(VESTING, 0, 1000)))
        self.block((4, undelegate(4, 0, 50)), (5, undelegate(5, 1, 60)), (0, undelegate(0, 0, 10)))
        self.block(
            (4, grants.grant(who(4), who(5), grants.generic(grants.SEND_URL))),
            (5, grants.grant(who(5), who(4), grants.send_up_to(400 * UNIT), EXPIRING_S)),
            (0, grants.allow(who(0), who(5), grants.basic(10**18))),
            (1, grants.allow(who(1), who(5), grants.basic(10**18, end_s=EXPIRING_S))),
        )
        self.block((2, grants.allow(who(2), who(4), grants.periodic(10**18, "wei", 10**16, 10**16, PERIOD_S))), absent=[2])
        self.block(absent=[2])
        self.block(absent=[2])

    # --- after ----------------------------------------------------------------------------------------------------------------

    def land(self) -> None:
        """Validator 2 goes on being absent until it is jailed; grants are used; then everything comes to its end."""
        while not self.validator(2)["jailed"]:
            self.block(absent=[2])
        for _ in range(2 * WINDOW):
            self.block()  # however many blocks that took, it is over at the same height everywhere
            if self.driver.height % (2 * WINDOW) == 0:
                break
        while self.driver.time_ns < (START_S + 550) * 10**9:
            self.block(step_s=10)
        self.block((5, grants.execute(who(5), grants.send(who(4), STRANGER, 11 * UNIT))), (3, unjail(3)))
        self.block((5, grants.send(who(5), STRANGER, 1)), granter=who(0))
        self.block((4, grants.execute(who(4), grants.send(who(5), STRANGER, 12 * UNIT))), granter=who(2))
        withdraw = message_class("cosmos.distribution.v1beta1.MsgWithdrawDelegatorReward")
        commission = message_class("cosmos.distribution.v1beta1.MsgWithdrawValidatorCommission")(validator_address=operator(1))
        self.block((VESTING, withdraw(delegator_address=who(VESTING), validator_address=operator(0))), (1, commission))
        self.block((5, redelegate(5, 1, 0, 40)))  # not from 2, to which something is on its way
        while self.driver.time_ns < (START_S + 2500) * 10**9:
            self.block(step_s=60)
