"""A chain with meta nodes that have keys, reports of epochs, and what a fraud proof is made of: documents, leaves, trees, paths."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import Any

import nacl.signing

from chain.app import build_application
from chain.application import Settings
from chain.codec.canonical import encode
from chain.codec.registry import message_class
from chain.coins import Coin, to_messages
from chain.crypto import address as bech32
from chain.crypto import bls
from chain.crypto.keys import PrivateKey
from chain.metakeys import MetaKeys
from chain.reports import Draft, report_reference
from chain.store.kv import MemoryBackend
from chain.testing.driver import Driver, TxResult
from genesis import build
from modules.settlement import commitment, documents, leaves
from tests.modules.ozone_chain import OzoneChain
from tests.serials import own_serial
from tests.support import CHAIN_ID, FEE, KEYS, genesis_document, key, text

SETTLEMENT, POT, REGISTER, SDS = "stratos.settlement.v1", "stratos.pot.v1", "stratos.register.v1", "stratos.sds.v1"
STOS = 10**18
GAS = 20_000_000
DEPOSIT_WEI = 1_000 * STOS
EPOCH_S = 5
MATURE_EPOCH = 3
CHALLENGE_BLOCKS = 7
STORAGE, DATABASE, COMPUTE, EDGE = 1, 2, 3, 4
PAID, PROMO = 1, 2
GET, PUT, REPAIR, AUDIT = 1, 2, 3, 4
SESSION = nacl.signing.SigningKey(b"\x07" * 32)
FINDER, OWNER, PAYER, ALICE, BOB = KEYS[5], KEYS[2], KEYS[3], key(80), key(81)
"""Who finds frauds; the owner of every meta node; whose ozone is used; two wallets that earn."""
A, B = text(ALICE), text(BOB)
CREATED_S, EXPIRES_S = 1_767_225_600, 1_767_225_900


@cache
def meta(number: int) -> MetaKeys:
    """A meta node's keys, the same for the same number."""
    secret = hashlib.sha256(f"meta node {number}".encode()).digest()
    return MetaKeys(secret, int.from_bytes(secret, "big") >> 4, hashlib.sha256(secret).digest())


def message(name: str, **fields: Any) -> Any:
    """A message of settlement."""
    return message_class(f"{SETTLEMENT}.{name}")(**fields)


# --- documents and leaves ----------------------------------------------------------------------------------------------------------


def signed(document: Any, domain: bytes, signer: nacl.signing.SigningKey) -> Any:
    body = encode(document)
    return message("SignedDocument", body=body, signature=signer.sign(documents.to_sign(domain, body)).signature)


def ledger_signer(node: MetaKeys) -> nacl.signing.SigningKey:
    return nacl.signing.SigningKey(node.ledger_seed)


def session_grant(payer: PrivateKey, **changes: Any) -> Any:
    """A WalletDocument."""
    fields = {
        "chain_id": CHAIN_ID,
        "wallet": text(payer),
        "session_pubkey": bytes(SESSION.verify_key),
        "actions": [GET, PUT],
        "path_prefix": "/",
        "max_noz": 10**15,
        "not_before_s": CREATED_S - 60,
        "expires_s": EXPIRES_S + 60,
        "nonce": b"n" * 16,
    }
    body = encode(message("SessionGrant", **fields | changes))
    signature = PrivateKey(payer.raw, "eth_secp256k1").sign(documents.GRANT_DOMAIN + b"\x00" + body)
    return message("WalletDocument", body=body, public_key=payer.public_key.raw, signature=signature)


FILE_HASH = "v05ahm54qtdk0oogho52ujtk5v6rdlpbhumfshmg"


def paying_text(subject: str = FILE_HASH, wallet: str | None = None, sequence: str = "SN:0000000000000000001", at_s: int = CREATED_S) -> str:
    """What a wallet signs for an upload or a download."""
    return f"{subject}{text(PAYER) if wallet is None else wallet}{sequence}{at_s}"


def legacy_grant(payer: PrivateKey, signed_text: str | None = None) -> Any:
    """A LegacyGrant, of an upload or download of the payer's own unless told otherwise."""
    signed_text = paying_text(wallet=text(payer)) if signed_text is None else signed_text
    signature = PrivateKey(payer.raw, "eth_secp256k1").sign(signed_text.encode())
    return message("LegacyGrant", signed_text=signed_text, public_key=payer.public_key.raw, signature=signature)


def order_limit(
    node: MetaKeys, number: int, noz: int, beneficiary: str = A, fund: int = PAID, traffic_class: int = STORAGE, /, **changes: Any
) -> Any:
    """An OrderLimit over 1,000 bytes for ``noz``; its range begins at 1,000,000 times the number."""
    fields = {
        "chain_id": CHAIN_ID,
        "serial": own_serial(bech32.decode(node.network_address, bech32.NODE), number),
        "meta_node": node.network_address,
        "lease_id": b"L" * 32,
        "from_noz": number * 10**6,
        "to_noz": number * 10**6 + noz,
        "wallet": text(PAYER),
        "session_pubkey": bytes(SESSION.verify_key),
        "node": bech32.encode(b"\x09" * 20, bech32.NODE),
        "beneficiary": beneficiary,
        "action": GET,
        "traffic_class": traffic_class,
        "fund": fund,
        "object_root": b"O" * 32,
        "share_root": b"S" * 32,
        "max_bytes": 1_000,
        "max_noz": noz,
        "created_s": CREATED_S,
        "expires_s": EXPIRES_S,
    }
    return message("OrderLimit", **fields | changes)


def receipt(number: int, /, **changes: Any) -> Any:
    """A Receipt of all 1,000 bytes."""
    fields = {
        "chain_id": CHAIN_ID,
        "serial": number.to_bytes(16, "big"),
        "sequence": 3,
        "bytes_acked": 1_000,
        "chunks_digest": b"D" * 32,
        "first_ms": CREATED_S * 1000,
        "last_ms": EXPIRES_S * 1000,
        "is_final": True,
    }
    return message("Receipt", **fields | changes)


def traffic_leaf(
    node: MetaKeys,
    serial: int,
    noz: int = 1_000,
    beneficiary: str = A,
    fund: int = PAID,
    traffic_class: int = STORAGE,
    *,
    limit: Mapping[str, Any] | None = None,
    receipt_: Mapping[str, Any] | None = None,
    grant: Any = None,
    legacy: Any = None,
    authority: bool = True,
    leaf: Mapping[str, Any] | None = None,
    limit_signer: nacl.signing.SigningKey | None = None,
    receipt_signer: nacl.signing.SigningKey = SESSION,
) -> Any:
    """A good leaf, with changes."""
    order = order_limit(node, serial, noz, beneficiary, fund, traffic_class, **limit or {})
    made = message("Leaf", **{"beneficiary": beneficiary, "fund": fund, "traffic_class": traffic_class, "noz": noz} | dict(leaf or {}))
    made.traffic.order_limit.CopyFrom(signed(order, documents.LIMIT_DOMAIN, limit_signer or ledger_signer(node)))
    made.traffic.receipt.CopyFrom(
        signed(receipt(serial, **{"serial": order.serial} | dict(receipt_ or {})), documents.RECEIPT_DOMAIN, receipt_signer)
    )
    if legacy is not None:
        made.traffic.legacy_grant.CopyFrom(legacy)
    elif authority:
        made.traffic.grant.CopyFrom(grant if grant is not None else session_grant(PAYER))
    return made


def release_leaf(day: int, noz: int = 1_000, beneficiary: str = A, fund: int = PAID, *, copy: int = 0, **changes: Any) -> Any:
    """A leaf of a share's escrow; ``copy`` tells replicas of one share apart."""
    made = message("Leaf", **{"beneficiary": beneficiary, "fund": fund, "traffic_class": STORAGE, "noz": noz} | changes)
    made.release.share_root, made.release.day, made.release.segment, made.release.index = b"R" * 32, day, copy >> 8, copy & 0xFF
    return made


# --- trees, by RFC 6962's own recursion --------------------------------------------------------------------------------------------------


def _split(count: int) -> int:
    """The largest power of two below ``count``."""
    return 1 << (count - 1).bit_length() - 1


def sum_tree(items: Sequence[tuple[bytes, int]]) -> tuple[bytes, int]:
    """(root, sum) of (leaf's bytes, noz)."""
    if not items:
        return hashlib.sha256(b"").digest(), 0
    if len(items) == 1:
        return hashlib.sha256(b"\x00" + items[0][0]).digest(), items[0][1]
    at = _split(len(items))
    (left, left_noz), (right, right_noz) = sum_tree(items[:at]), sum_tree(items[at:])
    return hashlib.sha256(b"\x01" + left + left_noz.to_bytes(16, "big") + right + right_noz.to_bytes(16, "big")).digest(), left_noz + right_noz


def sum_path(index: int, items: Sequence[tuple[bytes, int]]) -> list[tuple[bytes, int]]:
    """The path of a leaf, from below."""
    if len(items) == 1:
        return []
    at = _split(len(items))
    if index < at:
        return [*sum_path(index, items[:at]), sum_tree(items[at:])]
    return [*sum_path(index - at, items[at:]), sum_tree(items[:at])]


def plain_tree(items: Sequence[bytes]) -> bytes:
    if not items:
        return hashlib.sha256(b"").digest()
    if len(items) == 1:
        return hashlib.sha256(b"\x00" + items[0]).digest()
    at = _split(len(items))
    return hashlib.sha256(b"\x01" + plain_tree(items[:at]) + plain_tree(items[at:])).digest()


def plain_path(index: int, items: Sequence[bytes]) -> list[bytes]:
    if len(items) == 1:
        return []
    at = _split(len(items))
    if index < at:
        return [*plain_path(index, items[:at]), plain_tree(items[at:])]
    return [*plain_path(index - at, items[at:]), plain_tree(items[:at])]


@dataclass
class Tree:
    """Receipts of an epoch; they stay in the order given."""

    leaves: list[Any]

    @classmethod
    def of(cls, *found: Any) -> Tree:
        """Sorted, as they must be."""
        return cls(sorted(found, key=lambda leaf: leaves.sort_key(leaf) or (b"", 0, 0, b"")))

    @property
    def _items(self) -> list[tuple[bytes, int]]:
        return [(leaves.leaf_bytes(leaf), leaf.noz) for leaf in self.leaves]

    @cached_property
    def root(self) -> bytes:
        return sum_tree(self._items)[0]

    @cached_property
    def total_noz(self) -> int:
        return sum(leaf.noz for leaf in self.leaves)

    def proof(self, index: int, epoch: int = 1) -> Any:
        """A LeafProof."""
        path = [{"hash": node, "sum_noz": str(noz)} for node, noz in sum_path(index, self._items)]
        return message("LeafProof", epoch=epoch, index=index, leaf=self.leaves[index], path=path)

    def volumes(self) -> dict[str, int]:
        """noz by wallet, as an honest report has them."""
        found: dict[str, int] = {}
        for leaf in self.leaves:
            found[leaf.beneficiary] = found.get(leaf.beneficiary, 0) + leaf.noz
        return found

    def lines(self) -> list[tuple[str, int, int, int]]:
        """(wallet, class, fund, noz) of what is not paid storage, as an honest commitment has them."""
        found: dict[tuple[str, int, int], int] = {}
        for leaf in self.leaves:
            if (leaf.traffic_class, leaf.fund) != (STORAGE, PAID):
                place = (leaf.beneficiary, leaf.traffic_class, leaf.fund)
                found[place] = found.get(place, 0) + leaf.noz
        return sorted(((*place, noz) for place, noz in found.items()), key=lambda line: (bech32.decode(line[0]), *line[1:]))


def roots(tree: Tree | None = None, **changes: Any) -> dict[str, Any]:
    """EpochRoots over a tree."""
    empty = hashlib.sha256(b"").digest()
    made = dict.fromkeys(("receipts_root", "totals_root", "debits_root", "balances_root", "audits_root", "files_root"), empty)
    found = {"receipts_root": tree.root, "receipts_count": len(tree.leaves)} if tree is not None else {"receipts_count": 0}
    return {**made, **found, "data_ref": "cid", **changes}


def line_proof(volumes: Mapping[str, int], lines: Sequence[tuple[str, int, int, int]], place: tuple[str, int, int], epoch: int = 1) -> Any:
    """A LineProof of the line of (wallet, class, fund)."""
    named = [commitment.Line(bech32.decode(wallet), *rest) for wallet, *rest in lines]
    every = commitment.all_lines(named, {bech32.decode(wallet): noz for wallet, noz in volumes.items()})
    items = [commitment.line_bytes(line) for line in every]
    index = next(at for at, line in enumerate(every) if (bech32.encode(line.wallet), line.traffic_class, line.fund) == place)
    line = commit_line(*place, every[index].noz)
    return message("LineProof", epoch=epoch, index=index, line=line, path=plain_path(index, items))


def span(tree: Tree, wallet: str, traffic_class: int) -> tuple[int, int]:
    """(first, last) index of a wallet's leaves of a class."""
    found = [at for at, leaf in enumerate(tree.leaves) if (leaf.beneficiary, leaf.traffic_class) == (wallet, traffic_class)]
    return found[0], found[-1]


def borders(tree: Tree, first: int, last: int, epoch: int = 1) -> dict[str, Any]:
    """The four leaves of a WrongSum."""
    made = {"first": tree.proof(first, epoch), "last": tree.proof(last, epoch)}
    if first:
        made["before"] = tree.proof(first - 1, epoch)
    if last + 1 < len(tree.leaves):
        made["after"] = tree.proof(last + 1, epoch)
    return made


def commit_line(wallet: str, traffic_class: int, fund: int, noz: int) -> Any:
    return message("CommitLine", wallet=wallet, traffic_class=traffic_class, fund=fund, volume_noz=str(noz))


def fraud(kind: str, finder: PrivateKey = FINDER, **fields: Any) -> Any:
    """A MsgFraudProof of one kind (its field's name)."""
    made = message("MsgFraudProof", finder=text(finder))
    names = {"bad_leaf": "BadLeaf", "double_entry": "DoubleEntry", "wrong_order": "WrongOrder", "wrong_sum": "WrongSum"}
    names |= {"overlapping_ranges": "OverlappingRanges", "withheld_leaf": "WithheldLeaf"}
    getattr(made, kind).CopyFrom(message(names[kind], **fields))
    return made


# --- the chain ---------------------------------------------------------------------------------------------------------------------------


def document_with(
    app: Any, nodes: Sequence[MetaKeys], *, with_keys: int | None = None, change: Callable[[dict[str, Any]], None] | None = None
) -> dict[str, Any]:
    """A genesis document with meta nodes of OWNER, the first ``with_keys`` of them (all) with keys, and a foundation."""
    made = genesis_document(app)
    for wallet in (ALICE, BOB):
        build.add_account(made, wallet.public_key.address, (Coin("wei", 100 * STOS),))
    for at, node in enumerate(nodes):
        entry = node.genesis_node(CHAIN_ID, text(OWNER), DEPOSIT_WEI, f"meta {at}")
        if with_keys is not None and at >= with_keys:
            entry = {name: value for name, value in entry.items() if name not in build.META_KEYS}
        build.add_meta_node(made, entry, f"node {at}")
    build.add_foundation(made, (Coin("wei", 10**6 * STOS),))
    build.pin_supply(made)
    made["app_state"]["pot"]["params"] |= {"epoch_duration_s": EPOCH_S, "mature_epoch": str(MATURE_EPOCH)}
    made["app_state"]["settlement"]["params"] |= {"challenge_blocks": CHALLENGE_BLOCKS}
    if change is not None:
        change(made)
    return made


@dataclass
class Signing:
    """Who signs a report, and how it differs from what is right. ``None``: all nodes of the chain."""

    nodes: Sequence[MetaKeys] | None = None
    selectors: Sequence[bytes] | None = None
    sign: Callable[[MetaKeys, bytes], bytes] = field(default=lambda node, raw: node.sign(raw))


class Net(OzoneChain):
    """A chain that checks every invariant before each commit, with ozone that was bought."""

    gas = GAS

    def __init__(self, nodes: int = 4, *, prepaid_wei: int = 100 * STOS, **options: Any) -> None:
        self.nodes = [meta(number) for number in range(nodes)]
        app = build_application(MemoryBackend(), replace(Settings(), invariant_period=1))
        self.document = document_with(app, self.nodes, **options)
        driver = Driver([app], self.document)
        driver.start()
        driver.next_block()
        super().__init__(driver)
        if prepaid_wei:
            self.ok(PAYER, prepay(PAYER, prepaid_wei))

    def economy(self) -> dict[str, Any]:
        """Root hashes of the five modules' stores, and the balances of their accounts."""
        hashes = self.app.store.root_hashes()
        accounts = ("settlement", "total_unissued_prepay", "total_reward_pool", "foundation_account", "meta_node_bonded_pool")
        return {name: hashes[name] for name in ("settlement", "pot", "register", "sds", "grant")} | {name: self.module_wei(name) for name in accounts}

    def community_wei(self) -> int:
        """The community pool, whole wei; outstanding rewards of validators hold the rest of what fees left."""
        pool = self.query("cosmos.distribution.v1beta1", "CommunityPool").pool
        return next((int(coin.amount) // 10**18 for coin in pool if coin.denom == "wei"), 0)

    def ozone(self) -> Any:
        """register's OzoneState."""
        return self.query(REGISTER, "OzoneState")

    def deposit_wei(self, node: MetaKeys) -> int:
        return int(self.query(REGISTER, "MetaNode", network_addr=node.network_address).node.tokens)

    def kept(self, epoch: int = 1) -> Any:
        return self.query(SETTLEMENT, "Epoch", epoch=epoch).epoch

    def draft(
        self,
        epoch: int,
        volumes: Mapping[str, int],
        lines: Sequence[tuple[str, int, int, int]] = (),
        tree: Tree | None = None,
        *,
        expired_noz: int = 0,
        reporter: MetaKeys | None = None,
        owner: PrivateKey = OWNER,
        **root_changes: Any,
    ) -> Draft:
        """An unsigned report with its commitment; without volumes that of an idle epoch."""
        made = message(
            "EpochCommitment",
            epoch=epoch,
            lines=[commit_line(*line) for line in lines],
            promo_expired_noz=str(expired_noz),
            roots=roots(tree, **root_changes),
        )
        listed = sorted(volumes.items()) or [(text(owner), 0)]
        report = message_class(f"{POT}.MsgVolumeReport")(
            wallet_volumes=[{"wallet_address": wallet, "volume": str(noz)} for wallet, noz in listed],
            reporter=(reporter or self.nodes[0]).network_address,
            reporter_owner=text(owner),
            epoch=str(epoch),
            report_reference=report_reference(made),
        )
        return Draft(CHAIN_ID, made, report)

    def messages(self, draft: Draft, signing: Signing | None = None) -> list[Any]:
        """The two messages of a draft, signed."""
        signing = signing or Signing()
        signers = self.nodes if signing.nodes is None else signing.nodes
        signature = bls.aggregate([signing.sign(node, draft.message) for node in signers])
        selectors = sorted(node.bls_pubkey for node in signers) if signing.selectors is None else signing.selectors
        return draft.messages(message_class(f"{POT}.BLSSignatureInfo")(pub_keys=selectors, signature=signature, txData=draft.data))

    def report(self, epoch: int, tree: Tree | None = None, *, signing: Signing | None = None, **options: Any) -> TxResult:
        """Report an epoch with what a tree holds, honestly unless ``options`` of ``draft`` say otherwise; it must succeed."""
        fields = {"volumes": tree.volumes(), "lines": tree.lines()} if tree is not None else {"volumes": {}, "lines": ()}
        draft = self.draft(epoch, tree=tree, **{**fields, **options})
        return self.ok(OWNER, *self.messages(draft, signing), step_s=EPOCH_S)

    def register_keys(self, node: MetaKeys, owner: PrivateKey = OWNER, **changes: Any) -> Any:
        """MsgRegisterMetaKeys."""
        fields = {
            "meta_node": node.network_address,
            "owner": text(owner),
            "bls_pubkey": node.bls_pubkey,
            "proof_of_possession": node.proof_of_possession(CHAIN_ID),
            "ledger_consensus_pubkey": node.ledger_consensus_pubkey,
        }
        return message("MsgRegisterMetaKeys", **fields | changes)


def prepay(sender: PrivateKey, wei: int) -> Any:
    return message_class(f"{SDS}.MsgPrepay")(sender=text(sender), beneficiary=text(sender), amount=to_messages((Coin("wei", wei),)))


def send_fee() -> int:
    """What every transaction of these tests pays, in wei."""
    return FEE[0].amount
