"""What wallets sign: session grants, orders, and the strings of the original's clients. Each is used once, and remembered until it could not be used anyway.

session grant    judged by the lines that judge it on chain; leases under it are together at most its noz
wallet order     24 h at most, with a nonce
legacy string    within 5 minutes of its time; remembered for 10; of the wallet's number or one of the 63 before it, as tasks go on side by side
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any, Final

from chain.crypto import address as bech32
from modules.settlement.documents import OrderLimit, SessionGrant, decoded, legacy_signed, signed_by_wallet, wallet_signed
from modules.settlement.leaves import PUT, SERIAL_BYTES, faults_of_grant
from sds_node.legacy import SEQUENCES_BACK, is_recent
from sds_node.legacy import sequence_text as sequence_text
from sds_node.meta.ledger.tables import Tables
from sds_node.meta.rules.call import Call, enqueue
from sds_node.meta.rules.money import wallet_of
from sds_node.meta.rules.refusals import BAD_FORM, NOT_ASKED, NOT_ENOUGH, NOT_FRESH, USED_BEFORE, WRONG_CHAIN, WRONG_SEQUENCE, need, refuse, shown
from sds_node.meta.rules.tables import USED, USED_ENDS, Used
from sds_node.meta.rules.wire import MAX_SECONDS, ORDER_DOMAIN, WalletOrder, address, at_most, opened, sized, whole
from sds_node.requests import FRESH_S, KEPT_S, Action, RequestError, signed_text

MAX_ORDER_S: Final = 86_400
MAX_ORDER_BYTES: Final = 16_384
_GRANT: Final = b"grant\0"
_ORDER: Final = b"order\0"
_LEGACY: Final = b"legacy\0"


def use_grant(call: Call, given: Any, wallet: bytes, session_pubkey: bytes, noz: int, ends_s: int) -> bool:
    """A lease of ``noz`` until ``ends_s`` under a WalletDocument with a SessionGrant. Gives whether it allows to store. Refuses what
    the chain would not accept as evidence."""
    grant = decoded(SessionGrant, given.body)
    if grant is None:
        refuse(BAD_FORM, f"expected a SessionGrant in canonical form of at most 4,096 bytes, got {len(given.body)} bytes that are none")
    now_s = call.time_ms // 1_000
    text = bech32.encode(wallet)
    action = min(grant.actions, default=0)
    limit = OrderLimit(
        chain_id=call.chain_id, wallet=text, session_pubkey=session_pubkey, action=action, max_noz=noz, created_s=now_s, expires_s=ends_s
    )
    fault = next(faults_of_grant(grant, limit, call.chain_id), None)
    if fault is not None:
        refuse(NOT_ASKED, f"the session grant does not allow this lease: {fault}")
    need(wallet_signed(given.body, given.public_key, given.signature, wallet), NOT_ASKED, f"{text} has not signed the session grant")
    digest = sha256(_GRANT + given.body).digest()
    row = call.tables.get(USED, (digest,))
    used = row.noz if row else 0
    need(
        used + noz <= grant.max_noz,
        NOT_ENOUGH,
        f"the session grant allows {grant.max_noz} noz, {used} are leased under it already, {noz} are asked for",
    )
    _remember(call.tables, digest, grant.expires_s * 1_000 + 1_000, used + noz, is_new=row is None)
    return PUT in grant.actions


def use_order(call: Call, given: Any) -> tuple[bytes, Any]:
    """(wallet, its order) of a WalletDocument with a WalletOrder, which is used by this."""
    at_most(given.body, MAX_ORDER_BYTES, "wallet_order.body")
    order = opened(WalletOrder, given.body)
    need(order.chain_id == call.chain_id, WRONG_CHAIN, f"expected an order on {call.chain_id}, got one on {order.chain_id[:50]!a}")
    wallet = address(order.wallet, "order.wallet")
    sized(order.nonce, SERIAL_BYTES, "order.nonce")
    now_s = call.time_ms // 1_000
    need(
        now_s <= order.expires_s <= now_s + MAX_ORDER_S,
        NOT_FRESH,
        f"an order expires now or within {MAX_ORDER_S} s, got {order.expires_s} while it is {now_s}: sign again",
    )
    need(
        signed_by_wallet(ORDER_DOMAIN + b"\x00" + given.body, given.public_key, given.signature, wallet),
        NOT_ASKED,
        f"{bech32.encode(wallet)} has not signed the order",
    )
    once(call.tables, sha256(_ORDER + given.body).digest(), order.expires_s * 1_000 + 1_000)
    return wallet, order


def check_legacy(call: Call, ask: Any, wallet: bytes, action: Action, *, is_once: bool = False) -> str:
    """The string that a wallet signed for an action, if it is fresh. With a sequence number it must be the wallet's current one, or a recent one where the
    caller lets strings be used once (``is_once``)."""
    now_s = call.time_ms // 1_000
    whole(ask.timestamp_s, 0, MAX_SECONDS, "ask.timestamp_s")
    need(
        abs(ask.timestamp_s - now_s) <= FRESH_S,
        NOT_FRESH,
        f"a legacy string is within {FRESH_S} s of now ({now_s}), got {ask.timestamp_s}: sign again",
    )
    row = wallet_of(call.tables, wallet)
    need(row.is_legacy_allowed, NOT_ASKED, f"wallet {shown(wallet)} has switched legacy strings off: sign an order")
    if action.value[1]:
        wanted = sequence_text(row.sequence)
        need(
            is_recent(ask.sequence, row.sequence) if is_once else ask.sequence == wanted,
            WRONG_SEQUENCE,
            f"expected the wallet's sequence number {wanted}{f' or one of the {SEQUENCES_BACK} before it' if is_once else ''}, got {ask.sequence[:40]!a}",
        )
    try:
        text = signed_text(action, ask.subject, bech32.encode(wallet), ask.sequence, ask.timestamp_s)
    except RequestError as error:
        refuse(BAD_FORM, f"ask: {error}")
    need(
        legacy_signed(text, ask.public_key, ask.signature, wallet),
        NOT_ASKED,
        f"{bech32.encode(wallet)} has not signed this string for {action.value[2]}",
    )
    return text


def use_legacy(call: Call, ask: Any, wallet: bytes, action: Action) -> None:
    """``check_legacy``, and the string is used by this."""
    text = check_legacy(call, ask, wallet, action, is_once=True)
    # A string lives until FRESH_S after its time; FRESH_S ahead of now that is KEPT_S from now.
    once(call.tables, sha256(_LEGACY + text.encode()).digest(), min(ask.timestamp_s + FRESH_S + 1, call.time_ms // 1_000 + KEPT_S + 1) * 1_000)


def once(tables: Tables, digest: bytes, ends_ms: int) -> None:
    """Refuses what was used before, else remembers it until ``ends_ms``."""
    need(tables.get(USED, (digest,)) is None, USED_BEFORE, "this was signed once and used before: sign again")
    _remember(tables, digest, ends_ms, 0, is_new=True)


def _remember(tables: Tables, digest: bytes, ends_ms: int, noz: int, *, is_new: bool) -> None:
    tables.put(USED, Used(digest, ends_ms, noz))
    if is_new:
        enqueue(tables, ends_ms, USED_ENDS, digest)
