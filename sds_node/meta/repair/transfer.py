"""Shares from and to nodes, for repair: the same protocol as a user's, under a session of the meta node's own and without a wallet's grant.

    session key, new with each start ─► a wire node of its own ─► share.get, share.put of resource nodes         receipts are signed here, each MiB

A node takes a session's limits from nobody but the holder of its key, so these calls go out under that key and not under the meta node's. Every leaf is checked
against the share's root before the receipt that covers it is signed. Source: storage-protocol.md 3.4 and 4; ``resource/service.py``.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final

import nacl.signing

from chain.codec.registry import message_class
from modules.settlement.documents import Receipt
from sds_node import transfers
from sds_node.documents import Refused, ShareManifest, SignedDocument, SignedManifest, check_ack, signed
from sds_node.merkle import LEAF_BYTES, Buffer, LeafCheck, MerkleError, segment_path
from sds_node.meta.nodes.hello import BadEndpoint, endpoint_of
from sds_node.meta.repair.health import Judged
from sds_node.meta.repair.issuing import Limit
from sds_node.meta.rules.wire import PACKAGE
from sds_node.meta.users.known import Contact
from sds_node.p2p import address_of
from sds_node.transfers import RECEIPT_BYTES, Moved, TrafficEvidence, head_bytes, receive_record, record
from sds_node.wire.errors import CallFailed, ConnectionFailed, Unreachable, WireError
from sds_node.wire.identity import Identity
from sds_node.wire.node import Node
from sds_node.wire.peer import Direct, Peer, Through
from sds_node.wire.stream import Stream

MAX_PEERS: Final = 500
MovedShare: Final = message_class(f"{PACKAGE}.MovedShare")
LET_GO_S: Final = 10.0
MEBIBYTE_S: Final = 60.0
"""A source that sends a MiB, or what is left of its share, in no less than this has failed: by single bytes it would hold a repair for years."""
_HASH_BYTES: Final = 32


class NodeFailed(Exception):
    """A node did not do its part. ``code`` is its refusal's, None when none came; ``is_lie``: what it sent is not so. ``is_owed``: a receipt may come."""

    def __init__(self, number: int, text: str, code: int | None = None, *, is_lie: bool = False) -> None:
        self.number, self.code, self.is_lie, self.is_owed = number, code, is_lie, False
        super().__init__(f"node {number}: {text}")


class _ChainOnly:
    """What an acknowledgement is judged by: it names no meta node."""

    def __init__(self, chain_id: str) -> None:
        self.chain_id = chain_id

    def ledger_key(self, meta_node: bytes) -> bytes | None:
        return None

    def active_meta_nodes(self) -> tuple[bytes, ...]:
        return ()


class _Receipts:
    """The receipts of one limit: each covers what came before."""

    def __init__(self, transfers_: Transfers, limit: Limit) -> None:
        self._owner, self._limit, self._sequence = transfers_, limit, 0
        self.moved = Moved(limit.share_root)
        self.is_final = False
        self._first_ms = self._last_ms = self._owner.now_ms(limit)

    def whole(self, size_bytes: int) -> bytes:
        """The record of the final receipt of a put."""
        self.moved.bytes = size_bytes
        return self._record(self.moved.digest, is_final=True)

    def so_far(self, *, is_final: bool = False) -> bytes:
        """The record of a receipt of all leaves that came."""
        made = self._record(self.moved.digest, is_final=is_final)
        self.moved.acknowledge(self.moved.bytes, self.moved.digest)
        return made

    def _record(self, digest: bytes, *, is_final: bool) -> bytes:
        self._sequence += 1
        self.is_final = is_final
        self._last_ms = max(self._last_ms, self._owner.now_ms(self._limit))
        receipt = Receipt(
            chain_id=self._owner.chain_id,
            serial=self._limit.serial,
            sequence=self._sequence,
            bytes_acked=self.moved.bytes,
            chunks_digest=digest,
            first_ms=self._first_ms,
            last_ms=self._last_ms,
            is_final=is_final,
        )
        return record(signed(receipt, self._owner.key).SerializeToString())


class Transfers:
    """Moves shares. Close it with ``close``."""

    def __init__(self, chain_id: str, clock: Callable[[], float], stall_s: float) -> None:
        seed = secrets.token_bytes(32)
        self.chain_id, self.key = chain_id, nacl.signing.SigningKey(seed)
        self.session = bytes(self.key.verify_key)
        self._clock, self._stall_s = clock, stall_s
        self._wire = Node(Identity(seed), chain_id, software="stratos-spd-repair/1")
        self._peers: OrderedDict[tuple[int, str], Peer] = OrderedDict()
        self._ending: set[asyncio.Task[None]] = set()

    def now_ms(self, limit: Limit) -> int:
        """Now, within a limit's time."""
        return min(int(self._clock() * 1_000), limit.expires_s * 1_000)

    def _left_s(self, limit: Limit) -> float:
        """How long a limit still holds: nothing of it takes longer."""
        return max(0.0, limit.expires_s - self._clock())

    async def close(self) -> None:
        """End what is under way."""
        for task in list(self._ending):
            task.cancel()
        await asyncio.gather(*self._ending, return_exceptions=True)
        await self._wire.close()
        self._peers.clear()

    # --- out ----------------------------------------------------------------------------------------------------------------

    async def get(self, limit: Limit, segment_root: bytes) -> bytearray:
        """A whole share, every byte of it proved. Raises NodeFailed; what was good of a share that broke off is paid."""
        receipts = _Receipts(self, limit)
        async with _of_node(limit.contact.number, lambda: receipts.moved.bytes > 0, self._left_s(limit)):
            head = transfers.GetHead(certificate=limit.certificate, with_hashes=True, segment_root=segment_root)
            head.evidence.CopyFrom(TrafficEvidence(order_limit=limit.document))
            run = transfers.whole(limit.size_bytes)
            head.runs.add(first=run.first, leaves=run.leaves)
            async with asyncio.timeout(self._stall_s):
                stream = await self._peer(limit.contact).call(transfers.GET, head_bytes(head))
            try:
                data = await self._receive(stream, receipts, limit)
                await stream.send(receipts.so_far(is_final=True))
                stream.end()
                async with asyncio.timeout(self._stall_s):
                    await stream.result()
                return data
            except BaseException as error:
                if isinstance(error, ConnectionFailed) or stream.over or receipts.is_final:
                    stream.cancel()
                else:
                    self._let_go(stream, receipts)
                raise

    async def _receive(self, stream: Stream, receipts: _Receipts, limit: Limit) -> bytearray:
        async with asyncio.timeout(self._stall_s):
            raw = await receive_record(stream, transfers.MAX_REPLY_BYTES)
        if raw is None:
            await stream.result()
        reply = transfers.parsed(transfers.GetReply, raw or b"")
        if reply.size_bytes != limit.size_bytes:
            raise Refused(f"expected a share of {limit.size_bytes} bytes, got one of {reply.size_bytes}")
        hashes = bytes(reply.leaf_hashes)
        check = LeafCheck(limit.share_root, limit.size_bytes, hashes)
        data = bytearray(limit.size_bytes)
        at = leaf = 0
        now_s = asyncio.get_running_loop().time
        due_s, due_at = now_s() + MEBIBYTE_S, RECEIPT_BYTES
        while check.missing_bytes:
            async with asyncio.timeout_at(min(now_s() + self._stall_s, due_s)):
                chunk = await stream.receive(min(check.missing_bytes, RECEIPT_BYTES))
            if not chunk:
                await stream.result()
                raise Refused(f"expected {check.missing_bytes} bytes more of the share, got the end")
            data[at : at + len(chunk)] = chunk
            at += len(chunk)
            if at >= due_at:
                due_s, due_at = now_s() + MEBIBYTE_S, at + RECEIPT_BYTES
            try:
                check.update(chunk)
            finally:
                proved = -(-check.proved_bytes // LEAF_BYTES)
                receipts.moved.leaves(leaf, hashes[leaf * _HASH_BYTES : proved * _HASH_BYTES], check.proved_bytes - receipts.moved.bytes)
                leaf = proved
            if receipts.moved.bytes - receipts.moved.acked_bytes >= RECEIPT_BYTES:
                await stream.send(receipts.so_far())
        return data

    def _let_go(self, stream: Stream, receipts: _Receipts) -> None:
        """A get that is given up: the final receipt of what was good goes out in the background, so that this session owes none."""
        final = receipts.so_far(is_final=True)

        async def end() -> None:
            with contextlib.suppress(WireError, TimeoutError):
                async with asyncio.timeout(LET_GO_S), stream:
                    await stream.send(final)
                    stream.end()
                    while await stream.receive():
                        pass

        task = asyncio.get_running_loop().create_task(end())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    # --- in -----------------------------------------------------------------------------------------------------------------

    async def put(self, limit: Limit, judged: Judged, index: int, roots: Sequence[bytes], data: Buffer) -> bytes:
        """Send share ``index`` of a segment to a node → what shows that it has it (``Put.evidence``). ``roots`` are those of all its shares. Raises
        NodeFailed."""
        view = memoryview(data).cast("B")
        manifest = ShareManifest(
            chain_id=self.chain_id,
            wallet=limit.payer,
            object_id=judged.row.id,
            segment=judged.at,
            segment_bytes=judged.segment_bytes,
            index=index,
            data_shares=judged.row.k,
            total_shares=judged.row.n,
            share_root=limit.share_root,
            size_bytes=len(view),
            serial=limit.serial,
        )
        document = signed(manifest, self.key)
        head = transfers.PutHead(
            certificate=limit.certificate,
            evidence=TrafficEvidence(order_limit=limit.document),
            manifest=SignedManifest(body=document.body, signature=document.signature, session_pubkey=self.session),
            segment_root=judged.segment.root,
            segment_path=segment_path(roots, index),
        )
        is_sent = False
        async with _of_node(limit.contact.number, lambda: is_sent, self._left_s(limit)):
            final = _Receipts(self, limit).whole(len(view))
            peer = self._peer(limit.contact)
            try:
                async with asyncio.timeout(self._stall_s):
                    stream = await peer.call(transfers.PUT, head_bytes(head))
                async with stream:
                    for at in range(0, len(view), RECEIPT_BYTES):
                        async with asyncio.timeout(self._stall_s):
                            await stream.send(view[at : at + RECEIPT_BYTES])
                    await stream.send(final)
                    stream.end()
                    is_sent = True
                    answer = await self._answer(stream)
            except ConnectionFailed:
                if not is_sent:
                    raise
                head.again = True
                async with asyncio.timeout(self._stall_s), await peer.call(transfers.PUT, head_bytes(head), ended=True) as stream:
                    answer = await self._answer(stream)
            ack = transfers.parsed(SignedDocument, answer)
            check_ack(
                ack, _ChainOnly(self.chain_id), limit.contact.p2p_key, serial=limit.serial, share_root=limit.share_root, size_bytes=len(view)
            )  # fmt: skip
            shown = MovedShare(share_root=limit.share_root, segment_path=head.segment_path, ack_body=ack.body, ack_signature=ack.signature)
            evidence: bytes = shown.SerializeToString(deterministic=True)
        return evidence

    async def _answer(self, stream: Stream) -> bytes:
        async with asyncio.timeout(self._stall_s):
            answer = await receive_record(stream, transfers.MAX_ACK_BYTES)
            await stream.result()
        return answer or b""

    # --- ways ---------------------------------------------------------------------------------------------------------------

    def _peer(self, contact: Contact) -> Peer:
        relay = contact.relay
        if relay is None and not contact.endpoint:
            raise Unreachable(f"node {contact.number} has told no endpoint")
        key = (contact.number, contact.endpoint if relay is None else f"via {relay.endpoint}")
        peer = self._peers.pop(key, None)
        if peer is None:
            if relay is None:
                peer = Peer(self._wire, contact.address, [Direct(*endpoint_of(contact.endpoint))])
            else:
                by = Peer(self._wire, address_of(bytes(relay.p2p_key)), [Direct(*endpoint_of(relay.endpoint))])
                peer = Peer(self._wire, contact.address, [Through(by)])
        self._peers[key] = peer
        if len(self._peers) > MAX_PEERS:
            _, oldest = self._peers.popitem(last=False)
            self._wire.run(oldest.close())
        return peer


@contextlib.asynccontextmanager
async def _of_node(number: int, is_owed: Callable[[], bool], most_s: float) -> AsyncIterator[None]:
    """Have what goes wrong with one node come out as its failure, and what is not over in ``most_s``."""
    try:
        async with asyncio.timeout(most_s):
            yield
    except TimeoutError:
        failed = NodeFailed(number, "nothing moved in time")
    except WireError as error:
        failed = NodeFailed(number, f"{type(error).__name__}: {error}", error.code if isinstance(error, CallFailed) else None)
    except BadEndpoint as error:
        failed = NodeFailed(number, str(error))
    except (MerkleError, Refused) as error:
        failed = NodeFailed(number, str(error), is_lie=True)
    else:
        return
    failed.is_owed = is_owed()
    raise failed
