"""The chain, put together: which modules there are, in which order their hooks run, and who may do what with whom.

Read it from top to bottom. Adding a module is one package under ``modules/`` and its lines here.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from chain.application import Application, Capabilities, Settings
from chain.crypto.address import module_address
from chain.inner import MessageRouter
from chain.module import Module
from chain.snapshots import SnapshotFolder, SnapshotTaker
from chain.store.errors import StoreError
from chain.store.kv import KVBackend
from chain.store.multistore import DEFAULT_CACHE_NODES, MultiStore
from chain.store.pruning import KEEP_ALL, Pruning
from chain.tx.ante import FEE_COLLECTOR, Ante
from chain.tx.fees import parse_gas_prices
from chain.tx.verdicts import Verdicts
from chain.upgrades import UPGRADES, Upgrade, migrations_of, missing_stores, write_upgrade_info
from modules.auth import keys as auth_keys
from modules.auth.keeper import AuthKeeper, decode_account
from modules.auth.keeper import Params as AuthParams
from modules.auth.module import auth_module
from modules.authz.keeper import AuthzKeeper
from modules.authz.module import authz_module
from modules.bank.authorization import KINDS as BANK_AUTHORIZATIONS
from modules.bank.fast import SEND, Accounts, FastSends
from modules.bank.keeper import BankMint
from modules.bank.module import bank_module
from modules.consensus.module import ConsensusKeeper, consensus_module
from modules.crisis.keeper import CrisisKeeper
from modules.crisis.module import crisis_module
from modules.distribution.hooks import DistributionHooks
from modules.distribution.keeper import DistributionKeeper
from modules.distribution.module import distribution_module
from modules.evidence.keeper import EvidenceKeeper
from modules.evidence.module import evidence_module
from modules.feegrant.keeper import FeegrantKeeper
from modules.feegrant.module import feegrant_module
from modules.genutil.module import deliver_with, genutil_module
from modules.gov.keeper import GovKeeper
from modules.gov.module import gov_module
from modules.grant.keeper import GrantKeeper
from modules.grant.module import grant_module
from modules.mint.keeper import MintKeeper
from modules.mint.module import mint_module
from modules.pot.keeper import PotKeeper
from modules.pot.module import pot_module
from modules.register.keeper import RegisterKeeper
from modules.register.module import register_module
from modules.sds.keeper import SdsKeeper
from modules.sds.module import sds_module
from modules.settlement.keeper import SettlementKeeper
from modules.settlement.module import settlement_module
from modules.slashing.hooks import SlashingHooks
from modules.slashing.keeper import SlashingKeeper
from modules.slashing.module import slashing_module
from modules.staking.authorization import KINDS as STAKING_AUTHORIZATIONS
from modules.staking.keeper import StakingKeeper
from modules.staking.messages import check_gentx
from modules.staking.module import staking_module
from modules.staking.records import BONDED_POOL, NOT_BONDED_POOL
from modules.upgrade.keeper import UpgradeKeeper
from modules.upgrade.module import upgrade_module
from modules.vesting.module import vesting_module

PRE_BLOCK: Final = ("upgrade",)
# fmt: off
BEGIN_BLOCK: Final = (
    "mint", "distribution", "slashing", "evidence", "staking", "auth", "bank", "gov", "crisis", "genutil",
    "authz", "feegrant", "vesting", "consensus", "register", "pot", "sds", "settlement", "grant",
)
END_BLOCK: Final = (
    "crisis", "gov", "staking", "register", "sds", "auth", "bank", "distribution", "slashing", "mint", "genutil", "evidence",
    "authz", "feegrant", "pot", "settlement", "grant", "upgrade", "vesting", "consensus",
)
GENESIS: Final = (
    "auth", "bank", "distribution", "staking", "slashing", "gov", "mint", "genutil", "evidence", "authz",
    "feegrant", "upgrade", "vesting", "consensus", "register", "pot", "sds", "settlement", "grant", "crisis",
)
# fmt: on

MODULE_ACCOUNTS: Final[dict[str, tuple[str, ...]]] = {
    "fee_collector": (),
    "distribution": ("burner",),
    "mint": ("minter",),
    BONDED_POOL: ("burner", "staking"),
    NOT_BONDED_POOL: ("burner", "staking"),
    "gov": ("burner",),
    "register": ("burner", "minter"),
    "resource_node_bonded_pool": ("minter",),
    "resource_node_not_bonded_pool": ("minter",),
    "meta_node_bonded_pool": ("minter",),
    "meta_node_not_bonded_pool": ("minter",),
    "total_unissued_prepay": ("minter",),
    "pot": ("minter",),
    "foundation_account": ("burner", "minter"),
    "total_reward_pool": (),
    "sds": (),
    "settlement": (),
    "grant": (),
}
MAY_RECEIVE: Final = ("fee_collector", "distribution")
"""Module accounts that a user may send to (reference stratos-chain.md 1.8)."""


CHECK_GENTX: Final = check_gentx
"""Raises AppError for a MsgCreateValidator that no genesis file can begin with."""


def build_application(
    kv: KVBackend,
    settings: Settings | None = None,
    *,
    pruning: Pruning = KEEP_ALL,
    cache_nodes: int = DEFAULT_CACHE_NODES,
    snapshots: Path | None = None,
    upgrade_info: Path | None = None,
    upgrades: Sequence[Upgrade] = UPGRADES,
) -> Application:
    """The Stratos application over a database, which can apply ``upgrades``.

    State-sync snapshots go into the folder ``snapshots``, and what to upgrade to into the file ``upgrade_info`` (None: nowhere).
    Raises StoreError, CorruptStore, ValueError (a setting).
    """
    settings = settings or Settings()
    auth = AuthKeeper(MODULE_ACCOUNTS)
    bank = BankMint(auth, blocked=frozenset(module_address(name) for name in MODULE_ACCOUNTS if name not in MAY_RECEIVE))
    router = MessageRouter()
    consensus = ConsensusKeeper()
    staking = StakingKeeper(bank)
    slashing = SlashingKeeper(staking)
    upgrade = UpgradeKeeper(settings.skip_upgrades, partial(write_upgrade_info, upgrade_info) if upgrade_info is not None else lambda *_: None)
    crisis = CrisisKeeper(bank)
    distribution = DistributionKeeper(auth, bank, staking)
    staking.set_hooks((DistributionHooks(distribution), SlashingHooks(slashing, staking)))
    authz = AuthzKeeper(auth, bank, router, {**BANK_AUTHORIZATIONS, **STAKING_AUTHORIZATIONS})
    feegrant = FeegrantKeeper(auth, bank)
    register = RegisterKeeper(bank, distribution)
    sds = SdsKeeper(bank, register)
    grant = GrantKeeper(bank, sds)
    register.set_granted(grant.outstanding_noz)
    settlement = SettlementKeeper(bank, distribution, register, grant)
    pot = PotKeeper(bank, distribution, register, settlement, staking)
    settlement.set_pot(pot)
    modules: list[Module] = [
        auth_module(auth),
        bank_module(bank, auth),
        vesting_module(auth, bank),
        staking_module(staking, bank, consensus),
        distribution_module(distribution, auth, bank, staking),
        mint_module(MintKeeper(bank, staking), auth),
        slashing_module(slashing, staking),
        gov_module(GovKeeper(auth, bank, staking, distribution, router)),
        genutil_module(),
        evidence_module(EvidenceKeeper(staking, slashing, consensus)),
        authz_module(authz),
        feegrant_module(feegrant),
        consensus_module(consensus, staking.most_validators),
        upgrade_module(upgrade),
        register_module(register),
        sds_module(sds),
        grant_module(grant),
        settlement_module(settlement),
        pot_module(pot),
        crisis_module(crisis),
    ]
    router.fill({name: handler for module in modules for name, handler in module.messages.items()})
    crisis.fill({module.name: module.invariants for module in modules})
    migrate = migrations_of(modules)
    upgrade.fill({one.name: one.bound(migrate) for one in upgrades}, {module.name: module.consensus_version for module in modules})
    # A store that an upgrade begins need not be a module's.
    names = sorted({name for module in modules for name in module.stores} | {name for one in upgrades for name in one.stores_added})
    store = MultiStore.open(kv, names, pruning=pruning, cache_nodes=cache_nodes, native=settings.native_core)
    _require_stores(store, upgrade, upgrades, settings)
    taker = None
    if snapshots is not None:
        taker = SnapshotTaker(store, SnapshotFolder(snapshots), settings.snapshot_interval, settings.snapshot_keep_recent)
    verdicts = Verdicts(settings.verdict_cache, settings.workers)

    min_gas_prices = parse_gas_prices(settings.min_gas_prices)
    plain_accounts = Accounts(
        auth_keys.STORE,
        auth_keys.PARAMS,
        auth_keys.account,
        auth_keys.by_number,
        decode_account,
        AuthParams.FromString,
        module_address(FEE_COLLECTOR),
    )
    check_send = modules[1].messages[SEND].check_stateless
    fast_sends = FastSends(plain_accounts, verdicts, min_gas_prices, bank.is_blocked, check_send) if settings.fast_sends else None

    def account(ctx: Any, state: Any, address: bytes) -> Any:
        return auth.get_account(ctx, state, address)

    return Application(
        modules=modules,
        pre_order=PRE_BLOCK,
        begin_order=BEGIN_BLOCK,
        end_order=END_BLOCK,
        genesis_order=GENESIS,
        store=store,
        ante=Ante(auth, bank, feegrant, verdicts, min_gas_prices),
        verdicts=verdicts,
        capabilities=Capabilities(consensus.get, consensus.set, deliver_with(staking), account, staking.jail_all_but),
        settings=settings,
        twin=fast_sends,
        snapshots=taker,
    )


def _require_stores(store: MultiStore, upgrade: UpgradeKeeper, upgrades: Sequence[Upgrade], settings: Settings) -> None:
    """Raise StoreError for a database of an older version, unless the next block applies the upgrade to this one: a store that begins at another
    height is another app hash.
    """
    if not store.latest_version:
        return
    present, height = store.root_hashes(), store.latest_version + 1
    plan = upgrade.plan(store.latest()) if "upgrade" in present else None
    is_due = plan is not None and plan.height <= height and height not in settings.skip_upgrades
    due = next((one for one in upgrades if plan is not None and is_due and one.name == plan.name), None)
    missing = missing_stores(store.names, list(present), due)
    if missing:
        store.close()
        raise StoreError(
            f"the database is of an older version: at height {store.latest_version} it lacks the stores {', '.join(missing)}, which begin with an "
            "upgrade; run the version that wrote it up to the upgrade's height"
        )
