"""An epoch's report as its signers and its sender make it: a draft, its reference, what is signed, and the two messages.

    draft (JSON) ──► commitment ──► reference ──► volume report ──► tx_data ──► each meta node signs ──► MsgCommitEpoch, MsgVolumeReport

Sources: stratos-chain.md 4.4 step 3 and 6.6 (tx_data), storage-protocol.md 1.6 (commitment) and 1.7 (signed message).
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from chain.codec.canonical import encode as canonical
from chain.codec.json import from_json
from chain.codec.registry import message_class
from chain.crypto import address as bech32
from chain.crypto import bls
from chain.crypto.keys import keccak256
from chain.errors import InvalidRequest

REFERENCE_PREFIX: Final = "sc1"
MESSAGE_PREFIX: Final = b"stratos/volume-report/v1"
EMPTY_ROOT: Final = hashlib.sha256(b"").digest()
"""The root of a tree without leaves."""
ROOTS: Final = ("receipts_root", "totals_root", "debits_root", "balances_root", "audits_root", "files_root")
_WHOLE: Final = re.compile("[0-9]{1,78}")
_FIELDS: Final = ("chain_id", "reporter", "reporter_owner", "epoch", "wallet_volumes", "lines", "promo_expired_noz", "roots")
_NEEDED: Final = _FIELDS[:5]
SHAPE: Final = (
    '{"chain_id": "…", "reporter": "stsds1…", "reporter_owner": "st1…", "epoch": "1", '
    '"wallet_volumes": [{"wallet_address": "st1…", "volume": "50000"}], "lines": [], "promo_expired_noz": "0", "roots": {…}}'
)


@dataclass(frozen=True, slots=True)
class ReportFacts:
    """What pot tells of a report that it has checked: who signed it (network addresses), and its volumes by wallet (noz) in the report's order."""

    epoch: int
    reporter: bytes
    owner: bytes
    reference: str
    signers: tuple[bytes, ...]
    volumes: Sequence[tuple[bytes, int]]
    maturity_epoch: int


def report_reference(commitment: Any) -> str:
    """The reference that the report of an ``EpochCommitment`` carries."""
    return REFERENCE_PREFIX + hashlib.sha256(canonical(commitment)).hexdigest()


def tx_data(report: Any) -> bytes:
    """keccak-256 (32 bytes) over a ``MsgVolumeReport`` whose signature part is empty."""
    unsigned = type(report)()
    unsigned.CopyFrom(report)
    unsigned.ClearField("BLS_signature")
    return keccak256(canonical(unsigned))


def signed_message(chain_id: str, data: bytes) -> bytes:
    """What meta nodes sign under a report with ``tx_data`` ``data``."""
    return MESSAGE_PREFIX + chain_id.encode() + b"\x00" + data


@dataclass(frozen=True)
class Draft:
    """A report that is not signed yet: ``commitment`` is ``EpochCommitment``, ``report`` ``MsgVolumeReport`` with its reference and no signature."""

    chain_id: str
    commitment: Any
    report: Any

    @property
    def data(self) -> bytes:
        """tx_data of the report."""
        return tx_data(self.report)

    @property
    def message(self) -> bytes:
        """What each meta node signs."""
        return signed_message(self.chain_id, self.data)

    def signature_info(self, signatures: Mapping[bytes, bytes]) -> Any:
        """``BLSSignatureInfo`` of signatures (96 bytes) by BLS key (48 bytes): selectors ascending, the sum. Raises InvalidRequest for one that does
        not hold.
        """
        if not signatures:
            raise InvalidRequest("a report needs the signatures of a quorum of meta nodes, got none")
        for key, signature in signatures.items():
            if not bls.verify(key, self.message, signature):
                raise InvalidRequest(f"the signature of BLS key {key.hex()[:16]}… does not hold: was another draft signed, or for another chain?")
        ordered = sorted(signatures)
        whole = bls.aggregate([signatures[key] for key in ordered])
        return message_class("stratos.pot.v1.BLSSignatureInfo")(pub_keys=ordered, signature=whole, txData=self.data)

    def messages(self, signature: Any) -> list[Any]:
        """``MsgCommitEpoch`` and ``MsgVolumeReport``, in the order of their transaction."""
        commit = message_class("stratos.settlement.v1.MsgCommitEpoch")(reporter_owner=self.report.reporter_owner, commitment=self.commitment)
        report = type(self.report)()
        report.CopyFrom(self.report)
        report.BLS_signature.CopyFrom(signature)
        return [commit, report]


def draft_of(given: Any) -> Draft:
    """The draft in JSON. Volumes and lines are put in order, so every signer signs the same; roots that are left out are those of empty trees.

    Raises InvalidRequest, InvalidAddress, and what ``from_json`` raises, naming the field.
    """
    if not isinstance(given, dict) or any(name not in given for name in _NEEDED):
        missing = [name for name in _NEEDED if not isinstance(given, dict) or name not in given]
        raise InvalidRequest(f"the draft does not have {', '.join(missing)}: expected {SHAPE}")
    unknown = [name for name in given if name not in _FIELDS]
    if unknown:
        raise InvalidRequest(f"the draft has {unknown[0][:60]!r}, which no draft has: expected {SHAPE}")
    if not isinstance(given["chain_id"], str) or not given["chain_id"]:
        raise InvalidRequest("chain_id: expected the chain's id")
    bech32.decode(str(given["reporter"]), bech32.NODE)
    bech32.decode(str(given["reporter_owner"]))
    _number("epoch", given["epoch"])
    if not isinstance(given.get("roots", {}), dict):
        raise InvalidRequest(f"roots: expected an object with {', '.join(ROOTS)} and more, got {str(given['roots'])[:60]!r}")
    roots = {**dict.fromkeys(ROOTS), **given.get("roots", {})}
    commitment = from_json(
        message_class("stratos.settlement.v1.EpochCommitment"),
        {
            "epoch": given["epoch"],
            "lines": given.get("lines", []),
            "promo_expired_noz": given.get("promo_expired_noz", "0"),
            "roots": {name: value for name, value in roots.items() if value is not None},
        },
        "commitment",
    )
    for name in ROOTS:
        if roots[name] is None:
            setattr(commitment.roots, name, EMPTY_ROOT)
    _number("promo_expired_noz", commitment.promo_expired_noz)
    for at, line in enumerate(commitment.lines):
        _number(f"lines[{at}].volume_noz", line.volume_noz)
    lines = sorted(commitment.lines, key=lambda line: (bech32.decode(line.wallet), line.traffic_class, line.fund))
    del commitment.lines[:]
    commitment.lines.extend(lines)
    report = from_json(
        message_class("stratos.pot.v1.MsgVolumeReport"),
        {name: given[name] for name in ("wallet_volumes", "reporter", "reporter_owner")} | {"epoch": str(given["epoch"])},
        "report",
    )
    volumes = sorted(report.wallet_volumes, key=lambda one: str(one.wallet_address))
    for at, one in enumerate(volumes):
        bech32.decode(one.wallet_address)
        _number(f"the volume of {one.wallet_address}", one.volume)
        if at and volumes[at - 1].wallet_address == one.wallet_address:
            raise InvalidRequest(f"wallet_volumes: {one.wallet_address} is there twice: add its volumes up")
    if not volumes:
        raise InvalidRequest("wallet_volumes: expected at least one wallet; an epoch without traffic has the reporter's owner with volume 0")
    del report.wallet_volumes[:]
    report.wallet_volumes.extend(volumes)
    report.report_reference = report_reference(commitment)
    return Draft(given["chain_id"], commitment, report)


def draft(
    chain_id: str, epoch: int, reporter: str, owner: str, volumes: Sequence[tuple[str, int]] = (), receipts: tuple[int, bytes] = (0, EMPTY_ROOT)
) -> dict[str, Any]:
    """The JSON of a draft with ``volumes`` (wallet, noz) of paid storage and a tree of ``receipts`` (count, root); without volumes, of an idle epoch."""
    listed = volumes or [(owner, 0)]
    return {
        "chain_id": chain_id,
        "reporter": reporter,
        "reporter_owner": owner,
        "epoch": str(epoch),
        "wallet_volumes": [{"wallet_address": wallet, "volume": str(noz)} for wallet, noz in listed],
        "lines": [],
        "promo_expired_noz": "0",
        "roots": {"receipts_count": str(receipts[0]), "receipts_root": base64.b64encode(receipts[1]).decode()},
    }


def _number(name: str, value: Any) -> None:
    """Raise InvalidRequest for what is no whole number."""
    text = str(value)
    if not isinstance(value, str | int) or _WHOLE.fullmatch(text) is None:
        raise InvalidRequest(f"{name}: expected a whole number, got {text[:60]!r}")
