"""The plan, what was done, and the module versions; and the hook that stops or goes on at the plan's height."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import structlog

from chain.codec.canonical import encode
from chain.codec.registry import message_class
from chain.codec.times import GO_NO_TIME_S
from chain.context import Context
from chain.errors import Halt, InvalidRequest, UpgradeNeeded
from chain.store.api import StateReader, StateWriter, prefix_end
from modules.upgrade import keys

log = structlog.get_logger("upgrade")

Plan: Final = message_class("cosmos.upgrade.v1beta1.Plan")

Versions: TypeAlias = Mapping[str, int]
"""Module name → consensus version."""
Handler: TypeAlias = Callable[[Context, StateWriter, Versions], Versions]
"""Migrates the state, given the versions it has; returns those it has then."""
Announce: TypeAlias = Callable[[str, int, str], None]
"""Tells whoever switches binaries (name, height, info); may raise OSError."""


class UpgradeKeeper:
    """Reads and writes store ``upgrade``.

    At a height in ``skip`` the operator has the plan dropped; ``announce`` is called before the chain stops for a plan.
    """

    def __init__(self, skip: Sequence[int], announce: Announce) -> None:
        self._skip = tuple(skip)
        self._announce = announce
        self._knows_last_upgrade = False
        self._handlers: Mapping[str, Handler] = {}
        self.module_versions: Versions = {}

    def fill(self, handlers: Mapping[str, Handler], module_versions: Versions) -> None:
        """What this binary is: the upgrades it can apply, and its modules with their versions. For ``chain/app.py``, once all modules are there."""
        self._handlers = dict(handlers)
        self.module_versions = dict(module_versions)

    def plan(self, state: StateReader) -> Any | None:
        """The scheduled ``Plan``."""
        raw = state.store(keys.STORE).get(keys.PLAN)
        return None if raw is None else Plan.FromString(raw)

    def schedule(self, ctx: Context, state: StateWriter, plan: Any) -> None:
        """Take a plan in place of any other. Raises InvalidRequest (sdk/18) for one that cannot be, is in the past, or was done."""
        check_plan(plan)
        if plan.height < ctx.height:
            raise InvalidRequest("upgrade cannot be scheduled in the past")
        if self.done_height(state, plan.name):
            raise InvalidRequest(f"upgrade with name {plan.name} has already been completed")
        previous = self.plan(state)
        if previous is not None:
            self._clear_upgraded_client(state, previous.height)
        kept = Plan(name=plan.name, height=plan.height, info=plan.info)
        state.store(keys.STORE).set(keys.PLAN, encode(kept))

    def clear(self, state: StateWriter) -> None:
        """Drop the plan, if there is one, with what IBC laid down for it."""
        plan = self.plan(state)
        if plan is not None:
            self._clear_upgraded_client(state, plan.height)
            state.store(keys.STORE).delete(keys.PLAN)

    def done_height(self, state: StateReader, name: str) -> int:
        """Where the upgrade was applied; 0 if it was not."""
        for key, _ in state.store(keys.STORE).iterate(keys.DONE, prefix_end(keys.DONE)):
            done, height = keys.split_done(key)
            if done == name:
                return height
        return 0

    def last_done(self, state: StateReader) -> str:
        """Name of the upgrade that was applied last; empty if there was none."""
        found = next(state.store(keys.STORE).iterate(keys.DONE, prefix_end(keys.DONE), reverse=True), None)
        return "" if found is None else keys.split_done(found[0])[0]

    def versions(self, state: StateReader) -> dict[str, int]:
        """The consensus version of every module that the state has, by name."""
        found = state.store(keys.STORE).iterate(keys.VERSIONS, prefix_end(keys.VERSIONS))
        return {key[1:].decode(): int.from_bytes(raw, "big") for key, raw in found}

    def set_versions(self, state: StateWriter, versions: Versions) -> None:
        store = state.store(keys.STORE)
        for module, version in sorted(versions.items()):
            store.set(keys.version(module), version.to_bytes(8, "big"))

    def upgraded_consensus_state(self, state: StateReader, height: int) -> bytes:
        """What IBC laid down for an upgrade at ``height``; empty if nothing."""
        return state.store(keys.STORE).get(keys.upgraded_consensus_state(height)) or b""

    def pre_block(self, ctx: Context, state: StateWriter) -> None:
        """Apply the plan when its height is reached. Raises UpgradeNeeded when this binary cannot, Halt when it is the wrong one."""
        plan = self.plan(state)
        is_due = plan is not None and plan.height <= ctx.height
        is_skipped = is_due and ctx.height in self._skip
        if not self._knows_last_upgrade:
            if not is_due or is_skipped:
                self._require_last_upgrade(state)
            self._knows_last_upgrade = True
        if plan is None:
            return
        if not is_due:
            if plan.name in self._handlers:
                raise Halt(
                    f'BINARY UPDATED BEFORE TRIGGER! UPGRADE "{plan.name}" - in binary but not executed on chain. Downgrade your binary: '
                    f"the upgrade is due at height {plan.height}, this is block {ctx.height}"
                )
            return
        if is_skipped:
            log.warning(f'UPGRADE "{plan.name}" SKIPPED at {plan.height}: {plan.info}')
            self.clear(state)
            return
        if plan.name not in self._handlers:
            self._announce(plan.name, ctx.height, plan.info)
            raise UpgradeNeeded(f'UPGRADE "{plan.name}" NEEDED at height: {plan.height}: {plan.info}')
        log.info(f'applying upgrade "{plan.name}"', height=ctx.height)
        self._apply(ctx, state, plan)

    def _apply(self, ctx: Context, state: StateWriter, plan: Any) -> None:
        store = state.store(keys.STORE)
        self.set_versions(state, self._handlers[plan.name](ctx, state, self.versions(state)))
        applied = int.from_bytes(store.get(keys.PROTOCOL_VERSION) or b"", "big")
        store.set(keys.PROTOCOL_VERSION, (applied + 1).to_bytes(8, "big"))
        self.clear(state)
        store.set(keys.done(plan.name, ctx.height), b"\x01")

    def _require_last_upgrade(self, state: StateReader) -> None:
        last = self.last_done(state)
        if last and last not in self._handlers:
            raise Halt(f'wrong binary: upgrade handler is missing for "{last}", the last upgrade this chain applied; run a version that has it')

    def _clear_upgraded_client(self, state: StateWriter, height: int) -> None:
        store = state.store(keys.STORE)
        store.delete(keys.upgraded_client(height))
        store.delete(keys.upgraded_consensus_state(height))


def check_plan(plan: Any) -> None:
    """Raise InvalidRequest (sdk/18) unless the plan has a name, a height, and neither of the fields that are no longer used."""
    if plan.HasField("time") and (plan.time.seconds, plan.time.nanos) != (GO_NO_TIME_S, 0):
        raise InvalidRequest("time-based upgrades have been deprecated in the SDK")
    if plan.HasField("upgraded_client_state"):
        raise InvalidRequest("upgrade logic for IBC has been moved to the IBC module")
    if not plan.name:
        raise InvalidRequest("name cannot be empty")
    if plan.height <= 0:
        raise InvalidRequest("height must be greater than 0")
