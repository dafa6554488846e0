"""Remembers decoded transactions and signatures that held, from CheckTx to FinalizeBlock. Switching it off changes no result.

A verdict stays with the decoded transaction. It counts only for the same bytes with the same key, chain id and account number; sequence and
account are checked anew each time.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Final, TypeAlias

from chain.crypto.batch import BatchVerifier, Item
from chain.crypto.keys import PublicKey
from chain.errors import AppError
from chain.tx.decode import Tx, Verdict, decode_tx
from chain.tx.signing import sign_bytes, signature_holds, single_item

DEFAULT_SIZE: Final = 120_000
"""More than the application's pool holds, so that what waits there is neither decoded nor verified twice."""

MAX_BYTES: Final = 256 << 20
"""Of raw transactions remembered in decoded form, which takes several times as much."""

Started: TypeAlias = Callable[[], None]


def _nothing() -> None:
    """There is nothing to wait for."""


class Verdicts:
    """A bounded memory of ``size`` transactions (0: remembers nothing), checking signatures with ``workers`` threads."""

    def __init__(self, size: int = DEFAULT_SIZE, workers: int = 1) -> None:
        self.fast_read: Callable[[bytes, bytes], Tx | None] | None = None
        """A reader of (bytes, their hash) for shapes that it knows, tried before the plain decoder."""
        self._size = size
        self._bytes = 0
        self._txs: OrderedDict[bytes, Tx] = OrderedDict()
        self._batch = BatchVerifier(workers)

    def decode(self, raw: bytes, tx_hash: bytes | None = None) -> Tx:
        """The transaction in ``raw`` (whose hash the caller may know), decoded once. Raises what ``decode_tx`` raises."""
        key = tx_hash or hashlib.sha256(raw).digest()
        tx = self._txs.get(key)
        if tx is None:
            tx = (self.fast_read(raw, key) if self.fast_read is not None else None) or decode_tx(raw)
            if self._size:
                self._txs[key] = tx
                self._bytes += len(raw)
                while len(self._txs) > self._size or self._bytes > MAX_BYTES:
                    self._bytes -= len(self._txs.popitem(last=False)[1].raw)
        return tx

    def forget(self, tx_hashes: Iterable[bytes]) -> None:
        """Let go of transactions that a block has executed, or that were refused: nobody fills the memory with those."""
        for tx_hash in tx_hashes:
            tx = self._txs.pop(tx_hash, None)
            if tx is not None:
                self._bytes -= len(tx.raw)

    def signature_holds(self, tx: Tx, at: int, key: PublicKey, chain_id: str, account_number: int) -> bool:
        """True if signer ``at`` of ``tx`` signed with ``key`` for this chain and account number."""
        verdict = (chain_id, account_number, key.raw)
        if tx.held.get(at) == verdict:
            return True
        info = tx.signer_infos[at]

        def document(mode: int) -> bytes:
            return sign_bytes(tx, mode, chain_id=chain_id, account_number=account_number, sequence=info.sequence, key=key, signer=tx.signers[at])

        try:
            holds = signature_holds(key, info.mode, tx.signatures[at], document)
        except AppError:
            return False
        if holds and self._size:
            tx.held[at] = verdict
        return holds

    def start(self, wanted: Sequence[tuple[Tx, int, PublicKey, str, int]], prepared: Sequence[tuple[Tx, Item, Verdict]] = ()) -> Started:
        """Begin to check many signatures as one batch: (tx, signer index, key, chain id, account number) each, and ``prepared`` ones of a first
        signer whose digest is known. The answer, when called, waits and remembers those that hold.
        """
        if not self._size:
            return _nothing
        items: list[Item] = [item for _, item, _ in prepared]
        verdicts: list[tuple[Tx, int, Verdict]] = [(tx, 0, verdict) for tx, _, verdict in prepared]
        for tx, at, key, chain_id, number in wanted:
            verdict = (chain_id, number, key.raw)
            if tx.held.get(at) == verdict:
                continue
            info = tx.signer_infos[at]
            item = None
            with suppress(Exception):  # of this transaction alone: its own check meets it again and tells
                item = single_item(
                    tx,
                    key,
                    info.mode,
                    tx.signatures[at],
                    lambda mode, tx=tx, key=key, chain_id=chain_id, number=number, info=info, at=at: sign_bytes(  # type: ignore[misc]
                        tx, mode, chain_id=chain_id, account_number=number, sequence=info.sequence, key=key, signer=tx.signers[at]
                    ),
                )
            if item is not None:
                items.append(item)
                verdicts.append((tx, at, verdict))
        pending = self._batch.start(items)

        def finish() -> None:
            for (tx, at, verdict), holds in zip(verdicts, pending(), strict=True):
                if holds:
                    tx.held[at] = verdict

        return finish
