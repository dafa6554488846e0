"""A string proves the wallet's word, not what it was for: under its lease pays what the ledger says it is for, to the session that it was taken for."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest

from chain.crypto import address as bech32
from modules.settlement.leaves import GET, PUT
from sds_node.hashes import file_hash
from sds_node.legacy import sequence_text
from sds_node.meta.books.windows import NotApproved
from sds_node.meta.rules import tables
from sds_node.requests import Action, signed_text
from sds_node.resource.receipts import leaf_of
from sds_node.transfers import TrafficEvidence
from tests.sds_node.books.pair import several
from tests.sds_node.books.world import Lease, World, message, public, session_key, wallet, wallet_key, world

pytestmark = pytest.mark.asyncio
HELD, REFUSED = 1, 3
HASH = file_hash(b"by string")


class StringWorld:
    """What wallet 1 signs at a meta node."""

    def __init__(self, made: World) -> None:
        self.made = made
        self.time_s = int(made.clock())
        self.text = signed_text(Action.UPLOAD, HASH, bech32.encode(wallet(1)), sequence_text(0), self.time_s)
        self.key = wallet_key(1)

    async def lease(self, noz: int) -> Lease:
        ask = message(
            "LegacyAsk",
            subject=HASH,
            sequence=sequence_text(0),
            timestamp_s=self.time_s,
            public_key=self.key.public_key.raw,
            signature=self.key.sign(self.text.encode()),
        )
        take = message(
            "TakeLease", wallet=wallet(1), session_pubkey=public(session_key(1)), fund=1, noz=noz, seconds=3_600, upload=ask, size_bytes=100_000
        )  # fmt: skip
        return Lease((await self.made.proposer.propose("take_lease", take)).result, 1, 1, {})

    def leaf(self, lease: Lease, action: int, noz: int = 100) -> Any:
        """A leaf under the string, as settlement's rules of evidence take it."""
        limit = self.made.limit(lease, 1, noz, action=action)
        string = {"signed_text": self.text, "public_key": self.key.public_key.raw, "signature": self.key.sign(self.text.encode())}
        made = TrafficEvidence(legacy_grant=string)
        full = self.made.evidence(lease, limit)
        made.order_limit.CopyFrom(full.order_limit)
        made.receipt.CopyFrom(full.receipt)
        return leaf_of(made)


async def test_a_receipt_in_the_other_direction_than_its_lease_is_refused(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        string = StringWorld(made)
        lease = await string.lease(10_000)
        (answer,) = await made.hand_in(made.peer(1), string.leaf(lease, GET))
        assert (answer.state, answer.reason) == (REFUSED, "the string of its lease pays for storing alone")
        assert await made.states(made.peer(1), string.leaf(lease, PUT)) == [HELD]


async def test_a_string_takes_nothing_from_a_lease_that_another_session_has_by_a_grant(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        string, granted = StringWorld(made), await made.lease(10_000, session=2)
        own = Lease(granted.id, 1, 1, {})
        (answer,) = await made.hand_in(made.peer(1), string.leaf(own, GET))
        assert (answer.state, answer.reason) == (REFUSED, "the order limit is for another session key than its lease")


@pytest.mark.parametrize("is_of_another_session", [False, True])
async def test_a_window_with_what_a_string_did_not_ask_for_is_not_approved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_of_another_session: bool
) -> None:
    """The meta node that the lease was taken at works with the node."""
    async with several(tmp_path, 4) as made:
        first = made.metas[0]
        string = StringWorld(first)
        if is_of_another_session:
            lease, why = Lease((await first.lease(10_000, session=2)).id, 1, 1, {}), "another session key"
        else:
            lease, why = await string.lease(10_000), "pays for storing alone"
        monkeypatch.setattr("sds_node.meta.books.judging.fault_of_limit", lambda limit, row, asked: None)
        assert await first.states(first.peer(1), string.leaf(lease, GET)) == [HELD]
        with contextlib.suppress(NotApproved):
            assert await first.windows.settle() == 0
        assert first.asked
        assert all(why in said for _, said in first.asked), first.asked
        assert (await first.row(tables.META, first.me)).windows == 0
