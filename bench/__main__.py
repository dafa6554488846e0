"""``make bench``: prints figures of this machine; ratios within one run are what counts (docs/benchmarks.md keeps them)."""

from __future__ import annotations

import argparse
import gc
import itertools
import tempfile
import time
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--accounts", type=int, default=100_000)
    parser.add_argument("--block", type=int, default=3000)
    parser.add_argument("--blocks", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        app = build_application(open_backend("", Path(folder) / "db"), Settings(workers=1))
        genesis = genesis_document(app)
        signers = [PrivateKey((10**6 + at).to_bytes(32, "big"), "secp256k1") for at in range(SIGNERS)]
        addresses = [key.public_key.address for key in signers]
        addresses += [at.to_bytes(20, "big") for at in range(1, arguments.accounts - SIGNERS + 1)]
        known = len(KEYS)
        for at, address in enumerate(addresses):
            text = bech32.encode(address)
            account = {"@type": "/cosmos.auth.v1beta1.BaseAccount", "address": text, "pub_key": None}
            genesis["app_state"]["auth"]["accounts"].append({**account, "account_number": str(known + at), "sequence": "0"})
            genesis["app_state"]["bank"]["balances"].append({"address": text, "coins": [{"denom": "wei", "amount": str(10**24)}]})
        for at, account in enumerate(genesis["app_state"]["auth"]["accounts"][:known]):
            account["account_number"] = str(at)
        genesis["app_state"]["bank"]["supply"] = []
        driver = Driver([app], genesis)
        started = time.perf_counter()
        driver.start()
        driver.next_block()
        gc.freeze()  # as the node does
        gc.disable()
        print(f"{arguments.accounts} accounts loaded and committed in {time.perf_counter() - started:.1f} s")
        send = message_class("cosmos.bank.v1beta1.MsgSend")
        for block in range(arguments.blocks):
            txs = []
            for at in range(arguments.block):
                who = at % SIGNERS
                target = addresses[(at * 7919 + block * 104_729) % len(addresses)]
                message = send(from_address=bech32.encode(addresses[who]), to_address=bech32.encode(target))
                message.amount.add(denom="wei", amount=str(at + 1))
                sequence = block * -(-arguments.block // SIGNERS) + at // SIGNERS
                unsigned = build_tx(
                    [message], fee=FEE or (Coin("wei", 1),), gas_limit=GAS, signers=[Signer(signers[who].public_key, sequence, known + who)]
                )
                txs.append(unsigned.sign([signers[who]], CHAIN_ID))
            _measure(driver, txs)


def _measure(driver: Driver, txs: list[bytes]) -> None:
    check = message_class("tendermint.abci.RequestCheckTx")
    app = driver.apps[0]
    finalize = message_class("tendermint.abci.RequestFinalizeBlock")(txs=txs, height=driver.height + 1)
    driver.time_ns += 5 * 10**9
    finalize.time.seconds = driver.time_ns // 10**9
    requests = [check(tx=raw) for raw in txs]
    at = [time.perf_counter()]
    for start in range(0, len(txs), 256):
        answers = app.check_txs(requests[start : start + 256])
        assert all(isinstance(answer, bytes) for answer in answers), "a refusal comes as a message"
    at.append(time.perf_counter())
    raw = app.finalize_block(finalize)
    at.append(time.perf_counter())
    app.commit(None)
    at.append(time.perf_counter())
    response = message_class("tendermint.abci.ResponseFinalizeBlock").FromString(raw)
    assert all(one.code == 0 for one in response.tx_results)
    driver.height += 1
    driver.app_hash = response.app_hash
    each = 1e6 / len(txs)
    checking, finalizing, committing = (later - earlier for earlier, later in itertools.pairwise(at))
    total = checking + finalizing + committing
    print(
        f"block of {len(txs)} sends: check {checking * each:.0f}, finalize {finalizing * each:.0f}, commit {committing * each:.0f} us per transaction; "
        f"finalize + commit {(finalizing + committing) * 1000:.0f} ms; {len(txs) / total:.0f} sends per second, application alone"
    )


if __name__ == "__main__":
    main()
