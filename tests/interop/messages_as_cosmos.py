"""The messages of tests/interop/samples.py on our application with the reference chain's prefixes: python -m tests.interop.messages_as_cosmos

Prints {name: {"code", "log", "gas_used", "events"}}.
"""

from __future__ import annotations

import json

from tests.interop.send_as_cosmos import Driver, MemoryBackend, Settings, build_application, genesis_document  # isort: skip  it sets the prefixes

from chain.coins import Coin
from chain.crypto import address as bech32
from tests.app.refusals import Payer
from tests.interop.samples import STAKE, samples
from tests.support import CHAIN_ID, KEYS


def main() -> None:
    found = {}
    for name, messages in samples(bech32.encode(KEYS[2].public_key.address, "cosmos")).items():
        app = build_application(MemoryBackend(), Settings(min_gas_prices=""))
        document = genesis_document(app)
        bank = document["app_state"]["bank"]
        for balance in bank["balances"]:
            balance["coins"] = [{"denom": STAKE, "amount": "100000000000"}, {"denom": "wei", "amount": str(10**24)}]
        bank["supply"] = []
        driver = Driver([app], document)
        driver.start()
        payer = Payer(KEYS[2], 0, 2, CHAIN_ID, bech32.encode(KEYS[3].public_key.address, "cosmos"), STAKE, (Coin(STAKE, 5000),), "cosmos")
        driver.next_block([payer.build(fee=())])  # the key is known from here on, and the collector still has nothing
        [result] = driver.next_block([payer.build(sequence=1, messages=messages)]).results
        events = [[kind, [pair for pair, _ in attributes]] for kind, attributes in result.events]
        found[name] = {"code": result.code, "log": result.log, "gas_used": result.gas_used, "events": events}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
