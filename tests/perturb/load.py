"""Sends at a steady rate from many accounts, sent again until they are committed: each is signed once, so its sequence lets it in once at most.

One thread signs what is due, one per node hands it over, several sends at a time, and one reads the blocks: a node that is slow to answer holds up
nothing but its own.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from chain.api.comet import CometUnavailable
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
BATCH = 10
"""Calls in one request: CometBFT's max_request_batch_size."""
FEE = (Coin("wei", 2 * 10**14),)
GAS = 200_000


@dataclass
class Sent:
    raw: bytes
    sequence: int
    first_s: float
    last_s: float
    told: str = ""
    """Why a node refused it last."""


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
    late: int = 0
    """Not made, because the load itself, or every node, stood still."""
    held_back: int = 0
    """Not made, because all accounts had WINDOW sends under way."""
    rebroadcast: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    failed_in_blocks: int = 0
    latencies_s: list[float] = field(default_factory=list)


class Wire:
    """One connection to a node's RPC, for one thread: several calls in a request, and a fifth of what httpx costs."""

    def __init__(self, rpc: str, timeout_s: float = TIMEOUT_S) -> None:
        self._connection = http.client.HTTPConnection(rpc.rpartition("/")[2], timeout=timeout_s)

    def call(self, *calls: tuple[str, dict[str, Any]]) -> list[dict[str, Any]]:
        """An answer to each of at most BATCH calls, with ``result`` or ``error``. Raises CometUnavailable."""
        body = json.dumps([{"jsonrpc": "2.0", "id": at, "method": method, "params": params} for at, (method, params) in enumerate(calls)])
        was_open = self._connection.sock is not None
        try:
            found = self._post(body)
        except CometUnavailable as error:
            # CometBFT closes a connection that nothing came over for a while; a call that is made twice does no harm.
            if not was_open or isinstance(error.__cause__, TimeoutError):
                raise
            found = self._post(body)
        # CometBFT answers a request of one call without a list.
        return sorted(found, key=lambda one: int(one["id"])) if isinstance(found, list) else [found]

    def _post(self, body: str) -> Any:
        try:
            self._connection.request("POST", "/", body, {"content-type": "application/json"})
            return json.loads(self._connection.getresponse().read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            self._connection.close()
            raise CometUnavailable(f"no answer: {type(error).__name__}") from error

    def call_many(self, calls: Sequence[tuple[str, dict[str, Any]]]) -> list[dict[str, Any]]:
        """``call``, for any number of calls."""
        return [answer for at in range(0, len(calls), BATCH) for answer in self.call(*calls[at : at + BATCH])]

    def height(self) -> int:
        """Of the newest block; 0 without an answer."""
        try:
            return int(self.call(("status", {}))[0]["result"]["sync_info"]["latest_block_height"])
        except (CometUnavailable, KeyError):
            return 0

    def close(self) -> None:
        self._connection.close()


class Door(threading.Thread):
    """Hands one node the sends it is given, in order, until ``shut``. ``answered`` is told each answer: the node's, or None for none."""

    def __init__(self, name: str, rpc: str, answered: Callable[[bytes, dict[str, Any] | None], None]) -> None:
        super().__init__(name=f"load {name}", daemon=True)
        self._wire, self._answered = Wire(rpc), answered
        self._waiting: deque[bytes] = deque()
        self._more = threading.Event()
        self._shut = False

    def give(self, raw: bytes) -> None:
        self._waiting.append(raw)
        self._more.set()

    def shut(self) -> None:
        self._shut = True
        self._more.set()

    def run(self) -> None:
        while not self._shut:
            self._more.wait()
            self._more.clear()
            while self._waiting and not self._shut:
                raws = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
                try:
                    answers: list[Any] = self._wire.call(*(("broadcast_tx_sync", {"tx": base64.b64encode(raw).decode()}) for raw in raws))
                except CometUnavailable:
                    answers = [None] * len(raws)
                for raw, answer in zip(raws, answers, strict=True):
                    self._answered(raw, answer)
        self._wire.close()


class Load:
    """Runs in a thread from ``start`` to ``drain``. ``rpcs`` answers the RPC of every node that should answer now, by name."""

    def __init__(
        self,
        chain_id: str,
        senders: Sequence[Account],
        first_number: int,
        recipient: str,
        rate: float,
        rpcs: Callable[[], dict[str, str]],
        again_s: float = AGAIN_S,
    ) -> None:
        """``senders`` are fresh, with account numbers from ``first_number`` on. ``rate`` is sends a second, ``again_s`` how long each may wait."""
        self._again_s = again_s
        self._chain_id, self._recipient, self._rate, self._rpcs = chain_id, recipient, rate, rpcs
        self._senders = [Sender(account, first_number + at, at) for at, account in enumerate(senders)]
        self._owners: dict[str, Sender] = {}
        self._wires: dict[str, Wire] = {}
        self._doors: dict[str, Door] = {}
        self._lock = threading.Lock()
        """Over what the threads share: pending sends, their owners, counts."""
        self.counts = Counts()
        self.committed: dict[str, int] = {}
        """Hash → height."""
        self.height = 0
        self._offering = True
        self._turn = 0
        self._begun = 0.0
        self._ended = threading.Event()
        self.error: BaseException | None = None
        self._threads = [threading.Thread(target=self._run, args=(each,), name=each.__name__, daemon=True) for each in (self._make, self._follow)]

    def start(self) -> None:
        self._begun = time.monotonic()
        for thread in self._threads:
            thread.start()

    def drain(self, timeout_s: float) -> int:
        """Stop offering, and wait until everything is committed; how many are not after ``timeout_s``."""
        self._offering = False
        until = time.monotonic() + timeout_s
        while self._pending() and time.monotonic() < until and self.error is None:
            time.sleep(0.2)
        self._ended.set()
        for thread in self._threads:
            thread.join(60)
        for door in self._doors.values():
            door.shut()
            door.join(60)
        for wire in self._wires.values():
            wire.close()
        if self.error is not None:
            raise self.error
        return self._pending()

    def stuck(self) -> dict[str, list[tuple[int, str, str]]]:
        """What is not committed: by account, each send's sequence, hash, and what a node said of it last."""
        with self._lock:
            return {
                one.account.address: [(sent.sequence, hash_[:8], sent.told) for hash_, sent in one.pending.items()]
                for one in self._senders
                if one.pending
            }

    def _pending(self) -> int:
        return sum(len(sender.pending) for sender in self._senders)

    def _run(self, each: Callable[[dict[str, str]], None]) -> None:
        try:
            while not self._ended.is_set():
                rpcs = self._rpcs()
                if rpcs:
                    each(rpcs)
                self._ended.wait(TICK_S)
        except BaseException as error:
            self.error = error

    def _make(self, rpcs: dict[str, str]) -> None:
        """Send what is due by now, and what has waited for too long."""
        counts = self.counts
        due = int((time.monotonic() - self._begun) * self._rate) - counts.offered - counts.held_back - counts.late if self._offering else 0
        # After a standstill the rate goes on; it is not made up for.
        late = max(0, due - int(self._rate) - 1)
        counts.late += late
        for _ in range(due - late):
            self._offer(rpcs)
        self._again(rpcs)

    def _offer(self, rpcs: dict[str, str]) -> None:
        """Send one from the next account that may."""
        for at in range(self._turn, self._turn + len(self._senders)):
            sender = self._senders[at % len(self._senders)]
            if len(sender.pending) < WINDOW:
                raw = self._signed(sender)
                now = time.monotonic()
                hash_ = hashlib.sha256(raw).hexdigest().upper()
                with self._lock:
                    sender.pending[hash_], self._owners[hash_] = Sent(raw, sender.sequence, now, now), sender
                sender.sequence += 1
                self.counts.offered += 1
                self._broadcast(sender, raw, rpcs)
                self._turn = at + 1
                return
        self.counts.held_back += 1

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
        if name not in self._doors:
            self._doors[name] = Door(name, rpcs[name], self._answered)
            self._doors[name].start()
        self._doors[name].give(raw)

    def _answered(self, raw: bytes, answer: dict[str, Any] | None) -> None:
        if answer is None:
            why = "no answer"
        elif "error" in answer:
            told = str(answer["error"].get("data"))
            why = "cache" if "already exists in cache" in told else told[:60]
        elif answer["result"]["code"]:
            why = f"{answer['result']['codespace']}/{answer['result']['code']}"
        else:
            why = ""
        hash_ = hashlib.sha256(raw).hexdigest().upper()
        with self._lock:
            if why:
                self.counts.refused[why] = self.counts.refused.get(why, 0) + 1
            if hash_ in self._owners:
                self._owners[hash_].pending[hash_].told = why or "taken"

    def _follow(self, rpcs: dict[str, str]) -> None:
        """Read the blocks that are new at any node that answers."""
        for name, rpc in rpcs.items():
            wire = self._wires.setdefault(name, Wire(rpc))
            try:
                while self._take(wire, self.height + 1):
                    self.height += 1
                return
            except CometUnavailable:
                continue

    def _take(self, wire: Wire, height: int) -> bool:
        """Whether there is such a block, with its results; CometBFT has them before the application commits, and they do not change any more."""
        at = {"height": str(height)}
        answer = wire.call(("block_results", at))[0]
        if "result" not in answer:
            return False
        results = answer["result"]["txs_results"] or []
        txs = wire.call(("block", at))[0]["result"]["block"]["data"]["txs"] if results else []
        with self._lock:
            for raw, result in zip(txs, results, strict=True):
                self._committed(hashlib.sha256(base64.b64decode(raw)).hexdigest().upper(), result["code"], height)
        return True

    def _committed(self, hash_: str, code: int, height: int) -> None:
        if hash_ in self.committed:
            raise AssertionError(f"{hash_} is committed in block {self.committed[hash_]} and again in block {height}")
        sender = self._owners.get(hash_)
        if sender is None:
            return
        if code:
            self.counts.failed_in_blocks += 1
            return
        del self._owners[hash_]
        self.committed[hash_] = height
        self.counts.latencies_s.append(time.monotonic() - sender.pending.pop(hash_).first_s)

    def _again(self, rpcs: dict[str, str]) -> None:
        """Send whatever waits for too long again, with all that the same account sent after it."""
        now = time.monotonic()
        for sender in self._senders:
            with self._lock:
                waiting = list(sender.pending.values())
            if any(now - sent.last_s > self._again_s for sent in waiting):
                for sent in waiting:
                    sent.last_s = now
                    self.counts.rebroadcast += 1
                    self._broadcast(sender, sent.raw, rpcs)


def figures(load: Load) -> dict[str, Any]:
    """What a run says of its load."""
    counts, latencies = load.counts, sorted(load.counts.latencies_s)
    return {
        "offered": counts.offered,
        "late": counts.late,
        "held_back": counts.held_back,
        "committed": len(load.committed),
        "rebroadcasts": counts.rebroadcast,
        "refused": dict(sorted(counts.refused.items())),
        "latency_p50_s": round(latencies[len(latencies) // 2], 2) if latencies else 0.0,
        "latency_max_s": round(latencies[-1], 2) if latencies else 0.0,
    }
