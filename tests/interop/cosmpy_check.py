"""cosmpy as an app developer uses it, over gRPC and REST; run by its own interpreter (its protobuf is older than ours).

Argument: devnet.json. Prints one JSON object; the test beside it judges the answers.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from cosmpy.aerial.client import LedgerClient, NetworkConfig
from cosmpy.aerial.wallet import LocalWallet
from cosmpy.crypto.keypairs import PrivateKey
from cosmpy.mnemonic import derive_child_key_from_mnemonic


def wallet(account: dict[str, Any]) -> LocalWallet:
    key = derive_child_key_from_mnemonic(account["mnemonic"], passphrase="", path=account["hd_path"])
    return LocalWallet(PrivateKey(key), prefix="st")


def run(net: dict[str, Any], url: str) -> dict[str, Any]:
    ledger = LedgerClient(
        NetworkConfig(
            chain_id=net["chain_id"],
            url=url,
            fee_minimum_gas_price=1000000000,
            fee_denomination="wei",
            staking_denomination="wei",
            faucet_url=None,
        )
    )
    alice, bob = (wallet(account) for account in net["accounts"] if account["key_type"] == "secp256k1")
    out: dict[str, Any] = {"address": str(alice.address())}
    out["before"] = ledger.query_bank_balance(bob.address(), denom="wei")
    out["all"] = [(coin.denom, str(coin.amount)) for coin in ledger.query_bank_all_balances(alice.address())]
    account = ledger.query_account(alice.address())
    out["account"] = {"number": account.number, "sequence": account.sequence}
    # Without a fee cosmpy simulates first and takes the gas price of the network's configuration.
    sent = ledger.send_tokens(bob.address(), 4321, "wei", alice, memo="from cosmpy").wait_to_complete()
    response = sent.response
    out["send"] = {
        "hash": response.hash,
        "code": response.code,
        "height": response.height,
        "gas_used": response.gas_used,
        "events": sorted(response.events),
    }
    out["after"] = ledger.query_bank_balance(bob.address(), denom="wei")
    out["height"] = ledger.query_latest_block().height
    out["block_chain_id"] = ledger.query_block(response.height).chain_id
    out["validators"] = len(ledger.query_validators())
    return out


def main() -> None:
    net = json.loads(Path(sys.argv[1]).read_text())
    urls = {"grpc": net["grpc"], "rest": net["rest"]}
    print(json.dumps({kind: run(net, f"{kind}+http://{url.removeprefix('http://').removeprefix('tcp://')}") for kind, url in urls.items()}))


if __name__ == "__main__":
    main()
