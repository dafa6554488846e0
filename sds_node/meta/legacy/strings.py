"""A wallet's string as it comes to its meta node: which action it is for, whether it holds, and what it was used for before.

    LegacyAsk {subject, sequence, time, key, signature} ─ action ─► a recent sequence number ─► accept ─► the record of used strings
    who is there ─ changes ─► for five minutes no deletion by strings of the wallets that came here with it: their record was another meta node's

Here a string is looked at before it costs the ledger anything; a lease or an order that uses it is judged there once more. Source: storage-protocol.md 5;
sds.md 1.4; requests.py.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final, NoReturn

from chain.crypto import address as bech32
from chain.crypto.keys import EthSecp256k1PublicKey, Secp256k1PublicKey
from chain.errors import InvalidPubKey
from sds_node import asking
from sds_node.hashes import is_hash
from sds_node.legacy import SEQUENCES_BACK, is_recent, responsible, sequence_text
from sds_node.meta.operations import AnyLedger
from sds_node.meta.rules.leases import LEGACY_ACTIONS
from sds_node.meta.rules.refusals import NOT_ASKED, NOT_FRESH, USED_BEFORE, WRONG_SEQUENCE
from sds_node.meta.rules.tables import WALLET, Wallet
from sds_node.requests import (
    FRESH_S,
    KEPT_S,
    Accepted,
    Action,
    NotFresh,
    RequestError,
    TooManyRequests,
    UsedOtherwise,
    UsedStrings,
    WalletSignature,
    WrongPublicKey,
    WrongSignature,
    accept,
    is_signed,
    signed_text,
)
from sds_node.wire import errors as wire_errors

ADDRESS_BYTES: Final = 20
KEY_BYTES: Final = 33
SIGNATURE_BYTES: Final = 64
MAX_CHANGES: Final = 64
"""Of the meta nodes that are there, within ten minutes. With more of them nobody's record counts as whole."""
_CODES: Final[tuple[tuple[type[RequestError], int], ...]] = (
    (UsedOtherwise, asking.LEDGER_CODES + USED_BEFORE),
    (NotFresh, asking.LEDGER_CODES + NOT_FRESH),
    (WrongSignature, asking.LEDGER_CODES + NOT_ASKED),
    (WrongPublicKey, asking.LEDGER_CODES + NOT_ASKED),
    (RequestError, asking.BAD_ASK),
)


def refuse(code: int, text: str) -> NoReturn:
    """Raises the refusal that the caller gets."""
    raise wire_errors.Refused(code, text)


def refuse_request(error: RequestError) -> NoReturn:
    """Raises the refusal for a string that does not hold."""
    if isinstance(error, TooManyRequests):
        raise wire_errors.Busy(str(error)) from None
    raise wire_errors.Refused(next(code for kind, code in _CODES if isinstance(error, kind)), str(error)) from None


def action_of(task: str, ask: Any) -> Action:
    """What a string is for: a task of ``LegacySession`` says it, and for one that only reads the form of its subject."""
    if task in LEGACY_ACTIONS:
        return LEGACY_ACTIONS[task]
    if not ask.subject:
        return Action.LIST_FILES
    return Action.FILE_STATUS if is_hash(ask.subject) else Action.GET_SHARED_OLD


class Strings:
    """Judges the strings of the wallets that this meta node is responsible for.

    ``meta_node`` is its own address; ``online`` gives those of the meta nodes that are there as it sees them, itself included; ``clock`` tells Unix seconds.
    """

    def __init__(
        self, ledger: AnyLedger, meta_node: bytes, online: Callable[[], list[bytes]], clock: Callable[[], float], used: UsedStrings | None = None
    ) -> None:
        self._ledger, self._meta_node, self._online, self._clock = ledger, meta_node, online, clock
        # What was used before this start is not known: until five minutes from now a string that is older cannot delete.
        self._used = UsedStrings(gap_until_s=int(clock())) if used is None else used
        self._there = frozenset((*online(), meta_node))
        self._changes: deque[tuple[int, frozenset[bytes]]] = deque()
        """(when it was seen, who was there before)"""

    def look(self) -> None:
        """See who is there. Wallets of which another one kept the record until now have a gap in the one here."""
        now_s, there = int(self._clock()), frozenset((*self._online(), self._meta_node))
        while self._changes and self._changes[0][0] < now_s - KEPT_S:
            self._changes.popleft()
        if there == self._there:
            return
        if len(self._changes) >= MAX_CHANGES:
            self._used.note_gap(self._changes.popleft()[0])
        self._changes.append((now_s, self._there))
        self._there = there

    def _gap_until_s(self, wallet: bytes) -> int:
        """The last second at which another meta node may have kept a wallet's record, 0 for none that matters."""
        return max((at_s for at_s, before in self._changes if responsible(wallet, before) != self._meta_node), default=0)

    def check_responsible(self, wallet: bytes) -> None:
        """Refuses a wallet whose record another meta node keeps, and an address that is none."""
        if len(wallet) != ADDRESS_BYTES:
            refuse(asking.BAD_ASK, f"wallet: expected an address of {ADDRESS_BYTES} bytes, got {len(wallet)}")
        self.look()
        wanted = responsible(wallet, self._there)
        if wanted is not None and wanted != self._meta_node:
            refuse(
                asking.TRY_ANOTHER,
                f"legacy requests of {bech32.encode(wallet)} go to meta node {bech32.encode(wanted, bech32.NODE)}, which keeps the record of its strings",
            )

    async def accepted(self, wallet: bytes, ask: Any, action: Action) -> Accepted:
        """The string of an ask for an action, noted as used for it. Refuses what does not hold."""
        row = await self._row(wallet)
        sequences: list[str] = []
        if action.value[1]:
            sequences = [ask.sequence]
            if not is_recent(ask.sequence, row.sequence):
                refuse(
                    asking.LEDGER_CODES + WRONG_SEQUENCE,
                    f"expected the wallet's sequence number {sequence_text(row.sequence)} or one of the {SEQUENCES_BACK} before it, got "
                    f"{ask.sequence[:40]!a}: sign again",
                )
        elif ask.sequence:
            refuse(asking.BAD_ASK, f"{action.value[2]} is signed without sequence number, got {ask.sequence[:40]!a}")
        try:
            signature, now_s = self._signature(wallet, ask), int(self._clock())
            return accept(self._used, action, ask.subject, sequences, ask.timestamp_s, signature, now_s, gap_until_s=self._gap_until_s(wallet))
        except RequestError as error:
            refuse_request(error)

    async def check_late(self, wallet: bytes, ask: Any, action: Action, within_s: int) -> None:
        """Refuses the string of an ask that the wallet has not signed for that action within so many seconds. It is not noted: it begins nothing."""
        await self._row(wallet)
        signature, now_s = self._signature(wallet, ask), int(self._clock())
        try:
            text = signed_text(action, ask.subject, signature.wallet, ask.sequence, ask.timestamp_s)
        except RequestError as error:
            refuse_request(error)
        if not now_s - within_s <= ask.timestamp_s <= now_s + FRESH_S:
            refuse(
                asking.LEDGER_CODES + NOT_FRESH, f"expected a string that was signed within {within_s} s, got one of {ask.timestamp_s}: sign again"
            )
        if not is_signed(text, signature):
            refuse(asking.LEDGER_CODES + NOT_ASKED, f"the signature is not {signature.wallet}'s over this string: sign again")

    async def _row(self, wallet: bytes) -> Wallet:
        """The ledger's row of a wallet whose strings are judged here. Refuses one that nothing is known of, or that signs no strings."""
        self.check_responsible(wallet)
        row: Wallet | None = await self._ledger.query(lambda view: view.get(WALLET, (wallet,)))
        if row is None:
            # Wallets cost nothing: strings of unknown ones would fill the record.
            refuse(asking.NOT_HELD, f"nothing is known of wallet {bech32.encode(wallet)}: buy ozone for it first")
        if not row.is_legacy_allowed:
            refuse(asking.LEDGER_CODES + NOT_ASKED, f"{bech32.encode(wallet)} has switched legacy strings off: use a client that signs sessions")
        return row

    @staticmethod
    def _signature(wallet: bytes, ask: Any) -> WalletSignature:
        key, signature = bytes(ask.public_key), bytes(ask.signature)
        if len(key) != KEY_BYTES or len(signature) != SIGNATURE_BYTES:
            refuse(asking.BAD_ASK, f"expected a key of {KEY_BYTES} bytes and a signature of {SIGNATURE_BYTES}, got {len(key)} and {len(signature)}")
        try:
            belongs = wallet in (EthSecp256k1PublicKey(key).address, Secp256k1PublicKey(key).address)
        except InvalidPubKey:
            belongs = False
        if not belongs:
            refuse(asking.LEDGER_CODES + NOT_ASKED, f"the public key is not the one of {bech32.encode(wallet)}: sign with the wallet's own key")
        return WalletSignature(bech32.encode(wallet), wallet, key, signature)
