"""The fee for having an invariant checked, and the check."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Protocol

from chain import coins
from chain.codec.canonical import encode
from chain.coins import Coins
from chain.context import Context
from chain.errors import PanicError
from chain.module import Invariant
from chain.store.api import StateReader, StateWriter
from modules.crisis import keys
from modules.crisis.errors import UnknownInvariant

FEE_COLLECTOR: Final = "fee_collector"


class BankSender(Protocol):
    """What crisis needs of the bank."""

    def send_to_module(self, ctx: Context, state: StateWriter, sender: bytes, module: str, amount: Coins) -> None: ...


class CrisisKeeper:
    """Knows every module's invariants; ``chain/app.py`` fills them in once all modules are there."""

    def __init__(self, bank: BankSender) -> None:
        self._bank = bank
        self._invariants: Mapping[tuple[str, str], Invariant] = {}

    def fill(self, invariants: Mapping[str, Mapping[str, Invariant]]) -> None:
        """Take the invariants: module → route → check."""
        self._invariants = {(module, route): check for module, checks in invariants.items() for route, check in checks.items()}

    def constant_fee(self, state: StateReader) -> Any:
        """What a check costs, as Coin."""
        return coins.CoinMessage.FromString(state.store(keys.STORE).get(keys.CONSTANT_FEE) or b"")

    def set_constant_fee(self, state: StateWriter, fee: Any) -> None:
        state.store(keys.STORE).set(keys.CONSTANT_FEE, encode(fee))

    def verify(self, ctx: Context, state: StateWriter, sender: bytes, module: str, route: str) -> None:
        """Take the fee from ``sender`` and check one invariant, at the gas of what it reads.

        Raises UnknownInvariant (crisis/3), PanicError (undefined/111222) with the sentence when it is broken, and what a send raises.
        """
        fee = self.constant_fee(state)
        self._bank.send_to_module(ctx, state, sender, FEE_COLLECTOR, coins.normalise([coins.Coin(fee.denom, int(fee.amount))]))
        check = self._invariants.get((module, route))
        if check is None:
            raise UnknownInvariant(f"no invariant {route[:100]!r} of module {module[:100]!r}")
        problem = check(state)
        if problem is not None:
            raise PanicError(f"{module}/{route}: {problem}")
        ctx.events.emit("invariant", ("route", route))
