"""Store ``settlement``. Numbers are big-endian, so that keys sort as they do."""

from __future__ import annotations

from typing import Final

STORE: Final = "settlement"

PARAMS: Final = b"\x01"
"""→ Params."""
META_KEYS: Final = b"\x02"
BLS_KEYS: Final = b"\x03"
LEDGER_KEYS: Final = b"\x04"
EPOCHS: Final = b"\x05"
CHALLENGES: Final = b"\x06"
DEADLINES: Final = b"\x07"
CHALLENGED_LEAVES: Final = b"\x08"
NEXT_CHALLENGE: Final = b"\x09"
"""→ the next challenge's number, 8 bytes; absent: 1."""
PUNISHED_LEASES: Final = b"\x0a"
OPEN: Final = b"\x0b"
"""→ MsgCommitEpoch whose report is the next message; never there between transactions."""

_NUMBER_BYTES: Final = 8
ADDRESS_BYTES: Final = 20


def number(value: int) -> bytes:
    """8 bytes."""
    return value.to_bytes(_NUMBER_BYTES, "big")


def meta_keys(meta_node: bytes) -> bytes:
    """``02 | network address`` → MetaKeys."""
    return META_KEYS + meta_node


def bls_key(key: bytes) -> bytes:
    """``03 | BLS public key, 48 bytes`` → network address of the meta node that has it."""
    return BLS_KEYS + key


def ledger_key(key: bytes) -> bytes:
    """``04 | ledger consensus key, 32 bytes`` → network address of the meta node that has it."""
    return LEDGER_KEYS + key


def epoch(value: int) -> bytes:
    """``05 | epoch`` → CommittedEpoch."""
    return EPOCHS + number(value)


def challenge(challenge_id: int) -> bytes:
    """``06 | number`` → Challenge."""
    return CHALLENGES + number(challenge_id)


def deadline(height: int, challenge_id: int) -> bytes:
    """``07 | height of the deadline | number`` → empty."""
    return deadlines_before(height) + number(challenge_id)


def deadlines_before(height: int) -> bytes:
    """End of the entries of ``deadline`` with a lower height."""
    return DEADLINES + number(height)


def queued_challenge(key: bytes) -> int:
    """The number in a key of ``deadline``."""
    return int.from_bytes(key[-_NUMBER_BYTES:], "big")


def challenged_leaf(epoch_number: int, leaf_index: int) -> bytes:
    """``08 | epoch | leaf index`` → number of the open challenge, 8 bytes."""
    return challenged_leaves(epoch_number) + number(leaf_index)


def challenged_leaves(epoch_number: int) -> bytes:
    """``08 | epoch``: prefix of the challenges of an epoch."""
    return CHALLENGED_LEAVES + number(epoch_number)


def punished_lease(meta_node: bytes, lease_id: bytes) -> bytes:
    """``0a | network address | lease id, 32 bytes`` → PunishedLease."""
    return PUNISHED_LEASES + meta_node + lease_id
