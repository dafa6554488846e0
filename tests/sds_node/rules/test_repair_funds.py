"""What repair funds give, and to whom: the common one gets its part back, and from four meta nodes on one alone cannot empty it."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import nacl.signing
import pytest

from chain.codec.registry import message_class
from sds_node.documents import StoreAck, signed
from sds_node.merkle import segment_path, segment_root
from sds_node.meta.rules import refusals
from sds_node.meta.rules.moves import allowance_noz
from sds_node.meta.rules.tables import ALLOWED, ENDOWED, Object
from sds_node.p2p import address_of, format_address
from sds_node.schemes import FIVE_OF_TEN, share_bytes
from tests.sds_node.rules.support import CHAIN_ID, DAY_MS, Make, World, event, lookup, message, meta, new_object, observed_node, owner, sold
from tests.serials import own_serial

WalletDocument = message_class("stratos.settlement.v1.WalletDocument")
SIZE = 4 << 20
ROOTS = [sha256(b"share%d" % at).digest() for at in range(10)]
TEN = list(range(1, 11))


def node_key(number: int) -> nacl.signing.SigningKey:
    return nacl.signing.SigningKey(sha256(b"node key%d" % number).digest())


def public(number: int) -> bytes:
    return bytes(node_key(number).verify_key)


def several(make: Make, metas: int) -> World:
    """A ledger whose 12 nodes have keys that sign, and a wallet with noz."""
    world = make(metas=metas, nodes=0, noz=0)
    nodes = (observed_node(number, p2p_key=public(number), address=address_of(public(number))) for number in range(1, 13))
    world.observe(*(event(node=one) for one in nodes), sold(1, 10**12), sold(2, 10**12))
    return world


def stored(world: World, nodes: list[int] = TEN) -> Object:
    """A file of one segment of 5 of 10 shares whose roots are ROOTS; the common fund has noz."""
    world.ok("commit", message("Commit", lease_id=world.lease(10**10, 2), unused_noz=10**9))
    made = new_object(1, SIZE, nodes, 5)
    made.segments[0].root = segment_root(ROOTS)
    lease = world.lease(10**9)
    world.ok("commit", message("Commit", lease_id=lease, objects=[made]))
    world.ok("settle_leases", message("SettleLeases", lease_ids=[lease]))
    return world.object(lookup(1))


def moved(row: Object, to_node: int, index: int = 9, from_node: int = 10, /, *, sender: int = 1, **changed: Any) -> Any:
    """A share's move with its new node's acknowledgement."""
    serial = own_serial(meta(sender), 1)
    size_bytes = share_bytes(FIVE_OF_TEN, row.size_bytes)
    said = {"chain_id": CHAIN_ID, "node": format_address(address_of(public(to_node))), "serial": serial, "share_root": ROOTS[index]}
    ack = signed(StoreAck(**{**said, "size_bytes": size_bytes, "stored_s": 5} | changed.pop("ack", {})), node_key(changed.pop("signer", to_node)))
    fields = {
        "segment": row.first_segment, "index": index, "from_node": from_node, "to_node": to_node, "serial": serial, "share_root": ROOTS[index],
        "segment_path": segment_path(ROOTS, index), "ack_body": ack.body, "ack_signature": ack.signature,
    }  # fmt: skip
    return message("Move", shares=[message("MovedShare", **fields | changed)])


def taken(world: World, noz: int, sender: int = 1) -> Any:
    """A window with a receipt of repair that the common fund pays."""
    return world.window({}, [(owner(9), 1, 1, noz)], [message("RepairDebit", fund=1, noz=noz)], sender)


# --- what the common fund gave --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("days", [0, 100, 365, 500])
def test_what_the_common_fund_gave_for_a_share_that_nobody_held_goes_back_to_it_when_the_file_ends(make: Make, days: int) -> None:
    world = several(make, 1)
    row = stored(world, [*TEN[:9], 0])
    wallet_noz, fund_noz = world.wallet().paid_noz, world.state.repair_paid_noz
    world.ok("move", moved(row, 10, 9, 0))
    given = fund_noz - world.state.repair_paid_noz
    assert given == row.escrow_noz // 9
    if days:
        world.wait(min(days, 364) * DAY_MS)
        for number in TEN:
            world.release({"node": number})
        world.wait((days - min(days, 364)) * DAY_MS)
    if days < 365:
        # Into the trash, and out of it eight days later.
        world.ok("wallet_order", WalletDocument(**world.order(delete=message("DeleteFiles", lookup_ids=[lookup(1)]))))
        world.wait(8 * DAY_MS)
    else:
        world.wait(500 * DAY_MS)
    while world.tick() > 1:
        pass
    assert world.core.tables.scan(ENDOWED, limit=1) == []
    back = world.state.repair_paid_noz - (fund_noz - given)
    # To a noz for each release: what nobody settled is not spent.
    assert abs(back - given * (365 - min(days, 364)) // 365) < 12
    assert abs(world.wallet().paid_noz - wallet_noz - row.escrow_noz * (365 - min(days, 364)) // 365) < 12, "the payer has no more than he paid"


def test_renewing_a_file_leaves_the_common_fund_its_part(make: Make) -> None:
    world = several(make, 1)
    row = stored(world, [*TEN[:9], 0])
    before = world.state.repair_paid_noz
    world.ok("move", moved(row, 10, 9, 0))
    given = before - world.state.repair_paid_noz
    world.ok("wallet_order", WalletDocument(**world.order(renew=message("RenewFiles", lookup_ids=[lookup(1)]))))
    world.ok("wallet_order", WalletDocument(**world.order(delete=message("DeleteFiles", lookup_ids=[lookup(1)]))))
    world.wait(8 * DAY_MS)
    world.tick()
    assert world.state.repair_paid_noz == before
    assert given > 0


def test_the_part_of_a_fund_of_the_objects_own_stays_its_payers(make: Make) -> None:
    world = several(make, 1)
    row = stored(world, [*TEN[:9], 0])
    world.wait(300 * DAY_MS)
    for number in range(1, 10):
        world.release({"node": number, "has_failed": True})
    fund_noz = world.state.repair_paid_noz
    assert world.object(lookup(1)).repair_noz > row.escrow_noz // 9
    world.ok("move", moved(row, 10, 9, 0))
    assert world.state.repair_paid_noz == fund_noz
    assert world.core.tables.get(ENDOWED, (row.id,)) is None


# --- what one meta node can take ------------------------------------------------------------------------------------------------


def test_from_four_meta_nodes_on_one_alone_takes_nothing_from_the_repair_funds(make: Make) -> None:
    world = several(make, 4)
    row = stored(world)
    fund_noz = world.state.repair_paid_noz
    reason = world.refused(refusals.NOT_ENOUGH, "window", taken(world, 1, 3), 3)
    assert "by the moves that were made" in reason
    world.refused(refusals.BAD_FORM, "move", moved(row, 11), 2)  # under a serial of the first one
    world.ok("move", moved(row, 11, sender=2), 2)
    allowed = allowance_noz(row, share_bytes(FIVE_OF_TEN, row.size_bytes))
    world.refused(refusals.NOT_ENOUGH, "window", taken(world, allowed + 1, 3), 3)
    world.settle_window({}, [(owner(9), 1, 1, allowed)], [message("RepairDebit", fund=1, noz=allowed)], sender=3)
    assert world.state.repair_paid_noz == fund_noz - allowed
    world.refused(refusals.NOT_ENOUGH, "window", taken(world, 1, 3), 3)


def test_with_fewer_meta_nodes_receipts_that_came_before_their_moves_are_paid(make: Make) -> None:
    world = several(make, 3)
    row = stored(world)
    world.settle_window({}, [(owner(9), 1, 1, 500)], [message("RepairDebit", fund=1, noz=500)])
    world.ok(
        "move",
        message("Move", shares=[message("MovedShare", segment=row.first_segment, index=9, from_node=10, to_node=11, serial=own_serial(meta(1), 1))]),
    )
    allowed = world.core.tables.get(ALLOWED, (1,))
    assert allowed is not None
    assert allowed.noz == allowance_noz(row, share_bytes(FIVE_OF_TEN, row.size_bytes))


@pytest.mark.parametrize(
    ("code", "changed"),
    [
        (refusals.BAD_FORM, {"share_root": b""}),
        (refusals.BAD_FORM, {"share_root": ROOTS[0]}),
        (refusals.BAD_FORM, {"segment_path": []}),
        (refusals.BAD_FORM, {"segment_path": [b"short"] * 40}),
        (refusals.BAD_FORM, {"segment_path": segment_path(ROOTS, 8)}),
        (refusals.BAD_SIGNATURE, {"ack_body": b"", "ack_signature": b""}),
        (refusals.BAD_SIGNATURE, {"ack_body": b"\xff" * 50}),
        (refusals.BAD_SIGNATURE, {"ack_signature": bytes(64)}),
        (refusals.BAD_SIGNATURE, {"signer": 12}),
        (refusals.BAD_SIGNATURE, {"ack": {"serial": own_serial(meta(1), 2)}}),
        (refusals.BAD_SIGNATURE, {"ack": {"share_root": ROOTS[1]}}),
        (refusals.BAD_SIGNATURE, {"ack": {"size_bytes": 5}}),
        (refusals.BAD_SIGNATURE, {"ack": {"chain_id": "stratos-other-1"}}),
        (refusals.BAD_SIGNATURE, {"ack": {"node": format_address(address_of(public(12)))}}),
    ],
)
def test_a_share_that_its_new_node_has_not_acknowledged_is_not_moved(make: Make, code: int, changed: dict[str, Any]) -> None:
    world = several(make, 4)
    row = stored(world)
    world.refused(code, "move", moved(row, 11, **changed))
    world.ok("move", moved(row, 11))
