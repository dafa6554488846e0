"""The application alone, in process: sends checked, executed, hashed and committed (synced), block after block, until every node is on disk.

    python -m bench.application [--accounts 100000] [--block 3000] [--blocks 6]

The first block is told apart: its senders' keys are not on chain yet, so it takes the plain path. The rate counts everything from the first
CheckTx to the last node flushed, over blocks that follow each other without a pause.
"""

from __future__ import annotations

import argparse
import gc
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from chain.app import build_application
from chain.application import Settings
from chain.codec.registry import message_class
from chain.coins import Coin
from chain.crypto import address as bech32
from chain.crypto.keys import PrivateKey
from chain.store.kv import open_backend
from chain.testing.driver import Driver
from chain.tx.build import Signer, build_tx
from tests.support import CHAIN_ID, FEE, GAS, KEYS, genesis_document

SIGNERS = 3000
CHECKS_PER_BATCH = 256
CheckTx = message_class("tendermint.abci.RequestCheckTx")
FinalizeBlock = message_class("tendermint.abci.RequestFinalizeBlock")


@dataclass(frozen=True)
class Stages:
    """Seconds that the stages of one block took."""

    check_s: float
    recheck_s: float
    finalize_s: float
    commit_s: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--accounts", type=int, default=100_000)
    parser.add_argument("--block", type=int, default=3000)
    parser.add_argument("--blocks", type=int, default=6)
    run(**vars(parser.parse_args()))


def run(accounts: int = 100_000, block: int = 3000, blocks: int = 6) -> None:
    """Print the figures."""
    with tempfile.TemporaryDirectory() as folder:
        app = build_application(open_backend("", Path(folder) / "db"), Settings())
        signers = [PrivateKey((10**6 + at).to_bytes(32, "big"), "secp256k1") for at in range(SIGNERS)]
        addresses = [key.public_key.address for key in signers]
        addresses += [at.to_bytes(20, "big") for at in range(1, accounts - SIGNERS + 1)]
        genesis = genesis_document(app)
        add_accounts(genesis, addresses)
        driver = Driver([app], genesis)
        started = time.perf_counter()
        driver.start()
        driver.next_block()
        app.store.flush()
        print(f"application: {accounts} accounts loaded from genesis and committed in {time.perf_counter() - started:.1f} s")
        gc.freeze()  # as the node does
        gc.disable()
        work = [sends(signers, addresses, number, block) for number in range(blocks + 1)]
        first = make_block(driver, work[0], recheck=False)
        app.store.flush()
        describe("first block, keys not on chain yet", [first], block)
        started = time.perf_counter()
        measured = [make_block(driver, txs, recheck=False) for txs in work[1:]]
        app.store.flush()
        took = time.perf_counter() - started
        describe(f"{blocks} blocks of {block} sends over {accounts} accounts", measured, block)
        print(f"application: {blocks * block / took:.0f} sends per second, from the first check to the last flushed node")
        rechecked = make_block(driver, sends(signers, addresses, blocks + 1, block), recheck=True)
        print(f"application: a recheck takes {rechecked.recheck_s / block * 1e6:.1f} us")
        app.close()


def describe(what: str, blocks: Sequence[Stages], size: int) -> None:
    each = 1e6 / size / len(blocks)
    check, finalize, commit = (sum(getattr(one, name) for one in blocks) * each for name in ("check_s", "finalize_s", "commit_s"))
    whole = [(one.finalize_s + one.commit_s) * 1000 for one in blocks]
    print(
        f"application: {what}: check {check:.0f}, finalize {finalize:.0f}, commit {commit:.0f} us per send; "
        f"FinalizeBlock + Commit {min(whole):.0f} to {max(whole):.0f} ms"
    )


def add_accounts(genesis: dict[str, object], addresses: Sequence[bytes]) -> None:
    """Give every address an account and coins, after the accounts that are there."""
    state: dict[str, dict[str, list[dict[str, object]]]] = genesis["app_state"]  # type: ignore[assignment]
    for at, account in enumerate(state["auth"]["accounts"]):
        account["account_number"] = str(at)
    for at, address in enumerate(addresses):
        text = bech32.encode(address)
        account = {"@type": "/cosmos.auth.v1beta1.BaseAccount", "address": text, "pub_key": None}
        state["auth"]["accounts"].append({**account, "account_number": str(len(KEYS) + at), "sequence": "0"})
        state["bank"]["balances"].append({"address": text, "coins": [{"denom": "wei", "amount": str(10**24)}]})
    state["bank"]["supply"] = []


def sends(signers: Sequence[PrivateKey], addresses: Sequence[bytes], block: int, size: int) -> list[bytes]:
    """Signed sends for block number ``block`` of a run: every signer in turn, to random accounts."""
    send = message_class("cosmos.bank.v1beta1.MsgSend")
    txs = []
    for at in range(size):
        who = at % len(signers)
        target = addresses[(at * 7919 + block * 104_729) % len(addresses)]
        message = send(from_address=bech32.encode(addresses[who]), to_address=bech32.encode(target))
        message.amount.add(denom="wei", amount=str(at + 1))
        signer = Signer(signers[who].public_key, block * -(-size // len(signers)) + at // len(signers), len(KEYS) + who)
        txs.append(build_tx([message], fee=FEE or (Coin("wei", 1),), gas_limit=GAS, signers=[signer]).sign([signers[who]], CHAIN_ID))
    return txs


def make_block(driver: Driver, txs: Sequence[bytes], *, recheck: bool) -> Stages:
    """Check, execute and commit ``txs`` as CometBFT would ask for it; with ``recheck`` they are checked a second time first."""
    app = driver.apps[0]
    at = [time.perf_counter()]
    for kind in (0, 1) if recheck else (0,):
        requests = [CheckTx(tx=raw, type=kind) for raw in txs]
        for start in range(0, len(txs), CHECKS_PER_BATCH):
            answers = app.check_txs(requests[start : start + CHECKS_PER_BATCH])
            assert all(isinstance(answer, bytes) for answer in answers), "a refusal comes as a message"
        at.append(time.perf_counter())
        app._reset_check() if kind == 0 and recheck else None  # type: ignore[attr-defined]
    result = driver.height + 1
    driver.time_ns += 5 * 10**9
    finalize = FinalizeBlock(txs=txs, height=result)
    finalize.time.seconds = driver.time_ns // 10**9
    at.append(time.perf_counter())
    raw = app.finalize_block(finalize)
    at.append(time.perf_counter())
    app.commit(None)
    at.append(time.perf_counter())
    response = message_class("tendermint.abci.ResponseFinalizeBlock").FromString(raw)
    assert all(one.code == 0 for one in response.tx_results)
    driver.height, driver.app_hash = result, response.app_hash
    return Stages(at[1] - at[0], at[2] - at[1] if recheck else 0, at[-2] - at[-3], at[-1] - at[-2])


if __name__ == "__main__":
    main()
