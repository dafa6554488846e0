"""Documents of the storage network: how each is signed, and what a signature on it needs.

    Lease           meta nodes, floor((n − 1) ÷ 3) + 1 of them   a wallet's noz in the hands of one meta node, for a time
    OrderLimit      that meta node                               one node may move so many bytes for a range of the lease
    Receipt         the session key                              so many bytes were moved
    StoreAck        the node                                     it holds a share, whose root it computed itself
    ShareManifest   the session key                              which share of which object that is

A body is canonical protobuf of at most 4,096 bytes; ed25519 keys sign domain ‖ 0x00 ‖ SHA-256(body), as settlement's evidence is signed.
Sources: storage-protocol.md 2, 3.4 and 4; ADR 7.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final, Protocol

import nacl.signing

from chain.codec.canonical import encode, known
from chain.codec.registry import message_class
from chain.crypto import address as bech32
from chain.crypto.keys import Ed25519PublicKey
from modules.settlement.commitment import node_of, wallet_of
from modules.settlement.documents import (
    GRANT_DOMAIN,
    LIMIT_DOMAIN,
    RECEIPT_DOMAIN,
    OrderLimit,
    Receipt,
    SessionGrant,
    decoded,
    signed_by_key,
    to_sign,
)
from modules.settlement.leaves import HASH_BYTES, SERIAL_BYTES

PACKAGE: Final = "stratos.storage.v1"
Lease: Final = message_class(f"{PACKAGE}.Lease")
LeaseCertificate: Final = message_class(f"{PACKAGE}.LeaseCertificate")
StoreAck: Final = message_class(f"{PACKAGE}.StoreAck")
ShareManifest: Final = message_class(f"{PACKAGE}.ShareManifest")
SignedManifest: Final = message_class(f"{PACKAGE}.SignedManifest")
SignedDocument: Final = message_class("stratos.settlement.v1.SignedDocument")

LEASE_DOMAIN: Final = b"stratos/lease/v1"
ACK_DOMAIN: Final = b"stratos/store-ack/v1"
MANIFEST_DOMAIN: Final = b"stratos/share-manifest/v1"
DOMAINS: Final[dict[str, bytes]] = {
    SessionGrant.DESCRIPTOR.full_name: GRANT_DOMAIN,
    OrderLimit.DESCRIPTOR.full_name: LIMIT_DOMAIN,
    Receipt.DESCRIPTOR.full_name: RECEIPT_DOMAIN,
    Lease.DESCRIPTOR.full_name: LEASE_DOMAIN,
    StoreAck.DESCRIPTOR.full_name: ACK_DOMAIN,
    ShareManifest.DESCRIPTOR.full_name: MANIFEST_DOMAIN,
}
MAX_SIGNERS: Final = 100
MAX_SEGMENTS: Final = 1 << 31
MAX_SHARES: Final = 256


class Refused(Exception):
    """A document that does not hold. The text says what was expected and what came."""


class Authority(Protocol):
    """What is known of the value chain: who may sign what."""

    @property
    def chain_id(self) -> str: ...

    def ledger_key(self, meta_node: bytes) -> bytes | None:
        """The ledger key (32 bytes) that a meta node (network address) registered, or None."""
        ...

    def active_meta_nodes(self) -> Collection[bytes]:
        """Network addresses of the meta nodes that are bonded and not suspended."""
        ...


def signed(document: Any, key: nacl.signing.SigningKey) -> Any:
    """A SignedDocument of one of ``DOMAINS`` that an ed25519 key signs."""
    body = encode(known(document))
    return SignedDocument(body=body, signature=signature_of(document, body, key))


def signature_of(document: Any, body: bytes, key: nacl.signing.SigningKey) -> bytes:
    """64 bytes over the canonical body of a document."""
    return bytes(key.sign(to_sign(DOMAINS[document.DESCRIPTOR.full_name], body)).signature)


def opened(kind: Any, body: bytes) -> Any:
    """The document of a body. Raises Refused unless it is the canonical form of a ``kind``."""
    document = decoded(kind, body)
    if document is None:
        raise Refused(f"expected a {kind.DESCRIPTOR.name} in canonical form of at most 4,096 bytes, got {len(body)} bytes that are none")
    return document


def check_signed(kind: Any, given: Any, key: bytes, signer: str) -> Any:
    """The document of a SignedDocument that the ed25519 ``key`` signed; ``signer`` says in errors whose key that is. Raises Refused."""
    document = opened(kind, given.body)
    check_signature(kind, given, key, signer)
    return document


def check_signature(kind: Any, given: Any, key: bytes, signer: str) -> None:
    """Raises Refused unless the ed25519 ``key`` signed a SignedDocument, whose body is a ``kind``."""
    if not signed_by_key(DOMAINS[kind.DESCRIPTOR.full_name], given.body, key, given.signature):
        raise Refused(f"{signer} has not signed this {kind.DESCRIPTOR.name}")


# --- leases -------------------------------------------------------------------------------------------------------------------------


def lease_quorum(meta_nodes: int) -> int:
    """How many of n meta nodes sign a lease: floor((n − 1) ÷ 3) + 1, so that one of them is honest while fewer than a third lie."""
    return (meta_nodes - 1) // 3 + 1


REPAIR_LEASE_NOZ: Final = 1 << 50
"""A lease of repair has just so many, and ends REPAIR_LEASE_S after it began: it moves no wallet's noz, so it is in no ledger."""
REPAIR_LEASE_S: Final = 3_600


def is_repair_lease(document: Any) -> bool:
    """Whether a Lease is one of repair, by what it says."""
    return bool(document.noz == REPAIR_LEASE_NOZ and document.expires_s - document.created_s == REPAIR_LEASE_S)


def check_lease(certificate: Any, authority: Authority) -> Any:
    """The Lease of a LeaseCertificate. Raises Refused unless its form is right and enough active meta nodes signed it, each counted once.

    Who has left in the meantime does not count; time is the caller's.
    """
    lease = opened(Lease, certificate.body)
    if lease.chain_id != authority.chain_id:
        raise Refused(f"expected a lease of chain {authority.chain_id}, got one of {lease.chain_id[:64]!r}")
    if len(lease.lease_id) != HASH_BYTES or wallet_of(lease.wallet) is None or node_of(lease.meta_node) is None:
        raise Refused("expected a lease with an id of 32 bytes, a wallet and a meta node")
    if lease.noz == 0 or lease.fund not in (1, 2) or not 0 < lease.created_s < lease.expires_s:
        raise Refused("expected a lease of at least one noz, paid or promo, that expires after it was made")
    if len(certificate.signatures) > MAX_SIGNERS:
        raise Refused(f"expected at most {MAX_SIGNERS} signatures, got {len(certificate.signatures)}")
    active = set(authority.active_meta_nodes())
    needed, signers = lease_quorum(len(active)), set()
    for one in certificate.signatures:
        node = node_of(one.meta_node)
        key = authority.ledger_key(node) if node in active and node not in signers and node is not None else None
        if key is not None and signed_by_key(LEASE_DOMAIN, certificate.body, key, one.signature):
            signers.add(node)
    if not active or len(signers) < needed:
        raise Refused(f"expected {needed} of {len(active)} active meta nodes to have signed the lease, got {len(signers)}")
    return lease


# --- what a node says of a share ------------------------------------------------------------------------------------------------------


def check_ack(given: Any, authority: Authority, node_key: bytes, *, serial: bytes, share_root: bytes, size_bytes: int) -> Any:
    """The StoreAck of a SignedDocument, by the node with that P2P key, for exactly that share. Raises Refused."""
    node = bech32.encode(Ed25519PublicKey(node_key).address, bech32.NODE)
    ack = check_signed(StoreAck, given, node_key, node)
    found = (ack.chain_id, ack.node, bytes(ack.serial), bytes(ack.share_root), ack.size_bytes)
    if found != (authority.chain_id, node, serial, share_root, size_bytes):
        raise Refused(
            f"{node} acknowledges share {ack.share_root.hex()[:64]} of {ack.size_bytes} bytes under serial {ack.serial.hex()[:32]}: "
            f"expected {share_root.hex()} of {size_bytes} bytes under {serial.hex()}"
        )
    return ack


def check_manifest(given: Any, chain_id: str) -> Any:
    """The ShareManifest of a SignedManifest, with the form and the session key's signature checked. Whose session it is, its grant says. Raises Refused."""
    manifest = check_signed(ShareManifest, given, given.session_pubkey, "the session key")
    if manifest.chain_id != chain_id:
        raise Refused(f"expected a manifest of chain {chain_id}, got one of {manifest.chain_id[:64]!r}")
    if wallet_of(manifest.wallet) is None or len(manifest.object_id) != HASH_BYTES or len(manifest.share_root) != HASH_BYTES:
        raise Refused("expected a manifest with a wallet, an object id and a share root of 32 bytes")
    if len(manifest.serial) != SERIAL_BYTES:
        raise Refused(f"expected a serial of {SERIAL_BYTES} bytes, got {len(manifest.serial)}")
    if not (0 < manifest.data_shares <= manifest.total_shares <= MAX_SHARES and manifest.index < manifest.total_shares):
        raise Refused(f"expected share i of n with k of them needed, got {manifest.index} of {manifest.total_shares}, {manifest.data_shares} needed")
    if manifest.segment >= MAX_SEGMENTS or manifest.segment_bytes == 0 or manifest.size_bytes == 0:
        raise Refused("expected a segment's number below 2^31, its size and the share's of at least a byte")
    return manifest
