"""A commitment: its form, its lines, its reference.

    MsgCommitEpoch ── check ──► bounds ── read ──► lines by wallet ── all_lines(report's volumes) ──► what lines_root is over

Sources: storage-protocol.md 1.6, ADR 5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from chain.codec.canonical import known
from chain.codec.registry import message_class
from chain.coins import parse_wire_int
from chain.crypto import address as bech32
from chain.errors import AppError
from chain.ozone import MAX_AMOUNT
from chain.reports import report_reference
from modules.settlement import trees
from modules.settlement.errors import CommitmentMismatch, InvalidCommitment
from modules.settlement.params import PACKAGE

CommitLine: Final = message_class(f"{PACKAGE}.CommitLine")
STORAGE, PAID = 1, 1
"""Of TrafficClass and of Fund."""
PROMO: Final = 2
CLASSES: Final = range(1, 5)
FUNDS: Final = range(1, 3)
LINES_OF_A_WALLET: Final = len(CLASSES) * len(FUNDS) - 1
MAX_LINES: Final = 100_000 * LINES_OF_A_WALLET
"""Of any commitment: what a transaction's size allows is less."""
MAX_DATA_REF: Final = 128
ADDRESS_BYTES: Final = 20
ROOTS: Final = ("receipts_root", "totals_root", "debits_root", "balances_root", "audits_root", "files_root")
_MAX_EPOCH: Final = (1 << 63) - 1


class Line(NamedTuple):
    """What a wallet earned of one class out of one fund, in noz. Lines are ordered by the first three."""

    wallet: bytes
    traffic_class: int
    fund: int
    noz: int


def reference(commitment: Any) -> str:
    """``sc1`` and the hex SHA-256 of the canonical bytes of an EpochCommitment: what its report names it by."""
    return report_reference(known(commitment))


def wallet_of(text: str) -> bytes | None:
    """The 20 bytes of an account's address in its one canonical spelling; None for any other text."""
    try:
        raw = bech32.decode(text)
    except AppError:
        return None
    return raw if len(raw) == ADDRESS_BYTES and bech32.encode(raw) == text else None


def node_of(text: str) -> bytes | None:
    """The 20 bytes of a network address in its one canonical spelling; None for any other text."""
    try:
        raw = bech32.decode(text, bech32.NODE)
    except AppError:
        return None
    return raw if len(raw) == ADDRESS_BYTES and bech32.encode(raw, bech32.NODE) == text else None


def amount_noz(text: str, what: str) -> int:
    """An amount from 0 to 2^127 - 1 in its one canonical spelling. Raises InvalidCommitment (settlement/10), TxDecodeError (sdk/2), InvalidCoins."""
    amount = parse_wire_int(text or "0")
    if not 0 <= amount <= MAX_AMOUNT or str(amount) != (text or "0"):
        raise InvalidCommitment(f"{what}: expected a whole number from 0 to 2^127 - 1 without leading zeros, got {text[:60]!r}")
    return amount


def check(commitment: Any) -> None:
    """Raise InvalidCommitment (settlement/10) for what no report can go with; what ``amount_noz`` raises."""
    if commitment.epoch <= 0:
        raise InvalidCommitment(f"expected an epoch from 1 to {_MAX_EPOCH}, got {commitment.epoch}")
    read_lines(commitment)
    amount_noz(commitment.promo_expired_noz, "promo_expired_noz")
    check_roots(commitment.roots)


def check_roots(roots: Any) -> None:
    """Raise InvalidCommitment (settlement/10) for EpochRoots of another form."""
    for name in ROOTS:
        if len(getattr(roots, name)) != trees.HASH_BYTES:
            raise InvalidCommitment(f"{name}: expected {trees.HASH_BYTES} bytes, got {len(getattr(roots, name))}")
    if roots.receipts_count == 0 and roots.receipts_root != trees.EMPTY_ROOT:
        raise InvalidCommitment("receipts_root: expected SHA-256 of nothing for no receipts")
    if len(roots.data_ref) > MAX_DATA_REF or any(not 32 <= ord(one) <= 126 for one in roots.data_ref):
        raise InvalidCommitment(f"data_ref: expected at most {MAX_DATA_REF} printable ASCII characters, got {len(roots.data_ref)} characters")


def read_lines(commitment: Any) -> list[Line]:
    """The lines that a commitment names. Raises InvalidCommitment (settlement/10); what ``amount_noz`` raises."""
    if len(commitment.lines) > MAX_LINES:
        raise InvalidCommitment(f"expected at most {MAX_LINES} lines, got {len(commitment.lines)}")
    found: list[Line] = []
    for at, line in enumerate(commitment.lines):
        wallet = wallet_of(line.wallet)
        if wallet is None:
            raise InvalidCommitment(f"lines[{at}].wallet: expected an account's address of 20 bytes in lower case, got {line.wallet[:100]!r}")
        if line.traffic_class not in CLASSES or line.fund not in FUNDS:
            raise InvalidCommitment(
                f"lines[{at}]: expected a traffic class from 1 to 4 and a fund of 1 or 2, got {line.traffic_class} and {line.fund}"
            )
        if (line.traffic_class, line.fund) == (STORAGE, PAID):
            raise InvalidCommitment(f"lines[{at}]: paid storage is not listed, since it is what the report has beside the lines")
        read = Line(wallet, line.traffic_class, line.fund, amount_noz(line.volume_noz, f"lines[{at}].volume_noz"))
        if read.noz == 0:
            raise InvalidCommitment(f"lines[{at}].volume_noz: expected a positive volume, got 0")
        if found and found[-1][:3] >= read[:3]:
            raise InvalidCommitment(
                f"lines[{at}]: expected lines in order of wallet, class and fund, each once; this one does not follow the one before"
            )
        found.append(read)
    return found


def checked_lines(commitment: Any) -> list[Line]:
    """The lines of a commitment that ``check`` has passed."""
    return [Line(bech32.decode(line.wallet), line.traffic_class, line.fund, int(line.volume_noz)) for line in commitment.lines]


def all_lines(named: Sequence[Line], volumes: Mapping[bytes, int]) -> list[Line]:
    """The lines named and what each wallet has beside them, which is paid storage, in order; volumes in noz by wallet, those of 0 left out.

    Raises CommitmentMismatch (settlement/13) for a line of a wallet that the report does not have, and for more than the wallet has.
    """
    rest = dict(volumes)
    for line in named:
        if line.wallet not in rest:
            raise CommitmentMismatch(f"the commitment has a line of {bech32.encode(line.wallet)}, the report does not have that wallet")
        rest[line.wallet] -= line.noz
        if rest[line.wallet] < 0:
            raise CommitmentMismatch(
                f"the lines of {bech32.encode(line.wallet)} sum up to more than the {volumes[line.wallet]} noz that the report has"
            )
    return sorted([*named, *(Line(wallet, STORAGE, PAID, noz) for wallet, noz in rest.items() if noz)])


def line_bytes(line: Line) -> bytes:
    """Canonical bytes of a CommitLine, written out: an epoch has thousands."""
    wallet, noz = bech32.encode(line.wallet).encode(), str(line.noz).encode()
    return b"\x0a%c%b\x10%c\x18%c\x22%c%b" % (len(wallet), wallet, line.traffic_class, line.fund, len(noz), noz)
