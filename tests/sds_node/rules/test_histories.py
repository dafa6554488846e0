"""Random histories of all operations: the invariants after each, whatever came; equal results on replay, in blocks, in batches of any size."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from chain.codec.registry import message_class
from sds_node.meta.ledger.blocks import BlockLedger
from sds_node.meta.ledger.core import Core
from sds_node.meta.ledger.sql import open_store
from sds_node.meta.rules import places, tick
from sds_node.meta.rules.apply import rules
from sds_node.meta.rules.commit import object_id
from sds_node.meta.rules.invariants import check, gap_noz, walk
from sds_node.meta.rules.objects import STORED
from sds_node.meta.rules.places import nodes_of
from sds_node.meta.rules.tables import EPOCH, FILE, GONE, LEASE, META, NODE, OBJECT, OPEN, REPORTED, SEGMENT, SHARE, TRASH
from sds_node.meta.rules.wire import Observation, WalletOrder, open_operation, sign_operation
from sds_node.schemes import SEGMENT_BYTES
from tests.sds_node.postgres import Server
from tests.sds_node.rules.support import (
    CHAIN_ID,
    DAY_MS,
    HOUR_MS,
    World,
    event,
    granted,
    message,
    meta,
    meta_key,
    new_object,
    observed_node,
    owner,
    record,
    sold,
    wallet,
)
from tests.serials import own_serial

WalletDocument = message_class("stratos.settlement.v1.WalletDocument")
STEPS = 500
CIDS = ("QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG", "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi")
NODES = 7


class Player:
    """Takes steps that mostly fit what is there. What it does depends on the seed and the rows alone."""

    def __init__(self, world: World, seed: int) -> None:
        self.world, self.chosen = world, random.Random(seed)
        self.codes: Counter[str] = Counter()
        self.counter = 0
        self.made: dict[bytes, Any] = {}
        """By object id: the whole object, also of one that came in part."""

    def step(self) -> None:
        kind = self.chosen.choice(STEPS_BY_NAME)
        before = len(self.world.sent)
        result = getattr(self, kind)()
        if len(self.world.sent) > before:
            self.codes[kind if result is None or result.code == 0 else f"{kind} refused"] += 1

    def rows(self, table: Any) -> list[Any]:
        return list(walk(self.world.core.tables, table))

    def one(self, table: Any) -> Any:
        rows = self.rows(table)
        return self.chosen.choice(rows) if rows else None

    def number_of(self, address: bytes) -> int:
        return 1 if address == wallet(1) else 2

    # --- the chain ---

    def observe(self, *events: Any, change_noz: int = 0, deposits: int = 0) -> Any:
        """``change_noz``: what S ÷ rate − Lt does by these events, reckoned without the ledger."""
        world, before = self.world, (self.world.outstanding, self.world.deposits)
        world.outstanding, world.deposits = world.outstanding + change_noz, world.deposits + deposits
        result = world.apply("observe", world.signed(world.observation(*events)))
        if result.code:
            world.outstanding, world.deposits = before
        world.height = world.state.height
        if world.state.outstanding_noz:
            assert 0 <= gap_noz(world.core.tables) <= world.deposits
        return result

    def sell(self) -> Any:
        noz = self.chosen.randrange(10**9)
        return self.observe(sold(self.chosen.choice((1, 2)), noz), change_noz=noz)

    def grant(self) -> Any:
        ends_s = self.world.time_ms // 1_000 + self.chosen.randrange(-86_400, 40 * 86_400)
        noz = [self.chosen.randrange(1, 10**8) for _ in range(2)]
        return self.observe(*(granted(self.chosen.choice((1, 2)), one, ends_s) for one in noz), change_noz=sum(noz))

    def change_node(self) -> Any:
        """A deposit may leave one noz more between S ÷ rate and Lt."""
        made = observed_node(self.chosen.randrange(1, NODES + 1), standing=self.chosen.choice((1, 1, 2, 3, 4)))
        return self.observe(event(node=made), change_noz=self.chosen.randrange(2), deposits=1)

    def report(self) -> Any:
        row = self.world.core.tables.get(EPOCH, (self.world.state.reported_epoch + 1,))
        if row is None:
            return None
        made = message(
            "ObservedReport", epoch=row.number, reference="sc1", lines_root=row.lines_root, lines_count=row.lines_count,
            promo_expired_noz=str(row.promo_expired_noz or ""), maturity_epoch=row.number + 2,
        )  # fmt: skip
        return self.observe(event(report=made), change_noz=-row.noz - row.promo_expired_noz)

    def void(self) -> Any:
        row = self.world.core.tables.get(EPOCH, (self.world.state.reported_epoch,))
        if row is None or row.status != REPORTED:
            return None
        change = row.noz + row.promo_expired_noz
        return self.observe(event(voided=message("VoidedEpoch", epoch=self.world.state.reported_epoch)), change_noz=change)

    def close(self) -> Any:
        return self.world.apply("close_epoch", message("CloseEpoch", epoch=self.world.state.reported_epoch + 1))

    # --- sessions ---

    def lease(self) -> Any:
        number, fund = self.chosen.choice((1, 2)), self.chosen.choice((1, 1, 2))
        grant = self.world.grant(number, nonce=self.chosen.randbytes(16))
        return self.world.apply("take_lease", self.world.lease_request(self.chosen.randrange(1, 10**9), number, fund, grant=grant))

    def commit(self) -> Any:
        lease = self.one(LEASE)
        if lease is None:
            return None
        alive = [row.number for row in self.rows(NODE) if row.standing != GONE]
        objects = []
        for _ in range(self.chosen.randrange(1, 4)):
            self.counter += 1
            size = self.chosen.choice((0, 100, 10_000, SEGMENT_BYTES + 1, 3 * SEGMENT_BYTES))
            k, n = self.chosen.choice(((1, 3), (1, 2), (2, 5)))
            nodes = self.chosen.sample(alive, min(n, len(alive)))
            nodes += [0] * (n - len(nodes))
            if n == 5 and self.chosen.random() < 0.5:
                nodes[self.chosen.randrange(5)] = 0
            file = record(self.chosen.randrange(12), is_public=self.chosen.random() < 0.7)
            made = new_object(self.counter, size, nodes, k, file=file)
            self.made[object_id(lease.id, self.counter)] = made
            if self.chosen.random() < 0.3:
                made = type(made).FromString(made.SerializeToString())
                del made.segments[1:]
            objects.append(made)
        unused = self.chosen.choice((0, 0, 1_000_000))
        return self.world.apply("commit", message("Commit", lease_id=lease.id, objects=objects, unused_noz=unused))

    def go_on(self) -> Any:
        """The next segment of an object that is open."""
        rows = [row for row in self.rows(OBJECT) if row.state == OPEN]
        if not rows:
            return None
        row = self.chosen.choice(rows)
        part = type(self.made[row.id]).FromString(self.made[row.id].SerializeToString())
        part.first_segment = row.committed
        del part.segments[row.committed + 1 :]
        del part.segments[: row.committed]
        return self.world.apply("commit", message("Commit", lease_id=row.lease, objects=[part]))

    def settle(self) -> Any:
        lease = self.one(LEASE)
        return None if lease is None else self.world.apply("settle_leases", message("SettleLeases", lease_ids=[lease.id]))

    def window(self) -> Any:
        lease, row = self.one(LEASE), self.one(OBJECT)
        debits, repairs, sums = {}, [], {1: 0, 2: 0}
        if lease is not None and lease.noz:
            debits[lease.id] = self.chosen.randrange(1, lease.noz + 1)
            sums[lease.fund] += debits[lease.id]
        if row is not None and row.repair_noz and row.state in STORED:
            repairs.append(message("RepairDebit", object_id=row.id, fund=row.fund, noz=row.repair_noz))
            sums[row.fund] += row.repair_noz
        credits = [(owner(self.chosen.randrange(1, 5)), fund, self.chosen.randrange(1, 5), noz) for fund, noz in sums.items() if noz]
        body = self.world.window(debits, sorted(credits), repairs)
        return self.counted(self.world.apply("window", body))

    def counted(self, result: Any) -> Any:
        if result.code == 0:
            self.world.windows[1] = self.world.windows.get(1, 0) + 1
        return result

    # --- what is stored ---

    def release(self) -> Any:
        numbers = sorted(self.chosen.sample(range(1, NODES + 1), 2))
        low, high = sorted((self.chosen.randrange(60), self.chosen.choice((60, 1 << 40))))
        results = [
            message("NodeResult", node=number, first_segment=low, last_segment=high, has_failed=self.chosen.random() < 0.3) for number in numbers
        ]
        held = [row.number for row in self.rows(SEGMENT) if numbers[0] in nodes_of(row.nodes) and low <= row.number <= high]
        if held and not results[0].has_failed:
            results[0].failed_segments.append(self.chosen.choice(held))
        shown = {"number": self.world.windows.get(1, 0) + 1, "answers_root": bytes(32), "batch_hash": bytes(32)}
        return self.counted(self.world.apply("release", message("Release", results=results, **shown)))

    def status(self) -> Any:
        node = self.chosen.randrange(1, NODES + 1)
        seen = message("NodeSeen", node=node, capacity_bytes=10, free_bytes=5, is_online=True, score_change=self.chosen.randrange(-1_000, 1_000))
        return self.world.apply("node_statuses", message("NodeStatuses", nodes=[seen]))

    def move(self) -> Any:
        rows = self.rows(SEGMENT)
        if not rows:
            return None
        shares = []
        for row in sorted(self.chosen.sample(rows, min(3, len(rows)))):
            nodes = nodes_of(row.nodes)
            index = self.chosen.randrange(len(nodes))
            to = self.chosen.choice([number for number in range(1, NODES + 1) if number not in nodes] or [1])
            shares.append(
                message(
                    "MovedShare",
                    segment=row.number,
                    index=index,
                    from_node=nodes[index],
                    to_node=to,
                    serial=own_serial(meta(1), self.chosen.getrandbits(64)),
                )
            )
        return self.world.apply("move", message("Move", shares=shares[: self.chosen.randrange(1, 4)]))

    # --- wallets ---

    def order(self, number: int, **kind: Any) -> Any:
        return self.world.apply("wallet_order", self.world.order(number, **kind))

    def delete(self) -> Any:
        row = self.one(FILE)
        return None if row is None else self.order(self.number_of(row.wallet), delete=message("DeleteFiles", lookup_ids=[row.lookup_id]))

    def restore(self) -> Any:
        row = self.one(TRASH)
        return None if row is None else self.order(self.number_of(row.wallet), restore=message("RestoreFiles", object_ids=[row.object]))

    def rename(self) -> Any:
        row = self.one(FILE)
        if row is None:
            return None
        made = message("RenameFile", lookup_id=row.lookup_id, file=record(self.chosen.randrange(12)))
        return self.order(self.number_of(row.wallet), rename=made)

    def renew(self) -> Any:
        row = self.one(FILE)
        return None if row is None else self.order(self.number_of(row.wallet), renew=message("RenewFiles", lookup_ids=[row.lookup_id]))

    def share(self) -> Any:
        row = self.one(FILE)
        if row is None:
            return None
        share_id = f"{self.chosen.randrange(8):016x}"
        expires_s = self.chosen.choice((0, self.world.time_ms // 1_000 + 3 * 86_400))
        made = message("ShareFile", share_id=share_id, link=f"abcdef_{share_id}", lookup_id=row.lookup_id, expires_s=expires_s)
        return self.order(self.number_of(row.wallet), share=made)

    def share_also(self) -> Any:
        """By a CID, as its own link or beside it; others have it or not."""
        row = self.one(FILE)
        if row is None:
            return None
        cid, share_id = self.chosen.choice(CIDS), f"{self.chosen.randrange(16):016x}"
        names = {"share_id": cid, "link": cid} if self.chosen.random() < 0.3 else {"share_id": share_id, "link": f"abcdef_{share_id}", "also": cid}
        expires_s = self.chosen.choice((0, self.world.time_ms // 1_000 + 3 * 86_400))
        return self.order(self.number_of(row.wallet), share=message("ShareFile", lookup_id=row.lookup_id, expires_s=expires_s, **names))

    def unshare(self) -> Any:
        row = self.one(SHARE)
        return None if row is None else self.order(self.number_of(row.wallet), unshare=message("UnshareFiles", share_ids=[row.share_id]))

    # --- time ---

    def tick(self) -> Any:
        return self.world.apply("tick", message("Tick"))

    def wait(self) -> None:
        self.world.wait(self.chosen.choice((1_000, 60_000, 60_000, HOUR_MS, DAY_MS, 9 * DAY_MS, 40 * DAY_MS)))

    def hostile(self) -> Any:
        """An operation that was applied before, or one with a few bits changed."""
        raw = bytearray(self.chosen.choice(self.world.applied))
        for _ in range(self.chosen.randrange(3)):
            raw[self.chosen.randrange(len(raw))] ^= 1 << self.chosen.randrange(8)
        result = self.world.submit(bytes(raw))
        assert result.code >= 16, result
        return result


STEPS_BY_NAME = (
    "sell", "grant", "change_node", "lease", "lease", "lease", "commit", "commit", "commit", "go_on", "go_on", "window", "window", "settle", "release", "release",
    "status", "move", "move", "delete", "delete", "restore", "rename", "renew", "share", "share", "share_also", "share_also", "unshare", "close", "close", "report", "report", "void",
    "tick", "tick", "wait", "wait", "hostile",
)  # fmt: skip


def played(folder: Path, seed: int, steps: int = STEPS, name: str = "ledger") -> tuple[World, Player]:
    world = World(folder, nodes=NODES, name=name)
    world.outstanding = 10**12
    player = Player(world, seed)
    for _ in range(steps):
        player.step()
    return world, player


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks and ticks so small that they split and end in the middle."""
    monkeypatch.setattr(places, "CHUNK_ENTRIES", 4)
    monkeypatch.setattr(tick, "WORK", 5)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("seed", range(4))
def test_whatever_comes_every_noz_is_in_one_place_and_lists_queue_and_counts_are_right(tmp_path: Path, seed: int) -> None:
    """``World`` checks all invariants after each operation."""
    world, player = played(tmp_path, seed)
    applied = [name for name in {*STEPS_BY_NAME} if player.codes[name]]
    assert len(applied) >= 20, player.codes  # of 25 kinds, not only refused
    assert player.codes["hostile refused"]
    world.close()


@pytest.mark.usefixtures("small")
def test_a_history_gives_the_same_rows_and_app_hash_in_batches_of_any_size_and_in_blocks(tmp_path: Path) -> None:
    world, _ = played(tmp_path, 7, 160)
    wanted = [world.core.uncommitted.app_hash]
    groups: list[tuple[int, list[bytes]]] = []
    chosen = random.Random(7)
    for raw, time_ms in world.sent:
        if groups and groups[-1][0] == time_ms and chosen.random() < 0.7:
            groups[-1][1].append(raw)
        else:
            groups.append((time_ms, [raw]))
    # A cache too small to hold anything for long.
    core = Core.open(open_store(f"sqlite:///{tmp_path}/batches.db"), rules(CHAIN_ID), CHAIN_ID, cache_bytes=4_000)
    for time_ms, operations in groups:
        core.begin(time_ms)
        for raw in operations:
            core.apply(raw)
        core.write()
        core.commit()
    wanted.append(core.head.app_hash)
    check(core.tables)
    core.close()
    with BlockLedger.open(f"sqlite:///{tmp_path}/blocks.db", rules(CHAIN_ID), CHAIN_ID) as blocks:
        for height, (time_ms, operations) in enumerate(groups, 1):
            blocks.begin(height, time_ms)
            assert [result.app_hash for result in blocks.deliver(operations)][-1] == blocks.end()
            blocks.commit()
        wanted.append(blocks.head.app_hash)
    assert len({*wanted}) == 1
    world.close()


@pytest.mark.usefixtures("small")
def test_a_history_gives_the_same_app_hash_on_postgresql(tmp_path: Path, postgres: Server) -> None:
    world, _ = played(tmp_path, 5, 80)
    core = Core.open(open_store(postgres.database()), rules(CHAIN_ID), CHAIN_ID, cache_bytes=4_000)
    for raw, time_ms in world.sent:
        core.begin(time_ms)
        core.apply(raw)
        core.write()
        core.commit()
    assert core.head.app_hash == world.core.uncommitted.app_hash
    core.close()
    world.close()


# --- hostile meta nodes -----------------------------------------------------------------------------------------------


def parts(message: Any) -> list[tuple[Any, Any]]:
    """(message, field) of everything that is set in a message, parts of parts too."""
    found = []
    for field, value in message.ListFields():
        found.append((message, field))
        if field.type == field.TYPE_MESSAGE:
            for one in value if field.is_repeated else [value]:
                found.extend(parts(one))
    return found


def other_value(chosen: random.Random, field: Any, value: Any) -> Any:
    """Another value of a field that holds one: from the ends of its range, cut, longer, or changed a little."""
    if field.type == field.TYPE_BYTES:
        return chosen.choice((b"", value[:-1], value + b"\0", chosen.randbytes(len(value)), bytes(len(value)), value * 40))
    if field.type == field.TYPE_STRING:
        return chosen.choice(("", value[:-1], value + "0", value + "\0", "9" * 38, "é" * 20, value * 100))
    if field.type == field.TYPE_BOOL:
        return not value
    if field.type == field.TYPE_ENUM:
        return chosen.choice((0, 1, 2, 5, -1))
    unsigned = field.type in (field.TYPE_UINT64, field.TYPE_UINT32)
    bits = 64 if field.type in (field.TYPE_UINT64, field.TYPE_INT64) else 32
    most = (1 << bits) - 1 if unsigned else (1 << (bits - 1)) - 1
    return chosen.choice((0, 1, most, most // 2 + 1, min(most, value + 1), 0 if unsigned else -1, max(0, value - 1)))


def mutated(chosen: random.Random, message: Any) -> None:
    """Change one thing of a message in place."""
    places = parts(message)
    if not places:
        return
    holder, field = chosen.choice(places)
    if field.is_repeated:
        values = getattr(holder, field.name)
        what = chosen.randrange(3)
        if what == 0:
            del values[chosen.randrange(len(values))]
        elif what == 1:
            values.append(values[chosen.randrange(len(values))])
        elif field.type == field.TYPE_MESSAGE:
            mutated(chosen, values[chosen.randrange(len(values))])
        else:
            at = chosen.randrange(len(values))
            values[at] = other_value(chosen, field, values[at])
    elif field.type == field.TYPE_MESSAGE:
        holder.ClearField(field.name)
    else:
        setattr(holder, field.name, other_value(chosen, field, getattr(holder, field.name)))


@pytest.mark.usefixtures("small")
def test_no_operation_of_a_hostile_quorum_or_wallet_is_a_bug_or_breaks_an_invariant(tmp_path: Path) -> None:
    """Operations of a history, changed inside and signed again by whoever signs them."""
    world, player = played(tmp_path, 11, 120)
    chosen = random.Random(11)
    by_kind: dict[str, list[Any]] = {}
    for raw in world.applied[1:]:
        by_kind.setdefault(message_of(raw).WhichOneof("kind"), []).append(message_of(raw))
    assert len(by_kind) >= 9
    codes: Counter[int] = Counter()
    for _ in range(800):
        kind = chosen.choice(sorted(by_kind))
        operation = message_of(sign_operation(chosen.choice(by_kind[kind]), meta_key(1)))
        refresh(world, operation, kind, chosen)
        for _ in range(chosen.choice((1, 1, 2))):
            if kind == "observe":
                observation = Observation.FromString(operation.observe.observation)
                observation.from_height = observation.to_height = world.state.height + 1
                observation.part = world.state.part
                mutated(chosen, observation)
                operation.observe.CopyFrom(world.signed(observation))
            elif kind == "wallet_order":
                order = WalletOrder.FromString(operation.wallet_order.body)
                order.nonce, order.expires_s = chosen.randbytes(16), world.time_ms // 1_000 + 60
                mutated(chosen, order)
                fields = {field.name: value for field, value in order.ListFields()}
                operation.wallet_order.CopyFrom(WalletDocument(**world.order(player.number_of(order.wallet), **fields)))
            else:
                mutated(chosen, operation)
        operation.nonce, operation.until_s = world.operation("tick", message("Tick")).nonce, world.time_ms // 1_000
        operation.chain_id, operation.meta_node = CHAIN_ID, meta(1)
        codes[world.submit(sign_operation(operation, meta_key(1))).code] += 1
    assert codes[0] > 50, codes
    assert len(codes) >= 10, codes
    world.close()


def refresh(world: World, operation: Any, kind: str, chosen: random.Random) -> None:
    """What only its time or number would have refused is made current, so that what was changed decides."""
    row = world.core.tables.get(META, (meta(1),))
    assert row is not None
    if kind in ("window", "release"):
        getattr(operation, kind).number = row.windows + 1
    if kind == "take_lease":
        number = 1 if operation.take_lease.wallet == wallet(1) else 2
        operation.take_lease.grant.CopyFrom(WalletDocument(**world.grant(number, nonce=chosen.randbytes(16))))
    if kind in ("commit", "window", "settle_leases") and (leases := world.core.tables.scan(LEASE, index="by_meta", limit=50)):
        lease = chosen.choice(leases)
        if kind == "commit":
            operation.commit.lease_id = lease.id
        elif kind == "settle_leases":
            operation.settle_leases.lease_ids[0] = lease.id
        elif operation.window.leases:
            operation.window.leases[0].lease_id = lease.id


def message_of(raw: bytes) -> Any:
    return open_operation(raw)[0]
