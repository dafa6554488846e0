"""A chain with meta nodes whose deposits make ozone; messages of sds and grant; what tests of both do over and over."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from chain.app import build_application
from chain.application import Settings
from chain.codec.registry import message_class
from chain.codec.times import NANOS
from chain.coins import Coin, to_messages
from chain.context import Context, Mode
from chain.crypto import address as bech32
from chain.crypto.keys import PrivateKey
from chain.events import EventList
from chain.store.kv import MemoryBackend
from chain.store.state import State
from chain.testing.driver import Driver
from chain.testing.validators import ValidatorKey
from tests.grants import Chain
from tests.modules.ozone_chain import OzoneChain
from tests.support import KEYS, genesis_document, text

SDS, GRANT, REGISTER, BANK = "stratos.sds.v1", "stratos.grant.v1", "stratos.register.v1", "cosmos.bank.v1beta1"
STOS = 10**18
GAS = 50_000_000
PREPAID = "total_unissued_prepay"
FIRST_NODE_KEY = 40
"""Meta nodes have the keys ``ValidatorKey.numbered`` from here on."""


def meta_address(number: int) -> str:
    """Network address of a meta node by its number."""
    return bech32.encode(ValidatorKey.numbered(FIRST_NODE_KEY + number).address, bech32.NODE)


def meta_node(number: int, owner: PrivateKey, deposit_wei: int) -> dict[str, Any]:
    """A bonded meta node for a genesis file."""
    public_key = ValidatorKey.numbered(FIRST_NODE_KEY + number).public_key
    return {
        "network_address": meta_address(number),
        "pubkey": {"@type": "/cosmos.crypto.ed25519.PubKey", "key": base64.b64encode(public_key.raw).decode()},
        "status": "BOND_STATUS_BONDED",
        "tokens": str(deposit_wei),
        "owner_address": text(owner),
        "beneficiary_address": text(owner),
        "description": {"moniker": f"meta {number}"},
        "creation_time": "2026-01-01T00:00:00Z",
    }


def with_ozone(document: dict[str, Any], deposits_wei: Sequence[int], *, solvency: bool = True) -> dict[str, Any]:
    """A genesis document with a meta node for each deposit; node i is owned by the i-th of KEYS, in turn."""
    register = document["app_state"]["register"]
    register["meta_nodes"] = [meta_node(at, KEYS[at % len(KEYS)], wei) for at, wei in enumerate(deposits_wei)]
    register["params"]["solvency_rules"] = solvency
    return document


SEEN: dict[tuple[str, int], None] = {}
"""(codespace, code) of what was refused so far."""


def seen(codespace: str, code: int) -> tuple[str, int]:
    """Note a refusal; returns it."""
    SEEN[codespace, code] = None
    return codespace, code


class Net(OzoneChain):
    """A chain that checks every invariant before each commit. ``deposits_wei`` are those of its meta nodes; ``sections`` change parts of app_state."""

    gas = GAS

    def __init__(self, deposits_wei: Sequence[int] = (100 * STOS,) * 4, *, solvency: bool = True, **sections: dict[str, Any]) -> None:
        app = build_application(MemoryBackend(), Settings(invariant_period=1))
        self.document = with_ozone(genesis_document(app), deposits_wei, solvency=solvency)
        for name, changes in sections.items():
            self.document["app_state"][name] |= changes
        driver = Driver([app], self.document)
        driver.start()
        driver.next_block()
        super().__init__(driver)

    def refused(self, private: PrivateKey, *messages: Any, **options: Any) -> tuple[tuple[str, int], str]:
        """``refusal``, and note its code."""
        found, log = self.refusal(private, *messages, **options)
        return seen(*found), log

    def economy(self) -> dict[str, Any]:
        """The sections of sds, grant and register, and the balances of their accounts."""
        exported = self.app.export()
        accounts = (PREPAID, "grant", "sds", "register")
        return {name: exported[name] for name in ("sds", "grant", "register")} | {name: self.module_wei(name) for name in accounts}

    def limit_noz(self) -> int:
        """Lt."""
        return int(self.query(SDS, "NozSupply").remaining)

    def price(self) -> str:
        """wei per noz, 18 decimals."""
        scaled = self.query(SDS, "NozPrice").price
        return f"{scaled[:-18]}.{scaled[-18:]}"

    def outstanding(self) -> tuple[int, int]:
        """(noz, wei) of granted ozone that is not used."""
        found = self.query(GRANT, "Outstanding")
        return int(found.promo_outstanding_noz), int(found.promo_cost_wei)

    def pool_free(self, pool_id: int) -> int:
        return int(self.query(GRANT, "Pool", pool_id=pool_id).pool.free_wei)

    def campaign(self, campaign_id: int = 1) -> Any:
        return self.query(GRANT, "Campaign", campaign_id=campaign_id).campaign

    def scratch(self) -> tuple[Context, State]:
        """A context and a writable state over the last block, for what the keepers offer each other; nothing of it is committed."""
        ctx = Context(self.driver.chain_id, self.driver.height + 1, self.driver.time_ns + NANOS, Mode.FINALIZE, events=EventList())
        return ctx, State(self.app.store.view(), tuple(self.app.store.names))

    def broken(self, state: State) -> list[str]:
        """What sds's and grant's invariants say of a state."""
        checks = [check for module in self.app.modules if module.name in ("sds", "grant", "register") for check in module.invariants.values()]
        return [told for told in (check(state) for check in checks) if told is not None]

    def decide(self, *messages: Any) -> None:
        """Have the chain execute messages as a passed proposal would, each in a block of its own. Raises what they raise."""
        router_of = self.app.executor._handlers
        pending = list(messages)

        def hook(ctx: Context, state: Any) -> None:
            if pending:
                message = pending.pop(0)
                handler = router_of[message.DESCRIPTOR.full_name]
                handler.check_stateless(message)
                handler.execute(replace(ctx, next_message=None), state, message)

        self.app._end.append(hook)
        for _ in messages:
            self.driver.next_block()
        self.app._end.remove(hook)


def attributes(result: Any, kind: str) -> list[dict[str, str]]:
    """Attributes of every event of a type, as they are on the wire."""
    return [{key: value for key, value in found if key != "msg_index"} for name, found in result.events if name == kind]


def typed(result: Any, kind: str) -> list[dict[str, str]]:
    """Typed events with the quotes of their values taken off."""
    return [{key: json.loads(value) for key, value in one.items()} for one in attributes(result, kind)]


# --- messages ---------------------------------------------------------------------------------------------------------------------------------


def make(kind: str, package: str = GRANT, /, **fields: Any) -> Any:
    return message_class(f"{package}.{kind}")(**fields)


def prepay(sender: str, *coins: Coin, beneficiary: str = "") -> Any:
    """A MsgPrepay of these coins, for the sender unless somebody else is named."""
    return make("MsgPrepay", SDS, sender=sender, beneficiary=beneficiary or sender, amount=to_messages(coins))


def upload(file_hash: str, owner: str, reporter: str, uploader: str) -> Any:
    return make("MsgFileUpload", SDS, file_hash=file_hash, reporter=reporter, uploader=uploader, **{"from": owner})


def create_pool(admin: str, wei: int = STOS, name: str = "sponsor", denom: str = "wei") -> Any:
    return make("MsgCreatePool", admin=admin, name=name, funding=to_messages((Coin(denom, wei),))[0])


def fund(depositor: str, pool_id: int, wei: int, denom: str = "wei") -> Any:
    return make("MsgFundPool", depositor=depositor, pool_id=pool_id, amount=to_messages((Coin(denom, wei),))[0])


def promotion(net: Chain, number: int = 1, noz: int = 10**9, start_s: int = -10, end_s: int = 100_000, name: str = "welcome") -> Any:
    """A promotion that is open from and until so many seconds from now."""
    made = make("Promotion", promotion_id=number, name=name, noz_per_wallet=str(noz))
    made.start_time.seconds, made.end_time.seconds = net.now_s + start_s, net.now_s + end_s
    return made


def create_campaign(net: Chain, admin: str, operators: Sequence[str], *promotions: Any, end_s: int = 100_000, **fields: Any) -> Any:
    """A campaign of pool 2 that ends so many seconds from now; without promotions it has one that is open."""
    given = {
        "pool_id": 2,
        "name": "launch",
        "budget_wei": str(STOS),
        "max_wei_per_day": str(STOS),
        "max_noz_per_wallet": str(10**10),
        "validity_s": 3600,
    }
    made = make("MsgCreateCampaign", admin=admin, operators=operators, **{**given, **fields})
    made.end_time.seconds = net.now_s + end_s
    made.promotions.extend(promotions or (promotion(net, end_s=end_s),))
    return made


def claim(operator: str, wallets: Sequence[str], campaign_id: int = 1, promotion_id: int = 1) -> Any:
    return make("MsgClaim", operator=operator, campaign_id=campaign_id, promotion_id=promotion_id, wallets=wallets)


def end_campaign(admin: str, campaign_id: int = 1) -> Any:
    return make("MsgEndCampaign", admin=admin, campaign_id=campaign_id)


def set_operators(admin: str, *operators: str, campaign_id: int = 1) -> Any:
    return make("MsgSetOperators", admin=admin, campaign_id=campaign_id, operators=operators)


def add_promotion(admin: str, made: Any, campaign_id: int = 1) -> Any:
    return make("MsgAddPromotion", admin=admin, campaign_id=campaign_id, promotion=made)


def wallet(number: int) -> str:
    """An address that nobody has funds at."""
    return bech32.encode(bech32.module_address(f"wallet {number}"))


def wallets(count: int, first: int = 0) -> list[str]:
    return [wallet(first + at) for at in range(count)]
