"""What a block's events become: by what the chain would tell at the block's height, in order, once each."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from chain.codec.registry import message_class
from chain.crypto import address as bech32
from modules.settlement.commitment import Line, line_bytes
from modules.settlement.trees import plain_root
from sds_node.meta.ledger.log import MAX_OPERATION_BYTES
from sds_node.meta.relay.observing import (
    MAX_PART_BYTES,
    ObservedEvent,
    deposit_changes_of,
    events_of,
    observations,
    parts_of,
    with_lines,
)
from sds_node.meta.relay.reading import ObservingError
from sds_node.meta.rules.wire import MAX_EVENTS, MAX_LINES, Observation
from sds_node.value_chain import BlockEvents, ChainEvent, ChainUnavailable
from sds_node.value_chain.views import BondStatus, MetaKeys, MetaNode, ResourceNode, Standing

H = 40
OWNER, OTHER, WALLET = b"\x01" * 20, b"\x02" * 20, b"\x03" * 20
NODE, META = b"\x0a" * 20, b"\x0b" * 20
KEY = b"\x0c" * 32


def chain_event(kind: str, **values: str | int) -> ChainEvent:
    """A typed event as blocks have it: JSON texts with their quotes."""
    return ChainEvent(kind, {name: json.dumps(str(value)) for name, value in values.items()})


def resource(**changes: Any) -> ResourceNode:
    fields: dict[str, Any] = {
        "address": NODE, "owner": OWNER, "beneficiary": OTHER, "p2p_key": KEY, "tokens_wei": 9, "effective_wei": 7, "is_suspended": False,
        "status": BondStatus.BONDED,
    }  # fmt: skip
    return ResourceNode(**fields | changes)


def meta(status: BondStatus = BondStatus.BONDED, **changes: Any) -> MetaNode:
    fields: dict[str, Any] = {"address": META, "owner": OWNER, "network_key": KEY, "tokens_wei": 5, "is_suspended": False, "status": status}
    return MetaNode(**fields | changes)


@dataclass
class Told:
    """``Reads`` of a chain that is written down; ``asked`` are the heights."""

    nodes: dict[tuple[bytes, int], ResourceNode] = field(default_factory=dict)
    metas: dict[tuple[bytes, int], MetaNode] = field(default_factory=dict)
    keys: dict[tuple[bytes, int], MetaKeys] = field(default_factory=dict)
    epochs: dict[int, Any] = field(default_factory=dict)
    asked: list[int] = field(default_factory=list)

    async def resource_node(self, address: bytes, height: int) -> ResourceNode | None:
        self.asked.append(height)
        return self.nodes.get((address, height))

    async def meta_node(self, address: bytes, height: int) -> MetaNode | None:
        self.asked.append(height)
        return self.metas.get((address, height))

    async def meta_keys(self, address: bytes, height: int) -> MetaKeys | None:
        self.asked.append(height)
        return self.keys.get((address, height))

    async def ledger_params(self, height: int) -> Any:
        self.asked.append(height)
        return message_class("stratos.storage.v1.LedgerParams")(bytes_per_stos=height)

    async def committed_epoch(self, epoch: int, height: int) -> Any:
        self.asked.append(height)
        return self.epochs.get(epoch)


def made(events: list[ChainEvent], told: Told | None = None, height: int = H) -> list[Any]:
    return asyncio.run(events_of(BlockEvents(height, bytes(32), 1, events), told or Told()))


def kinds(events: list[Any]) -> list[str]:
    return [one.WhichOneof("event") for one in events]


def node_text(address: bytes) -> str:
    return bech32.encode(address, bech32.NODE)


def prepaid(wallet: bytes, noz: int | str) -> ChainEvent:
    return chain_event("stratos.sds.v1.EventPrePay", sender=bech32.encode(OWNER), beneficiary=bech32.encode(wallet), amount="5wei", purchased_noz=noz)


def test_bought_ozone_is_the_beneficiarys_in_the_order_of_the_block() -> None:
    first, second = made([prepaid(WALLET, 5), ChainEvent("transfer", {"amount": "1wei"}), prepaid(OTHER, 2**127 - 1)])
    assert (first.sold.wallet, first.sold.noz) == (WALLET, "5")
    assert (second.sold.wallet, second.sold.noz) == (OTHER, str(2**127 - 1))


def test_ozone_that_no_wallet_can_have_and_none_at_all_are_skipped() -> None:
    assert made([prepaid(b"\x07" * 32, 5), prepaid(WALLET, 0)]) == []


def test_granted_ozone_ends_when_its_claim_says() -> None:
    claim = chain_event("stratos.grant.v1.EventClaim", wallet=bech32.encode(WALLET), granted_noz=9, expire_time="2030-01-02T03:04:05.999999999Z")
    (event,) = made([claim])
    assert (event.granted.wallet, event.granted.noz, event.granted.expires_s) == (WALLET, "9", 1_893_553_445)


@pytest.mark.parametrize("noz", ["-1", "1.5", "", "five", "9" * 40, str(2**127), "٣"])
def test_an_amount_that_no_chain_tells_stops_with_the_height(noz: str) -> None:
    with pytest.raises(ObservingError, match=f"height {H} has purchased_noz"):
        made([prepaid(WALLET, noz)])


def test_a_claim_without_a_time_stops() -> None:
    with pytest.raises(ObservingError, match="expire_time"):
        made([chain_event("stratos.grant.v1.EventClaim", wallet=bech32.encode(WALLET), granted_noz=9, expire_time="soon")])


def test_a_node_is_told_once_as_it_is_after_the_height() -> None:
    told = Told(nodes={(NODE, H): resource(), (NODE, H - 1): resource(effective_wei=1)})
    events = [
        chain_event("stratos.register.v1.EventUpdateEffectiveDeposit", network_address=node_text(NODE), effective_deposit_after=3),
        prepaid(WALLET, 5),
        chain_event("stratos.register.v1.EventUpdateResourceNode", network_address=node_text(NODE), sender=bech32.encode(OWNER)),
        chain_event("stratos.pot.v1.EventSlashing", network_address=node_text(NODE), wallet_address=bech32.encode(OWNER)),
    ]
    found = made(events, told)
    assert kinds(found) == ["node", "sold"]
    node = found[0].node
    assert (node.address, node.owner, node.beneficiary, node.p2p_key, node.deposit_wei, node.standing) == (NODE, OWNER, OTHER, KEY, "7", 1)
    assert set(told.asked) == {H}


@pytest.mark.parametrize(
    ("changes", "standing"),
    [
        ({}, Standing.ACTIVE),
        ({"is_suspended": True, "effective_wei": 0}, Standing.SUSPENDED),
        ({"status": BondStatus.UNBONDING}, Standing.LEAVING),
        ({"status": BondStatus.UNBONDED}, Standing.SUSPENDED),
    ],
)
def test_a_nodes_standing_follows_from_its_record(changes: dict[str, Any], standing: Standing) -> None:
    event = chain_event("stratos.register.v1.EventUnBondingResourceNode", resource_node=node_text(NODE))
    (found,) = made([event], Told(nodes={(NODE, H): resource(**changes)}))
    assert found.node.standing == int(standing)
    assert found.node.deposit_wei == str(changes.get("effective_wei", 7) or "")


def test_a_node_that_is_gone_is_told_with_what_it_was_the_height_before() -> None:
    event = chain_event("stratos.register.v1.EventCompleteUnBondingResourceNode", network_address=node_text(NODE), amount="9wei")
    (found,) = made([event], Told(nodes={(NODE, H - 1): resource(status=BondStatus.UNBONDING)}))
    assert (found.node.owner, found.node.standing, found.node.deposit_wei) == (OWNER, int(Standing.GONE), "")
    assert made([event], Told()) == []
    told = Told()
    assert made([event], told, height=1) == []
    assert 0 not in told.asked  # height 0 would be the last one


def test_nodes_of_an_owner_without_a_wallet_are_skipped() -> None:
    event = chain_event("stratos.register.v1.EventCreateResourceNode", network_address=node_text(NODE))
    assert made([event], Told(nodes={(NODE, H): resource(owner=b"\x01" * 32)})) == []


def test_meta_nodes_are_told_when_they_work_and_when_they_stop_and_candidates_are_not() -> None:
    vote = chain_event("stratos.register.v1.EventMetaNodeRegistrationVote", candidate_network_address=node_text(META), ozone_limit_changes=0)
    assert made([vote], Told(metas={(META, H): meta(BondStatus.UNBONDED, is_suspended=True)})) == []
    keys = {(META, H): MetaKeys(KEY, b"b" * 48)}
    (found,) = made([vote], Told(metas={(META, H): meta()}, keys=keys))
    assert (found.meta.address, found.meta.owner, found.meta.ledger_key, found.meta.is_active) == (META, OWNER, KEY, True)
    (found,) = made([vote], Told(metas={(META, H): meta()}))
    assert (found.meta.ledger_key, found.meta.is_active) == (b"", True)
    kicked = chain_event("stratos.register.v1.EventKickMetaNodeVote", target_network_address=node_text(META), voter_network_address=node_text(NODE))
    (found,) = made([kicked], Told(metas={(META, H): meta(BondStatus.UNBONDING), (META, H - 1): meta()}, keys=keys))
    assert (found.meta.ledger_key, found.meta.is_active) == (KEY, False)
    (found,) = made([kicked], Told(metas={(META, H - 1): meta()}))
    assert found.meta.is_active is False
    assert made([kicked], Told(metas={(META, H - 1): meta(BondStatus.UNBONDING)})) == []


def test_a_registered_key_is_told_of_a_meta_node_that_works() -> None:
    event = chain_event("stratos.settlement.v1.EventRegisterMetaKeys", meta_node=node_text(META), owner=bech32.encode(OWNER))
    told = Told(metas={(META, H): meta()}, keys={(META, H): MetaKeys(KEY, b"b" * 48)})
    (found,) = made([event], told)
    assert found.meta.ledger_key == KEY


def test_a_passed_proposal_brings_the_parameters_once() -> None:
    proposal = ChainEvent("active_proposal", {"proposal_id": "1", "proposal_result": "proposal_passed"})
    found = made([proposal, prepaid(WALLET, 1), proposal])
    assert kinds(found) == ["params", "sold"]
    assert found[0].params.bytes_per_stos == H


def test_a_report_brings_what_settlement_keeps_of_it_and_a_void_epoch_its_number() -> None:
    kept = message_class("stratos.settlement.v1.CommittedEpoch")(
        epoch=3, report_reference="sc1ab", lines_root=KEY, lines_count=2, promo_expired_noz="0", maturity_epoch=7
    )
    report = chain_event("stratos.pot.v1.EventVolumeReport", report_reference="sc1ab", epoch=3)
    void = chain_event("stratos.settlement.v1.EventVoidEpoch", epoch=2, lowered_noz=5)
    first, second = made([report, void], Told(epochs={3: kept}))
    found = first.report
    assert (found.epoch, found.reference, found.lines_root, found.lines_count, found.promo_expired_noz, found.maturity_epoch) == (
        3, "sc1ab", KEY, 2, "", 7,
    )  # fmt: skip
    assert second.voided.epoch == 2
    with pytest.raises(ObservingError, match="no such epoch"):
        made([report])


def test_a_void_epochs_slashed_signers_are_looked_at() -> None:
    slash = chain_event("stratos.settlement.v1.EventSlashSigner", meta_node=node_text(META), slashed_wei=5)
    assert kinds(made([slash], Told(metas={(META, H): meta()}))) == ["meta"]


def test_texts_that_are_no_addresses_touch_nobody() -> None:
    for text in ("", "stsds1", bech32.encode(NODE), node_text(NODE).upper(), "x" * 10_000):
        told = Told()
        assert made([chain_event("stratos.register.v1.EventUpdateMetaNode", network_address=text)], told) == []
        assert told.asked == []


def test_a_chain_that_does_not_answer_is_no_reason_to_skip() -> None:
    class Away(Told):
        async def resource_node(self, address: bytes, height: int) -> ResourceNode | None:
            raise ChainUnavailable("away")

    with pytest.raises(ChainUnavailable):
        made([chain_event("stratos.register.v1.EventUpdateResourceNode", network_address=node_text(NODE))], Away())


def test_deposits_that_may_have_changed_are_counted() -> None:
    events = [
        chain_event("stratos.register.v1.EventUpdateEffectiveDeposit", network_address=node_text(NODE)),
        chain_event("stratos.register.v1.EventLowerDeposit", network_address=node_text(NODE)),
        chain_event("stratos.register.v1.EventCreateResourceNode", network_address=node_text(NODE)),
        prepaid(WALLET, 1),
    ]
    assert deposit_changes_of(BlockEvents(H, bytes(32), 1, events)) == 2


# --- parts ----------------------------------------------------------------------------------------------------------------------------


def sold(noz: int = 5) -> Any:
    return ObservedEvent(sold={"wallet": WALLET, "noz": str(noz)})


def report(epoch: int) -> Any:
    return ObservedEvent(report={"epoch": epoch, "reference": "r", "lines_root": KEY, "lines_count": MAX_LINES})


def test_many_events_go_in_parts_that_keep_their_order() -> None:
    events = [sold(at + 1) for at in range(2 * MAX_EVENTS + 3)]
    parts = parts_of(events)
    assert [event for part in parts for event in part] == events
    assert [len(part) for part in parts] == [MAX_EVENTS, MAX_EVENTS, 3]
    assert parts_of([]) == [[]]


def test_a_part_is_bounded_in_bytes_and_has_one_report() -> None:
    node = ObservedEvent(node={"address": NODE, "owner": OWNER, "beneficiary": OTHER, "p2p_key": KEY, "deposit_wei": str(2**127 - 1), "standing": 1})
    parts = parts_of([node] * 5_000)
    assert len(parts) > 1
    assert all(sum(one.ByteSize() + 8 for one in part) <= MAX_PART_BYTES for part in parts)
    assert [len(part) for part in parts_of([report(1), sold(), report(2), sold()])] == [2, 2]


def test_the_largest_part_with_the_lines_of_a_report_fits_an_operation() -> None:
    events = [report(1)]
    while sum(one.ByteSize() + 8 for one in events) < MAX_PART_BYTES and len(events) < MAX_EVENTS:
        events.append(sold(2**127 - 1))
    block = BlockEvents(H, bytes(32), 1, [])
    (part,) = parts_of(events[:-1])
    (made,) = observations("stratos-test-1", H, block, [part], 2**127 - 1, 5)
    lines = [Line(at.to_bytes(20, "big"), 1, 1, 2**127 - 1) for at in range(MAX_LINES)]
    assert len(with_lines(made, lines)) + 100 * 100 < MAX_OPERATION_BYTES


def test_lines_are_brought_under_their_root() -> None:
    lines = [Line(WALLET, 1, 1, 5), Line(WALLET, 1, 2, 6)]
    (made,) = observations("c", H, BlockEvents(H, bytes(32), 1, []), [[report(1)]], 0, 0)
    (event,) = Observation.FromString(with_lines(made, lines)).events
    again = [Line(one.wallet, one.traffic_class, one.fund, int(one.noz)) for one in event.report.lines]
    assert plain_root([line_bytes(one) for one in again]) == plain_root([line_bytes(one) for one in lines])


def test_observations_name_heights_parts_and_the_block() -> None:
    block = BlockEvents(H, b"\x05" * 32, 77, [])
    (empty,) = (Observation.FromString(one) for one in observations("c", H - 5, block, [[]], 0, 3))
    assert (empty.from_height, empty.to_height, empty.part, empty.is_last) == (H - 5, H, 0, True)
    assert (empty.block_hash, empty.block_time_s, empty.outstanding_noz, empty.deposit_changes) == (b"\x05" * 32, 77, "", 3)
    first, second = (Observation.FromString(one) for one in observations("c", H, block, [[sold()], [sold()]], 9, 3))
    assert [(one.part, one.is_last, one.outstanding_noz) for one in (first, second)] == [(0, False, "9"), (1, True, "9")]
