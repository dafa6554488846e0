"""Sends at a steady rate from many accounts, sent again until they are committed: each is signed once, so its sequence lets it in once at most."""

from __future__ import annotations

import base64
import hashlib
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from chain.api.comet import CometClient, CometRefused, CometUnavailable
from chain.cli.testnet import Account
from chain.codec.registry import message_class
from chain.coins import Coin
from chain.tx.build import Signer, build_tx

AGAIN_S = 30.0
WINDOW = 8
"""How many of one account's sends may be under way at once."""
TICK_S = 0.05
TIMEOUT_S = 3.0
"""A node that is paused in the middle of a call holds the load up no longer."""
FEE = (Coin("wei", 2 * 10**14),)
GAS = 200_000


@dataclass
class Sent:
    raw: bytes
    first_s: float
    last_s: float


@dataclass
class Sender:
    account: Account
    number: int
    at: int
    sequence: int = 0
    pending: dict[str, Sent] = field(default_factory=dict)


@dataclass
class Counts:
    offered: int = 0
    held_back: int = 0
    rebroadcast: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    failed_in_blocks: int = 0
    latencies_s: list[float] = field(default_factory=list)


class Load:
    """Runs in a thread from ``start`` to ``drain``. ``rpcs`` answers the RPC of every node that should answer now, by name."""

    def __init__(
        self, chain_id: str, senders: Sequence[Account], first_number: int, recipient: str, rate: float, rpcs: Callable[[], dict[str, str]]
    ) -> None:
        """``senders`` are fresh, with account numbers from ``first_number`` on. ``rate`` is sends a second."""
        self._chain_id, self._recipient, self._rate, self._rpcs = chain_id, recipient, rate, rpcs
        self._senders = [Sender(account, first_number + at, at) for at, account in enumerate(senders)]
        self._owners: dict[str, Sender] = {}
        self._clients: dict[str, CometClient] = {}
        self.counts = Counts()
        self.committed: dict[str, int] = {}
        """Hash → height."""
        self.height = 0
        self._offering = True
        self._ended = threading.Event()
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def drain(self, timeout_s: float) -> int:
        """Stop offering, and wait until everything is committed; how many are not after ``timeout_s``."""
        self._offering = False
        until = time.monotonic() + timeout_s
        while self._pending() and time.monotonic() < until and self._thread.is_alive():
            time.sleep(0.2)
        self._ended.set()
        self._thread.join(60)
        for client in self._clients.values():
            client.close()
        if self.error is not None:
            raise self.error
        return self._pending()

    def _pending(self) -> int:
        return sum(len(sender.pending) for sender in self._senders)

    def _run(self) -> None:
        begun = time.monotonic()
        turn = 0
        try:
            while not self._ended.is_set():
                rpcs = self._rpcs()
                if rpcs:
                    due = int((time.monotonic() - begun) * self._rate) - self.counts.offered - self.counts.held_back if self._offering else 0
                    # After a standstill the rate goes on; it is not made up for.
                    skipped = max(0, due - int(self._rate) - 1)
                    self.counts.held_back += skipped
                    for _ in range(due - skipped):
                        turn = self._offer(turn, rpcs)
                    self._follow(rpcs)
                    self._again(rpcs)
                self._ended.wait(TICK_S)
        except BaseException as error:
            self.error = error

    def _offer(self, turn: int, rpcs: dict[str, str]) -> int:
        """Send one from the next account that may; the turn after it."""
        for at in range(turn, turn + len(self._senders)):
            sender = self._senders[at % len(self._senders)]
            if len(sender.pending) < WINDOW:
                raw = self._signed(sender)
                now = time.monotonic()
                hash_ = hashlib.sha256(raw).hexdigest().upper()
                sender.pending[hash_], self._owners[hash_] = Sent(raw, now, now), sender
                sender.sequence += 1
                self.counts.offered += 1
                self._broadcast(sender, raw, rpcs)
                return at + 1
        self.counts.held_back += 1
        return turn

    def _signed(self, sender: Sender) -> bytes:
        key = sender.account.key
        message = message_class("cosmos.bank.v1beta1.MsgSend")(from_address=sender.account.address, to_address=self._recipient)
        message.amount.add(denom="wei", amount="1")
        return build_tx([message], fee=FEE, gas_limit=GAS, signers=[Signer(key.public_key, sender.sequence, sender.number)]).sign(
            [key], self._chain_id
        )

    def _broadcast(self, sender: Sender, raw: bytes, rpcs: dict[str, str]) -> None:
        # An account keeps to its node as long as that answers: its sends arrive in order.
        name = list(rpcs)[sender.at % len(rpcs)]
        try:
            answer = self._client(name, rpcs).broadcast(raw)
            if answer["code"]:
                self._count(f"{answer['codespace']}/{answer['code']}")
        except CometRefused as error:
            self._count("cache" if "already exists in cache" in str(error) else str(error)[:60])
        except CometUnavailable:
            self._count("no answer")

    def _count(self, why: str) -> None:
        self.counts.refused[why] = self.counts.refused.get(why, 0) + 1

    def _client(self, name: str, rpcs: dict[str, str]) -> CometClient:
        if name not in self._clients:
            self._clients[name] = CometClient(rpcs[name], timeout_s=TIMEOUT_S)
        return self._clients[name]

    def _follow(self, rpcs: dict[str, str]) -> None:
        """Read the blocks that are new at any node that answers."""
        for name in rpcs:
            client = self._client(name, rpcs)
            try:
                latest = int(client.call("status")["sync_info"]["latest_block_height"])
                while self.height < latest:
                    self._take(client, self.height + 1)
                    self.height += 1
                return
            except (CometUnavailable, CometRefused):
                continue

    def _take(self, client: CometClient, height: int) -> None:
        txs = client.call("block", height=str(height))["block"]["data"]["txs"] or []
        results = (client.call("block_results", height=str(height))["txs_results"] or []) if txs else []
        now = time.monotonic()
        for raw, result in zip(txs, results, strict=True):
            hash_ = hashlib.sha256(base64.b64decode(raw)).hexdigest().upper()
            if result["code"]:
                self.counts.failed_in_blocks += 1
                continue
            if hash_ in self.committed:
                raise AssertionError(f"{hash_} is committed in block {self.committed[hash_]} and again in block {height}")
            self.committed[hash_] = height
            sender = self._owners.pop(hash_, None)
            if sender is not None:
                self.counts.latencies_s.append(now - sender.pending.pop(hash_).first_s)

    def _again(self, rpcs: dict[str, str]) -> None:
        """Send whatever waits for AGAIN_S again, with all that the same account sent after it."""
        now = time.monotonic()
        for sender in self._senders:
            if any(now - sent.last_s > AGAIN_S for sent in sender.pending.values()):
                for sent in sender.pending.values():
                    sent.last_s = now
                    self.counts.rebroadcast += 1
                    self._broadcast(sender, sent.raw, rpcs)


def figures(load: Load) -> dict[str, Any]:
    """What a run says of its load."""
    counts, latencies = load.counts, sorted(load.counts.latencies_s)
    return {
        "offered": counts.offered,
        "held_back": counts.held_back,
        "committed": len(load.committed),
        "rebroadcasts": counts.rebroadcast,
        "latency_p50_s": round(latencies[len(latencies) // 2], 2) if latencies else 0.0,
        "latency_max_s": round(latencies[-1], 2) if latencies else 0.0,
    }
