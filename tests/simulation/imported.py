"""A second chain, made of the first one's export, which is then given the first one's blocks.

An app hash covers the heights at which keys were written, so an imported chain never has the original's. What has to be equal is
everything else: the export of the import, the validator set, every key and value of every store, and for the blocks that follow every
result, event, unit of gas and validator update. The tables below list the keys that the SDK's genesis format has no place for. They are
copied after the first comparison, so that what follows can be compared without exception.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from chain.application import Application
from chain.codec.registry import message_class
from chain.codec.times import rfc3339
from chain.context import Context, Mode
from chain.store.state import State
from chain.testing.driver import Driver

FOLLOWED_BLOCKS: Final = 6
NOT_EXPORTED: Final[dict[str, tuple[bytes, ...]]] = {"staking": (b"\x50", b"\x37", b"\x61"), "upgrade": (b"\x00",)}
"""Historical headers; the counter of unbonding ids; what the last block told CometBFT; a planned upgrade."""
LEFT_BEHIND: Final[dict[str, dict[bytes, Callable[[bytes], bool]]]] = {
    "staking": {b"\x38": lambda value: True, b"\x39": lambda value: True},
    "feegrant": {b"\x01": lambda value: True},
    "authz": {b"\x02": lambda value: not value},
    "slashing": {b"\x02": lambda value: not any(value[8:])},
}
"""Of these the original has more, because the SDK leaves them: ids of unbondings that were cancelled or are done; queue entries of revoked
allowances and, emptied, of revoked grants; bitmaps without a missed block."""
BROUGHT_BACK: Final[dict[str, tuple[bytes, ...]]] = {"staking": (b"\x38", b"\x39")}
"""Of these the import may have more: a validator's record keeps the ids of its earlier unbondings, in the SDK too, and an import indexes them."""
QUEUES: Final[dict[str, dict[bytes, str]]] = {
    "staking": {b"\x41": "DVPairs", b"\x42": "DVVTriplets", b"\x43": "ValAddresses"},
    "authz": {b"\x02": "GrantQueueItem"},
}
"""Lists by time: in the order in which things came, which an export has lost, and with what was cancelled since."""
NEVER_EQUAL: Final[dict[str, tuple[bytes, ...]]] = {"staking": (b"\x50",)}
"""Historical headers hold app hashes."""
Contents = dict[str, dict[bytes, bytes]]


class ImportDiffers(AssertionError):
    """An imported chain is not what was exported, or does not go on like it. ``what`` differs, such as ``store staking 41``."""

    def __init__(self, what: str, how: str) -> None:
        super().__init__(f"{what} differs after an import: {how}")
        self.what = what


def ends_now(original: Application, driver: Driver) -> bool:
    """Whether a grant ends at the very time of the last block: it is still there, but no genesis may bring it (the SDK panics, we leave it out)."""
    return f'"expiration": "{rfc3339(*divmod(driver.time_ns, 10**9))}"' in json.dumps(original.export())


def genesis_of(original: Application, driver: Driver, exported: dict[str, Any]) -> dict[str, Any]:
    """A genesis document that goes on from what a chain ``exported`` at the driver's height."""
    return {
        "chain_id": driver.chain_id,
        "initial_height": driver.height + 1,
        "genesis_time": rfc3339(*divmod(driver.time_ns, 10**9)),
        "app_state": exported,
        "consensus": {"params": original.export_consensus_params()},
    }


class Imported:
    """Export at the driver's height, import into the empty ``app``, compare. Raises ImportDiffers, and what the application raises."""

    def __init__(self, original: Application, driver: Driver, app: Application) -> None:
        self._app, self._until = app, driver.height + FOLLOWED_BLOCKS
        exported = original.export()
        for module in app.modules:
            if module.genesis is not None and module.name in exported:
                module.genesis.validate(exported[module.name])
        imported = Driver([app], genesis_of(original, driver, exported))
        imported.start()
        _equal("the validator set", *({one.address.hex(): one.power for one in each} for each in (driver.next_validators, imported.validators)))
        state = app._pending_genesis
        assert state is not None
        ctx = Context(driver.chain_id, driver.height, driver.time_ns, Mode.QUERY)
        again = {module.name: module.genesis.export(ctx, state) for module in app._genesis if module.genesis is not None}
        for name, section in exported.items():
            _equal(f"the exported section {name}", section, again[name])
        expected, found = _contents(original), _read(state, app.store.names)
        _same_stores(_exported(expected, found), _exported(_without_more(found, expected), found))
        for name, part in expected.items():
            store = state.store(name)
            for key in found[name]:
                if key not in part:
                    store.delete(key)
            for key, value in part.items():
                if found[name].get(key) != value:
                    store.set(key, value)

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
                _same_stores(_without(NEVER_EQUAL, _contents(original)), _without(NEVER_EQUAL, _contents(self._app)))
        finally:
            self._app.close()


def _contents(app: Application) -> Contents:
    with app.store.view() as view:
        return _read(State(view, app.store.names), app.store.names)


def _read(state: State, names: tuple[str, ...]) -> Contents:
    return {name: dict(state.store(name).iterate()) for name in names}


def _exported(contents: Contents, imported: Contents) -> Contents:
    """What an export can hold of these contents, of which ``imported`` came; queues sorted."""
    result = {name: dict(part) for name, part in _without(NOT_EXPORTED, contents).items()}
    for name, part in result.items():
        rules, kinds = LEFT_BEHIND.get(name, {}), QUEUES.get(name, {})
        for key, value in list(part.items()):
            other, rule = imported[name].get(key), rules.get(key[:1])
            if key[:1] in kinds:
                listed = _listed(f"cosmos.{name}.v1beta1.{kinds[key[:1]]}", value) & _listed(f"cosmos.{name}.v1beta1.{kinds[key[:1]]}", other or b"")
                part[key] = repr(sorted(listed.items())).encode()
                if not listed and other is None:
                    del part[key]
            elif other is None and rule is not None and rule(value):
                del part[key]
    return result


def _without_more(imported: Contents, original: Contents) -> Contents:
    return {
        name: {key: value for key, value in part.items() if key in original[name] or not key.startswith(BROUGHT_BACK.get(name, ()))}
        for name, part in imported.items()
    }


def _listed(kind: str, value: bytes) -> Counter[str]:
    queue = message_class(kind).FromString(value)
    return Counter(str(one) for one in getattr(queue, queue.DESCRIPTOR.fields[0].name))


def _without(keys: dict[str, tuple[bytes, ...]], contents: Contents) -> Contents:
    return {name: {key: value for key, value in part.items() if not key.startswith(keys.get(name, ()))} for name, part in contents.items()}


def _same_stores(expected: Contents, found: Contents) -> None:
    for name in expected:
        for key in sorted({*expected[name], *found[name]}):
            one, other = (part[name].get(key) for part in (expected, found))
            if one != other:
                raise ImportDiffers(f"store {name} {key[:1].hex()}", f"{key.hex()}: {_hex(one)} and {_hex(other)}")


def _hex(value: bytes | None) -> str:
    return "nothing" if value is None else value.hex() or "an empty value"


def _equal(what: str, expected: Any, found: Any) -> None:
    if expected != found:
        raise ImportDiffers(what, difference(expected, found))


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
