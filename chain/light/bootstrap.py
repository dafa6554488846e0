"""CometBFT's databases for a height that the application was restored at, as if CometBFT had come there by itself.

The application has the state; CometBFT needs its own: three validator sets, the consensus parameters and the commit of the last block, each
verified by the light client. Layout: CometBFT v0.38.25 ``state/store.go`` and ``store/store.go`` (LevelDB files).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from chain.codec.canonical import encode
from chain.codec.registry import message_class
from chain.codec.varint import uvarint
from chain.comet import VERSION
from chain.light.client import LightBlock, LightClient, LightError
from chain.light.headers import consensus_hash, types
from chain.light.validators import Validator, ValidatorSet
from chain.store.kv import KVBackend, open_backend

STATE_KEY: Final = b"stateKey"
BLOCKS_KEY: Final = b"blockStore"
OFFLINE_KEY: Final = b"offlineStateSyncHeightKey"
"""Tells CometBFT at its next start that blocks go on after the state's height though its block store is empty."""


@dataclass(frozen=True, slots=True)
class Restored:
    """What the application knows at ``height``. ``params`` is its ``tendermint.types.ConsensusParams``."""

    chain_id: str
    initial_height: int
    height: int
    app_hash: bytes
    params: Any


def gather(client: LightClient, restored: Restored) -> tuple[LightBlock, LightBlock, LightBlock]:
    """The verified blocks at the height and the two after it, where they are of the application's state. Raises LightError.

    The next block has this height's app hash; validators that this height's block changed are in office in the one after that.
    """
    last, current, following = (client.block(restored.height + at) for at in range(3))
    for block in (last, current, following):
        client.require_agreement(block.height)
    if current.header.app_hash != restored.app_hash:
        raise LightError(
            f"the application's hash at height {restored.height} is {restored.app_hash.hex().upper()}, the chain's is "
            f"{current.header.app_hash.hex().upper()}: restore a snapshot of this chain"
        )
    if current.header.consensus_hash != consensus_hash(restored.params):
        raise LightError(f"the application's consensus parameters at height {restored.height} are not those of the chain")
    return last, current, following


def state_entries(restored: Restored, blocks: tuple[LightBlock, LightBlock, LightBlock]) -> list[tuple[bytes, bytes]]:
    """What goes into ``state.db``."""
    last, current, following = blocks
    state = _state("State")(
        chain_id=restored.chain_id,
        initial_height=restored.initial_height,
        last_block_height=last.height,
        last_block_id=last.commit.block_id,
        last_block_time=last.header.time,
        next_validators=set_message(following.validators),
        validators=set_message(current.validators),
        last_validators=set_message(last.validators),
        last_height_validators_changed=following.height,
        consensus_params=_whole(restored.params),
        last_height_consensus_params_changed=current.height,
        last_results_hash=current.header.last_results_hash,
        app_hash=restored.app_hash,
    )
    state.version.consensus.CopyFrom(current.header.version)
    state.version.software = VERSION.removeprefix("v")
    params = _state("ConsensusParamsInfo")(consensus_params=_whole(restored.params), last_height_changed=current.height)
    # Go's signed varint: a positive number doubled.
    entries = [
        (STATE_KEY, encode(state)),
        (b"consensusParamsKey:%d" % current.height, encode(params)),
        (OFFLINE_KEY, uvarint(last.height << 1)),
    ]
    for block in blocks:
        info = _state("ValidatorsInfo")(validator_set=set_message(block.validators), last_height_changed=block.height)
        entries.append((b"validatorsKey:%d" % block.height, encode(info)))
    return entries


def block_entries(last: LightBlock) -> list[tuple[bytes, bytes]]:
    """What goes into ``blockstore.db``: the commit of the last block, which the next one carries."""
    return [(b"SC:%d" % last.height, encode(last.commit))]


def require_empty(data: Path) -> None:
    """Raises LightError where CometBFT has a state or blocks in the folder already; StoreError where that cannot be read."""
    if not find_spec("plyvel"):
        raise LightError(
            "CometBFT's databases are LevelDB files, and the package plyvel that writes them has no wheel for this Python: "
            "run this on Python 3.11 or 3.12 on Linux x86_64, or join by state sync"
        )
    for name, key in (("state", STATE_KEY), ("blockstore", BLOCKS_KEY)):
        path = data / f"{name}.db"
        if path.exists():
            with opened(path) as database:
                if database.get(key):
                    raise LightError(f"{path} is not empty: `stchaind comet reset-state` deletes what CometBFT has there")


def write(data: Path, restored: Restored, blocks: tuple[LightBlock, LightBlock, LightBlock]) -> None:
    """Write both databases; cut short, it can be done again. Raises StoreError."""
    # The commit alone means nothing to CometBFT, so it goes first: the state follows in one write.
    with opened(data / "blockstore.db") as database:
        database.write(block_entries(blocks[0]), sync=True)
    with opened(data / "state.db") as database:
        database.write(state_entries(restored, blocks), sync=True)


def set_message(validators: ValidatorSet) -> Any:
    """``tendermint.types.ValidatorSet`` as CometBFT stores it: without the total power, which it adds up itself."""
    return types("ValidatorSet")(validators=[_validator_message(one) for one in validators], proposer=_validator_message(validators.proposer))


def _validator_message(one: Validator) -> Any:
    message = types("Validator")(address=one.address, voting_power=one.power, proposer_priority=one.priority)
    setattr(message.pub_key, one.key_type, one.raw_key)
    return message


def _whole(params: Any) -> Any:
    """CometBFT writes every section, empty ones too."""
    found = types("ConsensusParams")()
    found.CopyFrom(params)
    for section in (found.block, found.evidence, found.validator, found.version, found.abci):
        section.SetInParent()
    return found


def _state(name: str) -> Any:
    return message_class(f"tendermint.state.{name}")


@contextmanager
def opened(path: Path) -> Iterator[KVBackend]:
    """One of CometBFT's databases. Raises StoreError."""
    database = open_backend("goleveldb", path)
    try:
        yield database
    finally:
        database.close()
