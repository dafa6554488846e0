"""The same random blocks for the same seed, whatever process runs them: prints what must be equal everywhere.

    python -m tests.app.replay SEED BLOCKS

Environment: REPLAY_WORKERS, REPLAY_VERDICTS, REPLAY_POOL, REPLAY_CACHE_NODES, REPLAY_BACKEND (memdb, goleveldb, rocksdb),
REPLAY_NATIVE and REPLAY_FAST_SENDS (0: without), REPLAY_RESTARTS=1 to open the database anew at random heights, and REPLAY_SOCKET=1 to
run the application in a process of its own, behind its ABCI socket; a restart kills that process before some call of the next block.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from chain.app import build_application
from chain.application import Application, Settings
from chain.codec.registry import message_class
from chain.coins import Coin, to_messages
from chain.crypto import address as bech32
from chain.crypto.keys import MultisigPublicKey
from chain.store.kv import MemoryBackend, open_backend
from chain.testing.driver import BlockResult, Driver
from chain.testing.remote import ApplicationProcess
from chain.tx.build import Signer, build_tx
from chain.tx.decode import TxRaw, decode_tx
from chain.tx.signing import LEGACY_AMINO_JSON, MultiSignature, sign_bytes
from genesis import build
from tests.support import CHAIN_ID, FEE, FUNDS_WEI, GAS, KEYS, genesis_document, send, text

SENDERS = (1, 2, 3, 4, 5)
SHARED = MultisigPublicKey(2, (KEYS[2].public_key, KEYS[0].public_key, KEYS[3].public_key))
"""Funded, too: account number 6. An eth key is among its members."""
SHARED_NUMBER = len(KEYS)


def number(name: str, default: int) -> int:
    return int(os.environ.get(f"REPLAY_{name}", default))


BACKEND = os.environ.get("REPLAY_BACKEND", "goleveldb")
CACHE_NODES = number("CACHE_NODES", 100_000)
SETTINGS = {
    "workers": number("WORKERS", 1),
    "verdict_cache": number("VERDICTS", 1000),
    "pool_txs": number("POOL", 1000),
    "native_core": bool(number("NATIVE", 1)),
    "fast_sends": bool(number("FAST_SENDS", 1)),
}


def open_application(folder: str) -> Application:
    return build_application(open_backend(BACKEND, Path(folder) / "db"), Settings(**SETTINGS), cache_nodes=CACHE_NODES)


def start_process(folder: str) -> ApplicationProcess:
    return ApplicationProcess.serve(Path(folder), backend=BACKEND, settings=SETTINGS, cache_nodes=CACHE_NODES)


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


def send_to_a_stranger(sender: int, amount: int, sequence: int, stranger: bytes) -> bytes:
    """The recipient has no account before."""
    message = message_class("cosmos.bank.v1beta1.MsgSend")(from_address=text(KEYS[sender]), to_address=bech32.encode(stranger))
    message.amount.add(denom="wei", amount=str(amount))
    return signed(message, sender, sequence)


def change_parameters(sender: int, sequence: int) -> bytes:
    """What governance alone may do."""
    message = message_class("cosmos.consensus.v1.MsgUpdateParams")(authority=text(KEYS[sender]))
    message.block.max_bytes, message.block.max_gas = 1000, 1000
    return signed(message, sender, sequence)


def unknown_message(sender: int, sequence: int) -> bytes:
    """A transaction that decodes but for its message's type, which nobody knows."""
    raw = TxRaw.FromString(send(sender, sender, sequence=sequence))
    raw.body_bytes = raw.body_bytes.replace(b"bank.v1beta1.MsgSend", b"bank.v1beta1.MsgSenD")
    encoded: bytes = raw.SerializeToString()
    return encoded


def multisig_send(amount: int, sequence: int, signers: tuple[int, ...] = (2, 3)) -> bytes:
    """From the shared account, signed by its members 0 and 2 in amino's form."""
    message = message_class("cosmos.bank.v1beta1.MsgSend")(from_address=bech32.encode(SHARED.address), to_address=text(KEYS[4]))
    message.amount.add(denom="wei", amount=str(amount))
    unsigned = build_tx([message], fee=FEE, gas_limit=GAS, signers=[Signer(SHARED, sequence, SHARED_NUMBER, LEGACY_AMINO_JSON)])
    mode_info = unsigned.auth_info.signer_infos[0].mode_info
    mode_info.multi.bitarray.extra_bits_stored, mode_info.multi.bitarray.elems = 3, b"\xa0"
    for _ in signers:
        mode_info.multi.mode_infos.add().single.mode = LEGACY_AMINO_JSON
    tx = decode_tx(unsigned.for_simulation())
    facts: dict[str, Any] = {"chain_id": CHAIN_ID, "account_number": SHARED_NUMBER, "sequence": sequence, "signer": SHARED.address}
    signatures = [KEYS[one].sign(sign_bytes(tx, LEGACY_AMINO_JSON, key=KEYS[one].public_key, **facts)) for one in signers]
    return unsigned.encode([MultiSignature(signatures=signatures).SerializeToString()])


def random_tx(choose: random.Random, sequences: dict[int, int]) -> bytes:
    """Mostly good transactions; the sequence goes up where the ante chain will pass."""
    sender, kind = choose.choice(SENDERS), choose.randrange(16)
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
    if kind == 12:
        return unknown_message(sender, sequence)
    if kind == 13:
        shared = sequences[SHARED_NUMBER]
        is_right = choose.random() < 0.8
        sequences[SHARED_NUMBER] += is_right
        return multisig_send(amount, shared, (2, 3) if is_right else (2, 0))
    sequences[sender] += 1
    if kind == 14:
        return send_to_a_stranger(sender, amount, sequence, choose.randbytes(20))
    if kind == 15:
        return change_parameters(sender, sequence)
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


def killer(app: ApplicationProcess, victim: str) -> Callable[[int, str], None]:
    """Kills the process before the next call of a kind, once."""
    left = [victim]

    def before_call(at: int, kind: str) -> None:
        if kind in left:
            left.remove(kind)
            app.kill()

    return before_call


def main() -> None:
    seed, blocks = int(sys.argv[1]), int(sys.argv[2])
    choose, restarts = random.Random(seed), random.Random(seed + 1)
    lines = []
    codes: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as folder:
        document = genesis_document(build_application(MemoryBackend()))
        build.add_account(document, SHARED.address, (Coin("wei", FUNDS_WEI),))
        app: Any = start_process(folder) if number("SOCKET", 0) else open_application(folder)
        driver = Driver([app], document)
        driver.start()
        sequences = dict.fromkeys((*SENDERS, SHARED_NUMBER), 0)
        for _ in range(blocks):
            txs = [random_tx(choose, sequences) for _ in range(choose.randrange(9))]
            for raw in txs[::2]:
                driver.check_tx(raw)
            result = driver.next_block(txs, process=False)
            lines.append(shown(result))
            for one in result.results:
                codes[f"{one.codespace}/{one.code}"] = codes.get(f"{one.codespace}/{one.code}", 0) + 1
            driver.before_call = None
            if os.environ.get("REPLAY_RESTARTS") and restarts.random() < (0.04 if isinstance(app, ApplicationProcess) else 0.1):
                if isinstance(app, ApplicationProcess):
                    driver.before_call = killer(app, restarts.choice(("check_txs", "finalize_block", "commit")))
                else:
                    app.store.close()
                    app = open_application(folder)
                    driver.apps = [app]
        driver.before_call = None
        shared_wei = int(driver.query("/store/bank/key", b"\x02" + bytes([len(SHARED.address)]) + SHARED.address + b"wei").value)
        if isinstance(app, ApplicationProcess):
            assert app.stop() == 0
            app = open_application(folder)
        broken = app.broken_invariants()
        app.store.close()
    print(json.dumps({"blocks": lines, "codes": dict(sorted(codes.items())), "broken": broken, "shared_wei": shared_wei}))


if __name__ == "__main__":
    main()
