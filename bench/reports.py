"""Volume reports of many wallets: size, gas, execution, FinalizeBlock and Commit (synced, LevelDB); then maturity and a void epoch.

    python -m bench.reports [--wallets 100,1000,10000] [--metas 4] [--profile FILE]

Each size is reported three times on a chain of its own: wallets that never earned, the same ones again, and with a line of another class for each.
Then 100 rewards mature per block, and an unanswered challenge voids an epoch. Times are of the clock, in brackets of this process's CPU: on a busy
machine the latter is what a report costs.
"""

from __future__ import annotations

import argparse
import cProfile
import gc
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from chain.app import build_application
from chain.application import Settings
from chain.codec.registry import message_class
from chain.coins import Coin
from chain.crypto import address as bech32
from chain.reports import EMPTY_ROOT, draft, draft_of
from chain.store.kv import open_backend
from chain.testing.driver import BlockResult, Driver
from modules.pot.epochs import MAX_WALLETS_PER_BLOCK
from tests.grants import Chain
from tests.modules.reporting import A_ROOT, POT, REPORT_S, SETTLEMENT, STOS, Net, document, meta_keys, owner_of, wallet
from tests.support import CHAIN_ID, KEYS, text

GAS = 10**9
FEE = (Coin("wei", GAS * 10**9),)
NOZ = 1_000_003
"""Of each wallet, times a number from 1 to 97."""
MATURE_EPOCH = 3
CHALLENGE_BLOCKS = 3
EDGE, PAID = 4, 1
VOID = 2
TIMED = (f"{SETTLEMENT}.MsgCommitEpoch", f"{POT}.MsgVolumeReport")


class Spent:
    """Milliseconds of the clock and of the CPU since it was made."""

    def __init__(self) -> None:
        self._clock, self._cpu = time.perf_counter(), time.process_time()

    def __call__(self) -> tuple[float, float]:
        return (time.perf_counter() - self._clock) * 1000, (time.process_time() - self._cpu) * 1000


class Watched:
    """An application whose calls are timed: ``times`` has the last call of each kind, and of each of TIMED."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.times: dict[str, tuple[float, float]] = {}
        self.profile: cProfile.Profile | None = None
        handlers = app.executor._handlers
        for name in TIMED:
            handlers[name] = replace(handlers[name], execute=self._timed(name, handlers[name].execute))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.app, name)

    def finalize_block(self, request: Any) -> Any:
        if self.profile is not None:
            self.profile.enable()
        answer = self._timed("finalize", self.app.finalize_block)(request)
        if self.profile is not None:
            self.profile.disable()
        return answer

    def commit(self, request: Any) -> Any:
        return self._timed("commit", self.app.commit)(request)

    def _timed(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any) -> Any:
            spent = Spent()
            answer = call(*arguments)
            self.times[name] = spent()
            return answer

        return timed

    @property
    def block_ms(self) -> tuple[float, float]:
        """FinalizeBlock and Commit of the last block."""
        (clock, cpu), (more_clock, more_cpu) = self.times["finalize"], self.times["commit"]
        return clock + more_clock, cpu + more_cpu


class Reported(Net):
    """A chain on LevelDB that checks no invariants, as nodes do by default."""

    def __init__(self, folder: Path, metas: int, most: int) -> None:
        app = build_application(open_backend("", folder / "db"), Settings())
        self.watched = Watched(app)
        self.metas = metas
        made = document(app, metas=metas, meta_wei=10**5 * STOS, foundation_wei=10**7 * STOS)
        made["app_state"]["pot"]["params"] |= {"max_wallets_per_report": str(most), "mature_epoch": str(MATURE_EPOCH)}
        made["app_state"]["settlement"]["params"] |= {"challenge_blocks": str(CHALLENGE_BLOCKS)}
        made["consensus"]["params"]["block"] |= {"max_bytes": str(8 << 20)}
        driver = Driver([self.watched], made, keep_blocks=3)
        driver.start()
        driver.next_block()
        Chain.__init__(self, driver)
        self.buy(10**5 * STOS)
        gc.freeze()
        gc.set_threshold(200_000, 20, 100)  # both as the node does

    def close(self) -> None:
        self.app.close()
        gc.unfreeze()

    def report_of(self, epoch: int, volumes: Sequence[tuple[str, int]], with_lines: bool) -> tuple[bytes, BlockResult]:
        """A report that all meta nodes signed, in a block of its own after CheckTx; its bytes too."""
        shown = draft(
            CHAIN_ID, epoch, meta_keys(0).network_address, text(owner_of(0)), volumes, (len(volumes), A_ROOT) if volumes else (0, EMPTY_ROOT)
        )
        if with_lines:
            shown["lines"] = [{"wallet": one, "traffic_class": EDGE, "fund": PAID, "volume_noz": str(noz // 3)} for one, noz in volumes]
        raw = self.sign(owner_of(0), *self.signed(draft_of(shown)), gas=GAS, fee=FEE)
        spent = Spent()
        answer = self.driver.check_tx(raw)
        self.watched.times["check"] = spent()
        assert answer.code == 0, answer.log
        result = self.driver.next_block([raw], process=False, time_step_s=REPORT_S)
        assert result.results[0].code == 0, result.results[0].log
        self.app.store.flush()
        return raw, result


def shown(spent: tuple[float, float]) -> str:
    return f"{spent[0]:.0f} ({spent[1]:.0f}) ms"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wallets", default="100,1000,10000")
    parser.add_argument("--metas", type=int, default=4)
    parser.add_argument("--profile", type=Path, help="write what cProfile says of FinalizeBlock of the largest report, the same wallets again")
    arguments = parser.parse_args()
    sizes = [int(one) for one in arguments.wallets.split(",")]
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            run(Path(folder), size, arguments.metas, arguments.profile if size == max(sizes) else None)


def run(folder: Path, size: int, metas: int = 4, profile: Path | None = None) -> None:
    """Print the figures of reports of ``size`` wallets."""
    net = Reported(folder, metas, size)
    watched, names = net.watched, sorted(bech32.encode(wallet(number)) for number in range(size))
    for epoch, what in enumerate(("wallets that never earned", "the same wallets again", "with a line of another class each"), 1):
        watched.profile = cProfile.Profile(time.thread_time) if profile is not None and epoch == 2 else None
        raw, result = net.report_of(epoch, [(one, NOZ * (1 + at % 97)) for at, one in enumerate(names)], with_lines=epoch == 3)
        if profile is not None and watched.profile is not None:
            watched.profile.dump_stats(profile)
            watched.profile = None
        executed = [watched.times[name] for name in TIMED]
        message_ms = (executed[0][0] + executed[1][0], executed[0][1] + executed[1][1])
        print(
            f"reports: {size} wallets, {what}: {len(raw)} bytes, {result.results[0].gas_used} gas; CheckTx {shown(watched.times['check'])}, "
            f"both messages {shown(message_ms)}, FinalizeBlock {shown(watched.times['finalize'])}, Commit {shown(watched.times['commit'])}, "
            f"together {shown(watched.block_ms)}; app hash {result.app_hash.hex()[:16]}",
            flush=True,
        )
    net.report_of(4, (), with_lines=False)
    matured = [watched.block_ms]
    for _ in range(min(9, -(-size // MAX_WALLETS_PER_BLOCK) - 1)):
        net.driver.next_block(process=False)
        matured.append(watched.block_ms)
    middle = sorted(matured[1:] or matured)[len(matured[1:]) // 2]
    print(f"reports: {size} wallets: a block in which {min(size, MAX_WALLETS_PER_BLOCK)} rewards mature takes {shown(middle)}", flush=True)
    proof = message_class(f"{SETTLEMENT}.MsgFraudProof")(finder=text(KEYS[5]))
    proof.withheld_leaf.epoch, proof.withheld_leaf.leaf_index = 3, 0
    net.ok(KEYS[5], proof)
    for _ in range(CHALLENGE_BLOCKS + 1):
        result = net.driver.next_block(process=False)
        if net.query(SETTLEMENT, "Epoch", epoch=3).epoch.status == VOID:
            break
    else:
        raise SystemExit("the epoch was not voided")
    print(
        f"reports: {size} wallets: the block that voids the epoch takes {shown(watched.block_ms)}; app hash {result.app_hash.hex()[:16]}", flush=True
    )
    net.close()


if __name__ == "__main__":
    main()
