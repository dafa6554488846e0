"""A validator that signs twice, on the real CometBFT: its evidence as the block queries show it, and what it costs."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import httpx
import pytest

from chain.api import blocks
from chain.api.comet import CometClient
from chain.codec.registry import message_class
from chain.coins import Coin
from chain.crypto import address as bech32
from chain.crypto import hd
from chain.crypto.keys import public_key_to_any
from chain.store import merkle
from chain.testing.validators import ValidatorKey
from chain.tx.build import Signer, build_tx
from tests import double_votes
from tests.support import Devnet, ask_until, devnet

pytestmark = pytest.mark.timeout(180)
DOUBLE_SIGNER = ValidatorKey.numbered(0)
STAKE_WEI = 10**18


def second_validator(running: Devnet, comet: CometClient) -> tuple[str, int]:
    """Carol's validator, which never votes: (its operator, the first height that CometBFT has it at)."""
    accounts = running.net["accounts"]
    [(number, carol)] = [(at, one) for at, one in enumerate(accounts) if one["name"] == "carol"]
    key = hd.derive(carol["mnemonic"], carol["hd_path"], carol["key_type"])
    operator = bech32.encode(key.public_key.address, bech32.VALIDATOR)
    message = message_class("cosmos.staking.v1beta1.MsgCreateValidator")(
        description={"moniker": "two votes"},
        validator_address=operator,
        pubkey=public_key_to_any(DOUBLE_SIGNER.public_key),
        min_self_delegation="1",
        value={"denom": "wei", "amount": str(STAKE_WEI)},
    )
    message.commission.rate, message.commission.max_rate, message.commission.max_change_rate = str(10**17), str(2 * 10**17), str(10**16)
    fee = (Coin("wei", 500_000 * 10**9),)
    raw = build_tx([message], fee=fee, gas_limit=500_000, signers=[Signer(key.public_key, 0, number)]).sign([key], running.net["chain_id"])
    assert comet.broadcast(raw)["code"] == 0

    def joined() -> int:
        found = comet.call("validators")
        return int(found["block_height"]) if len(found["validators"]) == 2 else 0

    return operator, ask_until(joined)


def test_a_double_vote_is_listed_in_its_block_hashes_to_the_header_and_costs_the_validator_its_place(tmp_path: Path) -> None:
    with devnet(tmp_path) as running:
        running.wait_for(3)
        net = running.net
        comet = CometClient(net["rpc"])
        operator, infraction = second_validator(running, comet)
        running.wait_for(infraction + 1)
        power = double_votes.post(comet, net["chain_id"], DOUBLE_SIGNER, infraction)
        block_time = comet.call("header", height=str(infraction))["header"]["time"]

        height = ask_until(lambda: double_votes.height_with_evidence(comet, infraction, running.height()))
        running.wait_for(height + 3)
        by_height = httpx.get(f"{net['rest']}/cosmos/base/tendermint/v1beta1/blocks/{height}").json()
        with_txs = httpx.get(f"{net['rest']}/cosmos/tx/v1beta1/txs/block/{height}").json()
        for block in (by_height["block"], by_height["sdk_block"], with_txs["block"]):
            [one] = block["evidence"]["evidence"]
            shown = one["duplicate_vote_evidence"]
            assert [shown[name]["block_id"]["hash"] for name in ("vote_a", "vote_b")] == [
                base64.b64encode(bytes.fromhex(block_hash)).decode() for block_hash in double_votes.BLOCKS
            ]
            assert (shown["vote_a"]["height"], shown["validator_power"], shown["timestamp"]) == (str(infraction), str(power), block_time)
        # What we decoded, encoded again, has the hash that the validators signed.
        found = comet.call("block", height=str(height))["block"]
        [evidence] = blocks.block(found).evidence.evidence
        assert merkle.root_of([evidence.duplicate_vote_evidence.SerializeToString()]).hex().upper() == found["header"]["evidence_hash"]

        def ask(path: str) -> Any:
            return httpx.get(f"{net['rest']}/cosmos/{path}").raise_for_status().json()

        cons = bech32.encode(DOUBLE_SIGNER.address, bech32.CONSENSUS)
        validator = ask(f"staking/v1beta1/validators/{operator}")["validator"]
        assert (validator["jailed"], validator["tokens"]) == (True, str(STAKE_WEI - STAKE_WEI // 20))
        assert ask(f"slashing/v1beta1/signing_infos/{cons}")["val_signing_info"]["tombstoned"]
        [kept] = ask("evidence/v1beta1/evidence")["evidence"]
        assert (kept["consensus_address"], kept["height"], kept["power"], kept["time"]) == (cons, str(infraction), str(power), block_time)
        assert len(comet.call("validators")["validators"]) == 1, "the other one goes on alone"
        comet.close()
