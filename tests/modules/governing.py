"""A chain with what tests of governance do to it over and over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from chain.app import build_application
from chain.application import Settings
from chain.codec.registry import message_class, pack_any
from chain.coins import Coin, to_messages
from chain.crypto import address as bech32
from chain.store.kv import MemoryBackend
from chain.testing.driver import Driver, TxResult
from chain.tx.build import Signer, build_tx
from tests.support import CHAIN_ID, FEE, FUNDS_WEI, GOV, KEYS, genesis_document, text

PACKAGE = "cosmos.gov.v1"
STOS = 10**18
MIN, EXPEDITED = 100 * STOS, 500 * STOS
DAY_S = 86_400
YES, ABSTAIN, NO, VETO = 1, 2, 3, 4
STAKE = STOS
"""The one validator's own; it is KEYS[0]'s."""
GAS = 2_000_000
GAS_FEE = FEE[0].amount


def wei(amount: int) -> list[Any]:
    return to_messages((Coin("wei", amount),)) if amount else []


def make(name: str, package: str = PACKAGE, **fields: Any) -> Any:
    return message_class(f"{package}.{name}")(**fields)


def switch(denom: str = "abc", authority: str = GOV) -> Any:
    """A message whose effect is easily seen: sending of ``denom`` is switched off."""
    return make("MsgSetSendEnabled", "cosmos.bank.v1beta1", authority=authority, send_enabled=[{"denom": denom, "enabled": False}])


def pay(sender: str, to: str, amount: int) -> Any:
    return make("MsgSend", "cosmos.bank.v1beta1", from_address=sender, to_address=to, amount=wei(amount))


class Net:
    """One validator with 1 stos of its own, and delegations by ``stakes``: number of the key → wei."""

    def __init__(self, stakes: dict[int, int] | None = None, *, invariant_period: int = 1, **params: Any) -> None:
        app = build_application(MemoryBackend(), Settings(invariant_period=invariant_period))
        genesis = genesis_document(app)
        genesis["app_state"]["gov"]["params"].update(params)
        self.start(app, genesis)
        for number, amount in (stakes or {}).items():
            operator = bech32.encode(KEYS[0].public_key.address, bech32.VALIDATOR)
            delegate = make("MsgDelegate", "cosmos.staking.v1beta1", delegator_address=text(KEYS[number]), validator_address=operator)
            delegate.amount.CopyFrom(wei(amount)[0])
            assert self.run(number, delegate).code == 0

    def start(self, app: Any, genesis: Any, sequences: Sequence[int] = (1, 0, 0, 0, 0, 0)) -> None:
        self.app = app
        self.driver = Driver([app], genesis)
        self.driver.start()
        self.driver.next_block()
        self.sequences = list(sequences)

    def signed(self, number: int, *messages: Any, gas: int = GAS) -> bytes:
        """A transaction of one of KEYS, with its next sequence."""
        private, sequence = KEYS[number], self.sequences[number]
        self.sequences[number] += 1
        return build_tx(list(messages), fee=(Coin("wei", gas * 10**9),), gas_limit=gas, signers=[Signer(private.public_key, sequence, number)]).sign(
            [private], CHAIN_ID
        )

    def run(self, number: int, *messages: Any, gas: int = GAS) -> TxResult:
        """What became of messages of one of KEYS, in a block of their own."""
        return self.driver.next_block([self.signed(number, *messages, gas=gas)]).results[0]

    def submit(self, *messages: Any, deposit: int = MIN, proposer: int = 2, **fields: Any) -> int:
        """The number of a new proposal."""
        given = {"title": "t", "summary": "s", "metadata": "" if messages else "m", "proposer": text(KEYS[proposer]), **fields}
        result = self.run(proposer, make("MsgSubmitProposal", messages=map(pack_any, messages), initial_deposit=wei(deposit), **given))
        assert result.code == 0, result.log
        return self.app_next_id() - 1

    def app_next_id(self) -> int:
        return int(self.app.export()["gov"]["starting_proposal_id"])

    def vote(self, number: int, proposal: int, *options: int | tuple[int, str]) -> None:
        """Vote with one option, or several weighted ones."""
        common = {"proposal_id": proposal, "voter": text(KEYS[number])}
        if len(options) == 1 and isinstance(options[0], int):
            message = make("MsgVote", **common, option=options[0])
        else:
            message = make("MsgVoteWeighted", **common, options=[{"option": one[0], "weight": one[1]} for one in options if not isinstance(one, int)])
        result = self.run(number, message)
        assert result.code == 0, result.log

    def wait(self, days: float = 7) -> list[tuple[str, dict[str, str]]]:
        """Let time pass; the events of the block's end."""
        self.driver.next_block(time_step_s=int(days * DAY_S))
        return self.ended()

    def ended(self) -> list[tuple[str, dict[str, str]]]:
        found = self.driver.blocks[self.driver.height].response.events
        pairs = [(event.type, {one.key: one.value for one in event.attributes}) for event in found]
        return [(kind, {key: value for key, value in values.items() if key != "mode"}) for kind, values in pairs if values.get("mode") == "EndBlock"]

    def ask(self, method: str, package: str = PACKAGE, **fields: Any) -> Any:
        request = message_class(f"{package}.Query{method}Request")(**fields)
        return self.app.query_rpc(f"/{package}.Query/{method}", request)[0]

    def proposal(self, number: int) -> Any:
        return self.ask("Proposal", proposal_id=number).proposal

    def held(self, address: str) -> int:
        return int(self.ask("Balance", "cosmos.bank.v1beta1", address=address, denom="wei").balance.amount)

    def supply(self) -> int:
        return int(self.ask("SupplyOf", "cosmos.bank.v1beta1", denom="wei").amount.amount)

    def spent(self, number: int) -> int:
        """What one of KEYS has paid beside fees and stake of its own."""
        return FUNDS_WEI - self.held(text(KEYS[number])) - (self.sequences[number] - (number == 0)) * GAS * 10**9 - (STAKE if number == 0 else 0)

    def is_off(self, denom: str = "abc") -> bool:
        return bool(self.ask("SendEnabled", "cosmos.bank.v1beta1", denoms=[denom]).send_enabled)
