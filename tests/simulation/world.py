"""What operations may look at: accounts whose keys are known, and the chain through its own queries."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any

from chain.application import Application
from chain.codec.registry import message_class
from chain.crypto import address as bech32
from chain.crypto.keys import PrivateKey
from chain.testing.driver import Driver

DENOM = "wei"
FOUNDERS = 12
"""Accounts 0 to 11 have funds at genesis, the first ones validators."""
GOV = bech32.encode(bech32.module_address("gov"))


@dataclass(frozen=True)
class Account:
    """A key with its number; the same number is the same key everywhere."""

    number: int
    key: PrivateKey

    @cached_property
    def address(self) -> bytes:
        return self.key.public_key.address

    @cached_property
    def text(self) -> str:
        return bech32.encode(self.address)

    @cached_property
    def operator(self) -> str:
        """The same address as that of a validator's operator."""
        return bech32.encode(self.address, bech32.VALIDATOR)


@cache
def account(number: int) -> Account:
    """Every fourth account has an Ethereum key."""
    secret = hashlib.sha256(f"stratos simulation account {number}".encode()).digest()
    return Account(number, PrivateKey(secret, "secp256k1" if number % 4 else "eth_secp256k1"))


def coin(amount: int, denom: str = DENOM) -> dict[str, str]:
    return {"denom": denom, "amount": str(amount)}


@dataclass
class World:
    """The chain as it was committed last; answers are kept until the next block."""

    driver: Driver
    choose: random.Random
    known: list[Account] = field(default_factory=lambda: [account(number) for number in range(FOUNDERS)])
    """Accounts that exist, or that a message of this history may have made."""
    validator_keys: int = 0
    """How many of ``ValidatorKey.numbered`` were given to validators."""
    max_validator_keys: int = 60
    scratch: dict[str, Any] = field(default_factory=dict)
    """For operations that remember something; drawn from ``choose`` alone, so the same in every process."""
    _answers: dict[tuple[str, bytes], Any] = field(default_factory=dict)

    @property
    def app(self) -> Application:
        found = self.driver.apps[0]
        assert isinstance(found, Application)
        return found

    @property
    def now_s(self) -> int:
        return self.driver.time_ns // 10**9

    @property
    def modules(self) -> frozenset[str]:
        return frozenset(module.name for module in self.app.modules)

    def next_block(self) -> None:
        """Forget what was answered about the block before."""
        self._answers.clear()

    def ask(self, method: str, **fields: Any) -> Any:
        """The answer of a query, as ``cosmos.bank.v1beta1.Query/Balance``."""
        service, _, name = method.rpartition(".Query/")
        request = message_class(f"{service}.Query{name}Request")(**fields)
        key = method, request.SerializeToString(deterministic=True)
        if key not in self._answers:
            self._answers[key] = self.app.query_rpc("/" + method, request)[0]
        return self._answers[key]

    def someone(self) -> Account:
        """Mostly a founder: others may have nothing to pay a fee with."""
        return self.choose.choice(self.known[:FOUNDERS] if self.choose.random() < 0.7 else self.known)

    def stranger(self) -> Account:
        """An account that the chain has not seen; known from now on."""
        self.known.append(account(len(self.known)))
        return self.known[-1]

    def by_text(self, text: str) -> Account | None:
        """The account of an address, or of a validator's operator address, if its key is known."""
        return self._by_text.get(text)

    @property
    def _by_text(self) -> Mapping[str, Account]:
        index: dict[str, Account] = self.scratch.setdefault("by text", {})
        for one in self.known[len(index) // 2 :]:
            index[one.text] = index[one.operator] = one
        return index

    def spendable(self, one: Account) -> int:
        return int(self.ask("cosmos.bank.v1beta1.Query/SpendableBalanceByDenom", address=one.text, denom=DENOM).balance.amount)

    def part_of(self, amount: int) -> int:
        """A random part: mostly small, at times all of it."""
        return amount if self.choose.random() < 0.05 else self.choose.randint(0, max(amount >> self.choose.choice((1, 2, 4, 8, 20, 50)), 1))


Build = Callable[[random.Random, World], "Sequence[Any] | Any | None"]


@dataclass(frozen=True)
class Kind:
    """An operation of a module: ``build(choose, world)`` gives a message, several for one transaction, or None when it is not its time.

    Who signs follows from the messages. ``weight`` is how often it is drawn beside the others."""

    name: str
    weight: int
    build: Build
