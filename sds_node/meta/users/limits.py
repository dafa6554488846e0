"""Order limits: numbered and signed, in microseconds.

    serial = 8 bytes that are the meta node's (settlement's serial_prefix) ‖ boot, 4 bytes ‖ counter, 4 bytes

A boot is counted on the disk, and at least Unix seconds (books/file.py), so no serial comes twice, even where the books were lost. Of the counter uploads and
downloads have the lower 15 of 16 parts, the last one is repair's. Who has nearly used up its part draws another boot, and goes on with that one.
Source: docs/adr/0009; storage-protocol.md 2 and 4.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final

import nacl.bindings
import nacl.signing

from chain.crypto import address as bech32
from modules.settlement.documents import LIMIT_DOMAIN, OrderLimit, to_sign
from modules.settlement.leaves import SERIAL_BYTES, serial_prefix
from sds_node.documents import SignedDocument
from sds_node.meta.rules.tables import STORAGE
from sds_node.meta.users.known import Contact
from sds_node.meta.users.leases import Held

MAX_BOOT: Final = (1 << 32) - 1
COUNTERS: Final = 1 << 32
"""Serials of a boot."""
REPAIR_FROM: Final = COUNTERS // 16 * 15
"""Repair has those from this one on."""
DRAWN_AHEAD: Final = 1 << 24
"""Another boot is drawn when so many serials are left: half an hour of 10,000 a second."""
_SIGNATURE_BYTES: Final = 64


Another = Callable[[], Future[int]]


class SerialsUsedUp(Exception):
    """All serials of this boot are given and another one is not there. The text says what to do."""


class LimitSigner:
    """Signs the order limits of one meta node (20 bytes of address) with its ledger key. ``boot`` is a number that no earlier process had; of its counters this
    one gives those of ``counters``. ``another`` draws a further boot, of which it gives the same ones; without it there is no further one."""

    def __init__(
        self, chain_id: str, address: bytes, key: nacl.signing.SigningKey, boot: int, counters: range = range(REPAIR_FROM),
        another: Another | None = None,
    ) -> None:  # fmt: skip
        if not 0 <= boot <= MAX_BOOT:
            raise ValueError(f"a boot number is from 0 to 2^32 - 1, got {boot}")
        if not 0 <= counters.start <= counters.stop <= COUNTERS:
            raise ValueError(f"counters are from 0 to 2^32 - 1, got {counters}")
        self.chain_id, self.address, self.text = chain_id, address, bech32.encode(address, bech32.NODE)
        self.public_key = bytes(key.verify_key)
        self._secret = bytes(key) + self.public_key
        self._prefix, self._counters, self._another = serial_prefix(address), counters, another
        self._drawn: Future[int] | None = None
        self._begin(boot)

    def _begin(self, boot: int) -> None:
        base = int.from_bytes(self._prefix + boot.to_bytes(4, "big") + bytes(4), "big")
        self._next, self._end = base + self._counters.start, base + self._counters.stop

    def serials(self, count: int) -> int:
        """The first of ``count`` serials that follow one another, as a number. Raises SerialsUsedUp where another boot is needed and not there yet."""
        if self._another is not None and self._drawn is None and self._end - self._next - count < DRAWN_AHEAD:
            self._drawn = self._another()
        if self._next + count > self._end:
            self._go_on()
        first = self._next
        self._next += count
        return first

    def _go_on(self) -> None:
        drawn = self._drawn
        if drawn is None:
            raise SerialsUsedUp("this meta node has given all order limits that one start may give: start it again")
        if not drawn.done():
            raise SerialsUsedUp("the next order limits of this meta node wait for its disk: try again")
        self._drawn = None
        if drawn.cancelled() or (error := drawn.exception()) is not None:
            raise SerialsUsedUp(f"this meta node can give no more order limits ({'it stops' if drawn.cancelled() else error})")
        self._begin(drawn.result())

    def sign(
        self, held: Held, node: Contact, action: int, serial: int, taken: tuple[int, int], object_root: bytes, share_root: bytes, max_bytes: int,
        times_s: tuple[int, int],
    ) -> Any:  # fmt: skip
        """The SignedDocument of a limit for a node: so many bytes for the range ``taken`` of a lease, from and until ``times_s``."""
        lease = held.row
        body = OrderLimit(
            chain_id=self.chain_id,
            serial=serial.to_bytes(SERIAL_BYTES, "big"),
            meta_node=self.text,
            lease_id=lease.id,
            from_noz=taken[0],
            to_noz=taken[1],
            wallet=bech32.encode(lease.wallet),
            session_pubkey=lease.session_pubkey,
            node=bech32.encode(node.address, bech32.NODE),
            beneficiary=bech32.encode(node.beneficiary),
            action=action,
            traffic_class=STORAGE,
            fund=lease.fund,
            object_root=object_root,
            share_root=share_root,
            max_bytes=max_bytes,
            max_noz=taken[1] - taken[0],
            created_s=times_s[0],
            expires_s=times_s[1],
        ).SerializeToString(deterministic=True)
        signature = nacl.bindings.crypto_sign(to_sign(LIMIT_DOMAIN, body), self._secret)[:_SIGNATURE_BYTES]
        return SignedDocument(body=body, signature=signature)
