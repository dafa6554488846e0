"""The chain, put together: which modules there are, in which order their hooks run, and who may do what with whom.

Read it from top to bottom. Adding a module is one package under ``modules/`` and its lines here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from chain.application import Application, Capabilities, Settings
from chain.crypto.address import module_address
from chain.inner import MessageRouter
from chain.module import Module
from chain.snapshots import SnapshotFolder, SnapshotTaker
from chain.store.kv import KVBackend
from chain.store.multistore import DEFAULT_CACHE_NODES, MultiStore
from chain.store.pruning import KEEP_ALL, Pruning
from chain.tx.ante import FEE_COLLECTOR, Ante
from chain.tx.fees import parse_gas_prices
from chain.tx.verdicts import Verdicts
from modules.auth import keys as auth_keys
from modules.auth.keeper import AuthKeeper, decode_account
from modules.auth.keeper import Params as AuthParams
from modules.auth.module import auth_module
from modules.bank.fast import SEND, Accounts, FastSends
from modules.bank.keeper import BankMint
from modules.bank.module import bank_module
from modules.consensus.module import ConsensusKeeper, consensus_module
from modules.genutil.module import deliver_with, genutil_module
from modules.staking.module import BONDED_POOL, NOT_BONDED_POOL, StakingKeeper, staking_module
from modules.vesting.module import vesting_module

BEGIN_BLOCK: Final = ("staking", "auth", "bank", "genutil", "consensus")
END_BLOCK: Final = ("staking", "auth", "bank", "genutil", "consensus")
GENESIS: Final = ("auth", "bank", "staking", "genutil", "consensus")

MODULE_ACCOUNTS: Final[dict[str, tuple[str, ...]]] = {
    "fee_collector": (),
    BONDED_POOL: ("burner", "staking"),
    NOT_BONDED_POOL: ("burner", "staking"),
    "gov": ("burner",),
}
MAY_RECEIVE: Final = ("fee_collector",)
"""Module accounts that a user may send to (reference stratos-chain.md 1.8)."""


def build_application(
    kv: KVBackend,
    settings: Settings | None = None,
    *,
    pruning: Pruning = KEEP_ALL,
    cache_nodes: int = DEFAULT_CACHE_NODES,
    snapshots: Path | None = None,
) -> Application:
    """The Stratos application over a database, with state-sync snapshots in a folder (None: none). Raises StoreError, CorruptStore, ValueError (a setting)."""
    settings = settings or Settings()
    auth = AuthKeeper(MODULE_ACCOUNTS)
    bank = BankMint(auth, blocked=frozenset(module_address(name) for name in MODULE_ACCOUNTS if name not in MAY_RECEIVE))
    router = MessageRouter()
    consensus = ConsensusKeeper()
    staking = StakingKeeper(bank)
    modules: list[Module] = [
        auth_module(auth),
        bank_module(bank, auth),
        vesting_module(auth, bank),
        staking_module(staking, bank),
        genutil_module(),
        consensus_module(consensus),
    ]
    router.fill({name: handler for module in modules for name, handler in module.messages.items()})
    names = [name for module in modules for name in module.stores]
    store = MultiStore.open(kv, names, pruning=pruning, cache_nodes=cache_nodes, native=settings.native_core)
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
        begin_order=BEGIN_BLOCK,
        end_order=END_BLOCK,
        genesis_order=GENESIS,
        store=store,
        ante=Ante(auth, bank, verdicts, min_gas_prices),
        verdicts=verdicts,
        capabilities=Capabilities(consensus.get, consensus.set, deliver_with(staking), account),
        settings=settings,
        twin=fast_sends,
        snapshots=taker,
    )
