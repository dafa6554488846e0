"""The fast twin of MsgSend against the plain path where somebody tries to tell them apart: bytes changed before and after signing, edge
amounts, gas to the unit, vesting and blocked accounts, denoms switched off, other parameters.

``FAST_SENDS_CASES=20000 python -m pytest tests/app/test_fast_sends_under_attack.py`` searches longer.
"""

from __future__ import annotations

import os
import random
from typing import Any

import pytest

from chain.app import build_application
from chain.application import Settings
from chain.codec.canonical import encode
from chain.codec.json import to_json
from chain.codec.registry import message_class, pack_any
from chain.coins import Coin, to_messages
from chain.crypto import address as bech32
from chain.crypto.keys import PrivateKey, public_key_to_any
from chain.store.kv import MemoryBackend
from chain.testing.driver import Driver
from chain.tx.decode import AuthInfo, TxBody, TxRaw
from tests.support import CHAIN_ID, FUNDS_WEI, KEYS, genesis_document, key, text

CASES = int(os.environ.get("FAST_SENDS_CASES", "1500"))
BLOCK = 15
Check = message_class("tendermint.abci.RequestCheckTx")
BaseVesting = message_class("cosmos.vesting.v1beta1.BaseVestingAccount")
VESTING, LOCKED, POOR, UNKNOWN = key(70), key(71), key(72, "eth_secp256k1"), key(73)
SENDERS = [*KEYS, *KEYS, VESTING, VESTING, LOCKED, POOR, UNKNOWN]
MODULES = [bech32.encode(bech32.module_address(name)) for name in ("gov", "fee_collector", "bonded_tokens_pool")]
DENOMS = ["wei", "wei", "wei", "ufoo", "ufoo", "uon", "uoff", "nothing", "gwei"]
PARAMS: list[dict[str, Any]] = [
    {},
    {"auth": {"tx_size_cost_per_byte": "1", "sig_verify_cost_secp256k1": "77"}},
    {"auth": {"tx_sig_limit": "1"}},
    {"bank": {"default_send_enabled": False}},
    {"block": {"max_bytes": "1000000", "max_gas": "900000"}},
]


def world(app: Any, changes: dict[str, Any]) -> Any:
    """A genesis with vesting accounts, several denoms, some of them switched on or off, and ``changes`` of parameters."""
    made = genesis_document(app, consensus={"block": changes["block"]} if "block" in changes else None)
    state = made["app_state"]
    for private, kind, fields in ((VESTING, "ContinuousVestingAccount", {"start_time": 1_767_225_000}), (LOCKED, "PermanentLockedAccount", {})):
        end = 1_767_225_600 + 600 if fields else 0
        base = BaseVesting(base_account={"address": text(private)}, original_vesting=to_messages((Coin("wei", FUNDS_WEI // 2),)), end_time=end)
        one = message_class(f"cosmos.vesting.v1beta1.{kind}")(base_vesting_account=base, **fields)
        state["auth"]["accounts"].append(to_json(pack_any(one)))
    state["auth"]["accounts"].append(to_json(pack_any(message_class("cosmos.auth.v1beta1.BaseAccount")(address=text(POOR)))))
    bank = state["bank"]
    bank["balances"] = []
    for private in (*KEYS, VESTING, LOCKED, POOR):
        wei = 10**15 if private is POOR else FUNDS_WEI
        coins = [("ufoo", 1000), ("uoff", 2**200), ("uon", 7), ("wei", wei)]
        bank["balances"].append({"address": text(private), "coins": [{"denom": denom, "amount": str(amount)} for denom, amount in coins]})
    bank["supply"] = []
    bank["send_enabled"] = [{"denom": "uoff", "enabled": False}, {"denom": "uon", "enabled": True}]
    for module in ("auth", "bank"):
        state[module]["params"].update(changes.get(module, {}))
    return made


class Attacker:
    """Makes transactions, good ones and ones that nearly are."""

    def __init__(self, seed: int, driver: Driver) -> None:
        self.choose, self.driver = random.Random(seed), driver
        self.accounts: dict[str, tuple[int, int]] = {}

    def look(self) -> None:
        """Read the account numbers and sequences anew."""
        request = message_class("cosmos.auth.v1beta1.QueryAccountsRequest")(pagination={"limit": 100})
        answer, _ = self.driver.apps[0].query_rpc("/cosmos.auth.v1beta1.Query/Accounts", request)  # type: ignore[attr-defined]
        for wrapped in answer.accounts:
            found = message_class(wrapped.type_url[1:]).FromString(wrapped.value)
            for name in ("base_vesting_account", "base_account"):
                found = getattr(found, name, found)
            self.accounts[found.address] = (found.account_number, found.sequence)

    def make(self) -> bytes:
        choose = self.choose
        sender: PrivateKey = choose.choice(SENDERS)
        owner = text(sender)
        number, sequence = self.accounts.get(owner, (99, 0))
        recipient = choose.choice(
            [*map(text, SENDERS), *map(text, KEYS), *MODULES, bech32.encode(choose.randbytes(20)), bech32.encode(choose.randbytes(32))]
        )
        balance = self.balance(sender, denom := choose.choice(DENOMS))
        gas = choose.choice([*[200_000] * 8, *(choose.randrange(76_000, 98_000) for _ in range(3)), 2**62])
        fee = choose.choice([*[200_000 * 10**9] * 3, *[min(gas, 10**6) * 10**9] * 3, gas * 10**9 - 1, 1])
        edge = [*[1, 5, 6, 7] * 4, balance, balance - 1, balance + 1, balance - fee, balance - fee - 1, balance - fee + 1, 2**256 - 1, 2**255]
        amount = max(choose.choice(edge), 0 if choose.random() < 0.05 else 1)
        message = message_class("cosmos.bank.v1beta1.MsgSend")(from_address=owner, to_address=recipient)
        message.amount.add(denom=denom, amount=str(amount))
        body, info = TxBody(), AuthInfo()
        body.messages.add(type_url="/cosmos.bank.v1beta1.MsgSend", value=encode(message))
        info.fee.amount.add(denom="wei", amount=str(fee))
        info.fee.gas_limit = gas
        sequence = max(sequence + choose.choice([0] * 12 + [1, -1]), 0)
        signer = info.signer_infos.add(public_key=public_key_to_any(sender.public_key), sequence=sequence)
        signer.mode_info.single.mode = 1
        parts = [encode(body), encode(info)]
        if choose.random() < 0.3:  # what a hostile wallet signs
            at = choose.randrange(2)
            parts[at] = self.mutate(parts[at])
        document = message_class("cosmos.tx.v1beta1.SignDoc")(body_bytes=parts[0], auth_info_bytes=parts[1], chain_id=CHAIN_ID, account_number=number)
        signature = sender.sign(document.SerializeToString())
        if sender.algorithm == "eth_secp256k1" and choose.random() < 0.5:
            signature += b"\x01"
        raw: bytes = TxRaw(body_bytes=parts[0], auth_info_bytes=parts[1], signatures=[signature]).SerializeToString()
        if choose.random() < 0.1:  # what a hostile relay changes
            return self.mutate(raw)
        if choose.random() < 0.8:
            self.accounts[owner] = (number, sequence + 1)
        return raw

    def mutate(self, raw: bytes) -> bytes:
        choose, out = self.choose, bytearray(raw)
        at = choose.randrange(len(out))
        match choose.randrange(6):
            case 0:
                out[at] = choose.randrange(256)
            case 1:
                out[at] ^= 1 << choose.randrange(8)
            case 2:
                out.insert(at, choose.choice([0, 1, 0x20, 0x30, 0x80]))
            case 3:
                del out[at]
            case 4:  # a field more: empty, repeated or unknown, at the end
                out += choose.choice(
                    [b"\x12\x00", b"\x18\x00", b"\x1a\x00", b"\x22\x00", b"\x82\x40\x01x", b"\x10\x00", b"\x20\x05", b"\xfa\x7f\x00"]
                )
            case _:  # a number in a longer form
                position = raw.find(choose.choice([b"\x18", b"\x10", b"\x12"]))
                if 0 <= position < len(out) - 1 and out[position + 1] < 0x80:
                    out[position + 1 : position + 2] = bytes([out[position + 1] | 0x80, 0])
        return bytes(out)

    def balance(self, owner: PrivateKey, denom: str) -> int:
        view = self.driver.apps[0].store.view()  # type: ignore[attr-defined]
        return int(view.store("bank").get(b"\x02\x14" + owner.public_key.address + denom.encode()) or 0)


@pytest.mark.timeout(max(120, CASES // 20))
@pytest.mark.parametrize("changes", PARAMS, ids=["plain", "other costs", "one signature", "sends off", "block gas"])
def test_no_transaction_tells_the_twin_from_the_plain_path(changes: dict[str, Any]) -> None:
    """A new world after every 20 blocks: in an old one most accounts are empty."""
    worlds = max(CASES // len(PARAMS) // (20 * BLOCK), 1)
    accepted = sum(compare(seed, changes) for seed in range(worlds))
    if "bank" not in changes:
        assert accepted > worlds * 20 * BLOCK // 10, "the search must reach what passes"


def compare(seed: int, changes: dict[str, Any]) -> int:
    """How many transactions passed in 20 blocks of one world in which both paths must agree on every byte."""
    apps = [build_application(MemoryBackend(), Settings(fast_sends=on)) for on in (True, False)]
    driver, plain = (Driver([app], world(app, changes)) for app in apps)
    for one in (driver, plain):
        one.start()
        one.next_block()
    attacker = Attacker(seed, driver)
    accepted = 0
    for _ in range(20):
        attacker.look()
        txs = [attacker.make() for _ in range(BLOCK)]
        for raw in txs[: BLOCK // 2]:
            for kind in (0, 1):
                answers = [app.check_txs([Check(tx=raw, type=kind)])[0] for app in apps]
                assert len({one if isinstance(one, bytes) else one.SerializeToString() for one in answers}) == 1, raw.hex()
        assert driver.propose(txs) == plain.propose(txs)
        ours, theirs = (one.next_block(txs, process=False) for one in (driver, plain))
        for raw, left, right in zip(txs, ours.results, theirs.results, strict=True):
            assert left == right, raw.hex()
        assert ours.app_hash == theirs.app_hash
        accepted += sum(result.code == 0 for result in ours.results)
    assert apps[0].broken_invariants() == []
    return accepted
