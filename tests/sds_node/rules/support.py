"""A storage network's ledger for tests: meta nodes, resource nodes, wallets with keys, and the chain that they observe."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import nacl.signing
import pytest

from chain.codec.canonical import encode
from chain.codec.registry import message_class
from chain.crypto import address as bech32
from chain.crypto.keys import PrivateKey
from modules.settlement.documents import GRANT_DOMAIN, SessionGrant
from sds_node.hashes import file_hash
from sds_node.meta.ledger.core import Core
from sds_node.meta.ledger.log import Result
from sds_node.meta.ledger.schema import Schema
from sds_node.meta.ledger.sql import open_store
from sds_node.meta.rules.apply import rules
from sds_node.meta.rules.approvals import approval_bytes, approvals_needed, approved, sign_approval
from sds_node.meta.rules.asking import sequence_text
from sds_node.meta.rules.invariants import check, walk
from sds_node.meta.rules.leases import lease_id
from sds_node.meta.rules.releases import Settled, settled_of
from sds_node.meta.rules.tables import FILE, META, OBJECT, SCHEMA, SEGMENT, SENT, STATE, VERSION, WALLET, Object, Segment, State, Wallet
from sds_node.meta.rules.wire import ORDER_DOMAIN, sign_observation, sign_operation
from sds_node.requests import Action, signed_text
from sds_node.schemes import segment_count
from tests.serials import first_serial

CHAIN_ID = "stratos-test-1"
DAY_MS = 86_400_000
START_MS = 1_800_000_000_000 - 1_800_000_000_000 % DAY_MS
HOUR_MS = 3_600_000
PARAMS = {
    "bytes_per_stos": 10**10,
    "escrow_ratio_e18": 5 * 10**17,
    "repair_ratio_e18": 5 * 10**16,
    "retention_days": 365,
    "grace_days": 90,
    "trash_days": 7,
    "longest_lease_s": 3_600,
    "audits_per_day": 100,
    "max_wallets_per_report": 1_000,
    "epoch_duration_s": 600,
}
HASH = file_hash(b"hello stratos\n")
OTHER_HASH = file_hash(b"something else\n")
SESSION = b"\x32" * 32
ZEROS = bytes(32)


def message(name: str, /, **fields: Any) -> Any:
    return message_class(f"stratos.storage.v1.{name}")(**fields)


def meta_key(number: int) -> nacl.signing.SigningKey:
    return nacl.signing.SigningKey(bytes([number]) * 32)


def meta(number: int) -> bytes:
    return bytes([200 + number]) * 20


def wallet_key(number: int) -> PrivateKey:
    return PrivateKey(sha256(b"wallet%d" % number).digest(), "eth_secp256k1")


def wallet(number: int) -> bytes:
    return bytes(wallet_key(number).public_key.address)


def owner(number: int) -> bytes:
    return sha256(b"owner%d" % number).digest()[:20]


def node_address(number: int) -> bytes:
    return sha256(b"node%d" % number).digest()[:20]


def lookup(number: int) -> bytes:
    return sha256(b"lookup%d" % number).digest()


def event(**kind: Any) -> Any:
    return message("ObservedEvent", **kind)


def observed_meta(number: int, **changes: Any) -> Any:
    fields = {"address": meta(number), "owner": owner(90 + number), "ledger_key": bytes(meta_key(number).verify_key), "is_active": True}
    return message("ObservedMeta", **fields | changes)


def observed_node(number: int, **changes: Any) -> Any:
    fields: dict[str, Any] = {
        "address": node_address(number), "owner": owner(number), "beneficiary": owner(number), "p2p_key": sha256(b"p2p%d" % number).digest(),
        "deposit_wei": "1000", "standing": 1,
    }  # fmt: skip
    return message("ObservedNode", **fields | changes)


def sold(number: int, noz: int) -> Any:
    return event(sold=message("SoldOzone", wallet=wallet(number), noz=str(noz)))


def granted(number: int, noz: int, expires_s: int) -> Any:
    return event(granted=message("GrantedOzone", wallet=wallet(number), noz=str(noz), expires_s=expires_s))


def packed(nodes: list[int]) -> bytes:
    return b"".join(one.to_bytes(4, "big") for one in nodes)


def record(number: int, **changes: Any) -> Any:
    return message("FileRecord", **{"lookup_id": lookup(number), "name": b"name%d" % number, "wrapped_key": b"key"} | changes)


def new_object(
    counter: int, size_bytes: int, nodes: list[int], k: int = 1, /, *, lookup_number: int | None = None, sender: int = 1, **changes: Any
) -> Any:
    """An object with the same nodes for each segment; replicas unless told otherwise."""
    segments = [
        message(
            "NewSegment",
            root=sha256(b"segment%d" % at).digest(),
            first_serial=first_serial(meta(sender), b"serial%d %d" % (counter, at)),
            nodes=packed(nodes),
        )
        for at in range(segment_count(size_bytes))
    ]
    fields = {
        "counter": counter, "root": sha256(b"root%d" % counter).digest(), "file_hash": HASH, "size_bytes": size_bytes, "data_shares": k,
        "total_shares": len(nodes), "segments": segments, "file": record(counter if lookup_number is None else lookup_number),
    }  # fmt: skip
    return message("NewObject", **fields | changes)


def _put(table: Any, row: Any) -> bytes:
    """A row that was written, as it is in the app hash."""
    return bytes(table.id.to_bytes(2, "big") + b"\x01" + table.encode(row))


class World:
    """A ledger on SQLite, founded by ``metas`` meta nodes, with ``nodes`` resource nodes and wallet 1, who has bought ``noz``."""

    def __init__(self, folder: Path, *, metas: int = 1, nodes: int = 3, noz: int = 10**12, name: str = "ledger", is_checked: bool = True) -> None:
        self.core = Core.open(open_store(f"sqlite:///{folder}/{name}.db"), rules(CHAIN_ID), CHAIN_ID)
        self.metas, self.time_ms, self.is_checked = metas, START_MS, is_checked
        self.nonces: dict[int, int] = {}
        self.sent: list[tuple[bytes, int]] = []
        self.applied: list[bytes] = []
        self.height, self.outstanding, self.deposits = 100, 0, 0
        self.windows: dict[int, int] = {}
        self.settled: list[Settled] = []
        """What the last release settled."""
        self.last_hash = self.core.head.app_hash
        self.core.begin(self.time_ms)
        self.ok("found", self.founding())
        if nodes or noz:
            self.observe(*(event(node=observed_node(number)) for number in range(1, nodes + 1)), *([sold(1, noz)] if noz else []))

    def founding(self, **changes: Any) -> Any:
        fields: dict[str, Any] = {
            "height": 100, "block_hash": ZEROS, "metas": [observed_meta(number) for number in range(1, self.metas + 1)],
            "params": message("LedgerParams", **PARAMS),
        }  # fmt: skip
        return message("Found", **fields | changes)

    # --- sending ---

    def approve(self, body: Any, sender: int, *by: int) -> Any:
        """A Window or CloseEpoch with approvals of these meta nodes; by default of as many others as it needs."""
        rows = {row.address: row.is_active for row in self.core.tables.scan(META, limit=100)}
        others = [number for number in range(1, self.metas + 1) if number != sender and rows[meta(number)]]
        signed = approval_bytes(CHAIN_ID, meta(sender), body)
        chosen = by or others[: approvals_needed(self.core.tables)]
        return approved(body, [(meta(number), sign_approval(signed, meta_key(number))) for number in chosen])

    def operation(self, kind: str, body: Any, sender: int = 1, **changes: Any) -> Any:
        if (kind == "window" or (kind == "close_epoch" and body.without)) and not body.approvals:
            body = self.approve(body, sender)
        nonce = self.nonces[sender] = self.nonces.get(sender, 0) + 1
        fields = {"chain_id": CHAIN_ID, "meta_node": meta(sender), "nonce": nonce, "until_s": self.time_ms // 1_000 + 600, kind: body}
        return message("Operation", **fields | changes)

    def apply(self, kind: str, body: Any, sender: int = 1, **changes: Any) -> Result:
        return self.submit(sign_operation(self.operation(kind, body, sender, **changes), meta_key(sender)))

    def submit(self, raw: bytes) -> Result:
        """Apply it in the open batch, whose time is the world's."""
        if self.core.uncommitted.time_ms != self.time_ms:
            self.core.write()
            self.core.commit()
            self.core.begin(self.time_ms)
        result = self.core.apply(raw)
        self.sent.append((raw, self.time_ms))
        assert result.code != 1, result.reason  # no bug, whatever the bytes
        if result.code == 0:
            self.applied.append(raw)
        if result.code:
            # A refused operation changes nothing, or counts its sender's bytes and may use its nonce.
            rows = self.core.tables.scan(META, limit=100)
            counted = [(row, self.core.tables.get(SENT, (row.address,))) for row in rows]
            counts = [(_put(META, row), _put(SENT, sent)) for row, sent in counted if sent is not None]
            changes = [b"", *(used + bytes_sent for used, bytes_sent in counts), *(bytes_sent for _, bytes_sent in counts)]
            assert result.app_hash in [sha256(self.last_hash + sha256(one).digest()).digest() for one in changes]
        elif self.is_checked:
            check(self.core.tables)
        self.last_hash = result.app_hash
        return result

    def ok(self, kind: str, body: Any, sender: int = 1, **changes: Any) -> bytes:
        result = self.apply(kind, body, sender, **changes)
        assert result.code == 0, (result.code, result.reason)
        return result.result

    def refused(self, code: int, kind: str, body: Any, sender: int = 1, **changes: Any) -> str:
        result = self.apply(kind, body, sender, **changes)
        assert result.code == code, (result.code, result.reason)
        assert len(result.reason) > 20
        return result.reason

    def wait(self, ms: int) -> None:
        self.time_ms += ms

    def close(self) -> None:
        self.core.write()
        self.core.commit()
        self.core.close()

    # --- the chain ---

    def observation(self, *events: Any, **changes: Any) -> Any:
        fields: dict[str, Any] = {
            "chain_id": CHAIN_ID, "from_height": self.height + 1, "to_height": self.height + 1, "is_last": True, "block_hash": ZEROS,
            "block_time_s": self.time_ms // 1_000, "outstanding_noz": str(self.outstanding or ""), "deposit_changes": self.deposits, "events": events,
        }  # fmt: skip
        return message("Observation", **fields | changes)

    def signed(self, observation: Any, *signers: int) -> Any:
        body = encode(observation)
        made = message("Observe", observation=body)
        for number in signers or range(1, self.metas + 1):
            made.signatures.add(meta_node=meta(number), signature=sign_observation(body, meta_key(number)))
        return made

    def observe(self, *events: Any, **changes: Any) -> None:
        self.ok("observe", self.signed(self.observation(*events, **changes)))
        self.height = self.state.height

    # --- wallets ---

    def grant(self, number: int = 1, **changes: Any) -> dict[str, Any]:
        now_s = self.time_ms // 1_000
        fields: dict[str, Any] = {
            "chain_id": CHAIN_ID, "wallet": bech32.encode(wallet(number)), "session_pubkey": SESSION, "actions": [1, 2], "path_prefix": "/",
            "max_noz": 10**13, "not_before_s": now_s - 60, "expires_s": now_s + 7_200, "nonce": b"n" * 16,
        }  # fmt: skip
        body = encode(SessionGrant(**fields | changes))
        key = wallet_key(number)
        return {"body": body, "public_key": key.public_key.raw, "signature": key.sign(GRANT_DOMAIN + b"\x00" + body)}

    def lease_request(self, noz: int, number: int = 1, fund: int = 1, *, grant: dict[str, Any] | None = None, **changes: Any) -> Any:
        fields: dict[str, Any] = {"wallet": wallet(number), "session_pubkey": SESSION, "fund": fund, "noz": noz, "seconds": 3_600}
        if not {"upload", "download", "download_shared"} & set(changes):
            fields["grant"] = grant or self.grant(number)
        elif "upload" in changes:
            fields["size_bytes"] = 10_000
        return message("TakeLease", **fields | changes)

    def lease(self, noz: int, number: int = 1, fund: int = 1, sender: int = 1) -> bytes:
        taken = self.ok(
            "take_lease", self.lease_request(noz, number, fund, grant=self.grant(number, nonce=len(self.sent).to_bytes(16, "big"))), sender
        )
        assert taken == lease_id(meta(sender), self.nonces[sender])
        return taken

    def order(self, number: int = 1, *, key: PrivateKey | None = None, **changes: Any) -> dict[str, Any]:
        fields: dict[str, Any] = {
            "chain_id": CHAIN_ID, "wallet": wallet(number), "nonce": len(self.sent).to_bytes(16, "big"), "expires_s": self.time_ms // 1_000 + 600
        }  # fmt: skip
        body = encode(message("WalletOrder", **fields | changes))
        key = key or wallet_key(number)
        document = {"body": body, "public_key": key.public_key.raw, "signature": key.sign(ORDER_DOMAIN + b"\x00" + body)}
        return document

    def ask(self, action: Action, subject: str, number: int = 1, *, sequence: int | None = None, ago_s: int = 0) -> Any:
        timestamp_s = self.time_ms // 1_000 - ago_s
        numbered = sequence_text(self.wallet(number).sequence if sequence is None else sequence) if action.value[1] else ""
        text = signed_text(action, subject, bech32.encode(wallet(number)), numbered, timestamp_s)
        key = wallet_key(number)
        signature = key.sign(text.encode())
        return message("LegacyAsk", subject=subject, sequence=numbered, timestamp_s=timestamp_s, public_key=key.public_key.raw, signature=signature)

    # --- stored files ---

    def put(self, lease: bytes, counter: int, size_bytes: int, nodes: list[int], k: int = 1, sender: int = 1, **changes: Any) -> Object:
        self.ok("commit", message("Commit", lease_id=lease, objects=[new_object(counter, size_bytes, nodes, k, **changes)]), sender)
        return self.object(lookup(counter if changes.get("lookup_number") is None else changes["lookup_number"]))

    def window(self, leases: dict[bytes, int], credits: list[tuple[bytes, int, int, int]], repairs: Any = (), sender: int = 1, **changes: Any) -> Any:
        fields: dict[str, Any] = {
            "number": self.windows.get(sender, 0) + 1, "receipts_root": ZEROS, "receipts_count": 1, "batch_hash": ZEROS,
            "leases": [message("LeaseDebit", lease_id=key, noz=noz) for key, noz in sorted(leases.items())],
            "credits": [message("Credit", beneficiary=to, fund=fund, traffic_class=kind, noz=noz) for to, fund, kind, noz in credits],
            "repairs": list(repairs),
        }  # fmt: skip
        return message("Window", **fields | changes)

    def settle_window(self, *arguments: Any, sender: int = 1, **changes: Any) -> None:
        self.ok("window", self.window(*arguments, sender=sender, **changes), sender)
        self.windows[sender] = self.windows.get(sender, 0) + 1

    def release(self, *results: dict[str, Any], sender: int = 1) -> int:
        body = message(
            "Release", number=self.windows.get(sender, 0) + 1, answers_root=ZEROS, answers_count=1, batch_hash=ZEROS,
            results=[message("NodeResult", **{"last_segment": (1 << 48) - 1} | one) for one in results],
        )  # fmt: skip
        self.settled = settled_of(self.ok("release", body, sender)) or []
        self.windows[sender] = self.windows.get(sender, 0) + 1
        return len(self.settled)

    def tick(self) -> int:
        return int.from_bytes(self.ok("tick", message("Tick")), "big")

    # --- rows ---

    @property
    def state(self) -> State:
        row = self.core.tables.get(STATE, (1,))
        assert row is not None
        return row

    def wallet(self, number: int = 1) -> Wallet:
        return self.core.tables.get(WALLET, (wallet(number),)) or Wallet(wallet(number), 0, 0, 0, 0, 0, 0, 0, True)

    def object(self, lookup_id: bytes, number: int = 1) -> Object:
        file = self.core.tables.get(FILE, (wallet(number), lookup_id))
        assert file is not None
        return self.object_by_id(file.object)

    def object_by_id(self, key: bytes) -> Object:
        row = self.core.tables.get(OBJECT, (key,))
        assert row is not None
        return row

    def segment(self, number: int) -> Segment:
        row = self.core.tables.get(SEGMENT, (number,))
        assert row is not None
        return row


Make = Callable[..., World]


def opened_with_todays(world: World, earlier: Schema, folder: Path, patches: pytest.MonkeyPatch) -> Core:
    """The ledger in a folder whose world had an earlier schema, under today's rules, ``patches`` undone: it has the same rows and head."""
    world.core.write()
    world.core.commit()
    head, rows = world.core.head, [row for table in earlier.tables for row in walk(world.core.tables, table)]
    world.core.close()
    patches.undo()
    core = Core.open(open_store(f"sqlite:///{folder}/ledger.db"), rules(CHAIN_ID), CHAIN_ID)
    assert [row for table in SCHEMA.tables for row in walk(core.tables, table)] == rows
    assert (core.head.sequence, core.head.app_hash, core.head.schema_version) == (head.sequence, head.app_hash, VERSION)
    return core
