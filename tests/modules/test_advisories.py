"""Advisories and incidents of other chains, one named test each. Those that are tested beside what they touch:

ASA-2024-005 (a redelegation evades a slash)      test_staking_slashing.py, ``test_asa_2024_005_…``
ISA-2025-005 (rewards overflow in a block hook)   test_distribution.py, ``test_isa_2025_005_…``
ISA-2025-002 (an end block that raises)           test_staking_slashing.py, ``test_an_entry_that_cannot_be_paid_stays_and_stops_no_block``
ASA-2024-006 (trust in what a proposal says)      tests/abci/test_application_requirements.py, ``test_7_…`` to ``test_10_…``: no vote extension is read
ASA-2024-001 (consensus parameters)               tests/app/test_parameters_change_by_gov_alone.py
queue bombs                                       test_staking_slashing.py, ``test_a_block_finishes_a_bounded_number_…`` and
                                                  ``test_entries_of_accounts_with_thousands_of_vesting_periods_…``
rounding chosen by an attacker (found here)       test_rounding_attacks.py
"""

from __future__ import annotations

from typing import Any

import pytest

from chain.app import build_application
from chain.application import REJECT
from chain.codec.registry import message_class, pack_any
from chain.crypto import address as bech32
from chain.errors import AppError, TxDecodeError
from chain.store.kv import MemoryBackend
from chain.tx.build import Signer, build_tx
from chain.tx.decode import decode_tx
from tests.support import CHAIN_ID, FEE, GAS, KEYS, balance, chain, send, text

VESTING = "cosmos.vesting.v1beta1.MsgCreate"
UNUSED = bech32.encode(b"\x33" * 20)


def coin(amount: int) -> list[dict[str, str]]:
    return [{"denom": "wei", "amount": str(amount)}]


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("VestingAccount", {"amount": coin(-5), "end_time": 10**10}),
        ("VestingAccount", {"amount": coin(5), "end_time": -1}),
        ("PermanentLockedAccount", {"amount": coin(-5)}),
        ("PeriodicVestingAccount", {"start_time": 1, "vesting_periods": [{"length": 10, "amount": coin(-5)}]}),
        ("PeriodicVestingAccount", {"start_time": 1, "vesting_periods": [{"length": 10, "amount": coin(9)}, {"length": 10, "amount": coin(-5)}]}),
        ("PeriodicVestingAccount", {"start_time": 1, "vesting_periods": [{"length": -10, "amount": coin(5)}]}),
        ("PeriodicVestingAccount", {"start_time": 1, "vesting_periods": [{"length": 100, "amount": coin(5)}, {"length": -10, "amount": coin(5)}]}),
        ("PeriodicVestingAccount", {"start_time": -5, "vesting_periods": [{"length": 10, "amount": coin(5)}]}),
    ],
)
def test_barberry_a_vesting_account_of_negative_amounts_or_lengths_is_made_at_nobodys_address(kind: str, fields: dict[str, Any]) -> None:
    """June 2023: such an account at an address that was not used yet made every later block that touched it stop."""
    driver = chain()
    message = message_class(VESTING + kind)(from_address=text(KEYS[2]), to_address=UNUSED, **fields)
    raw = build_tx([message], fee=FEE, gas_limit=GAS, signers=[Signer(KEYS[2].public_key, 0, 2)]).sign([KEYS[2]], CHAIN_ID)
    result = driver.next_block([raw]).results[0]
    assert result.code != 0
    assert (result.codespace, result.code) != ("undefined", 111222), result.log
    app: Any = driver.apps[0]
    with pytest.raises(AppError, match="not found"):
        app.query_rpc("/cosmos.auth.v1beta1.Query/Account", message_class("cosmos.auth.v1beta1.QueryAccountRequest")(address=UNUSED))


@pytest.mark.parametrize("kind", ["VestingAccount", "PermanentLockedAccount", "PeriodicVestingAccount"])
def test_barberry_an_account_that_exists_becomes_no_other_kind(kind: str) -> None:
    driver = chain()
    fields: dict[str, Any] = {
        "VestingAccount": {"amount": coin(5), "end_time": 10**10},
        "PermanentLockedAccount": {"amount": coin(5)},
        "PeriodicVestingAccount": {"start_time": 1, "vesting_periods": [{"length": 10, "amount": coin(5)}]},
    }[kind]
    message = message_class(VESTING + kind)(from_address=text(KEYS[2]), to_address=text(KEYS[3]), **fields)
    raw = build_tx([message], fee=FEE, gas_limit=GAS, signers=[Signer(KEYS[2].public_key, 0, 2)]).sign([KEYS[2]], CHAIN_ID)
    result = driver.next_block([raw]).results[0]
    assert (result.codespace, result.code) == ("sdk", 18), result.log
    before = balance(driver, 3)
    sent = driver.next_block([send(3, 4, amount=before // 2)]).results[0]
    assert sent.code == 0, sent.log


def nested(depth: int, width: int = 1) -> bytes:
    """A good transaction, its message exchanged for MsgExec in MsgExec, ``depth`` of them, each of ``width`` messages."""
    inner = message_class("cosmos.bank.v1beta1.MsgSend")(from_address=text(KEYS[2]), to_address=text(KEYS[3]))
    for _ in range(depth):
        inner = message_class("cosmos.authz.v1beta1.MsgExec")(grantee=text(KEYS[2]), msgs=[pack_any(inner)] * width)
    tx = message_class("cosmos.tx.v1beta1.TxRaw").FromString(send(2, 3))
    tx.body_bytes = message_class("cosmos.tx.v1beta1.TxBody")(messages=[pack_any(inner)]).SerializeToString(deterministic=True)
    raw: bytes = tx.SerializeToString(deterministic=True)
    return raw


@pytest.mark.parametrize(("depth", "width"), [(10, 1), (40, 1), (9, 3)])
@pytest.mark.timeout(20)
def test_asa_2024_0012_and_0013_messages_nested_deep_or_wide_do_not_decode(depth: int, width: int) -> None:
    """December 2024: decoding nested Anys took a stack or a time that nobody had paid for."""
    raw = nested(depth, width)
    with pytest.raises(TxDecodeError, match=r"nest deeper|at most 4000 Any"):
        decode_tx(raw)
    request = message_class("tendermint.abci.RequestProcessProposal")(height=3, txs=[raw])
    app: Any = chain().apps[0]
    assert app.process_proposal(request).status == REJECT


def test_every_vesting_account_message_is_tested_here() -> None:
    names = {name for module in build_application(MemoryBackend()).modules for name in module.messages if name.startswith(VESTING)}
    assert names == {f"{VESTING}{kind}" for kind in ("VestingAccount", "PermanentLockedAccount", "PeriodicVestingAccount")}
