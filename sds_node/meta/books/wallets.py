"""Trees over all wallets of the ledger: what each has, and what files each has. The files are read again only of wallets whose files may have changed.

    the last epoch's leaves of files ─┐
    the log since then ─ who stored, ordered ─┴─► a wallet named there, or with another count of files ─► its records anew; the others ─► as before

A file's row changes by a commit, by an order of its wallet, or when a term is over; the last takes a file away, so its wallet's count is another one.
Leaf forms: ``sds_node/proofs.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from modules.settlement.trees import plain_root
from sds_node.meta.ledger.engine import ReadView
from sds_node.meta.rules.commit import object_id
from sds_node.meta.rules.tables import FILE, OBJECT, WALLET
from sds_node.meta.rules.wire import Operation, SignedOperation, WalletOrder
from sds_node.proofs import ADDRESS_BYTES, FILES_BYTES, balance_leaf, files_leaf

MAX_ENTRIES: Final = 500_000
"""Beyond so many operations since the last epoch all files are read."""
_PAGE: Final = 1_000


@dataclass(frozen=True, slots=True)
class Before:
    """Leaves of files as they were at a sequence of the ledger."""

    sequence: int
    files: bytes


def trees_of(view: ReadView, before: Before | None) -> tuple[list[bytes], list[bytes]]:
    """(leaves of balances, leaves of files) of all wallets, by address."""
    changed = changed_wallets(view, before.sequence) if before is not None else None
    old = _leaves(before.files) if before is not None and changed is not None else iter(())
    last = next(old, None)
    balances: list[bytes] = []
    files: list[bytes] = []
    page = view.scan(WALLET, limit=_PAGE)
    while page:
        for row in page:
            balances.append(balance_leaf(row.address, row.paid_noz, row.promo_noz))
            if not row.files:
                continue
            while last is not None and last[:ADDRESS_BYTES] < row.address:
                last = next(old, None)
            is_same = last is not None and last.startswith(row.address + row.files.to_bytes(8, "big"))
            if last is not None and is_same and changed is not None and row.address not in changed:
                files.append(last)
            else:
                records = [record for _, record in records_of(view, row.address)]
                files.append(files_leaf(row.address, len(records), plain_root(records)))
        page = view.scan(WALLET, after=(page[-1].address,), limit=_PAGE)
    return balances, files


def records_of(view: ReadView, wallet: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(lookup id, record) of a wallet's files, in order."""
    most = min(100, FILE.most_scanned)
    page = view.scan(FILE, (wallet,), limit=most)
    while page:
        for row in page:
            stored = view.get(OBJECT, (row.object,))
            yield row.lookup_id, FILE.encode(row) + (stored.root if stored is not None else bytes(32))
        page = view.scan(FILE, (wallet,), after=(page[-1].lookup_id,), limit=most)


def changed_wallets(view: ReadView, after: int) -> set[bytes] | None:
    """Wallets whose files an operation after that sequence may have changed without changing their number; None when the log does not tell."""
    if after < view.head.base_sequence or not 0 <= view.head.sequence - after <= MAX_ENTRIES:
        return None
    changed: set[bytes] = set()
    while after < view.head.sequence:
        page = view.entries(after, _PAGE)
        if not page:
            return None
        for entry in page:
            after = entry.sequence
            if entry.code:
                continue
            operation = Operation.FromString(SignedOperation.FromString(entry.operation).body)
            kind = operation.WhichOneof("kind")
            if kind == "commit":
                for one in operation.commit.objects:
                    row = view.get(OBJECT, (object_id(operation.commit.lease_id, one.counter),))
                    if row is not None:  # one that is gone took its file with it
                        changed.add(row.payer)
            elif kind == "wallet_order":
                changed.add(WalletOrder.FromString(operation.wallet_order.body).wallet)
            elif kind == "legacy_order":
                changed.add(operation.legacy_order.wallet)
    return changed


def _leaves(data: bytes) -> Iterator[bytes]:
    return (data[at : at + FILES_BYTES] for at in range(0, len(data), FILES_BYTES))
