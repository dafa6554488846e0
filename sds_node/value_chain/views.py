"""What nodes read of the chain's state, typed: nodes and their keys, parameters, ozone, rewards, reports.

    ValueChain.query ── gRPC messages ──► dataclasses with addresses as bytes, amounts as whole numbers

``height`` 0 is the last one; a named one gives every reader the same. All raise ChainUnavailable, QueryFailed.
Sources: modules' READMEs of register, pot and settlement; storage-protocol.md 1.10.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final, TypeVar

from google.protobuf.message import DecodeError

from chain.codec.registry import POOL, message_class
from chain.coins import parse_wire_int
from chain.crypto import address as bech32
from chain.crypto.keys import public_key_from_any
from chain.errors import AppError
from sds_node.documents import PACKAGE
from sds_node.value_chain.client import ChainUnavailable, QueryFailed, ValueChain

LedgerParams: Final = message_class(f"{PACKAGE}.LedgerParams")
PAGE: Final = 1_000
MAX_PAGES: Final = 10_000
_MAX_U32: Final = (1 << 32) - 1
_NO_FILE: Final = "file does not exist"
"""sds/8 has this text. A query's answer keeps no code of a module, as the original's does not."""

T = TypeVar("T")


class BondStatus(IntEnum):
    """``cosmos.staking.v1beta1.BondStatus``."""

    UNSPECIFIED = 0
    UNBONDED = 1
    UNBONDING = 2
    BONDED = 3


class Standing(IntEnum):
    """``stratos.storage.v1.NodeStanding``."""

    ACTIVE = 1
    SUSPENDED = 2
    LEAVING = 3
    GONE = 4


@dataclass(frozen=True, slots=True)
class ResourceNode:
    """A resource node. Addresses are 20 bytes, the key 32; ``effective_wei`` is the part of its deposit that it works with."""

    address: bytes
    owner: bytes
    beneficiary: bytes
    p2p_key: bytes
    tokens_wei: int
    effective_wei: int
    is_suspended: bool
    status: BondStatus

    @property
    def standing(self) -> Standing:
        if self.status == BondStatus.UNBONDING:
            return Standing.LEAVING
        return Standing.ACTIVE if self.status == BondStatus.BONDED and not self.is_suspended else Standing.SUSPENDED


@dataclass(frozen=True, slots=True)
class MetaNode:
    """A meta node or a candidate; ``network_key`` is the one that its address comes from."""

    address: bytes
    owner: bytes
    network_key: bytes
    tokens_wei: int
    is_suspended: bool
    status: BondStatus

    @property
    def is_active(self) -> bool:
        """It may vote, sign and report."""
        return self.status == BondStatus.BONDED and not self.is_suspended


@dataclass(frozen=True, slots=True)
class MetaKeys:
    """What a meta node registered: an ed25519 key of 32 bytes, a BLS key of 48."""

    ledger_key: bytes
    bls_pubkey: bytes


@dataclass(frozen=True, slots=True)
class Ozone:
    """The pool: ``outstanding_noz`` was sold and not reported yet, S ÷ rate − Lt + pending."""

    remaining_noz: int
    total_noz: int
    pending_noz: int
    deposit_wei: int

    @property
    def outstanding_noz(self) -> int:
        return self.total_noz - self.remaining_noz + self.pending_noz


@dataclass(frozen=True, slots=True)
class Rewards:
    """Of a wallet: what it can withdraw, and what is still to mature."""

    mature_wei: int
    immature_wei: int


@dataclass(frozen=True, slots=True)
class LastReport:
    """The last report that the chain took; ``time_s`` is its block's, Unix seconds."""

    epoch: int
    reference: str
    reporter: bytes
    height: int
    time_s: int


@dataclass(frozen=True, slots=True)
class UploadedFile:
    """What the chain has of a public file: the block in which it was reported last, the bitmap of who reported it, the uploader's wallet (20 bytes)."""

    height: int
    reporters: bytes
    uploader: bytes


async def ask(chain: ValueChain, path: str, height: int = 0, **fields: Any) -> Any:
    """The answer of ``/package.Query/Method`` to a request with these fields."""
    service, _, method = path.lstrip("/").partition("/")
    found = POOL.FindServiceByName(service).FindMethodByName(method)
    return await chain.query(path, message_class(found.input_type.full_name)(**fields), message_class(found.output_type.full_name), height)


async def resource_node(chain: ValueChain, address: bytes, height: int = 0) -> ResourceNode | None:
    """The node of a network address (20 bytes), or None."""
    found = await _or_none(chain, "/stratos.register.v1.Query/ResourceNode", height, network_addr=bech32.encode(address, bech32.NODE))
    return None if found is None or not found.node.network_address else _read(chain, _resource_node, found.node)


async def resource_nodes(chain: ValueChain, height: int = 0) -> list[ResourceNode]:
    """All of them, in order of their addresses."""
    found = [_read(chain, _resource_node, one) async for one in _all(chain, "/stratos.register.v1.Query/ResourceNodes", "nodes", height)]
    return sorted(found, key=lambda one: one.address)


async def meta_node(chain: ValueChain, address: bytes, height: int = 0) -> MetaNode | None:
    """The meta node or candidate of a network address (20 bytes), or None."""
    found = await _or_none(chain, "/stratos.register.v1.Query/MetaNode", height, network_addr=bech32.encode(address, bech32.NODE))
    return None if found is None or not found.node.network_address else _read(chain, _meta_node, found.node)


async def meta_nodes(chain: ValueChain, height: int = 0) -> list[MetaNode]:
    """All of them and all candidates, in order of their addresses."""
    found = [_read(chain, _meta_node, one) async for one in _all(chain, "/stratos.register.v1.Query/MetaNodes", "nodes", height)]
    return sorted(found, key=lambda one: one.address)


async def bonded_meta_nodes(chain: ValueChain, height: int = 0) -> list[MetaNode]:
    """Those that are bonded, in order of their addresses: anybody may send candidates by the thousand, these went through a vote."""
    path = "/stratos.register.v1.Query/MetaNodes"
    found = [_read(chain, _meta_node, one) async for one in _all(chain, path, "nodes", height, status=int(BondStatus.BONDED))]
    return sorted(found, key=lambda one: one.address)


async def meta_keys(chain: ValueChain, height: int = 0) -> dict[bytes, MetaKeys]:
    """Registered keys by the meta node's address."""
    found: dict[bytes, MetaKeys] = {}
    async for one in _all(chain, "/stratos.settlement.v1.Query/AllMetaKeys", "keys", height):
        address, keys = _read(chain, lambda message: (_node(message.meta_node), _keys(message)), one)
        found[address] = keys
    return found


async def keys_of(chain: ValueChain, address: bytes, height: int = 0) -> MetaKeys | None:
    """What one meta node registered, or None."""
    found = await _or_none(chain, "/stratos.settlement.v1.Query/MetaKeys", height, meta_node=bech32.encode(address, bech32.NODE))
    return None if found is None else _read(chain, _keys, found.keys)


async def ledger_params(chain: ValueChain, height: int = 0) -> Any:
    """``LedgerParams`` from settlement's and pot's parameters; ratios are 10^18ths."""
    ours = (await ask(chain, "/stratos.settlement.v1.Query/Params", height)).params
    pot = (await ask(chain, "/stratos.pot.v1.Query/Params", height)).params
    return _read(chain, lambda _: _ledger_params(ours, pot), None)


async def ozone(chain: ValueChain, height: int = 0) -> Ozone:
    """The pool's state."""
    found = await ask(chain, "/stratos.register.v1.Query/OzoneState", height)
    return _read(chain, _ozone, found)


async def rewards(chain: ValueChain, wallet: bytes, height: int = 0) -> Rewards:
    """A wallet's (20 bytes)."""
    found = await ask(chain, "/stratos.pot.v1.Query/RewardsByWallet", height, wallet_address=bech32.encode(wallet))
    return _read(chain, lambda one: Rewards(_wei(one.mature_total_reward), _wei(one.immature_total_reward)), found.rewards)


async def last_report(chain: ValueChain, height: int = 0) -> LastReport | None:
    """The last report, or None before the first."""
    found = await _or_none(chain, "/stratos.pot.v1.Query/VolumeReport", height)
    if found is None:
        return None
    info = found.report_info
    paid = await ask(chain, "/stratos.pot.v1.Query/PriceHistory", height, from_epoch=info.epoch, to_epoch=info.epoch)
    if len(paid.epochs) != 1:
        raise ChainUnavailable(f"{chain.url} has a report of epoch {info.epoch} and {len(paid.epochs)} payments of it: expected one")
    at = paid.epochs[0]
    return _read(chain, lambda _: LastReport(int(info.epoch), str(info.reference), _node(info.reporter), int(at.height), int(at.time.seconds)), None)


async def committed_epoch(chain: ValueChain, epoch: int, height: int = 0) -> Any:
    """``CommittedEpoch`` of settlement, or None once it has matured or where there is none."""
    found = await _or_none(chain, "/stratos.settlement.v1.Query/Epoch", height, epoch=epoch)
    return None if found is None else found.epoch


async def committed_epochs(chain: ValueChain, height: int = 0) -> list[Any]:
    """Every ``CommittedEpoch`` that settlement keeps, void ones too, by number."""
    found = [one async for one in _all(chain, "/stratos.settlement.v1.Query/Epochs", "epochs", height)]
    return sorted(found, key=lambda one: int(one.epoch))


async def challenges(chain: ValueChain, epoch: int = 0, height: int = 0) -> list[Any]:
    """Every open ``Challenge`` of an epoch, 0 for all, those that end first first."""
    found = [one async for one in _all(chain, "/stratos.settlement.v1.Query/Challenges", "challenges", height, epoch=epoch)]
    return sorted(found, key=lambda one: (int(one.deadline_height), int(one.challenge_id)))


async def uploaded_file(chain: ValueChain, file_hash: str, height: int = 0) -> UploadedFile | None:
    """The record of a public file, or None while no meta node has reported it."""
    try:
        found = await ask(chain, "/stratos.sds.v1.Query/Fileupload", height, file_hash=file_hash)
    except QueryFailed as error:
        if _NO_FILE in error.text:
            return None
        raise
    return _read(chain, lambda one: UploadedFile(parse_wire_int(one.height), bytes(one.reporters), _account(one.uploader)), found.file_info)


async def grant_outstanding_noz(chain: ValueChain, height: int = 0) -> int:
    """Granted noz that were neither used nor have expired."""
    found = await ask(chain, "/stratos.grant.v1.Query/Outstanding", height)
    return _read(chain, lambda one: parse_wire_int(one.promo_outstanding_noz or "0"), found)


# --- pages, messages ------------------------------------------------------------------------------------------------------------------


async def _or_none(chain: ValueChain, path: str, height: int, **fields: Any) -> Any:
    try:
        return await ask(chain, path, height, **fields)
    except QueryFailed as error:
        if error.is_not_found:
            return None
        raise


async def _all(chain: ValueChain, path: str, field: str, height: int, **fields: Any) -> AsyncIterator[Any]:
    key = b""
    for _ in range(MAX_PAGES):
        answer = await ask(chain, path, height, pagination={"key": key, "limit": PAGE}, **fields)
        for one in getattr(answer, field):
            yield one
        key = answer.pagination.next_key
        if not key:
            return
    raise ChainUnavailable(f"{chain.url} answers {path} with more than {MAX_PAGES} pages: is it a node of the value chain?")


def _read(chain: ValueChain, read: Callable[[Any], T], message: Any) -> T:
    """What ``read`` makes of a message. Raises ChainUnavailable for one that no chain has."""
    try:
        return read(message)
    except (ValueError, TypeError, AppError, DecodeError) as error:
        raise ChainUnavailable(
            f"{chain.url} gives an answer that the value chain does not give ({error}): is it a node of the right version?"
        ) from None


def _account(text: str) -> bytes:
    return bech32.decode(text)


def _node(text: str) -> bytes:
    return bech32.decode(text, bech32.NODE)


def _wei(coins: Any) -> int:
    return sum(parse_wire_int(coin.amount) for coin in coins if coin.denom == "wei")


def _resource_node(node: Any) -> ResourceNode:
    owner = _account(node.owner_address)
    return ResourceNode(
        address=_node(node.network_address),
        owner=owner,
        beneficiary=_account(node.beneficiary_address) if node.beneficiary_address else owner,
        p2p_key=public_key_from_any(node.pubkey).raw,
        tokens_wei=parse_wire_int(node.tokens or "0"),
        effective_wei=parse_wire_int(node.effective_tokens or "0"),
        is_suspended=bool(node.suspend),
        status=BondStatus(node.status),
    )


def _meta_node(node: Any) -> MetaNode:
    return MetaNode(
        address=_node(node.network_address),
        owner=_account(node.owner_address),
        network_key=public_key_from_any(node.pubkey).raw,
        tokens_wei=parse_wire_int(node.tokens or "0"),
        is_suspended=bool(node.suspend),
        status=BondStatus(node.status),
    )


def _keys(message: Any) -> MetaKeys:
    return MetaKeys(bytes(message.ledger_consensus_pubkey), bytes(message.bls_pubkey))


def _ozone(found: Any) -> Ozone:
    remaining, total, pending = (parse_wire_int(one or "0") for one in (found.remaining_noz, found.total_noz, found.pending_lower_noz))
    parts = (found.effective_deposit_wei, found.leaving_wei, found.pending_lower_wei)
    return Ozone(remaining, total, pending, sum(parse_wire_int(one or "0") for one in parts))


def _ledger_params(ours: Any, pot: Any) -> Any:
    return LedgerParams(
        bytes_per_stos=ours.bytes_per_stos,
        escrow_ratio_e18=parse_wire_int(ours.escrow_ratio or "0"),
        repair_ratio_e18=parse_wire_int(ours.repair_ratio or "0"),
        retention_days=ours.retention_days,
        grace_days=ours.grace_days,
        trash_days=ours.trash_days,
        longest_lease_s=ours.longest_lease_s,
        audits_per_day=ours.audits_per_day,
        max_wallets_per_report=pot.max_wallets_per_report,
        epoch_duration_s=min(pot.epoch_duration_s, _MAX_U32),
    )
