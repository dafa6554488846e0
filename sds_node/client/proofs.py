"""A wallet's balance and files, checked against the roots that the value chain has of an epoch: not what one meta node says, but what a quorum signed.

    epoch.proof of any meta node ─► leaves and paths ─┐
    settlement's epoch of a chain node that you trust ─┴─► balances_root, files_root ─► what the wallet had when the epoch was made

The chain keeps an epoch until it is mature, so the last reported one is asked for. Source: storage-protocol.md 1.6 and 1.9; proofs.py (forms of leaves).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from sds_node import asking
from sds_node.client.errors import MetaLied, NotFound, StorageError
from sds_node.client.files import StoredFile
from sds_node.client.meta import MetaClient
from sds_node.proofs import FILES_BYTES, FileProof, Proof, is_file_proved, is_proved, proved_balance
from sds_node.value_chain.client import ValueChain
from sds_node.value_chain.views import committed_epoch

MAX_PATH: Final = 64
_ADDRESS_BYTES: Final = 20


@dataclass(frozen=True)
class Proved:
    """What the chain's roots of an epoch prove of a wallet. ``height`` is that of the report. ``path`` is the file's that was asked for, or empty."""

    epoch: int
    height: int
    paid_noz: int
    promo_noz: int
    files: int
    path: str = ""


async def prove(client: MetaClient, chain: ValueChain, file: StoredFile | None = None, epoch: int = 0) -> Proved:
    """The wallet's balance and number of files, and that ``file`` is one of them, at an epoch (0: the last one reported).

    Raises NotFound for what that epoch does not have yet, MetaLied for proofs that do not hold, StorageError where the chain does not have the epoch,
    what ``MetaClient.ask`` and the chain raise.
    """
    lookup_id = bytes(file.row.lookup_id) if file is not None else b""
    head = asking.EpochProofHead(epoch=epoch, wallet=client.address, lookup_id=lookup_id)
    answer = await client.ask(asking.EPOCH_PROOF, head, asking.EpochProof, without_session=True)
    if answer.epoch < 1 or (epoch and answer.epoch != epoch):
        raise MetaLied(f"expected a proof for epoch {epoch or '(the last one)'}, got one for {answer.epoch}")
    committed = await committed_epoch(chain, answer.epoch)
    if committed is None or committed.epoch != answer.epoch:
        raise StorageError(f"the value chain has no epoch {answer.epoch} (any more): ask for the last one")
    wallet, roots = client.wallet.public_key.address, committed.roots
    balance = proved_balance(roots.balances_root, _proof(answer.balance), wallet) if answer.HasField("balance") else None
    if balance is None and not answer.HasField("balance"):
        raise NotFound(f"the ledger did not know this wallet at epoch {answer.epoch}: wait for the next one")
    if balance is None:
        raise MetaLied(f"the meta node's proof of the balance does not lead to the chain's root of epoch {answer.epoch}")
    files = _files(answer, bytes(roots.files_root), wallet)
    if file is not None:
        _check_file(answer, bytes(roots.files_root), wallet, file)
    path = file.known.path if file is not None and file.known is not None else ""
    return Proved(answer.epoch, committed.height, *balance, files, path)


def _files(answer: Any, root: bytes, wallet: bytes) -> int:
    if not answer.HasField("files"):
        return 0
    proof = _proof(answer.files)
    if len(proof.leaf) != FILES_BYTES or proof.leaf[:_ADDRESS_BYTES] != wallet or not is_proved(root, proof):
        raise MetaLied(f"the meta node's proof of the files does not lead to the chain's root of epoch {answer.epoch}")
    return int.from_bytes(proof.leaf[_ADDRESS_BYTES : _ADDRESS_BYTES + 8], "big")


def _check_file(answer: Any, root: bytes, wallet: bytes, file: StoredFile) -> None:
    if not answer.HasField("record") or not answer.HasField("files"):
        raise NotFound(f"the file is not among those of epoch {answer.epoch}: a new one is proved by the next epoch")
    proof = FileProof(_proof(answer.record), _proof(answer.files))
    if not is_file_proved(root, proof, wallet):
        raise MetaLied(f"the meta node's proof of the file does not lead to the chain's root of epoch {answer.epoch}")
    # The ledger's row begins with wallet, lookup id and object; the object's root stands behind it.
    row = file.row
    begins = wallet + bytes(row.lookup_id) + file.object_id
    if not proof.record.leaf.startswith(begins) or not proof.record.leaf.endswith(bytes(row.object.root)):
        raise NotFound(f"epoch {answer.epoch} has another version of the file: wait for the next one")


def _proof(given: Any) -> Proof:
    if len(given.path) > MAX_PATH:
        raise MetaLied(f"expected a path of at most {MAX_PATH} hashes from the meta node, got {len(given.path)}")
    return Proof(bytes(given.leaf), given.index, given.count, tuple(bytes(one) for one in given.path))
