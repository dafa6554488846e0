"""Validators as CometBFT 0.38 keeps them: the order of a set, its hash, its changes, and whose turn it is to propose.

Source: CometBFT v0.38.25 ``types/validator_set.go``. ``tests/abci/test_headers_equal_cometbft.py`` holds all of it against the real one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from chain.codec.canonical import encode
from chain.codec.registry import message_class
from chain.crypto.keys import Ed25519PublicKey, Secp256k1PublicKey
from chain.store.merkle import root_of

MAX_TOTAL_POWER: Final = (2**63 - 1) // 8
_INT64_MAX: Final = 2**63 - 1
_WINDOW: Final = 2
"""Priorities lie within this many times the total power of each other."""

_SimpleValidator: Final = message_class("tendermint.types.SimpleValidator")
_PublicKeyMessage: Final = message_class("tendermint.crypto.PublicKey")


class ValidatorError(ValueError):
    """A validator set or an update of it is not one that CometBFT accepts."""


@dataclass(frozen=True, slots=True)
class Validator:
    """One member of a set. ``key_type`` is ``ed25519`` or ``secp256k1``."""

    key_type: str
    raw_key: bytes
    power: int
    priority: int = 0

    @property
    def address(self) -> bytes:
        return self.public_key.address

    @property
    def public_key(self) -> Ed25519PublicKey | Secp256k1PublicKey:
        return Ed25519PublicKey(self.raw_key) if self.key_type == "ed25519" else Secp256k1PublicKey(self.raw_key)

    def leaf(self) -> bytes:
        """What the set's hash covers of it."""
        raw: bytes = encode(_SimpleValidator(pub_key=_PublicKeyMessage(**{self.key_type: self.raw_key}), voting_power=self.power))
        return raw


def from_updates(updates: Iterable[Any]) -> list[Validator]:
    """``tendermint.abci.ValidatorUpdate`` messages as validators. Raises ValidatorError."""
    found = []
    for update in updates:
        kind = update.pub_key.WhichOneof("sum")
        if kind is None:
            raise ValidatorError("a validator update carries no public key: expected ed25519 or secp256k1")
        found.append(Validator(kind, bytes(getattr(update.pub_key, kind)), update.power))
    return found


class ValidatorSet(Sequence[Validator]):
    """Immutable: members by power, then address; ``proposer`` is whose turn it is in round 0."""

    __slots__ = ("_addresses", "_members", "_proposer", "total_power")

    def __init__(self, members: Iterable[Validator] = (), proposer: bytes = b"") -> None:
        self._members = tuple(sorted(members, key=lambda one: (-one.power, one.address)))
        self._addresses = {one.address: at for at, one in enumerate(self._members)}
        self._proposer = proposer
        self.total_power = sum(one.power for one in self._members)

    @classmethod
    def of(cls, validators: Iterable[Validator]) -> ValidatorSet:
        """The first set of a chain. Raises ValidatorError."""
        return cls().changed(validators).advanced(1)

    def __len__(self) -> int:
        return len(self._members)

    def __getitem__(self, at: Any) -> Any:
        return self._members[at]

    def __iter__(self) -> Iterator[Validator]:
        return iter(self._members)

    def index(self, address: Any, start: int = 0, stop: int | None = None) -> int:
        """Where the validator of this address stands. Raises ValidatorError."""
        at = self._addresses.get(address)
        if at is None:
            raise ValidatorError(f"no validator of the set has the address {bytes(address).hex().upper()}")
        return at

    @property
    def proposer(self) -> Validator:
        return self._members[self.index(self._proposer)]

    def hash(self) -> bytes:
        """What headers carry as validators_hash."""
        return root_of([one.leaf() for one in self._members])

    def advanced(self, turns: int) -> ValidatorSet:
        """The set ``turns`` proposers later."""
        members = self._centered(self._scaled(self._members))
        proposer = b""
        for _ in range(turns):
            members = [replace(one, priority=_clip(one.priority + one.power)) for one in members]
            at = min(range(len(members)), key=lambda at: (-members[at].priority, members[at].address))
            members[at] = replace(members[at], priority=_clip(members[at].priority - self.total_power))
            proposer = members[at].address
        return ValidatorSet(members, proposer)

    def changed(self, updates: Iterable[Validator]) -> ValidatorSet:
        """With updates applied: power 0 removes. Raises ValidatorError for what CometBFT would stop at."""
        updates = sorted(updates, key=lambda one: one.address)
        if not updates:
            return self
        self._require_acceptable(updates)
        members = {one.address: one for one in self._members}
        added = [one for one in updates if one.power]
        before_removals = sum(one.power for one in {**members, **{one.address: one for one in added}}.values())
        newcomer_priority = -(before_removals + (before_removals >> 3))
        for one in added:
            known = members.get(one.address)
            members[one.address] = replace(one, priority=known.priority if known else newcomer_priority)
        for one in updates:
            if one.power == 0:
                del members[one.address]
        found = ValidatorSet(members.values(), self._proposer)
        if found.total_power > MAX_TOTAL_POWER:
            raise ValidatorError(f"the total power would be {found.total_power}; CometBFT allows {MAX_TOTAL_POWER}")
        if not len(found):
            raise ValidatorError("no validator would be left: CometBFT needs one at least")
        return ValidatorSet(found._centered(found._scaled(found._members)), self._proposer)

    def _require_acceptable(self, updates: Sequence[Validator]) -> None:
        previous = None
        for one in updates:
            if one.address == previous:
                raise ValidatorError(f"two updates in one block for validator {one.address.hex().upper()}: CometBFT takes one")
            previous = one.address
            if one.power < 0:
                raise ValidatorError(f"validator {one.address.hex().upper()} has a negative power: {one.power}")
            if one.power == 0 and one.address not in self._addresses:
                raise ValidatorError(f"validator {one.address.hex().upper()} is to be removed and is not in the set")

    def _scaled(self, members: Sequence[Validator]) -> list[Validator]:
        spread, widest = max(one.priority for one in members) - min(one.priority for one in members), _WINDOW * self.total_power
        if widest <= 0 or spread <= widest:
            return list(members)
        ratio = -(-spread // widest)
        # Go's division goes towards zero.
        return [replace(one, priority=(abs(one.priority) // ratio) * (1 if one.priority >= 0 else -1)) for one in members]

    @staticmethod
    def _centered(members: Sequence[Validator]) -> list[Validator]:
        average = sum(one.priority for one in members) // len(members)
        return [replace(one, priority=_clip(one.priority - average)) for one in members]


def _clip(value: int) -> int:
    return max(-_INT64_MAX - 1, min(_INT64_MAX, value))
