"""Store ``gov``: SDK 0.50's layout. Numbers are 8 bytes, big-endian; times are ``chain.codec.times.sortable``, 29 bytes."""

from chain.codec.times import NANOS, sortable

STORE = "gov"

PROPOSALS = b"\x00"
ACTIVE = b"\x01"
"""Proposals in their voting period, by its end."""
INACTIVE = b"\x02"
"""Proposals in their deposit period, by its end."""
NEXT_ID = b"\x03"
"""→ the next proposal's number"""
VOTING = b"\x04"
DEPOSITS = b"\x10"
VOTES = b"\x20"
PARAMS = b"\x30"
"""→ Params"""
CONSTITUTION = b"\x31"
"""→ text"""


def number(value: int) -> bytes:
    return value.to_bytes(8, "big")


def proposal(proposal_id: int) -> bytes:
    """``00 | number`` → Proposal."""
    return PROPOSALS + number(proposal_id)


def queued(queue: bytes, end_ns: int, proposal_id: int) -> bytes:
    """``01 or 02 | time | number`` → number."""
    return queue + sortable(*divmod(end_ns, NANOS)) + number(proposal_id)


def voting(proposal_id: int) -> bytes:
    """``04 | number`` → 01, while the proposal is in its voting period."""
    return VOTING + number(proposal_id)


def deposits_of(proposal_id: int) -> bytes:
    """``10 | number``: prefix of a proposal's deposits."""
    return DEPOSITS + number(proposal_id)


def deposit(proposal_id: int, depositor: bytes) -> bytes:
    """``10 | number | length | depositor`` → Deposit."""
    return deposits_of(proposal_id) + bytes([len(depositor)]) + depositor


def votes_of(proposal_id: int) -> bytes:
    """``20 | number``: prefix of a proposal's votes."""
    return VOTES + number(proposal_id)


def vote(proposal_id: int, voter: bytes) -> bytes:
    """``20 | number | length | voter`` → Vote."""
    return votes_of(proposal_id) + bytes([len(voter)]) + voter


def address_of(key: bytes) -> bytes:
    """The address at the end of a deposit's or a vote's key."""
    return key[10:]
