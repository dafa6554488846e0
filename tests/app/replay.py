"""The same random blocks for the same seed, whatever process runs them: prints what must be equal everywhere.

    python -m tests.app.replay SEED BLOCKS

Environment: REPLAY_WORKERS, REPLAY_VERDICTS, REPLAY_POOL, REPLAY_CACHE_NODES, REPLAY_BACKEND (memdb, goleveldb, rocksdb),
REPLAY_NATIVE and REPLAY_FAST_SENDS (0: without), and REPLAY_RESTARTS=1 to open the database anew at random heights.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

from chain.app import build_application
from chain.application import Application, Settings
from chain.codec.registry import message_class
from chain.coins import Coin, to_messages
from chain.store.kv import open_backend
from chain.testing.driver import BlockResult, Driver
from chain.tx.build import Signer, build_tx
from chain.tx.signing import LEGACY_AMINO_JSON
from tests.support import CHAIN_ID, FEE, GAS, KEYS, genesis_document, send, text

SENDERS = (1, 2, 3, 4, 5)


def number(name: str, default: int) -> int:
    return int(os.environ.get(f"REPLAY_{name}", default))


def open_application(folder: str) -> Application:
    settings = Settings(
        workers=number("WORKERS", 1),
        verdict_cache=number("VERDICTS", 1000),
        pool_txs=number("POOL", 1000),
        native_core=bool(number("NATIVE", 1)),
        fast_sends=bool(number("FAST_SENDS", 1)),
    )
    kv = open_backend(os.environ.get("REPLAY_BACKEND", "goleveldb"), Path(folder) / "db")
    return build_application(kv, settings, cache_nodes=number("CACHE_NODES", 100_000))


def signed(message: Any, sender: int, sequence: int) -> bytes:
    unsigned = build_tx([message], fee=FEE, gas_limit=GAS, signers=[Signer(KEYS[sender].public_key, sequence, sender)])
    return unsigned.sign([KEYS[sender]], CHAIN_ID)


def multi_send(sender: int, amount: int, sequence: int) -> bytes:
    message = message_class("cosmos.bank.v1beta1.MsgMultiSend")()
    message.inputs.add(address=text(KEYS[sender]), coins=to_messages((Coin("wei", amount * 2),)))
    for at in (2, 3):
        message.outputs.add(address=text(KEYS[at]), coins=to_messages((Coin("wei", amount),)))
    return signed(message, sender, sequence)


def burn(sender: int, amount: int, sequence: int) -> bytes:
    message = message_class("cosmos.bank.v1beta1.MsgBurn")(from_address=text(KEYS[sender]), amount=to_messages((Coin("wei", amount),)))
    return signed(message, sender, sequence)


def random_tx(choose: random.Random, sequences: dict[int, int]) -> bytes:
    """Mostly good transactions; the sequence goes up where the ante chain will pass."""
    sender, kind = choose.choice(SENDERS), choose.randrange(12)
    sequence, amount = sequences[sender], choose.randrange(1, 10**9)
    recipient = choose.choice(SENDERS)
    if kind == 0:
        return choose.randbytes(choose.randrange(1, 80))
    if kind == 1:
        return send(sender, recipient, amount, sequence=sequence + 1 + choose.randrange(3))
    if kind == 2:
        return send(sender, recipient, amount, sequence=sequence, gas=30_000)
    if kind == 3:
        return send(sender, recipient, amount, sequence=sequence, key=KEYS[0])
    sequences[sender] += 1
    if kind == 4:
        return send(sender, recipient, 10**30, sequence=sequence)
    if kind == 5:
        return send(sender, recipient, amount, sequence=sequence, denom="nothing")
    if kind == 6:
        return send(sender, recipient, amount, sequence=sequence, gas=75_000)
    if kind == 7:
        return multi_send(sender, amount, sequence)
    if kind == 8:
        return burn(sender, amount, sequence)
    return send(sender, recipient, amount, sequence=sequence, mode=LEGACY_AMINO_JSON if kind == 9 else 1, memo="x" * choose.randrange(40))


def shown(result: BlockResult) -> list[str]:
    outcome = [(one.code, one.codespace, one.data.hex(), one.gas_wanted, one.gas_used) for one in result.results]
    events = [one.events for one in result.results]
    return [result.app_hash.hex(), *(hashlib.sha256(json.dumps(part).encode()).hexdigest() for part in (outcome, events))]


def main() -> None:
    seed, blocks = int(sys.argv[1]), int(sys.argv[2])
    choose, restarts = random.Random(seed), random.Random(seed + 1)
    lines = []
    codes: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as folder:
        app = open_application(folder)
        driver = Driver([app], genesis_document(app))
        driver.start()
        sequences = dict.fromkeys(SENDERS, 0)
        for _ in range(blocks):
            txs = [random_tx(choose, sequences) for _ in range(choose.randrange(9))]
            for raw in txs[::2]:
                driver.check_tx(raw)
            result = driver.next_block(txs, process=False)
            lines.append(shown(result))
            for one in result.results:
                codes[f"{one.codespace}/{one.code}"] = codes.get(f"{one.codespace}/{one.code}", 0) + 1
            if os.environ.get("REPLAY_RESTARTS") and restarts.random() < 0.1:
                app.store.close()
                app = open_application(folder)
                driver.apps = [app]
        broken = app.broken_invariants()
        app.store.close()
    print(json.dumps({"blocks": lines, "codes": dict(sorted(codes.items())), "broken": broken}))


if __name__ == "__main__":
    main()
