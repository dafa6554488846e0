"""What a module is to the chain: one frozen object that declares everything, and runs nothing by itself.

``docs/modules.md`` walks through it; ``modules/bank/module.py`` is the example to copy. ``chain/app.py`` lists the modules,
their orders, and hands each the narrow capabilities of others that it asks for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from chain.context import Context
from chain.store.api import StateReader, StateWriter

Json: TypeAlias = Any
"""A JSON value as ``json.loads`` returns it: the form of genesis sections."""

CheckStateless: TypeAlias = Callable[[Any], None]
Execute: TypeAlias = Callable[[Context, StateWriter, Any], Any]
Query: TypeAlias = Callable[[Context, StateReader, Any], Any]
Hook: TypeAlias = Callable[[Context, StateWriter], None]
Invariant: TypeAlias = Callable[[StateReader], "str | None"]


def accept(message: Any) -> None:
    """The stateless check of a message that has nothing to check."""


@dataclass(frozen=True, slots=True)
class MessageHandler:
    """How one message type is handled.

    ``check_stateless(message)`` looks at the message alone and raises AppError; it runs in CheckTx and again before execution.
    ``execute(ctx, state, message)`` validates against state, then writes, and returns the response message.
    """

    execute: Execute
    check_stateless: CheckStateless = accept


@dataclass(frozen=True, slots=True)
class ValidatorUpdate:
    """A change of the consensus validator set. ``key_type`` is ``ed25519`` or ``secp256k1``; ``power`` 0 removes."""

    key_type: str
    public_key: bytes
    power: int


class Genesis(Protocol):
    """A module's part of ``app_state``, in the SDK's JSON shape (proto JSON of its GenesisState)."""

    def default(self) -> Json:
        """The section a new chain starts from."""

    def validate(self, section: Json) -> None:
        """Raise ``GenesisError`` naming the field (``app_state.bank.balances[3].coins[0].amount``) when the section cannot be loaded."""

    def load(self, ctx: Context, state: StateWriter, section: Json) -> Sequence[ValidatorUpdate]:
        """Write a validated section into empty stores; only the staking side returns validators."""

    def export(self, ctx: Context, state: StateReader) -> Json:
        """The section that, loaded into empty stores, gives this state again, byte for byte when exported again."""


class GenesisError(Exception):
    """A genesis file cannot be used. ``path`` names the field, ``problem`` says what was expected and what was found."""

    def __init__(self, path: str, problem: str) -> None:
        self.path = path
        self.problem = problem
        super().__init__(f"{path}: {problem}")


@dataclass(frozen=True, slots=True)
class Module:
    """Everything the chain needs to know of one module.

    ``stores``           names of its persistent stores (the SDK's store names)
    ``messages``         protobuf full name (``cosmos.bank.v1beta1.MsgSend``) → handler
    ``queries``          RPC path (``/cosmos.bank.v1beta1.Query/Balance``) → handler(ctx, state, request) → response
    ``genesis``          its section of app_state, or None
    ``account_permissions``  module accounts it owns → their permissions (``minter``, ``burner``, ``staking``)
    ``pre_block``, ``begin_block``, ``end_block``  block hooks (an error in one stops the node)
    ``validator_updates``  called after every end_block hook: the changes for CometBFT
    ``invariants``       name → check that returns None or a sentence that says what is broken; the SDK's route, where it has one
    ``cli``              extra commands: functions that receive the click group to add to (``chain/cli`` says which)
    ``errors``           every AppError class of its codespace, for the error table in the docs
    ``consensus_version``  the SDK module's consensus version, for upgrades
    ``migrations``       consensus version → the step from it to the next, run by an upgrade
    ``zero_height``      makes its state that of a chain which begins at height 1, for ``export --for-zero-height``; in the order of genesis
    """

    name: str
    stores: tuple[str, ...] = ()
    messages: Mapping[str, MessageHandler] = field(default_factory=dict)
    queries: Mapping[str, Query] = field(default_factory=dict)
    genesis: Genesis | None = None
    account_permissions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    pre_block: Hook | None = None
    begin_block: Hook | None = None
    end_block: Hook | None = None
    validator_updates: Callable[[Context, StateWriter], Sequence[ValidatorUpdate]] | None = None
    invariants: Mapping[str, Invariant] = field(default_factory=dict)
    cli: Mapping[str, Callable[[Any], None]] = field(default_factory=dict)
    errors: tuple[type[Exception], ...] = ()
    consensus_version: int = 1
    migrations: Mapping[int, Hook] = field(default_factory=dict)
    zero_height: Hook | None = None
