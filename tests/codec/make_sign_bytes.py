"""Makes tests/vectors/sign_bytes.json: python -m tests.codec.make_sign_bytes

Transactions of every message type the SDK knows, with odd texts, empty fields and several signers; what each signer signs in every mode is
answered by the SDK's own code (tests/codec/go/sign_bytes).
"""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from chain.codec.canonical import encode
from chain.codec.registry import message_class, pack_any
from chain.coins import Coin, Coins, to_messages
from chain.comet import go_command, go_environment, tools_folder
from chain.crypto import address as bech32
from chain.crypto.keys import Ed25519PublicKey, MultisigPublicKey, PublicKey, public_key_to_any
from chain.tx.build import Signer, build_tx
from tests.support import KEYS, key, text

HERE: Final = Path(__file__).parent
VECTORS: Final = HERE.parent / "vectors" / "sign_bytes.json"
ALICE, BOB = KEYS[2], KEYS[3]
OPERATOR: Final = bech32.encode(ALICE.public_key.address, bech32.VALIDATOR)
OTHER_OPERATOR: Final = bech32.encode(BOB.public_key.address, bech32.VALIDATOR)
GOV: Final = bech32.encode(bech32.module_address("gov"))
FEE: Final[Coins] = (Coin("wei", 2 * 10**14),)


def _new(name: str, **fields: Any) -> Any:
    return message_class(f"cosmos.{name}")(**fields)


def _coins(*amounts: tuple[str, int]) -> list[Any]:
    return to_messages(Coin(denom, amount) for denom, amount in amounts)


def messages() -> dict[str, Any]:
    """One or more samples of every message type, full and as empty as its form allows."""
    wei = _coins(("wei", 5))
    coin = wei[0]
    description = {"moniker": "m<&>ü", "identity": "", "website": "https://x?a=1&b=2", "details": 'line\nnext\t"quoted" \\ \u2028 \u007f'}
    rates = {"rate": str(10**17), "max_rate": "0", "max_change_rate": str(10**18)}
    create = _new(
        "staking.v1beta1.MsgCreateValidator",
        description=description,
        validator_address=OPERATOR,
        pubkey=public_key_to_any(Ed25519PublicKey(bytes(range(32)))),
        min_self_delegation="1",
        value=coin,
        commission=rates,
    )
    edit = _new("staking.v1beta1.MsgEditValidator", description=description, validator_address=OPERATOR)
    edit_rate = _new(
        "staking.v1beta1.MsgEditValidator", description={}, validator_address=OPERATOR, commission_rate=str(5 * 10**16), min_self_delegation="7"
    )
    staking_params = {"max_validators": 5, "max_entries": 7, "historical_entries": 0, "bond_denom": "wei", "min_commission_rate": "0"}
    periods = [{"length": 5, "amount": wei}, {"length": 2**40, "amount": _coins(("aaa", 1), ("wei", 2))}]
    send = {"from_address": text(ALICE), "to_address": text(BOB)}
    delegate = {"delegator_address": text(ALICE), "validator_address": OPERATOR, "amount": coin}
    equivocation = _new(
        "evidence.v1beta1.Equivocation", height=5, time={"seconds": 1_700_000_000, "nanos": 7}, power=9, consensus_address="<somebody>"
    )
    out = {
        "send": _new("bank.v1beta1.MsgSend", **send, amount=_coins(("aaa", 1), ("wei", 2**255))),
        "send of nothing": _new("bank.v1beta1.MsgSend", **send),
        "multi-send": _new(
            "bank.v1beta1.MsgMultiSend",
            inputs=[{"address": text(ALICE), "coins": _coins(("wei", 7))}],
            outputs=[{"address": text(BOB), "coins": wei}, {"address": text(ALICE), "coins": _coins(("wei", 2))}],
        ),
        "multi-send to nobody": _new("bank.v1beta1.MsgMultiSend", inputs=[{"address": text(ALICE)}]),
        "set send enabled": _new(
            "bank.v1beta1.MsgSetSendEnabled",
            authority=GOV,
            send_enabled=[{"denom": "wei", "enabled": True}, {"denom": "foo"}],
            use_default_for=["bar"],
        ),
        "set send enabled, empty": _new("bank.v1beta1.MsgSetSendEnabled", authority=GOV),
        "bank params": _new("bank.v1beta1.MsgUpdateParams", authority=GOV, params={"default_send_enabled": True}),
        "bank params, empty": _new("bank.v1beta1.MsgUpdateParams", authority=GOV),
        "auth params": _new("auth.v1beta1.MsgUpdateParams", authority=GOV, params={"max_memo_characters": 9, "tx_sig_limit": 2**63}),
        "auth params, empty": _new("auth.v1beta1.MsgUpdateParams", authority=GOV),
        "vesting": _new("vesting.v1beta1.MsgCreateVestingAccount", **send, amount=wei, end_time=1_700_000_000, delayed=True),
        "vesting, continuous": _new("vesting.v1beta1.MsgCreateVestingAccount", **send, amount=wei, end_time=-1),
        "permanent lock": _new("vesting.v1beta1.MsgCreatePermanentLockedAccount", **send, amount=wei),
        "periods": _new("vesting.v1beta1.MsgCreatePeriodicVestingAccount", **send, start_time=12, vesting_periods=periods),
        "periods, none": _new("vesting.v1beta1.MsgCreatePeriodicVestingAccount", **send),
        "consensus params": _new(
            "consensus.v1.MsgUpdateParams",
            authority=GOV,
            block={"max_bytes": 1 << 20, "max_gas": -1},
            evidence={"max_age_num_blocks": 5, "max_age_duration": {"seconds": 7, "nanos": 9}, "max_bytes": 0},
            validator={"pub_key_types": ["ed25519"]},
        ),
        "create validator": create,
        "edit validator": edit,
        "edit validator's rate": edit_rate,
        "delegate": _new("staking.v1beta1.MsgDelegate", **delegate),
        "undelegate": _new("staking.v1beta1.MsgUndelegate", **delegate),
        "redelegate": _new(
            "staking.v1beta1.MsgBeginRedelegate",
            delegator_address=text(ALICE),
            validator_src_address=OPERATOR,
            validator_dst_address=OTHER_OPERATOR,
            amount=coin,
        ),
        "cancel unbonding": _new("staking.v1beta1.MsgCancelUnbondingDelegation", **delegate, creation_height=5),
        "staking params": _new("staking.v1beta1.MsgUpdateParams", authority=GOV, params={**staking_params, "unbonding_time": {"seconds": 1814400}}),
        "unjail": _new("slashing.v1beta1.MsgUnjail", validator_addr=OPERATOR),
        "slashing params": _new(
            "slashing.v1beta1.MsgUpdateParams",
            authority=GOV,
            params={
                "signed_blocks_window": 100,
                "min_signed_per_window": b"50000000000000000",
                "downtime_jail_duration": {"seconds": 600, "nanos": 5},
                "slash_fraction_double_sign": b"1000000000000000000",
                "slash_fraction_downtime": b"1",
            },
        ),
        "slashing params, empty": _new("slashing.v1beta1.MsgUpdateParams", authority=GOV),
        "evidence": _new("evidence.v1beta1.MsgSubmitEvidence", submitter=text(ALICE), evidence=pack_any(equivocation)),
        **_governance(),
        **_rewards(),
        **_grants(),
        "evidence, none": _new("evidence.v1beta1.MsgSubmitEvidence", submitter=text(ALICE)),
    }
    for one in out.values():
        encode(one)
    return out


def _rewards() -> dict[str, Any]:
    wei = _coins(("aaa", 1), ("wei", 5))
    pair = {"delegator_address": text(ALICE), "validator_address": OPERATOR}
    rates = {"community_tax": str(2 * 10**16), "base_proposer_reward": "0", "bonus_proposer_reward": "0"}
    curve = {"inflation_rate_change": "1", "inflation_max": str(2 * 10**17), "inflation_min": "0", "goal_bonded": str(10**18)}
    plan = {"name": "v2 <&>", "height": 7, "info": '{"binaries":{}}'}
    return {
        "withdraw address": _new("distribution.v1beta1.MsgSetWithdrawAddress", delegator_address=text(ALICE), withdraw_address=text(BOB)),
        "withdraw rewards": _new("distribution.v1beta1.MsgWithdrawDelegatorReward", **pair),
        "withdraw commission": _new("distribution.v1beta1.MsgWithdrawValidatorCommission", validator_address=OPERATOR),
        "fund the pool": _new("distribution.v1beta1.MsgFundCommunityPool", amount=wei, depositor=text(ALICE)),
        "fund the pool with nothing": _new("distribution.v1beta1.MsgFundCommunityPool", depositor=text(ALICE)),
        "spend the pool": _new("distribution.v1beta1.MsgCommunityPoolSpend", authority=GOV, recipient=text(BOB), amount=wei),
        "spend nothing": _new("distribution.v1beta1.MsgCommunityPoolSpend", authority=GOV, recipient=text(BOB)),
        "deposit rewards": _new("distribution.v1beta1.MsgDepositValidatorRewardsPool", depositor=text(ALICE), validator_address=OPERATOR, amount=wei),
        "distribution params": _new("distribution.v1beta1.MsgUpdateParams", authority=GOV, params={**rates, "withdraw_addr_enabled": True}),
        "distribution params, no withdrawals": _new("distribution.v1beta1.MsgUpdateParams", authority=GOV, params=rates),
        "mint params": _new("mint.v1beta1.MsgUpdateParams", authority=GOV, params={"mint_denom": "wei", **curve, "blocks_per_year": 2**63}),
        "upgrade": _new("upgrade.v1beta1.MsgSoftwareUpgrade", authority=GOV, plan=plan),
        "upgrade, empty": _new("upgrade.v1beta1.MsgSoftwareUpgrade", authority=GOV),
        "cancel upgrade": _new("upgrade.v1beta1.MsgCancelUpgrade", authority=GOV),
        "invariant": _new("crisis.v1beta1.MsgVerifyInvariant", sender=text(ALICE), invariant_module_name="bank", invariant_route="total-supply"),
        "crisis params": _new("crisis.v1beta1.MsgUpdateParams", authority=GOV, constant_fee=_coins(("wei", 5))[0]),
        "crisis params, empty": _new("crisis.v1beta1.MsgUpdateParams", authority=GOV),
    }


def _grants() -> dict[str, Any]:
    wei = _coins(("wei", 5))
    end = {"seconds": 1_800_000_000, "nanos": 50}
    pair, names = {"granter": text(ALICE), "grantee": text(BOB)}, {"address": [OPERATOR, OTHER_OPERATOR]}
    send = _new("bank.v1beta1.MsgSend", from_address=text(ALICE), to_address=text(BOB), amount=wei)
    vote = _new("gov.v1.MsgVote", proposal_id=7, voter=text(ALICE), option=1)
    authorizations = {
        "generic": _new("authz.v1beta1.GenericAuthorization", msg="/cosmos.gov.v1.MsgVote"),
        "send": _new("bank.v1beta1.SendAuthorization", spend_limit=wei, allow_list=[text(BOB)]),
        "send, no list": _new("bank.v1beta1.SendAuthorization", spend_limit=wei),
        "stake": _new("staking.v1beta1.StakeAuthorization", max_tokens=wei[0], allow_list=names, authorization_type=1),
        "stake, denied": _new("staking.v1beta1.StakeAuthorization", deny_list=names, authorization_type=3),
    }
    basic = _new("feegrant.v1beta1.BasicAllowance", spend_limit=wei, expiration=end)
    periodic = _new(
        "feegrant.v1beta1.PeriodicAllowance",
        basic={"spend_limit": wei},
        period={"seconds": 3600},
        period_spend_limit=wei,
        period_can_spend=wei,
        period_reset={"seconds": 1_700_000_000},
    )
    allowances = {
        "basic": basic,
        "basic, empty": _new("feegrant.v1beta1.BasicAllowance"),
        "periodic": periodic,
        "allowed messages": _new(
            "feegrant.v1beta1.AllowedMsgAllowance", allowance=pack_any(periodic), allowed_messages=["/cosmos.gov.v1.MsgVote", "/<&>"]
        ),
    }
    return {
        **{
            f"grant, {name}": _new("authz.v1beta1.MsgGrant", **pair, grant={"authorization": pack_any(one), "expiration": end})
            for name, one in authorizations.items()
        },
        "grant without end": _new("authz.v1beta1.MsgGrant", **pair, grant={"authorization": pack_any(authorizations["generic"])}),
        "exec": _new("authz.v1beta1.MsgExec", grantee=text(ALICE), msgs=[pack_any(send), pack_any(vote)]),
        "exec of an exec": _new(
            "authz.v1beta1.MsgExec", grantee=text(ALICE), msgs=[pack_any(_new("authz.v1beta1.MsgExec", grantee=text(BOB), msgs=[pack_any(send)]))]
        ),
        "exec of nothing": _new("authz.v1beta1.MsgExec", grantee=text(ALICE)),
        "revoke": _new("authz.v1beta1.MsgRevoke", **pair, msg_type_url="/cosmos.gov.v1.MsgVote"),
        **{f"allowance, {name}": _new("feegrant.v1beta1.MsgGrantAllowance", **pair, allowance=pack_any(one)) for name, one in allowances.items()},
        "revoke allowance": _new("feegrant.v1beta1.MsgRevokeAllowance", **pair),
        "prune allowances": _new("feegrant.v1beta1.MsgPruneAllowances", pruner=text(ALICE)),
    }


def _governance() -> dict[str, Any]:
    wei = _coins(("wei", 5))
    content = pack_any(_new("gov.v1beta1.TextProposal", title="t <&>", description="d"))
    inner = [
        pack_any(_new("bank.v1beta1.MsgUpdateParams", authority=GOV, params={"default_send_enabled": True})),
        pack_any(_new("gov.v1.MsgExecLegacyContent", content=content, authority=GOV)),
        pack_any(_new("gov.v1.MsgCancelProposal", proposal_id=3, proposer=GOV)),
    ]
    texts = {"metadata": "m", "title": 't "', "summary": "s\n", "expedited": True}
    voter, depositor = {"proposal_id": 7, "voter": text(ALICE)}, {"proposal_id": 7, "depositor": text(ALICE)}
    weights, old_weights = ([{"option": 1, "weight": weight}] for weight in ("0.50", str(5 * 10**17)))
    return {
        "proposal": _new("gov.v1.MsgSubmitProposal", messages=inner, initial_deposit=wei, proposer=text(ALICE), **texts),
        "proposal, empty": _new("gov.v1.MsgSubmitProposal", proposer=text(ALICE)),
        "legacy content": _new("gov.v1.MsgExecLegacyContent", content=content, authority=GOV),
        "vote": _new("gov.v1.MsgVote", **voter, option=4, metadata="m"),
        "vote, empty": _new("gov.v1.MsgVote", voter=text(ALICE)),
        "weighted vote": _new("gov.v1.MsgVoteWeighted", **voter, options=weights),
        "weighted vote, empty": _new("gov.v1.MsgVoteWeighted", voter=text(ALICE)),
        "deposit": _new("gov.v1.MsgDeposit", **depositor, amount=wei),
        "deposit, empty": _new("gov.v1.MsgDeposit", depositor=text(ALICE)),
        "gov params": _new("gov.v1.MsgUpdateParams", authority=GOV, params={"min_deposit": wei, "voting_period": {"seconds": 5}, "quorum": "0.334"}),
        "gov params, empty": _new("gov.v1.MsgUpdateParams", authority=GOV),
        "cancel proposal": _new("gov.v1.MsgCancelProposal", proposal_id=7, proposer=text(ALICE)),
        "old proposal": _new("gov.v1beta1.MsgSubmitProposal", content=content, initial_deposit=wei, proposer=text(ALICE)),
        "old proposal, empty": _new("gov.v1beta1.MsgSubmitProposal", proposer=text(ALICE)),
        "old vote": _new("gov.v1beta1.MsgVote", **voter, option=1),
        "old weighted vote": _new("gov.v1beta1.MsgVoteWeighted", **voter, options=old_weights),
        "old deposit": _new("gov.v1beta1.MsgDeposit", **depositor, amount=wei),
        "old deposit, empty": _new("gov.v1beta1.MsgDeposit", depositor=text(ALICE)),
    }


def questions() -> list[dict[str, Any]]:
    """What the Go program is asked: one transaction and one of its signers each."""
    samples = messages()
    asked = [_ask(name, [one], [Signer(ALICE.public_key, 3)], ALICE.public_key) for name, one in samples.items()]
    plain = samples["send"]
    two = [plain, _new("bank.v1beta1.MsgSend", from_address=text(BOB), to_address=text(ALICE), amount=_coins(("wei", 1)))]
    both = [Signer(ALICE.public_key, 3), Signer(BOB.public_key, 2**40)]
    for signer in (ALICE, BOB):
        asked.append(_ask(f"two signers, {text(signer)}", two, both, signer.public_key, sequence=3 if signer is ALICE else 2**40))
        asked.append(_ask(f"another payer, {text(signer)}", [plain], both, signer.public_key, payer=text(BOB)))
    multisig = MultisigPublicKey(2, tuple(key(number).public_key for number in (10, 11, 12)))
    asked.append(_ask("a multisig", two[1:], [Signer(BOB.public_key, 1), Signer(multisig, 0)], multisig))
    odd = 'naïve <memo> & "quotes" \\ \u2028\u2029 🚀 \x7f \x01 \n\r\t\b\f'
    asked.append(_ask("memo, timeout and granter", [plain], both[:1], ALICE.public_key, memo=odd, timeout_height=2**63 + 1, granter=text(BOB)))
    asked.append(_ask("account 0, sequence 0", [plain], [Signer(ALICE.public_key, 0)], ALICE.public_key, number=0, sequence=0))
    asked.append(_ask("no fee, no gas", [plain], both[:1], ALICE.public_key, fee=(), gas_limit=0, chain_id="a <chain> & ü"))
    asked.append(_ask("large numbers", [plain], both[:1], ALICE.public_key, gas_limit=2**64 - 1, number=2**64 - 1, sequence=2**64 - 1))
    return asked


def _ask(
    name: str,
    asked: Sequence[Any],
    signers: Sequence[Signer],
    who: PublicKey,
    *,
    number: int = 17,
    sequence: int = 3,
    chain_id: str = "test-1",
    fee: Coins = FEE,
    gas_limit: int = 200_000,
    **options: Any,
) -> dict[str, Any]:
    unsigned = build_tx(asked, fee=fee, gas_limit=gas_limit, signers=signers, **options)
    wrapped = public_key_to_any(who)
    return {
        "name": name,
        "body": _b64(encode(unsigned.body)),
        "auth_info": _b64(encode(unsigned.auth_info)),
        "chain_id": chain_id,
        "account_number": number,
        "sequence": sequence,
        "signer": bech32.encode(who.address),
        "key_url": wrapped.type_url,
        "key": _b64(wrapped.value),
    }


def _b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def main() -> None:
    tools = tools_folder()
    done = subprocess.run(
        [*go_command(tools), "run", "."],
        cwd=HERE / "go" / "sign_bytes",
        env=go_environment(tools),
        input=json.dumps(questions()),
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    VECTORS.write_text(json.dumps(json.loads(done.stdout), indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
