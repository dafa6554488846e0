"""A small history that fails as a big one did: delta debugging over blocks, then operations, then their details."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from tests.simulation.script import Block, Operation, Script

Item = TypeVar("Item")
_PLAIN = {"time_step_s": 5, "is_forced": False, "failed_rounds": 0, "absent": (), "nil": (), "evidence": (), "imports": False}


def shrink(script: Script, fails: Callable[[Script], bool], *, budget_s: float = 600) -> Script:
    """The smallest history found within the budget for which ``fails`` still holds, as it does for ``script``."""
    until = time.monotonic() + budget_s

    def holds(candidate: Script) -> bool:
        return time.monotonic() < until and fails(candidate)

    script = _shortest_end(script, holds)
    before = None
    while before != script and time.monotonic() < until:
        before = script
        script = _fewer_blocks(script, holds)
        script = _fewer_operations(script, holds)
        script = _plainer(script, holds)
    return script


def _shortest_end(script: Script, holds: Callable[[Script], bool]) -> Script:
    """The last 1, 2, 4, … blocks alone, where that is enough: much cheaper to try than halves of a long history."""
    size = 1
    while size < len(script.blocks):
        end = script.with_blocks(script.blocks[-size:])
        if holds(end):
            return end
        size *= 2
    return script


def minimal(items: Sequence[Item], holds: Callable[[list[Item]], bool]) -> list[Item]:
    """Zeller's ddmin over complements: no single remaining item can go, as far as ``holds`` answers."""
    left, parts = list(items), 2
    while left and parts <= 2 * len(left):
        size = max(-(-len(left) // parts), 1)
        for start in range(0, len(left), size):
            rest = left[:start] + left[start + size :]
            if holds(rest):
                left, parts = rest, max(parts - 1, 2)
                break
        else:
            if size == 1:
                break
            parts *= 2
    return left


def _fewer_blocks(script: Script, holds: Callable[[Script], bool]) -> Script:
    return script.with_blocks(minimal(script.blocks, lambda some: holds(script.with_blocks(some))))


def _fewer_operations(script: Script, holds: Callable[[Script], bool]) -> Script:
    places = [(at, index) for at, block in enumerate(script.blocks) for index in range(len(block.operations))]

    def kept(some: Sequence[tuple[int, int]]) -> Script:
        wanted = frozenset(some)
        return script.with_blocks(
            [
                replace(block, operations=tuple(one for index, one in enumerate(block.operations) if (at, index) in wanted))
                for at, block in enumerate(script.blocks)
            ]
        )

    return kept(minimal(places, lambda some: holds(kept(some))))


def _plainer(script: Script, holds: Callable[[Script], bool]) -> Script:
    """Fields at their defaults, and blocks merged, wherever the failure does not need them."""
    for at in range(len(script.blocks)):
        for name, value in _PLAIN.items():
            block = script.blocks[at]
            if getattr(block, name) != value:
                script = _tried(script, at, replace(block, **{name: value}), holds)
        for index in range(len(script.blocks[at].operations)):
            script = _fewer_messages(script, at, index, holds)
            for name in ("fault", "amino", "granter", "gas"):
                operation = script.blocks[at].operations[index]
                script = _tried_operation(script, at, index, replace(operation, **{name: getattr(Operation(""), name)}), holds)
    at = 1
    while at < len(script.blocks):
        one, other = script.blocks[at - 1 : at + 1]
        merged = script.with_blocks(
            [*script.blocks[: at - 1], replace(other, operations=one.operations + other.operations), *script.blocks[at + 1 :]]
        )
        if holds(merged):
            script = merged
        else:
            at += 1
    return script


def _fewer_messages(script: Script, at: int, index: int, holds: Callable[[Script], bool]) -> Script:
    """One message of several, signed by one of those who signed all, where that is enough."""
    operation = script.blocks[at].operations[index]
    if len(operation.messages) > 1:
        for message in operation.messages:
            for signer in operation.signers:
                changed = _tried_operation(script, at, index, replace(operation, messages=(message,), signers=(signer,)), holds)
                if changed is not script:
                    return changed
    return script


def _tried_operation(script: Script, at: int, index: int, operation: Operation, holds: Callable[[Script], bool]) -> Script:
    block = script.blocks[at]
    if operation == block.operations[index]:
        return script
    changed = (*block.operations[:index], operation, *block.operations[index + 1 :])
    return _tried(script, at, replace(block, operations=changed), holds)


def _tried(script: Script, at: int, block: Block, holds: Callable[[Script], bool]) -> Script:
    changed = script.with_blocks([*script.blocks[:at], block, *script.blocks[at + 1 :]])
    return changed if holds(changed) else script
