"""A second chain, made of the first one's export, which is then given the first one's blocks.

An app hash covers the heights at which keys were written, so an imported chain never has the original's. What has to be equal is
everything else: the export of the import, the validator set, every key and value of every store, and for the blocks that follow every
result, event, unit of gas and validator update. ``NOT_EXPORTED`` lists the keys that the SDK's genesis format has no place for.
"""

from __future__ import annotations

from typing import Any, Final

from chain.application import Application
from chain.codec.registry import message_class
from chain.codec.times import rfc3339
from chain.context import Context, Mode
from chain.store.state import State
from chain.testing.driver import Driver

FOLLOWED_BLOCKS: Final = 6
NOT_EXPORTED: Final[dict[str, tuple[bytes, ...]]] = {
    "staking": (b"\x50",),  # historical headers, which IBC clients use: the new chain starts without
}
Contents = dict[str, dict[bytes, bytes]]


class ImportDiffers(AssertionError):
    """An imported chain is not what was exported, or does not go on like it."""


class Imported:
    """Export at the driver's height, import into the empty ``app``, compare. Raises ImportDiffers, and what the application raises."""

    def __init__(self, original: Application, driver: Driver, app: Application) -> None:
        self._app, self._until = app, driver.height + FOLLOWED_BLOCKS
        exported = original.export()
        for module in app.modules:
            if module.genesis is not None and module.name in exported:
                module.genesis.validate(exported[module.name])
        document = {
            "chain_id": driver.chain_id,
            "initial_height": driver.height + 1,
            "genesis_time": rfc3339(*divmod(driver.time_ns, 10**9)),
            "app_state": exported,
            "consensus": {"params": original.export_consensus_params()},
        }
        imported = Driver([app], document)
        imported.start()
        expected, found = ({one.address: one.power for one in members} for members in (driver.next_validators, imported.validators))
        _equal("the validator set", {address.hex(): power for address, power in expected.items()}, {a.hex(): p for a, p in found.items()})
        state = app._base_state()
        ctx = Context(driver.chain_id, driver.height, driver.time_ns, Mode.QUERY)
        again = {module.name: module.genesis.export(ctx, state) for module in app._genesis if module.genesis is not None}
        for name, section in exported.items():
            _equal(f"the exported section {name}", section, again[name])
        _same_stores(_contents(original), _read(state, app.store.names))

    def follow(self, driver: Driver) -> bool:
        """Give it the driver's last block. False when it has followed long enough."""
        stored = driver.blocks[driver.height]
        answer = message_class("tendermint.abci.ResponseFinalizeBlock").FromString(self._app.finalize_block(stored.request))
        answer.app_hash = stored.response.app_hash
        driver._compare(driver.height, [stored.response, answer])
        self._app.commit(None)
        return driver.height < self._until

    def end(self, original: Application) -> None:
        """Compare every store with the original's, which has the same height."""
        try:
            if self._app.latest_height:
                _same_stores(_contents(original), _contents(self._app))
        finally:
            self._app.close()


def _contents(app: Application) -> Contents:
    with app.store.view() as view:
        return _read(State(view, app.store.names), app.store.names)


def _read(state: State, names: tuple[str, ...]) -> Contents:
    return {name: dict(state.store(name).iterate()) for name in names}


def _same_stores(expected: Contents, found: Contents) -> None:
    for name in expected:
        left_out = NOT_EXPORTED.get(name, ())
        one, other = ({key: value for key, value in part[name].items() if not key.startswith(left_out)} for part in (expected, found))
        _equal(f"store {name}", {key.hex(): value.hex() for key, value in one.items()}, {key.hex(): value.hex() for key, value in other.items()})


def _equal(what: str, expected: Any, found: Any) -> None:
    if expected != found:
        raise ImportDiffers(f"{what} differs after an import: {difference(expected, found)}")


def difference(expected: Any, found: Any, path: str = "") -> str:
    """The first place where two JSON values differ."""
    if isinstance(expected, dict) and isinstance(found, dict):
        for key in sorted({*expected, *found}):
            if expected.get(key) != found.get(key):
                return difference(expected.get(key), found.get(key), f"{path}.{key}")
    if isinstance(expected, list) and isinstance(found, list):
        for at, (one, other) in enumerate(zip(expected, found, strict=False)):
            if one != other:
                return difference(one, other, f"{path}[{at}]")
        return f"{path}: {len(expected)} and {len(found)} items"
    return f"{path}: {str(expected)[:300]} and {str(found)[:300]}"
