"""What a handler may know about the block and the transaction it runs in. Frozen: state is passed beside it, never inside."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any

from chain.events import EventList
from chain.gas import GasMeter, InfiniteGasMeter


class Mode(enum.Enum):
    """Why code runs. Only FINALIZE and GENESIS lead to committed state."""

    GENESIS = "genesis"
    CHECK = "check"
    RECHECK = "recheck"
    SIMULATE = "simulate"
    PROPOSE = "propose"
    FINALIZE = "finalize"
    QUERY = "query"


@dataclass(frozen=True, slots=True)
class Vote:
    """One validator's part in the last commit: consensus address (20 bytes), power, and CometBFT's BlockIDFlag (2 = for the block)."""

    validator_address: bytes
    power: int
    block_id_flag: int


@dataclass(frozen=True, slots=True)
class Misbehavior:
    """Evidence CometBFT hands over: ``kind`` is tendermint.abci.MisbehaviorType; times are Unix nanoseconds."""

    kind: int
    validator_address: bytes
    power: int
    height: int
    time_ns: int
    total_voting_power: int


@dataclass(frozen=True, slots=True)
class Context:
    """Block header facts, the gas meter and the event list of the running execution.

    ``time_ns`` is the block time in Unix nanoseconds (the only clock consensus code has). ``app_hash`` is that of the block before.
    ``next_message`` is the message that the transaction itself runs after this one, or None: for the last one, and for every message that another
    one carries (authz, gov).
    """

    chain_id: str
    height: int
    time_ns: int
    mode: Mode
    gas: GasMeter = field(default_factory=InfiniteGasMeter)
    events: EventList = field(default_factory=EventList)
    proposer_address: bytes = b""
    header_hash: bytes = b""
    next_validators_hash: bytes = b""
    app_hash: bytes = b""
    last_commit: tuple[Vote, ...] = ()
    misbehavior: tuple[Misbehavior, ...] = ()
    tx_hash: bytes = b""
    next_message: Any = None
