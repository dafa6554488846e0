"""Order limits: numbered and signed, in microseconds.

    serial = first 4 bytes of the meta node's address ‖ boot, 4 bytes ‖ counter, 8 bytes        boot is counted on the disk, so no serial comes twice

Source: docs/adr/0009; storage-protocol.md 2 and 4.
"""

from __future__ import annotations

from typing import Any, Final

import nacl.bindings
import nacl.signing

from chain.crypto import address as bech32
from modules.settlement.documents import LIMIT_DOMAIN, OrderLimit, to_sign
from modules.settlement.leaves import SERIAL_BYTES
from sds_node.documents import SignedDocument
from sds_node.meta.rules.tables import STORAGE
from sds_node.meta.users.known import Contact
from sds_node.meta.users.leases import Held

MAX_BOOT: Final = (1 << 32) - 1
_SIGNATURE_BYTES: Final = 64


class LimitSigner:
    """Signs the order limits of one meta node (20 bytes of address) with its ledger key. ``boot`` is a number that no earlier process had."""

    def __init__(self, chain_id: str, address: bytes, key: nacl.signing.SigningKey, boot: int) -> None:
        if not 0 <= boot <= MAX_BOOT:
            raise ValueError(f"a boot number is from 0 to 2^32 - 1, got {boot}")
        self.chain_id, self.address, self.text = chain_id, address, bech32.encode(address, bech32.NODE)
        self.public_key = bytes(key.verify_key)
        self._secret = bytes(key) + self.public_key
        self._next = int.from_bytes(address[:4] + boot.to_bytes(4, "big") + bytes(8), "big")

    def serials(self, count: int) -> int:
        """The first of ``count`` serials that follow one another, as a number."""
        first = self._next
        self._next += count
        return first

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
