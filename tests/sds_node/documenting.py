"""Meta nodes, a resource node, a wallet and their documents, for tests of what is signed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import nacl.signing

from chain.codec.canonical import encode
from chain.crypto import address as bech32
from chain.crypto.keys import Ed25519PublicKey, PrivateKey
from modules.settlement.documents import OrderLimit, SessionGrant
from sds_node import documents
from sds_node.documents import Lease, LeaseCertificate, ShareManifest, StoreAck, signature_of, signed
from sds_node.resource.limits import TrafficEvidence
from tests.serials import own_serial
from tests.support import KEYS, text

CHAIN_ID = "stratos-test-1"
NOW_S = 1_800_000_000
NODE_KEY = nacl.signing.SigningKey(b"\x31" * 32)
NODE = Ed25519PublicKey(bytes(NODE_KEY.verify_key)).address
NODE_TEXT = bech32.encode(NODE, bech32.NODE)
SESSION = nacl.signing.SigningKey(b"\x32" * 32)
PAYER = PrivateKey(KEYS[3].raw, "eth_secp256k1")
WALLET, BENEFICIARY = text(PAYER), text(KEYS[4])


def meta_key(number: int) -> nacl.signing.SigningKey:
    return nacl.signing.SigningKey(bytes([number]) * 32)


def meta_address(number: int) -> bytes:
    return Ed25519PublicKey(bytes([100 + number]) * 32).address


def meta_text(number: int) -> str:
    return bech32.encode(meta_address(number), bech32.NODE)


@dataclass
class Chain:
    """What nodes know of the value chain."""

    metas: int = 4
    chain_id: str = CHAIN_ID
    gone: set[int] = field(default_factory=set)

    def ledger_key(self, meta_node: bytes) -> bytes | None:
        numbers = {meta_address(number): number for number in range(1, self.metas + 1)}
        return bytes(meta_key(numbers[meta_node]).verify_key) if meta_node in numbers else None

    def active_meta_nodes(self) -> list[bytes]:
        return [meta_address(number) for number in range(1, self.metas + 1) if number not in self.gone]


def certificate(*signers: int, **changes: Any) -> Any:
    """A LeaseCertificate of meta node 1, for 1,000,000 noz and an hour; signed by meta nodes 1 and 2 unless told otherwise."""
    fields: dict[str, Any] = {
        "chain_id": CHAIN_ID,
        "lease_id": b"L" * 32,
        "wallet": WALLET,
        "meta_node": meta_text(1),
        "noz": 1_000_000,
        "fund": 1,
        "created_s": NOW_S - 10,
        "expires_s": NOW_S + 3_600,
    }
    lease = Lease(**fields | changes)
    body = encode(lease)
    made = LeaseCertificate(body=body)
    for number in signers or (1, 2):
        made.signatures.add(meta_node=meta_text(number), signature=signature_of(lease, body, meta_key(number)))
    return made


def limit(number: int, **changes: Any) -> Any:
    """An OrderLimit of 1,000 bytes for 1,000 noz; its range begins at 1,000 times the number."""
    fields: dict[str, Any] = {
        "chain_id": CHAIN_ID,
        "serial": own_serial(meta_address(1), number),
        "meta_node": meta_text(1),
        "lease_id": b"L" * 32,
        "from_noz": number * 1_000,
        "to_noz": (number + 1) * 1_000,
        "wallet": WALLET,
        "session_pubkey": bytes(SESSION.verify_key),
        "node": NODE_TEXT,
        "beneficiary": BENEFICIARY,
        "action": 2,
        "traffic_class": 1,
        "fund": 1,
        "object_root": b"O" * 32,
        "share_root": b"S" * 32,
        "max_bytes": 1_000,
        "max_noz": 1_000,
        "created_s": NOW_S - 5,
        "expires_s": NOW_S + 600,
    }
    return OrderLimit(**fields | changes)


def grant(**changes: Any) -> dict[str, Any]:
    """Fields of a WalletDocument with a SessionGrant."""
    fields: dict[str, Any] = {
        "chain_id": CHAIN_ID,
        "wallet": WALLET,
        "session_pubkey": bytes(SESSION.verify_key),
        "actions": [1, 2],
        "path_prefix": "/",
        "max_noz": 10**9,
        "not_before_s": NOW_S - 60,
        "expires_s": NOW_S + 7_200,
        "nonce": b"n" * 16,
    }
    body = encode(SessionGrant(**fields | changes))
    return {"body": body, "public_key": PAYER.public_key.raw, "signature": PAYER.sign(documents.GRANT_DOMAIN + b"\x00" + body)}


def evidence(number: int, *, signer: int = 1, grant_changes: dict[str, Any] | None = None, **changes: Any) -> Any:
    """A TrafficEvidence without a receipt."""
    made = TrafficEvidence(grant=grant(**grant_changes or {}))
    made.order_limit.CopyFrom(signed(limit(number, **changes), meta_key(signer)))
    return made


def ack(key: nacl.signing.SigningKey = NODE_KEY, **changes: Any) -> Any:
    """A SignedDocument of a StoreAck."""
    fields: dict[str, Any] = {
        "chain_id": CHAIN_ID,
        "node": NODE_TEXT,
        "serial": b"s" * 16,
        "share_root": b"S" * 32,
        "size_bytes": 5,
        "stored_s": NOW_S,
    }
    return signed(StoreAck(**fields | changes), key)


def manifest(key: nacl.signing.SigningKey = SESSION, **changes: Any) -> Any:
    """A SignedManifest without its grant."""
    fields: dict[str, Any] = {
        "chain_id": CHAIN_ID,
        "wallet": WALLET,
        "object_id": b"o" * 32,
        "segment": 0,
        "segment_bytes": 7,
        "index": 4,
        "data_shares": 2,
        "total_shares": 5,
        "share_root": b"S" * 32,
        "size_bytes": 4,
        "serial": b"s" * 16,
    }
    document = signed(ShareManifest(**fields | changes), key)
    return documents.SignedManifest(body=document.body, signature=document.signature, session_pubkey=bytes(SESSION.verify_key))
