"""A window, and an epoch closed without wallets, needs as many meta nodes as sign a lease; nobody counts twice, or for something else."""

from __future__ import annotations

from typing import Any

import pytest

from sds_node.meta.rules import refusals
from sds_node.meta.rules.approvals import APPROVAL_DOMAIN, approval_bytes, approved, sign_approval
from sds_node.meta.rules.tables import META
from sds_node.meta.rules.wire import MAX_METAS, sign_operation
from tests.sds_node.rules.support import CHAIN_ID, Make, World, event, message, meta, meta_key, observed_meta, owner

EPOCH_MS = 600_000


def window(world: World, noz: int = 10, **changes: Any) -> Any:
    lease = world.lease(1_000)
    return world.window({lease: noz}, [(owner(1), 1, 1, noz)], **changes)


def submit(world: World, body: Any, sender: int = 1, kind: str = "window") -> Any:
    """As it is, without the approvals that ``World.operation`` adds."""
    operation = world.operation("tick", message("Tick"), sender)
    part = getattr(operation, kind)
    part.CopyFrom(body)
    part.SetInParent()
    return world.submit(sign_operation(operation, meta_key(sender)))


def signatures(world: World, body: Any, *by: int, sender: int = 1, chain_id: str = CHAIN_ID) -> list[tuple[bytes, bytes]]:
    signed = approval_bytes(chain_id, meta(sender), body)
    return [(meta(number), sign_approval(signed, meta_key(number))) for number in by]


@pytest.mark.parametrize(("metas", "needed"), [(1, 0), (2, 0), (3, 0), (4, 1), (6, 1), (7, 2)])
def test_a_window_needs_as_many_meta_nodes_as_a_lease_and_its_sender_is_one(make: Make, metas: int, needed: int) -> None:
    world = make(metas=metas)
    body = window(world)
    for count in range(needed):
        made = approved(body, signatures(world, body, *range(2, 2 + count)))
        result = submit(world, made)
        assert result.code == refusals.NO_QUORUM
        assert f"expected {needed} other active meta nodes to have approved this window, got {count}" in result.reason
    assert submit(world, approved(body, signatures(world, body, *range(2, 2 + needed)))).code == 0


def test_what_does_not_hold_does_not_count(make: Make) -> None:
    world = make(metas=5)
    body = window(world)
    world.observe(event(meta=observed_meta(5, is_active=False)))
    good = signatures(world, body, 3)[0]
    other = message("Window")
    other.CopyFrom(body)
    other.batch_hash = b"x" * 32
    wrong: dict[str, list[tuple[bytes, bytes]]] = {
        "forged": [(meta(2), bytes(64))],
        "short": [(meta(2), b"x")],
        "another's": [(meta(2), good[1])],
        "the sender's own": signatures(world, body, 1),
        "not active": signatures(world, body, 5),
        "unknown": [(b"u" * 20, good[1])],
        "of another content": signatures(world, other, 2),
        "for another sender": signatures(world, body, 2, sender=3),
        "on another chain": signatures(world, body, 2, chain_id="another-1"),
        "an operation's": [(meta(2), bytes(meta_key(2).sign(APPROVAL_DOMAIN + b"\0" + body.SerializeToString()).signature))],
    }
    for what, given in wrong.items():
        assert submit(world, approved(body, given)).code == refusals.NO_QUORUM, what
    for given in ([good, good], [good] * (MAX_METAS + 1), [good, *signatures(world, body, 2)]):
        made = approved(body, [])
        for who, signature in given:
            made.approvals.add(meta_node=who, signature=signature)
        assert submit(world, made).code == refusals.BAD_FORM
    assert submit(world, approved(body, [*wrong["forged"], good])).code == 0, "one that holds is enough"


def test_an_approval_holds_for_its_number_alone(make: Make) -> None:
    world = make(metas=4)
    body = window(world)
    made = world.approve(body, 1)
    assert submit(world, made).code == 0
    assert submit(world, made).code == refusals.WRONG_NUMBER
    again = approved(body, [(one.meta_node, one.signature) for one in made.approvals])
    again.number = 2
    assert submit(world, again).code == refusals.NO_QUORUM


def test_a_window_is_not_executed_after_the_time_that_was_approved(make: Make) -> None:
    world = make(metas=4)
    until_s = world.time_ms // 1_000 + 60
    body = window(world, until_s=until_s)
    other = window(world, until_s=until_s + 1)
    assert submit(world, approved(other, signatures(world, body, 2))).code == refusals.NO_QUORUM, "the time is signed, too"
    world.wait(60_001)
    late = submit(world, world.approve(body, 1))
    assert late.code == refusals.OUT_OF_TIME
    assert f"was approved until {until_s} s" in late.reason
    body.until_s += 1
    assert submit(world, world.approve(body, 1)).code == 0
    alone = make(metas=1)
    ended = window(alone, until_s=alone.time_ms // 1_000 - 1)
    assert submit(alone, ended).code == refusals.OUT_OF_TIME, "also where nobody approves"


def test_of_a_window_that_nobody_approved_all_else_that_is_wrong_is_told_first(make: Make) -> None:
    world = make(metas=4)
    lease = world.lease(1_000)
    body = world.window({lease: 10}, [(owner(1), 1, 1, 10)])
    assert submit(world, body).code == refusals.NO_QUORUM
    assert submit(world, world.window({lease: 1_001}, [(owner(1), 1, 1, 1_001)])).code == refusals.NOT_ENOUGH
    assert submit(world, world.window({lease: 10}, [(owner(1), 1, 1, 9)])).code == refusals.UNEVEN
    assert submit(world, world.window({lease: 10}, [(owner(1), 1, 1, 10)], number=9)).code == refusals.WRONG_NUMBER


def test_the_meta_nodes_that_are_active_when_it_is_executed_are_counted(make: Make) -> None:
    world = make(metas=4)
    body = window(world)
    assert submit(world, body).code == refusals.NO_QUORUM
    world.observe(event(meta=observed_meta(4, is_active=False)))
    assert world.core.tables.get(META, (meta(4),)).is_active is False  # type: ignore[union-attr]
    assert submit(world, world.approve(body, 1, 2)).code == 0, "more than are needed is no fault"


def test_an_epoch_closed_without_wallets_is_approved_and_one_with_all_is_not(make: Make) -> None:
    world = make(metas=4)
    world.settle_window({world.lease(1_000): 10}, [(owner(1), 1, 1, 10)])
    world.wait(EPOCH_MS)
    without = message("CloseEpoch", epoch=1, without=[owner(1)])
    assert submit(world, without, kind="close_epoch").code == refusals.NO_QUORUM
    other = message("CloseEpoch", epoch=1, without=[owner(2)])
    assert submit(world, approved(without, signatures(world, other, 2)), kind="close_epoch").code == refusals.NO_QUORUM
    plain = message("CloseEpoch", epoch=1)
    assert submit(world, approved(plain, signatures(world, plain, 2)), kind="close_epoch").code == refusals.BAD_FORM
    assert submit(world, approved(without, signatures(world, without, 2)), kind="close_epoch").code == 0
    world.wait(EPOCH_MS)
    assert submit(world, plain, kind="close_epoch").code == 0
