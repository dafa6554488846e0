"""One MsgSend on our application with the reference chain's prefixes and denom, so that every stored byte has the same length.

python -m tests.interop.send_as_cosmos     prints {"gas_used", "tx_bytes", "events"}
"""

from __future__ import annotations

import json
from typing import Any

import chain.crypto.address as address

# Prefixes are default arguments of two functions; a process of its own may change them.
for _function in (address.encode, address.decode):
    _plain: Any = getattr(_function, "__wrapped__")  # noqa: B009  lru_cache's own name for it
    _plain.__defaults__ = ("cosmos",)
address.ACCOUNT, address.VALIDATOR, address.CONSENSUS = "cosmos", "cosmosvaloper", "cosmosvalcons"  # type: ignore[misc]

from chain.app import build_application  # noqa: E402
from chain.application import Settings  # noqa: E402
from chain.coins import Coin  # noqa: E402
from chain.store.kv import MemoryBackend  # noqa: E402
from chain.testing.driver import Driver  # noqa: E402
from tests.support import genesis_document, send  # noqa: E402


def main() -> None:
    app = build_application(MemoryBackend(), Settings(min_gas_prices=""))
    document = genesis_document(app)
    bank = document["app_state"]["bank"]
    for balance in bank["balances"]:
        balance["coins"] = [{"denom": "stake", "amount": "100000000000"}, {"denom": "wei", "amount": str(10**24)}]
    bank["supply"] = []
    driver = Driver([app], document)
    driver.start()
    driver.next_block()
    raw = send(2, 3, 1000, fee=(Coin("stake", 2000),), denom="stake")
    [result] = driver.next_block([raw]).results
    events = [[kind, [key for key, _ in attributes]] for kind, attributes in result.events]
    print(json.dumps({"code": result.code, "gas_used": result.gas_used, "tx_bytes": len(raw), "events": events}))


if __name__ == "__main__":
    main()
