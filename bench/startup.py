"""Start-up and memory with many accounts: a database with ``--accounts`` plain accounts is made once, then opened by a fresh process.

python -m bench.startup [--accounts 1000000]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from chain.app import build_application
from chain.application import Application, Settings
from chain.codec.registry import message_class
from chain.crypto import address as bech32
from chain.store.kv import open_backend
from chain.testing.driver import Driver
from modules.auth import keys as auth_keys
from modules.auth.keeper import BaseAccount, encode_account
from modules.bank import keys as bank_keys
from tests.support import KEYS, ROOT, genesis_document

CHUNK = 50_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--accounts", type=int, default=1_000_000)
    parser.add_argument("--open", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.open is not None:
        opened(arguments.open)
    else:
        run(arguments.accounts)


def run(accounts: int = 1_000_000) -> None:
    """Print the figures."""
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder) / "db"
        started = time.perf_counter()
        fill(database, accounts)
        print(f"start-up: a database of {accounts} accounts made in {time.perf_counter() - started:.0f} s", flush=True)
        subprocess.run([sys.executable, "-m", "bench.startup", "--open", str(database)], cwd=ROOT, check=True)


def fill(database: Path, accounts: int) -> None:
    """A chain at some height with that many accounts, written straight into its stores."""
    app = build_application(open_backend("", database), Settings())
    driver = Driver([app], genesis_document(app))
    driver.start()
    driver.next_block()
    header = app.store.record("header") or b""
    for start in range(0, accounts, CHUNK):
        auth, bank = [], []
        for number in range(start, min(start + CHUNK, accounts)):
            address = (number * 0x9E3779B97F4A7C15 % (1 << 64)).to_bytes(20, "little")
            account = BaseAccount(address=bech32.encode(address), account_number=len(KEYS) + 100 + number)
            auth += [(auth_keys.account(address), encode_account(account)), (auth_keys.by_number(account.account_number), address)]
            bank += [(bank_keys.balance(address, "wei"), b"1000000000000000000"), (bank_keys.holder("wei", address), b"")]
        app.store.stage(app.store.latest_version + 1, {auth_keys.STORE: sorted(auth), bank_keys.STORE: sorted(bank)})
        app.store.commit({"header": header})
    app.close()


def opened(database: Path) -> None:
    """What a fresh process needs until the application answers, and what it holds then and after some reads."""
    started = time.perf_counter()
    app: Application = build_application(open_backend("", database), Settings())
    app.info(message_class("tendermint.abci.RequestInfo")())
    took = time.perf_counter() - started
    after = resident_mib()
    balance = message_class("cosmos.bank.v1beta1.QueryBalanceRequest")
    for number in range(3000):
        address = (number * 331 * 0x9E3779B97F4A7C15 % (1 << 64)).to_bytes(20, "little")
        app.query_rpc("/cosmos.bank.v1beta1.Query/Balance", balance(address=bech32.encode(address), denom="wei"))
    print(f"start-up: answers Info after {took:.2f} s, {after:.0f} MiB resident; {resident_mib():.0f} MiB after 3000 balance queries")
    app.close()


def resident_mib() -> float:
    """The most this process had resident so far; getrusage would count what its parent had before."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    main()
