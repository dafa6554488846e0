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

import time
from typing import Any

import pytest

from chain.app import build_application
from chain.application import REJECT
from chain.codec.registry import message_class, pack_any
from chain.coins import Coin
from chain.errors import AppError, TxDecodeError
from chain.store.kv import MemoryBackend
from chain.tx.build import Signer, build_tx
from chain.tx.decode import decode_tx
from modules.gov.keeper import FAILED, PASSED, REJECTED
from tests.grants import AUTHZ, Chain, code, execute, generic, grant, send
from tests.modules.governing import DAY_S, MIN, YES, Net, make, pay, switch
from tests.support import CHAIN_ID, GOV, KEYS, balance, chain, key, text

ALICE, BOB, CAROL = KEYS[2:5]
A, B, C = (text(one) for one in KEYS[2:5])
VESTING = "cosmos.vesting.v1beta1.MsgCreate"
CONSENSUS = "cosmos.consensus.v1"


def test_elderflower_a_wrapped_message_needs_its_own_signers_consent() -> None:
    """October 2022: authz passed part of the authentication by. However it is wrapped, a message of somebody else is refused."""
    net = Chain(chain())
    theft = send(A, B, 7)
    before = balance(net.driver, 2)
    for wrapped in (
        execute(B, theft),
        execute(B, execute(B, theft)),
        execute(B, execute(C, theft)),
        execute(B, execute(A, theft)),
        execute(B, send(B, C, 1), theft),
        execute(B, grant(A, B, generic()), theft),
    ):
        assert code(net.run(BOB, wrapped)) == ("authz", 2)
    assert code(net.run(BOB, execute(A, theft))) == ("sdk", 8), "nor does naming another grantee make one him"
    assert code(net.run(CAROL, grant(C, B, generic(f"/{AUTHZ}.MsgExec")))) == ("", 0)
    assert code(net.run(BOB, execute(B, execute(C, theft)))) == ("authz", 2), "C may let B act for him, and has no leave of A's"
    assert balance(net.driver, 2) == before


def test_elderflower_a_proposal_acts_for_the_gov_account_and_nobody_else() -> None:
    net = Net()
    for message in (pay(A, B, 5), make("MsgExec", AUTHZ, grantee=B, msgs=[pack_any(pay(A, B, 5))])):
        refused = net.run(3, make("MsgSubmitProposal", messages=[pack_any(message)], title="t", summary="s", proposer=B))
        assert (refused.codespace, refused.code) == ("gov", 13)
    number = net.submit(make("MsgExec", AUTHZ, grantee=GOV, msgs=[pack_any(pay(A, B, 5))]), proposer=3)
    net.vote(0, number, YES)
    net.wait()
    assert (net.proposal(number).status, net.spent(2)) == (FAILED, 0)


def test_huckleberry_what_is_undone_leaves_no_events() -> None:
    """May 2023: events of what was rolled back stayed, and bridges believed them."""
    net = Net()
    number = net.submit(pay(GOV, B, MIN // 2), switch(), pay(GOV, B, 10 * MIN))
    net.submit(deposit=MIN)
    net.vote(0, number, YES)
    paid = [values for kind, values in net.wait() if kind == "transfer" and values.get("recipient") == B]
    assert (net.proposal(number).status, paid, net.is_off()) == (FAILED, [], False)
    result = net.run(3, make("MsgExec", AUTHZ, grantee=B, msgs=[pack_any(pay(B, C, 5)), pack_any(pay(B, C, 10**30))]))
    assert result.code == 5
    assert not [pairs for kind, pairs in result.events if kind == "transfer" and ("recipient", C) in pairs]


def _coin(amount: int) -> list[dict[str, str]]:
    """Negative ones, too."""
    return [{"denom": "wei", "amount": str(amount)}]


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("VestingAccount", {"amount": _coin(-5), "end_time": 10**10}),
        ("VestingAccount", {"amount": _coin(5), "end_time": -1}),
        ("PermanentLockedAccount", {"amount": _coin(-5)}),
        ("PeriodicVestingAccount", {"start_time": 1, "vesting_periods": [{"length": 10, "amount": _coin(-5)}]}),
        ("PeriodicVestingAccount", {"start_time": 1, "vesting_periods": [{"length": 10, "amount": _coin(9)}, {"length": 10, "amount": _coin(-5)}]}),
        ("PeriodicVestingAccount", {"start_time": 1, "vesting_periods": [{"length": -10, "amount": _coin(5)}]}),
        ("PeriodicVestingAccount", {"start_time": 1, "vesting_periods": [{"length": 100, "amount": _coin(5)}, {"length": -10, "amount": _coin(5)}]}),
        ("PeriodicVestingAccount", {"start_time": -5, "vesting_periods": [{"length": 10, "amount": _coin(5)}]}),
        ("PeriodicVestingAccount", {"start_time": -1, "vesting_periods": [{"length": 5, "amount": _coin(5)}]}),
    ],
)
def test_barberry_no_bad_vesting_account_at_anybodys_address(kind: str, fields: dict[str, Any]) -> None:
    """June 2023: an account of negative amounts or lengths, at an address that was not used yet, made every later block that touched it stop."""
    net = Chain(chain())
    victim = text(key(70))
    for target in (victim, C):
        result = net.run(BOB, message_class(VESTING + kind)(from_address=B, to_address=target, **fields))
        assert result.codespace == "sdk"
        assert result.code in (10, 18), result.log
    with pytest.raises(AppError, match="not found"):
        net.query("cosmos.auth.v1beta1", "Account", address=victim)
    assert code(net.run(ALICE, send(A, victim, 10**18))) == ("", 0), "the address is as good as ever"
    assert code(net.run(key(70), send(victim, A, 1))) == ("", 0)


@pytest.mark.parametrize("kind", ["VestingAccount", "PermanentLockedAccount", "PeriodicVestingAccount"])
def test_barberry_an_account_that_exists_becomes_no_other_kind(kind: str) -> None:
    net = Chain(chain())
    fields: dict[str, Any] = {
        "VestingAccount": {"amount": _coin(5), "end_time": 10**10},
        "PermanentLockedAccount": {"amount": _coin(5)},
        "PeriodicVestingAccount": {"start_time": 1, "vesting_periods": [{"length": 10, "amount": _coin(5)}]},
    }[kind]
    assert code(net.run(BOB, message_class(VESTING + kind)(from_address=B, to_address=C, **fields))) == ("sdk", 18)
    assert code(net.run(CAROL, send(C, A, balance(net.driver, 4) // 2))) == ("", 0)


def test_every_vesting_account_message_is_tested_here() -> None:
    names = {name for module in build_application(MemoryBackend()).modules for name in module.messages if name.startswith(VESTING)}
    assert names == {f"{VESTING}{kind}" for kind in ("VestingAccount", "PermanentLockedAccount", "PeriodicVestingAccount")}


def test_asa_2024_0012_nested_messages_are_refused_before_anything_walks_them() -> None:
    """November 2024: messages within messages took the decoder's stack, or its time."""
    inner = execute(B, send(B, A, 1))
    for _ in range(8):
        inner = execute(B, inner)
    net = Chain(chain())
    assert code(net.run(BOB, inner, gas=2_000_000)) == ("", 0), "ten deep is what is allowed, and runs"
    with pytest.raises(TxDecodeError, match="nest deeper"):
        net.sign(BOB, execute(B, inner))
    deep = execute(B, inner)
    for _ in range(990):
        deep = execute(B, deep)
    raw = _unchecked(deep)
    began = time.monotonic()
    assert code(net.driver.check_tx(raw)) == ("sdk", 2)
    assert code(net.driver.next_block([raw], process=False).results[0]) == ("sdk", 2)
    assert time.monotonic() - began < 2


def test_asa_2024_0013_many_nested_messages_are_counted_before_they_are_opened() -> None:
    wide = execute(B, *[execute(B, send(B, A, 1), send(B, A, 1), send(B, A, 1)) for _ in range(1000)])
    raw = _unchecked(execute(B, wide))
    with pytest.raises(TxDecodeError, match="at most 4000 Any messages"):
        decode_tx(raw)
    net = Chain(chain())
    assert code(net.driver.next_block([raw], process=False).results[0]) == ("sdk", 2)


@pytest.mark.parametrize(("depth", "width"), [(10, 1), (40, 1), (9, 3)])
@pytest.mark.timeout(20)
def test_asa_2024_0012_and_0013_a_proposal_with_messages_nested_deep_or_wide_is_rejected(depth: int, width: int) -> None:
    message = send(B, A, 1)
    for _ in range(depth):
        message = execute(B, *[message] * width)
    raw = _unchecked(message)
    with pytest.raises(TxDecodeError, match=r"nest deeper|at most 4000 Any"):
        decode_tx(raw)
    request = message_class("tendermint.abci.RequestProcessProposal")(height=3, txs=[raw])
    assert Chain(chain()).app.process_proposal(request).status == REJECT


def _unchecked(message: Any) -> bytes:
    """A transaction of BOB's that nobody looked at yet; its signature is none."""
    fine = build_tx([send(B, A, 1)], fee=(Coin("wei", 10**15),), gas_limit=10**6, signers=[Signer(BOB.public_key, 0, 3)]).sign([BOB], CHAIN_ID)
    raw = message_class("cosmos.tx.v1beta1.TxRaw").FromString(fine)
    raw.body_bytes = message_class("cosmos.tx.v1beta1.TxBody")(messages=[pack_any(message)]).SerializeToString()
    return bytes(raw.SerializeToString())


def test_isa_2025_002_nothing_that_users_propose_stops_an_end_block() -> None:
    """x/group's end of a block failed at a proposal of a user's, and the chain with it. Here: everything that can be wrong ends in one block."""
    net = Net(invariant_period=0)
    taken = net.submit(pay(GOV, B, MIN))  # the deposits of others
    unpayable = net.submit(deposit=MIN)
    failing = [
        net.submit(message)
        for message in (
            pay(GOV, B, 10**40),
            make("MsgUpdateParams", authority=GOV, params={"quorum": "x"}),
            make("MsgCancelProposal", proposal_id=unpayable, proposer=GOV),
            make("MsgVoteWeighted", proposal_id=unpayable, voter=GOV, options=[{"option": 9, "weight": "one"}]),
            make("MsgSubmitProposal", title="t", summary="s", proposer=GOV, metadata='{"title":"\\ud800"}'),
            make("MsgExec", AUTHZ, grantee=GOV, msgs=[pack_any(make("MsgExec", AUTHZ, grantee=GOV))]),
            make("MsgSoftwareUpgrade", "cosmos.upgrade.v1beta1", authority=GOV, plan={"name": "x", "height": 1}),
            make("MsgUpdateParams", CONSENSUS, authority=GOV, block={"max_bytes": -7}, evidence={}, validator={}),
        )
    ]
    for number in (taken, *failing):
        net.vote(0, number, YES)
    net.driver.next_block(time_step_s=8 * DAY_S)
    assert [net.proposal(number).status for number in (taken, unpayable, *failing)] == [PASSED, REJECTED, *[FAILED] * len(failing)]
    assert "insufficient funds" in net.proposal(failing[0]).failed_reason
    net.driver.next_block()


def test_asa_2024_001_parameters_that_cometbft_refuses_never_reach_it() -> None:
    """January 2024: a chain that answered its engine with bad consensus parameters stopped. Only what holds leaves the application."""
    net = Net()
    now = net.ask("Params", CONSENSUS).params
    good = {"block": now.block, "evidence": now.evidence, "validator": now.validator}
    bad: list[dict[str, Any]] = [
        {"block": {"max_bytes": 0, "max_gas": -1}},
        {"block": {"max_bytes": (100 << 20) + 1, "max_gas": -1}},
        {"block": {"max_bytes": 1 << 20, "max_gas": -2}},
        {"block": {"max_bytes": now.evidence.max_bytes - 1, "max_gas": -1}},
        {"evidence": {"max_age_num_blocks": 0, "max_age_duration": {"seconds": 5}}},
        {"evidence": {"max_age_num_blocks": 5}},
        {"validator": {}},
        {"validator": {"pub_key_types": ["ed25519", "bls12_381"]}},
        {"abci": {"vote_extensions_enable_height": 1}},
    ]
    numbers = [net.submit(make("MsgUpdateParams", CONSENSUS, authority=GOV, **{**good, **one})) for one in bad]
    for number in numbers:
        net.vote(0, number, YES)
    net.wait()
    assert [net.proposal(number).status for number in numbers] == [FAILED] * len(bad)
    updates = net.driver.blocks[net.driver.height].response.consensus_param_updates
    assert (updates.block, updates.validator) == (now.block, now.validator)
    assert net.ask("Params", CONSENSUS).params == now


def test_half_a_character_in_metadata_stops_neither_a_block_nor_a_check() -> None:
    """Found here: JSON can spell half of a surrogate pair, no answer can hold it, and the log of the refusal quoted it."""
    net = Chain(chain())
    message = make("MsgSubmitProposal", title="t", summary="s", metadata='{"title":"\\udc00","summary":"s"}', proposer=A)
    result = net.run(ALICE, message)
    assert code(result) == ("gov", 5)
    assert "metadata title '\ufffd' must equal" in result.log
    with pytest.raises(AppError, match="must equal"):
        net.app.simulate(net.sign(ALICE, message))
