"""The value chain in this process: the application under the consensus driver, asked as if by CometBFT's RPC.

    DrivenChain (a ValueChain) ── the same questions ──► driver ── ABCI ──► application
    a transaction ─► mempool ─► the next block, which comes at once, or when ``produce`` says so

Only the transport of ``ValueChain`` is replaced, so whoever uses it meets the same code as with a real node.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any, Final

from chain.api.comet import CometClient
from chain.api.services import handlers
from chain.app import build_application
from chain.application import Settings
from chain.cli.genesis import tx_message
from chain.cli.testnet import set_param, short_periods
from chain.codec.json import to_json
from chain.codec.registry import message_class
from chain.coins import Coin
from chain.config import APP_DEFAULTS
from chain.crypto import address as bech32
from chain.crypto.keys import PrivateKey, public_key_to_any
from chain.metakeys import MetaKeys
from chain.store.kv import MemoryBackend
from chain.testing.driver import Driver
from chain.testing.validators import ValidatorKey
from chain.tx.build import Signer, build_tx
from genesis import build, document
from sds_node.value_chain.client import ChainUnavailable, QueryFailed, ValueChain, tx_hash

CHAIN_ID: Final = "stratos-test-1"
NANOS: Final = 10**9
STAKE_WEI: Final = 10**18
FOUNDATION_WEI: Final = 4 * 10**25
META_DEPOSIT_WEI: Final = 1_000 * 10**18


def genesis(
    application: Any,
    genesis_s: int,
    operator: PrivateKey,
    metas: Iterable[tuple[MetaKeys, PrivateKey]],
    funds_wei: dict[bytes, int],
    params: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """A genesis document: one validator, meta nodes with their owners, accounts with coins, and a devnet's short periods.

    ``params`` are more of them, as {"pot.mature_epoch": "2"}.
    """
    time_text = datetime.fromtimestamp(genesis_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    made = build.default_document(application.modules, CHAIN_ID, time_text, "test")
    for address, amount_wei in funds_wei.items():
        build.add_account(made, address, (Coin("wei", amount_wei),))
    message = message_class("cosmos.staking.v1beta1.MsgCreateValidator")(
        description={"moniker": "test"},
        validator_address=bech32.encode(operator.public_key.address, bech32.VALIDATOR),
        pubkey=public_key_to_any(ValidatorKey.numbered(0).public_key),
        min_self_delegation="1",
        value={"denom": "wei", "amount": str(STAKE_WEI)},
    )
    for name in ("rate", "max_rate", "max_change_rate"):
        setattr(message.commission, name, "100000000000000000")
    unsigned = build_tx([message], fee=(), gas_limit=400_000, signers=[Signer(operator.public_key, 0)])
    made["app_state"]["genutil"]["gen_txs"] = [to_json(tx_message(unsigned.sign([operator], CHAIN_ID)))]
    for keys, owner in metas:
        node = keys.genesis_node(CHAIN_ID, bech32.encode(owner.public_key.address), META_DEPOSIT_WEI, "meta node")
        build.add_meta_node(made, node, "the test network's meta node")
    build.add_foundation(made, (Coin("wei", FOUNDATION_WEI),))
    for path, value in {**short_periods(), **(params or {})}.items():
        set_param(made, path, value)
    made = document.normalise(made)
    made["consensus"]["params"] = to_json(document.consensus_params(made))
    build.pin_supply(made)
    return made


class ChainInProcess:
    """The chain itself. ``clock`` tells Unix seconds: blocks have its time, but always a second more than the one before at least."""

    def __init__(self, make: Callable[[Any], dict[str, Any]], clock: Callable[[], float]) -> None:
        """``make`` gives the genesis document for an application."""
        self.application: Any = build_application(MemoryBackend(), Settings(invariant_period=1))
        # CometBFT is not there: of these services only what the application answers by itself works, such as Simulate.
        self.application.register_queries(handlers(self.application, CometClient("tcp://127.0.0.1:1"), APP_DEFAULTS))
        self.driver = Driver([self.application], make(self.application))
        self._clock = clock
        self.is_stopped = False
        """True: nothing is answered and no block comes, as if the chain's node were gone."""
        self._found: dict[bytes, tuple[int, int]] = {}
        self.driver.start()
        self.produce()

    def produce(self, count: int = 1) -> int:
        """So many blocks, filled from the mempool. Gives the last height."""
        for _ in range(count):
            ahead_s = int(self._clock()) - self.driver.time_ns // NANOS
            result = self.driver.next_height(time_step_s=max(1, ahead_s) if self.driver.height else None)
            for at, raw in enumerate(result.txs):
                self._found[tx_hash(raw)] = result.height, at
        return self.driver.height

    async def run(self, every_s: float = 0.2) -> None:
        """Blocks until it is cancelled: one whenever transactions wait, and when the clock is a second on."""
        while True:
            is_due = int(self._clock()) > self.driver.time_ns // NANOS
            if not self.is_stopped and (self.driver.mempool or is_due):
                self.produce()
            await asyncio.sleep(every_s)

    def answer(self, method: str, params: dict[str, Any]) -> Any:
        """What CometBFT's RPC would give as result. Raises QueryFailed with codespace ``rpc``."""
        handler = getattr(self, f"_{method}", None)
        if handler is None:
            raise QueryFailed("rpc", -32601, f"method {method} is not played")
        return handler(**params)

    def _status(self) -> Any:
        driver = self.driver
        last = driver.blocks[driver.height]
        return {
            "node_info": {"network": driver.chain_id},
            "sync_info": {
                "latest_block_height": str(driver.height),
                "latest_block_time": _time(driver.time_ns),
                "latest_block_hash": last.id.hash.hex(),
                "catching_up": False,
                "earliest_block_height": str(min(driver.blocks)),
            },
        }

    def _abci_info(self) -> Any:
        return {"response": {"last_block_height": str(self.driver.height)}}

    def _abci_query(self, path: str, data: str, height: str, prove: bool) -> Any:
        found = self.driver.query(path, bytes.fromhex(data), height=int(height), prove=prove)
        value = base64.b64encode(found.value).decode()
        return {"response": {"code": found.code, "codespace": found.codespace, "log": found.log, "value": value}}

    def _decided(self, height: str) -> Any:
        found = self.driver.blocks.get(int(height))
        if found is None:
            raise QueryFailed("rpc", -32603, f"height {height} must be less than or equal to the current blockchain height {self.driver.height}")
        return found

    def _block(self, height: str) -> Any:
        found = self._decided(height)
        txs = [base64.b64encode(raw).decode() for raw in found.block.data.txs]
        header = {"height": height, "time": _time(found.time_ns)}
        return {"block_id": {"hash": found.id.hash.hex()}, "block": {"header": header, "data": {"txs": txs}}}

    def _block_results(self, height: str) -> Any:
        answer = self._decided(height).response
        txs = [{"code": one.code, "events": _events(one.events)} for one in answer.tx_results]
        return {"height": height, "txs_results": txs, "finalize_block_events": _events(answer.events)}

    def _broadcast_tx_sync(self, tx: str) -> Any:
        raw = base64.b64decode(tx)
        if raw in self.driver.mempool or tx_hash(raw) in self._found:
            raise QueryFailed("rpc", -32603, "tx already exists in cache")
        answer = self.driver.check_tx(raw)
        return {"code": answer.code, "codespace": answer.codespace, "log": answer.log}

    def _tx(self, hash: str, prove: bool) -> Any:
        wanted = base64.b64decode(hash)
        place = self._found.get(wanted)
        if place is None:
            raise QueryFailed("rpc", -32603, "tx not found")
        height, at = place
        one = self.driver.blocks[height].response.tx_results[at]
        result = {"code": one.code, "codespace": one.codespace, "log": one.log, "gas_used": str(one.gas_used), "events": _events(one.events)}
        return {"hash": wanted.hex(), "height": str(height), "tx_result": result}


class DrivenChain(ValueChain):
    """A client of a ``ChainInProcess``. Each user has one of its own, as with a real node."""

    def __init__(self, chain: ChainInProcess) -> None:
        super().__init__("http://in-process.invalid")
        self._chain = chain

    async def _rpc(self, method: str, max_bytes: int = 0, patience: int = 1, /, **params: Any) -> Any:
        await asyncio.sleep(0)
        if self._chain.is_stopped:
            raise ChainUnavailable("the value chain in this process is stopped")
        return self._chain.answer(method, params)


def _time(time_ns: int) -> str:
    return datetime.fromtimestamp(time_ns // NANOS, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _events(given: Iterable[Any]) -> list[dict[str, Any]]:
    return [{"type": one.type, "attributes": [{"key": pair.key, "value": pair.value} for pair in one.attributes]} for one in given]
