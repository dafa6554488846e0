"""A chain with meta nodes that have keys, a resource node, a filled foundation; signed reports with their commitments, and slashings by many signers."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from chain.app import build_application
from chain.application import Settings
from chain.codec.json import to_json
from chain.codec.registry import message_class
from chain.coins import Coin, to_messages
from chain.crypto import address as bech32
from chain.crypto import bls
from chain.crypto.keys import PrivateKey
from chain.metakeys import MetaKeys
from chain.module import Json
from chain.reports import EMPTY_ROOT, Draft, draft, draft_of, report_reference, signed_message, tx_data
from chain.store.kv import MemoryBackend
from chain.testing.driver import Driver, TxResult
from chain.tx.build import Signer, build_tx
from genesis import build
from tests.modules.ozone_chain import OzoneChain
from tests.support import CHAIN_ID, FEE, KEYS, genesis_document, text

POT, SDS, REGISTER, SETTLEMENT, BANK = "stratos.pot.v1", "stratos.sds.v1", "stratos.register.v1", "stratos.settlement.v1", "cosmos.bank.v1beta1"
STOS = 10**18
SUPPLY_WEI = 10**8 * STOS
GAS = 100_000_000
BUYER = KEYS[5]
"""Has no node."""
NODE_OWNER = KEYS[4]
"""Owns the resource node, and no meta node while there are at most four."""
REPORT_S = 30
"""Length of an epoch on the test's chain."""
A_ROOT = hashlib.sha256(b"receipts").digest()
MODULES = (
    "total_unissued_prepay",
    "foundation_account",
    "total_reward_pool",
    "fee_collector",
    "distribution",
    "pot",
    "resource_node_bonded_pool",
    "resource_node_not_bonded_pool",
    "meta_node_bonded_pool",
)


@cache
def meta_keys(number: int) -> MetaKeys:
    """The keys of a meta node by its number, the same in every run."""
    seeds = [hashlib.sha256(b"meta node %d, %s" % (number, part)).digest() for part in (b"network", b"bls", b"ledger")]
    return MetaKeys(seeds[0], bls.secret_from_seed(seeds[1]), seeds[2])


@cache
def _registered(number: int) -> Any:
    return to_json(meta_keys(number).registered(CHAIN_ID))


def owner_of(number: int) -> PrivateKey:
    """Who owns a meta node: the first four of KEYS in turn."""
    return KEYS[number % 4]


def node_address(name: str = "resource") -> bytes:
    """Network address of a resource node."""
    return hashlib.sha256(node_key(name)).digest()[:20]


@cache
def node_key(name: str) -> bytes:
    """ed25519 public key of a resource node."""
    return MetaKeys(hashlib.sha256(name.encode()).digest(), 1, bytes(32)).network_key.raw


def node_text(name: str = "resource") -> str:
    return bech32.encode(node_address(name), bech32.NODE)


def wei(amount: int, denom: str = "wei") -> list[Any]:
    return to_messages((Coin(denom, amount),))


def wallet(number: int) -> bytes:
    """An account that works, by its number."""
    return hashlib.sha256(b"wallet %d" % number).digest()[:20]


def wallets(count: int) -> list[str]:
    """So many of them as text, in the order of a report."""
    return sorted(bech32.encode(wallet(number)) for number in range(count))


def _ed25519(raw: bytes) -> dict[str, str]:
    return {"@type": "/cosmos.crypto.ed25519.PubKey", "key": base64.b64encode(raw).decode()}


def document(
    app: Any, *, metas: int = 4, meta_wei: int = 100 * STOS, node_wei: int = 1000 * STOS, effective_wei: int = 0, foundation_wei: int = 10**6 * STOS
) -> dict[str, Any]:
    """A genesis document: ``metas`` active meta nodes with registered keys, one bonded resource node, the supply at its level."""
    made = genesis_document(app)
    register, settlement = made["app_state"]["register"], made["app_state"]["settlement"]
    common = {"status": "BOND_STATUS_BONDED", "creation_time": made["genesis_time"], "description": {"moniker": "node"}}
    for number in range(metas):
        owner = text(owner_of(number))
        address = {"network_address": meta_keys(number).network_address, "pubkey": _ed25519(meta_keys(number).network_key.raw)}
        register["meta_nodes"].append({**common, **address, "tokens": str(meta_wei), "owner_address": owner, "beneficiary_address": owner})
        settlement["meta_keys"].append(_registered(number))
    resource = {"network_address": node_text(), "pubkey": _ed25519(node_key("resource")), "node_type": 4, "suspend": effective_wei == 0}
    tokens = {"tokens": str(node_wei), "effective_tokens": str(effective_wei)}
    register["resource_nodes"].append({**common, **resource, **tokens, "owner_address": text(NODE_OWNER), "beneficiary_address": text(NODE_OWNER)})
    register["params"]["solvency_rules"] = True
    made["app_state"]["pot"]["params"]["epoch_duration_s"] = str(REPORT_S)
    if foundation_wei:
        build.add_foundation(made, (Coin("wei", foundation_wei),))
    build.pin_supply(made)
    return made


class Net(OzoneChain):
    """A chain that checks every invariant before each commit. ``pot`` changes parameters of pot; ``edit`` the whole genesis document."""

    gas = GAS

    def __init__(
        self, *, pot: dict[str, Any] | None = None, edit: Callable[[dict[str, Any]], None] | None = None, invariant_period: int = 1, **nodes: Any
    ) -> None:
        app = build_application(MemoryBackend(), Settings(invariant_period=invariant_period))
        self.document = document(app, **nodes)
        self.document["app_state"]["pot"]["params"].update(pot or {})
        if edit is not None:
            edit(self.document)
        self.metas = len(self.document["app_state"]["register"]["meta_nodes"])
        driver = Driver([app], self.document)
        driver.start()
        driver.next_block()
        super().__init__(driver)

    # --- transactions ---------------------------------------------------------------------------------------------------------

    def refused(self, private: PrivateKey, *messages: Any, **options: Any) -> tuple[str, int]:
        """(codespace, code) of a transaction that must fail and leave the economy as it was."""
        return self.refusal(private, *messages, **options)[0]

    def run_signed(self, signers: Sequence[PrivateKey], *messages: Any, step_s: int | None = None) -> TxResult:
        """The result of one transaction that several accounts sign, in the order of its messages' signers."""
        infos = []
        for private in signers:
            number, sequence = self.account(private)
            infos.append(Signer(private.public_key, sequence, number))
        raw = build_tx(messages, fee=FEE, gas_limit=GAS, signers=infos).sign(list(signers), CHAIN_ID)
        return self.driver.next_block([raw], process=False, time_step_s=step_s).results[0]

    # --- ozone and reports ----------------------------------------------------------------------------------------------------

    def buy(self, amount_wei: int) -> None:
        """BUYER prepays."""
        message = message_class(f"{SDS}.MsgPrepay")(sender=text(BUYER), beneficiary=text(BUYER), amount=wei(amount_wei))
        self.ok(BUYER, message)

    def draft(self, epoch: int, volumes: Sequence[tuple[str, int]] = (), *, reporter: int = 0, receipts: int | None = None) -> Draft:
        """A report that nobody signed yet, in the name of a meta node."""
        volume = sum(noz for _, noz in volumes)
        count = min(volume, 1) if receipts is None else receipts
        shown = draft(
            CHAIN_ID, epoch, meta_keys(reporter).network_address, text(owner_of(reporter)), volumes, (count, A_ROOT) if count else (0, EMPTY_ROOT)
        )
        return draft_of(shown)

    def signed(self, made: Draft, signers: Sequence[int] | None = None) -> list[Any]:
        """MsgCommitEpoch and MsgVolumeReport, signed by meta nodes (all of them by default)."""
        chosen = range(self.metas) if signers is None else signers
        return made.messages(made.signature_info({meta_keys(at).bls_pubkey: meta_keys(at).sign(made.message) for at in chosen}))

    def report(
        self, epoch: int, volumes: Sequence[tuple[str, int]] = (), *, reporter: int = 0, signers: Sequence[int] | None = None, **options: Any
    ) -> TxResult:
        """What became of a report."""
        messages = self.signed(self.draft(epoch, volumes, reporter=reporter), signers)
        return self.run(owner_of(reporter), *messages, **{"gas": GAS, "step_s": REPORT_S, **options})

    def reported(self, epoch: int, volumes: Sequence[tuple[str, int]] = (), **options: Any) -> TxResult:
        """A report that must succeed."""
        result = self.report(epoch, volumes, **options)
        assert result.code == 0, result.log
        return result

    def refused_report(self, messages: Sequence[Any], *, reporter: int = 0, step_s: int = REPORT_S) -> tuple[str, int]:
        """(codespace, code) of a report that must fail and leave the economy as it was."""
        return self.refused(owner_of(reporter), *messages, step_s=step_s)

    # --- slashing -------------------------------------------------------------------------------------------------------------

    def slash(
        self, noz: int, *reporters: int, suspend: bool = False, owner: str = "", node: str = "", step_s: int | None = None, **fields: Any
    ) -> TxResult:
        """What became of a slashing that meta nodes approve in one transaction."""
        message = slashing(noz, *reporters, suspend=suspend, owner=owner, node=node, **fields)
        signers = list(dict.fromkeys(owner_of(at).public_key.address for at in reporters))
        return self.run_signed([private for address in signers for private in KEYS if private.public_key.address == address], message, step_s=step_s)

    # --- state ----------------------------------------------------------------------------------------------------------------

    def section(self, name: str = "pot") -> Json:
        """A section of the export."""
        return self.app.export()[name]

    def economy(self) -> dict[str, Any]:
        """Sections and accounts that no refused message may change."""
        exported = self.app.export()
        sections = {name: exported[name] for name in ("pot", "sds", "register", "settlement", "grant")}
        return sections | {name: self.held(name) for name in MODULES if name not in ("fee_collector", "distribution")}

    def held(self, name: str) -> int:
        """wei of a module account."""
        return self.module_wei(name)

    def ask(self, method: str, **fields: Any) -> Any:
        """An answer of pot."""
        return self.query(POT, method, **fields)

    def mature_wei(self, address: str) -> int:
        return sum(int(coin.amount) for coin in self.ask("RewardsByWallet", wallet_address=address).rewards.mature_total_reward)

    def immature_wei(self, address: str) -> int:
        return sum(int(coin.amount) for coin in self.ask("RewardsByWallet", wallet_address=address).rewards.immature_total_reward)


def slashing(noz: int, *reporters: int, suspend: bool = False, owner: str = "", node: str = "", **fields: Any) -> Any:
    """MsgSlashingResourceNode of the resource node (another with ``node``), approved by meta nodes."""
    values = {
        "reporters": [meta_keys(at).network_address for at in reporters],
        "reporter_owner": [text(owner_of(at)) for at in reporters],
        "network_address": node or node_text(),
        "wallet_address": owner or text(NODE_OWNER),
        "slashing": str(noz),
        "suspend": suspend,
        **fields,
    }
    return message_class(f"{POT}.MsgSlashingResourceNode")(**values)


def again(messages: Sequence[Any], change: Callable[[Any], None], *, sign: Sequence[int] | None = None, commit: bool = False) -> list[Any]:
    """The two messages after ``change`` of the report (of the commitment with ``commit``); signed anew by ``sign``, with a new reference too."""
    made = []
    for message in messages:
        copy = type(message)()
        copy.CopyFrom(message)
        made.append(copy)
    change(made[0].commitment if commit else made[1])
    if sign is not None:
        if commit:
            made[1].report_reference = report_reference(made[0].commitment)
        data = tx_data(made[1])
        signatures = {meta_keys(at).bls_pubkey: meta_keys(at).sign(signed_message(CHAIN_ID, data)) for at in sign}
        ordered = sorted(signatures)
        made[1].BLS_signature.Clear()
        made[1].BLS_signature.pub_keys.extend(ordered)
        made[1].BLS_signature.signature = bls.aggregate([signatures[key] for key in ordered])
        made[1].BLS_signature.txData = data
    return made
