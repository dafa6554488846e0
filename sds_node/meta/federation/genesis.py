"""From a ledger with a log to one with blocks: founding, exporting, joining. All of it on a meta node that is stopped.

    chain ─ found ─► ledger with a log ─ export ─► FILE ─ join, on each meta node ─► ledger + CometBFT's home with the genesis

    genesis: chain id <chain id>-meta, time of the last operation, validators = active meta nodes with a ledger key, app hash of the export,
             app_state {export: its last 32 bytes, sequence, app_hash, time_ms, keepers: whose operations made it}

The genesis follows from the export alone, so all make the same, byte for byte. An export has no height: one of a ledger with blocks begins a new chain of
blocks in the same way.

Source: docs/adr/0010.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import nacl.signing

from chain.crypto import address as bech32
from chain.crypto.keys import Ed25519PublicKey
from chain.errors import InvalidAddress
from chain.metakeys import MetaKeys
from sds_node.meta.federation.application import APP_PROTOCOL, OrderError
from sds_node.meta.federation.comet import CometHome
from sds_node.meta.federation.members import keepers_of, senders_of
from sds_node.meta.ledger.blocks import BlockLedger
from sds_node.meta.ledger.core import Rules
from sds_node.meta.ledger.engine import Ledger, snapshot
from sds_node.meta.ledger.errors import Foreign, Unavailable
from sds_node.meta.ledger.log import HEAD, Head, read_head
from sds_node.meta.ledger.sql import open_store
from sds_node.meta.ledger.transfer import export_ledger, export_name, forget_height, import_ledger, name_of, peek
from sds_node.meta.operations import LedgerRefused, Proposer
from sds_node.meta.relay.founding import found_message, founding_height
from sds_node.meta.rules.apply import rules
from sds_node.value_chain.client import ValueChain

MAX_CHAIN_ID: Final = 50
"""CometBFT's bound."""
MAX_BLOCK_BYTES: Final = 4 << 20
READING: Final[Rules] = rules("")
"""To read the ledger of any chain."""


@dataclass(frozen=True)
class State:
    """A state that has a name. ``senders``: active meta nodes' addresses and ledger keys; ``is_new`` is False where nothing had to be done; ``keepers``: on whom the
    ledger rested, of a state that blocks begin with."""

    head: Head
    name: bytes
    senders: Mapping[bytes, bytes]
    is_new: bool = True
    keepers: tuple[bytes, ...] = ()


def genesis_of(state: State) -> bytes:
    """The genesis of the blocks after a state. Raises OrderError for a ledger that cannot have any."""
    head, chain_id = state.head, f"{state.head.ledger_id}-meta"
    if len(chain_id) > MAX_CHAIN_ID:
        raise OrderError(f"CometBFT's chain ids have at most {MAX_CHAIN_ID} characters, {chain_id} has {len(chain_id)}")
    if not state.senders:
        raise OrderError("the ledger has no active meta node with a ledger key: nobody could vote")
    by_key = {key: address for address, key in sorted(state.senders.items(), reverse=True)}
    document: dict[str, Any] = {
        "genesis_time": f"{datetime.fromtimestamp(head.time_ms // 1_000, UTC):%Y-%m-%dT%H:%M:%S}.{head.time_ms % 1_000:03d}Z",
        "chain_id": chain_id,
        "initial_height": "1",
        "consensus_params": {
            "block": {"max_bytes": str(MAX_BLOCK_BYTES), "max_gas": "-1"},
            "evidence": {"max_age_num_blocks": "100000", "max_age_duration": "172800000000000", "max_bytes": "1048576"},
            "validator": {"pub_key_types": ["ed25519"]},
            "version": {"app": str(APP_PROTOCOL)},
            "abci": {"vote_extensions_enable_height": "0"},
        },
        "validators": [
            {
                "address": Ed25519PublicKey(key).address.hex().upper(),
                "pub_key": {"type": "tendermint/PubKeyEd25519", "value": base64.b64encode(key).decode()},
                "power": "1",
                "name": bech32.encode(by_key[key], bech32.NODE),
            }
            for key in sorted(by_key)
        ],
        "app_hash": head.app_hash.hex().upper(),
        "app_state": {
            "export": state.name.hex(),
            "sequence": str(head.sequence),
            "app_hash": head.app_hash.hex(),
            "time_ms": str(head.time_ms),
            "keepers": [bech32.encode(one, bech32.NODE) for one in state.keepers],
        },
    }
    return json.dumps(document, indent=2).encode() + b"\n"


def before_blocks(home: CometHome) -> tuple[int, frozenset[bytes]]:
    """(time in ms of the state that the blocks begin with, the meta nodes that the ledger rested on until then); (0, nobody) where there are no blocks or the genesis
    does not tell. Raises OrderError."""
    told: Any = home.read_genesis() if home.is_made else {}
    try:
        told = told["app_state"]
        return int(told["time_ms"]), frozenset(bech32.decode(one, bech32.NODE) for one in told["keepers"])
    except (KeyError, TypeError, ValueError, InvalidAddress):
        return 0, frozenset()


def _head_at(url: str) -> Head | None:
    """The head of the ledger in a database; None where there is no ledger. Raises Unavailable, Damaged, and Foreign for a database of something else."""
    store = open_store(url)
    session = store.lock()
    try:
        tables = session.tables()
        if not tables:
            return None
        if HEAD.name not in tables:
            raise Foreign(f"{store.shown} holds no ledger: name the database of one")
        return read_head(session)
    finally:
        session.close()


@contextlib.contextmanager
def _blocks(url: str) -> Iterator[BlockLedger]:
    """The ledger, of whichever order, brought to this program's schema."""
    head = _head_at(url)
    if head is None or not head.sequence:
        raise Unavailable("there is no founded ledger here: `spd ledger found`, or `spd ledger join FILE`")
    with BlockLedger.open(url, rules(head.ledger_id), head.ledger_id) as ledger:
        yield ledger


def write_export(url: str, path: Path) -> State:
    """Write a stopped ledger into a file, whole or not at all. Raises LedgerError, OSError."""
    with _blocks(url) as ledger, ledger.snapshot() as view:
        part = path.with_name(f".{path.name}.part")
        try:
            with part.open("wb") as file:
                name = export_ledger(view, READING.schema, file.write)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        return State(view.head, name, senders_of(view), keepers=keepers_of(view))


def join(url: str, home: CometHome, keys: MetaKeys, path: Path) -> State:
    """Have the ledger at ``url`` go on with blocks after the export in ``path``: it is imported if there is no ledger, and must be that state otherwise.
    Doing it again changes nothing. Raises LedgerError, OSError."""
    with path.open("rb") as file:
        head = peek(file.read, READING)
    made_of = rules(head.ledger_id)
    if home.is_made:
        with path.open("rb") as file:
            name = name_of(file.read)
        told = home.read_genesis().get("app_state")
        if not isinstance(told, dict) or told.get("export") != name.hex():
            raise OrderError(f"{home.root} belongs to another export than {path}, whose name is {name.hex()}: nothing was changed")
        home.make(home.genesis.read_bytes(), keys)
        with snapshot(url, made_of) as view:
            return State(view.head, name, senders_of(view), is_new=False)
    here = _head_at(url)
    if here is None:
        with path.open("rb") as file:
            _, name = import_ledger(url, made_of, head.ledger_id, file.read)
    else:
        with path.open("rb") as file:
            name = name_of(file.read)
        _check_same(url, here, head, name)
        forget_height(open_store(url), made_of, head.ledger_id)
    with snapshot(url, made_of) as view:
        state = State(view.head, name, senders_of(view), keepers=keepers_of(view))
    home.make(genesis_of(state), keys)
    return state


def _check_same(url: str, here: Head, head: Head, name: bytes) -> None:
    other = f"the ledger here is of {here.ledger_id} at operation {here.sequence}, the export of {head.ledger_id} at {head.sequence}"
    advice = "export anew from the meta node whose ledger goes on, and move the ledger that does not away"
    if (here.ledger_id, here.sequence, here.app_hash) != (head.ledger_id, head.sequence, head.app_hash):
        raise OrderError(f"{other}: {advice}")
    with _blocks(url) as ledger, ledger.snapshot() as view:
        mine = export_name(view, READING.schema)
    if mine != name:
        raise OrderError(f"{other}, and the two differ ({mine.hex()} here, {name.hex()} in the export): {advice}")


def look(url: str) -> tuple[Head, dict[bytes, bytes]]:
    """(head, active meta nodes with their ledger keys), beside a meta node that runs or without. Raises LedgerError."""
    with snapshot(url, READING) as view:
        return view.head, senders_of(view)


async def found(url: str, keys: MetaKeys, chain: ValueChain, clock: Callable[[], float]) -> Head:
    """Found a ledger with a log where the chain stands, in an empty database. ``clock`` tells Unix seconds. Raises LedgerError, ValueChainError,
    ObservingError."""
    here = await asyncio.to_thread(_head_at, url)
    if here is not None and here.sequence:
        raise OrderError(f"there is a ledger of {here.ledger_id} here, at operation {here.sequence}: nothing was changed")
    chain_id = str((await chain.status()).chain_id)
    message = await found_message(chain, await founding_height(chain))
    own = next((one for one in message.metas if one.address == keys.address and one.is_active), None)
    if own is None or own.ledger_key != keys.ledger_consensus_pubkey:
        raise OrderError(
            f"{keys.network_address} is no active meta node of {chain_id} with this ledger key: create it, have it voted in, and register its keys "
            "(docs/meta-nodes.md)"
        )
    ledger = await asyncio.to_thread(Ledger.open, url, rules(chain_id), chain_id, now_ms=lambda: int(clock() * 1_000))
    try:
        proposer = Proposer(ledger, chain_id, keys.address, nacl.signing.SigningKey(keys.ledger_seed), clock)
        await proposer.start()
        await proposer.propose_tried("found", message)
        return ledger.head
    except LedgerRefused as refusal:
        raise OrderError(f"the ledger cannot be founded: {refusal}") from None
    finally:
        await asyncio.to_thread(ledger.close)
