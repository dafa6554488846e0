"""Sells ozone, and records files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from chain.codec.canonical import encode
from chain.codec.registry import message_class
from chain.codec.varint import delimited, undelimited
from chain.coins import Coin
from chain.context import Context
from chain.crypto import address as bech32
from chain.errors import wrapped
from chain.ozone import Ozone, bounded
from chain.store.api import StateReader, StateWriter, prefix_end
from chain.tx.fees import BASE_DENOM
from modules.sds import keys, pricing, reporters
from modules.sds.errors import OzoneLimitNotEnough, PrepayFailure, ReporterAddressOrOwner
from modules.sds.expected import Bank, Register
from modules.sds.params import Params

PREPAID: Final = "total_unissued_prepay"
"""The module account whose wei are Pt."""
FileInfo: Final = message_class("stratos.sds.v1.FileInfo")


class SdsKeeper:
    """Sells ozone to wallets (``prepay``) and to module accounts (``buy``), takes back what was granted and not used (``expire``), and records files."""

    def __init__(self, bank: Bank, register: Register) -> None:
        self._bank = bank
        self._register = register

    # --- ozone ------------------------------------------------------------------------------------------------------------------

    def pool(self, state: StateReader) -> Ozone:
        """S, Lt, Pt and the rate as they are now; register owns them."""
        return self._register.ozone(state)

    def prepay(self, ctx: Context, state: StateWriter, sender: bytes, paid_wei: int) -> int:
        """Sell what ``paid_wei`` buy: the coins go to Pt, Lt falls by the noz that are returned (stratos-chain.md 3.3).

        Raises OzoneLimitNotEnough (sds/14) at Lt = 0 with the solvency rules; PrepayFailure (sds/10) for whatever else stands against it: an account
        without enough, amounts that do not fit, and with the solvency rules a payment that buys less than one noz.
        """
        with wrapped(PrepayFailure, OzoneLimitNotEnough):
            pool = self._register.ozone(state)
            _, noz = pricing.prepay(pool, paid_wei)
            if noz == 0 and pool.solvency:
                raise PrepayFailure(f"{paid_wei}wei buy less than 1 noz, at {pricing.price(pool)} wei a noz")
            self._bank.send_to_module(ctx, state, sender, PREPAID, (Coin(BASE_DENOM, paid_wei),))
            self._register.take_ozone(ctx, state, noz)
        return noz

    def quote_wei(self, state: StateReader, noz: int) -> int:
        """What exactly ``noz`` cost now, in wei: ceil((S + Pt)·noz ÷ (Lt − noz)). Raises OzoneLimitNotEnough (sds/14) for all that remains or more,
        InvalidRequest (sdk/18) unless noz is positive."""
        return pricing.cost_wei(self._register.ozone(state), noz)

    def buy(self, ctx: Context, state: StateWriter, payer_module: str, noz: int) -> int:
        """Sell exactly ``noz`` to a module account: Pt += X, Lt −= noz; returns X in wei. Raises what ``quote_wei`` does, and InsufficientFunds
        (sdk/5)."""
        cost_wei = self.quote_wei(state, noz)
        self._bank.send_between_modules(ctx, state, payer_module, PREPAID, (Coin(BASE_DENOM, cost_wei),))
        self._register.take_ozone(ctx, state, noz)
        return cost_wei

    def expire(self, ctx: Context, state: StateWriter, recipient_module: str, noz: int, outstanding_noz: int, cost_wei: int) -> int:
        """Take back ``noz`` of ``outstanding_noz`` granted ones that cost ``cost_wei`` together: Lt += noz, and
        trunc(min(R(Z), Pt·Z ÷ A, cost·Z ÷ outstanding)) wei (storage-protocol.md 1.5), which are returned, go from Pt to a module account.
        Raises InvalidRequest (sdk/18) for more than what is outstanding."""
        refund_wei = pricing.expiry_refund_wei(self._register.ozone(state), noz, outstanding_noz, cost_wei)
        if refund_wei:
            self._bank.send_between_modules(ctx, state, PREPAID, recipient_module, (Coin(BASE_DENOM, refund_wei),))
        self._register.return_ozone(ctx, state, noz)
        return refund_wei

    def take_back(self, ctx: Context, state: StateWriter, payer_module: str, noz: int, refund_wei: int) -> None:
        """An ``expire`` is undone: ``refund_wei`` go back to Pt, and the noz leave Lt as far as it holds them, the rest when it rises again."""
        bounded(noz, "ozone")
        if refund_wei:
            self._bank.send_between_modules(ctx, state, payer_module, PREPAID, (Coin(BASE_DENOM, refund_wei),))
        self._register.void_ozone(ctx, state, noz)

    # --- files ------------------------------------------------------------------------------------------------------------------

    def file(self, state: StateReader, file_hash: str) -> Any | None:
        """The FileInfo of a CID's text, or None."""
        raw = state.store(keys.STORE).get(keys.file(file_hash))
        return None if raw is None else FileInfo.FromString(undelimited(raw))

    def files(self, state: StateReader) -> Iterator[tuple[str, Any]]:
        """(text of the CID, FileInfo) of every file, in the order of texts."""
        for key, raw in state.store(keys.STORE).iterate(keys.FILES, prefix_end(keys.FILES)):
            yield key[len(keys.FILES) :].decode(), FileInfo.FromString(undelimited(raw))

    def set_file(self, state: StateWriter, file_hash: str, info: Any) -> None:
        """Write a FileInfo."""
        state.store(keys.STORE).set(keys.file(file_hash), delimited(encode(info)))

    def record_file(self, ctx: Context, state: StateWriter, file_hash: str, owner: bytes, reporter: bytes, uploader: bytes) -> None:
        """The meta node ``reporter`` has a file: its bit is set, height and uploader are those of this upload (stratos-chain.md 3.2).

        Raises ReporterAddressOrOwner (sds/11) unless ``owner`` owns an active meta node at that network address.
        """
        position = self._position(state, owner, reporter)
        found = self.file(state, file_hash)
        bitmap = b"" if found is None else found.reporters
        info = FileInfo(height=str(ctx.height), reporters=reporters.with_bit(bitmap, position), uploader=bech32.encode(uploader))
        self.set_file(state, file_hash, info)

    def _position(self, state: StateReader, owner: bytes, reporter: bytes) -> int:
        """Where the meta node stands among the texts of the active ones' addresses: from state alone, so equal on every node, and by an index that
        candidates, whom anybody may send by the thousand, are not in."""
        text = bech32.encode(reporter, bech32.NODE)
        node = self._register.meta_node(state, reporter)
        if node is None:
            raise ReporterAddressOrOwner(f"{text} is no meta node")
        if bech32.decode(node.owner_address) != owner:
            raise ReporterAddressOrOwner(f"{text} is owned by {node.owner_address}, not by {bech32.encode(owner)}")
        active = [bech32.encode(one, bech32.NODE) for one in self._register.active_addresses(state)]
        if text not in active:
            raise ReporterAddressOrOwner(f"{text} is no active meta node")
        return sum(1 for one in active if one < text)

    # --- parameters -------------------------------------------------------------------------------------------------------------

    def params(self, state: StateReader) -> Any:
        """``stratos.sds.v1.Params``."""
        return Params.FromString(state.store(keys.STORE).get(keys.PARAMS) or b"")

    def set_params(self, state: StateWriter, params: Any) -> None:
        """Write checked parameters."""
        state.store(keys.STORE).set(keys.PARAMS, encode(params))
