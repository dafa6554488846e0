"""A chain with meta nodes and what tests of register do to it over and over."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Callable, Sequence
from typing import Any

from chain.app import build_application
from chain.application import Settings
from chain.codec.registry import message_class
from chain.coins import Coin
from chain.context import Context
from chain.crypto import address as bech32
from chain.crypto.keys import Ed25519PublicKey, public_key_to_any
from chain.store.kv import MemoryBackend
from chain.store.state import State
from chain.testing.driver import TxResult
from chain.tx.build import Signer, build_tx
from modules.register.keeper import RegisterKeeper
from tests.modules.governing import GAS, STOS, Net
from tests.support import CHAIN_ID, KEYS, genesis_document, text

PACKAGE = "stratos.register.v1"
DEPOSIT = 9900 * STOS
"""Of each meta node of the genesis."""
RATE = 10**6
HOUR_S, DAY_S = 3600, 86_400


def node_key(number: int) -> Ed25519PublicKey:
    """The network key of a node; the same for the same number."""
    return Ed25519PublicKey(hashlib.sha256(f"node {number}".encode()).digest())


def node_text(number: int) -> str:
    return bech32.encode(node_key(number).address, bech32.NODE)


def make(name: str, package: str = PACKAGE, **fields: Any) -> Any:
    return message_class(f"{package}.{name}")(**fields)


def wei(amount: int, denom: str = "wei") -> dict[str, str]:
    return {"denom": denom, "amount": str(amount)}


def create(kind: str, number: int, owner: int, amount: int = 2 * STOS, **fields: Any) -> Any:
    """MsgCreateResourceNode or MsgCreateMetaNode of node ``number``; an owner is one of KEYS."""
    given = {
        "network_address": node_text(number),
        "pubkey": public_key_to_any(node_key(number)),
        "value": wei(amount),
        "owner_address": text(KEYS[owner]),
        "beneficiary_address": text(KEYS[owner]),
        "description": {"moniker": f"node {number}"},
        **({"node_type": 4} if kind == "Resource" else {}),
        **fields,
    }
    return make(f"MsgCreate{kind}Node", **{name: value for name, value in given.items() if value is not None})


def remove(kind: str, number: int, owner: int) -> Any:
    name = "resource_node_address" if kind == "Resource" else "meta_node_address"
    return make(f"MsgRemove{kind}Node", **{name: node_text(number), "owner_address": text(KEYS[owner])})


def add(kind: str, number: int, owner: int, amount: int, denom: str = "wei") -> Any:
    return make(f"MsgUpdate{kind}NodeDeposit", network_address=node_text(number), owner_address=text(KEYS[owner]), deposit_delta=wei(amount, denom))


def effective(number: int, amount: int, *reporters: tuple[int, int]) -> Any:
    """MsgUpdateEffectiveDeposit by reporters (node, owner)."""
    return make(
        "MsgUpdateEffectiveDeposit",
        reporters=[node_text(node) for node, _ in reporters],
        reporter_owner=[text(KEYS[owner]) for _, owner in reporters],
        network_address=node_text(number),
        effective_tokens=str(amount),
    )


def vote(candidate: int, owner: int, voter: int, voter_owner: int, opinion: bool = True) -> Any:
    return make(
        "MsgMetaNodeRegistrationVote",
        candidate_network_address=node_text(candidate),
        candidate_owner_address=text(KEYS[owner]),
        opinion=opinion,
        voter_network_address=node_text(voter),
        voter_owner_address=text(KEYS[voter_owner]),
    )


def kick(target: int, voter: int, voter_owner: int, opinion: bool = True) -> Any:
    return make(
        "MsgKickMetaNodeVote",
        target_network_address=node_text(target),
        opinion=opinion,
        voter_network_address=node_text(voter),
        voter_owner_address=text(KEYS[voter_owner]),
    )


def genesis_node(number: int, owner: int, tokens: int = DEPOSIT, status: str = "BONDED", **fields: Any) -> dict[str, Any]:
    """JSON of a node in a genesis file; a resource node where ``node_type`` is given."""
    return {
        "network_address": node_text(number),
        "pubkey": {"@type": "/cosmos.crypto.ed25519.PubKey", "key": b64encode(node_key(number).raw).decode()},
        "suspend": False,
        "status": f"BOND_STATUS_{status}",
        "tokens": str(tokens),
        "owner_address": text(KEYS[owner]),
        "description": {"moniker": f"node {number}"},
        "creation_time": "2025-01-01T00:00:00Z",
        "beneficiary_address": "",
        **fields,
    }


class RegisterNet(Net):
    """Meta nodes 1 to ``metas``, bonded since long; node n's owner is KEYS[n], and KEYS[5] from the fifth on."""

    def __init__(self, metas: int = 4, *, params: dict[str, Any] | None = None, section: dict[str, Any] | None = None) -> None:
        app = build_application(MemoryBackend(), Settings(invariant_period=1))
        document = genesis_document(app)
        register = document["app_state"]["register"]
        register["meta_nodes"] = [genesis_node(number, self.owner(number)) for number in range(1, metas + 1)]
        register["params"].update(params or {})
        register.update(section or {})
        self.start(app, document)

    @staticmethod
    def owner(number: int) -> int:
        return min(number, 5)

    @property
    def keeper(self) -> RegisterKeeper:
        found = next(module for module in self.app.modules if module.name == "register").end_block.args[0]
        assert isinstance(found, RegisterKeeper)
        return found

    def run(self, number: int, *messages: Any, gas: int = GAS) -> TxResult:
        """As ``Net.run``; a transaction that its stateless checks refuse uses up no sequence."""
        result = super().run(number, *messages, gas=gas)
        self._refresh(number)
        return result

    def _refresh(self, *numbers: int) -> None:
        for number in numbers:
            info = self.ask("AccountInfo", "cosmos.auth.v1beta1", address=text(KEYS[number])).info
            self.sequences[number] = info.sequence

    def signed_by(self, numbers: Sequence[int], *messages: Any) -> bytes:
        """A transaction that several of KEYS sign; the first pays."""
        signers = [Signer(KEYS[number].public_key, self.sequences[number], number) for number in numbers]
        for number in numbers:
            self.sequences[number] += 1
        unsigned = build_tx(list(messages), fee=(Coin("wei", GAS * 10**9),), gas_limit=GAS, signers=signers)
        return unsigned.sign([KEYS[number] for number in numbers], CHAIN_ID)

    def approve(self, number: int, amount: int, *reporters: int) -> TxResult:
        """Approvals by meta nodes, with their owners' signatures."""
        pairs = [(one, self.owner(one)) for one in reporters]
        owners = list(dict.fromkeys(owner for _, owner in pairs))
        result = self.driver.next_block([self.signed_by(owners, effective(number, amount, *pairs))]).results[0]
        self._refresh(*owners)
        return result

    def ok(self, number: int, *messages: Any) -> TxResult:
        result = self.run(number, *messages)
        assert result.code == 0, result.log
        return result

    def within(self, action: Callable[[Context, Any], Any]) -> Any:
        """What ``action(ctx, state)`` returns in the end hooks of the next block."""
        found: list[Any] = []

        def hook(ctx: Context, state: Any) -> None:
            if not found:
                found.append(action(ctx, state))

        self.app._end.append(hook)
        self.driver.next_block()
        self.app._end.remove(hook)
        return found[0]

    def read(self, action: Callable[[Any], Any]) -> Any:
        """What ``action(state)`` returns of the committed state."""
        with self.app.store.view() as view:
            return action(State(view, self.app.store.names))

    def query(self, method: str, **fields: Any) -> Any:
        return self.ask(method, PACKAGE, **fields)

    @property
    def pool(self) -> Any:
        """``chain.ozone.Ozone`` as committed."""
        return self.read(self.keeper.ozone)

    def export(self) -> dict[str, Any]:
        section = self.app.export()["register"]
        assert isinstance(section, dict)
        return section

    def pools(self) -> list[int]:
        """wei in the four pools: resource bonded and not, meta bonded and not."""
        return list(self.read(self.keeper.deposits_wei).values())


def typed(result: TxResult | Sequence[tuple[str, dict[str, str]]], name: str) -> list[dict[str, str]]:
    """The events of a name, as they are on the wire."""
    events = result.events if isinstance(result, TxResult) else [(kind, list(values.items())) for kind, values in result]
    wanted = f"{PACKAGE}.{name}"
    return [{key: value for key, value in pairs if key != "msg_index"} for kind, pairs in events if kind == wanted]
