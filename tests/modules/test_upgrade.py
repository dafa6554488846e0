"""Upgrades: a plan stops the chain at its height, the next version goes on, and a wrong binary says so."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from chain.app import build_application
from chain.application import Application, Settings
from chain.codec.json import to_json
from chain.codec.registry import message_class, pack_any
from chain.codec.times import GO_NO_TIME_S
from chain.context import Context, Mode
from chain.errors import AppError, Halt, InvariantBroken, UpgradeNeeded
from chain.module import Module
from chain.store.errors import StoreError
from chain.store.kv import MemoryBackend
from chain.store.multistore import MultiStore
from chain.store.state import EmptyView, State
from chain.testing.driver import Driver
from chain.tx.build import Signer, build_tx
from chain.upgrades import Upgrade, migrations_of
from tests.support import CHAIN_ID, FEE, GAS, GOV, KEYS, at_end_of, chain, genesis_document, send, text

PACKAGE = "cosmos.upgrade.v1beta1"
Plan = message_class(f"{PACKAGE}.Plan")


def schedule(plan: Any, authority: str = GOV) -> Any:
    return message_class(f"{PACKAGE}.MsgSoftwareUpgrade")(authority=authority, plan=plan)


def cancel() -> Any:
    return message_class(f"{PACKAGE}.MsgCancelUpgrade")(authority=GOV)


def started(messages: dict[int, Any], *, blocks: int = 2, **options: Any) -> tuple[Driver, Application, MemoryBackend]:
    kv = MemoryBackend()
    driver = chain(kvs=[kv], blocks=0, **options)
    app: Application = driver.apps[0]  # type: ignore[assignment]
    at_end_of(app, messages)
    for _ in range(blocks):
        driver.next_block()
    return driver, app, kv


def ask(app: Application, method: str, **fields: Any) -> Any:
    return app.query_rpc(f"/{PACKAGE}.Query/{method}", message_class(f"{PACKAGE}.Query{method}Request")(**fields))[0]


def reopened(driver: Driver, app: Application, kv: MemoryBackend, **options: Any) -> Application:
    """Another binary on the database of ``app``, driven on from where the chain stands."""
    app.store.flush()
    made = build_application(kv, Settings(invariant_period=1), **options)
    driver.apps = [made]
    assert driver.handshake(0) == 0
    return made


def note(ctx: Context, state: Any, versions: Any, migrate: Any) -> Any:
    """A handler that writes where it ran, and then migrates."""
    state.store("notes").set(b"from", json.dumps([ctx.height, versions["bank"]]).encode())
    return migrate(ctx, state, versions)


V2 = Upgrade("v2", ("notes",), note)
PLAN = Plan(name="v2", height=4, info="https://example.org/v2?checksum=sha256:00 <&>")


def test_a_plan_stops_the_chain_before_its_height_and_the_next_version_goes_on(tmp_path: Path) -> None:
    info = tmp_path / "data" / "upgrade-info.json"
    driver, app, kv = started({2: schedule(PLAN)}, build=partial(build_application, upgrade_info=info))
    told = ask(app, "CurrentPlan").plan
    assert to_json(told) == {"name": "v2", "time": "0001-01-01T00:00:00Z", "height": "4", "info": PLAN.info, "upgraded_client_state": None}
    before = driver.next_block([send(1, 2)])
    assert before.results[0].code == 0
    assert not info.exists()

    for _ in range(2):
        with pytest.raises(UpgradeNeeded, match=r'^UPGRADE "v2" NEEDED at height: 4: https://example\.org'):
            driver.next_block([send(1, 2, sequence=1)])
    # What cosmovisor reads, and how it was written: by the SDK, for nobody else's eyes.
    assert json.loads(info.read_text()) == {"name": "v2", "time": "0001-01-01T00:00:00Z", "height": 4, "info": PLAN.info}
    assert info.stat().st_mode & 0o777 == 0o600
    # The last height is served on, with proofs, and CheckTx answers.
    assert (app.latest_height, ask(app, "CurrentPlan").plan.height) == (3, 4)
    assert driver.query("/store/upgrade/key", b"\x00", height=3, prove=True).proof_ops.ops
    assert driver.check_tx(send(3, 2)).code == 0

    made = reopened(driver, app, kv, upgrades=[V2])
    assert ask(made, "CurrentPlan").plan.height == 4  # nothing happens before the block
    assert driver.next_block([send(1, 2, sequence=1)]).results[0].code == 0
    assert driver.height == 4
    with made.store.view() as view:
        assert json.loads(view.store("notes").get(b"from") or b"") == [4, 4]
        store = view.store("upgrade")
        assert store.get(b"\x01" + (4).to_bytes(8, "big") + b"v2") == b"\x01"
        assert store.get(b"\x03") == (1).to_bytes(8, "big")
        assert store.get(b"\x00") is None
    assert not ask(made, "CurrentPlan").HasField("plan")
    assert ask(made, "AppliedPlan", name="v2").height == 4
    assert ask(made, "AppliedPlan", name="v3").height == 0
    driver.next_block()


def test_a_proposal_that_passes_upgrades_the_chain() -> None:
    kv = MemoryBackend()
    app = build_application(kv, Settings(invariant_period=1))
    made = genesis_document(app)
    made["app_state"]["gov"]["params"].update(voting_period="15s", expedited_voting_period="5s", max_deposit_period="15s")
    driver = Driver([app], made)
    driver.start()
    driver.next_block()
    submit = message_class("cosmos.gov.v1.MsgSubmitProposal")(
        messages=[pack_any(schedule(Plan(name="v2", height=9)))], proposer=text(KEYS[1]), title="Next", summary="Go on"
    )
    [deposit] = made["app_state"]["gov"]["params"]["min_deposit"]
    submit.initial_deposit.add(**deposit)
    vote = message_class("cosmos.gov.v1.MsgVote")(proposal_id=1, voter=text(KEYS[0]), option=1)
    for number, message in ((1, submit), (0, vote)):
        # The validator's gentx had the first sequence.
        signer = Signer(KEYS[number].public_key, int(number == 0), number)
        fee = tuple(coin._replace(amount=2 * coin.amount) for coin in FEE)
        raw = build_tx([message], fee=fee, gas_limit=2 * GAS, signers=[signer]).sign([KEYS[number]], CHAIN_ID)
        result = driver.next_block([raw]).results[0]
        assert result.code == 0, result.log
    while not ask(app, "CurrentPlan").HasField("plan"):
        assert driver.height < 8
        driver.next_block()
    while driver.height < 8:
        driver.next_block()
    with pytest.raises(UpgradeNeeded):
        driver.next_block()
    upgraded = reopened(driver, app, kv, upgrades=[V2])
    driver.next_block([send(2, 3)])
    assert ask(upgraded, "AppliedPlan", name="v2").height == 9


def test_before_a_store_began_it_can_be_asked_and_proves_nothing() -> None:
    driver, app, kv = started({2: schedule(PLAN)}, blocks=3)
    made = reopened(driver, app, kv, upgrades=[V2])
    driver.next_block()
    driver.next_block()
    answer = driver.query("/store/notes/key", b"from", height=4, prove=True)
    assert (answer.code, bool(answer.value), bool(answer.proof_ops.ops)) == (0, True, True)
    assert driver.query("/store/notes/key", b"from", height=3).value == b""
    refused = driver.query("/store/notes/key", b"from", height=3, prove=True)
    assert (refused.code, refused.codespace, len(refused.proof_ops.ops)) == (18, "sdk", 0), refused.log
    assert made.counts.panics == {}


def test_every_node_that_upgrades_has_the_same_app_hash_however_it_came_there() -> None:
    kvs = [MemoryBackend(), MemoryBackend()]
    driver = chain(2, kvs=kvs, blocks=0)
    for app in driver.apps:
        at_end_of(app, {2: schedule(PLAN)})  # type: ignore[arg-type]
    for _ in range(3):
        driver.next_block()
    for app in driver.apps:
        app.store.flush()  # type: ignore[attr-defined]
    driver.apps = [build_application(kvs[0], upgrades=[V2]), build_application(kvs[1], Settings(native_core=False, fast_sends=False), upgrades=[V2])]
    driver.next_block([send(1, 2)])
    # One of them restarts right after the upgrade, and a third binary has more upgrades than are needed.
    driver.apps[0].store.flush()  # type: ignore[attr-defined]
    again = build_application(kvs[0], upgrades=[Upgrade("v3"), V2])
    assert again.store.app_hash == driver.app_hash
    driver.apps = [again, driver.apps[1]]
    driver.next_block([send(1, 2, sequence=1)])


def test_a_binary_that_is_too_new_or_too_old_stops_with_that_reason() -> None:
    driver, app, kv = started({2: schedule(PLAN), 3: schedule(Plan(name="v2", height=5))}, blocks=3)
    app.store.flush()
    # Too new: a store that begins with the upgrade would change the app hash before it.
    with pytest.raises(StoreError, match="at height 3 it lacks the stores notes, which begin with an upgrade"):
        build_application(kv, upgrades=[V2])
    # Too new without a new store: the handler is there, the height is not.
    early = reopened(driver, app, kv, upgrades=[Upgrade("v2")])
    with pytest.raises(Halt, match=r"BINARY UPDATED BEFORE TRIGGER! .* due at height 5, this is block 4"):
        driver.next_block()
    # The old one makes block 4; the new one makes block 5.
    old = reopened(driver, early, kv)
    driver.next_block()
    new = reopened(driver, old, kv, upgrades=[V2])
    driver.next_block()
    # Too old: it knows neither the store nor the upgrade.
    new.store.flush()
    with pytest.raises(StoreError, match="stores this version does not know"):
        build_application(kv)
    reopened(driver, new, kv, upgrades=[Upgrade("another", ("notes",))])
    with pytest.raises(Halt, match='upgrade handler is missing for "v2", the last upgrade'):
        driver.next_block()


def test_a_database_without_the_upgrade_store_is_of_an_older_version() -> None:
    _, app, _ = started({}, blocks=1)
    app.store.flush()
    names = [name for name in app.store.names if name not in ("upgrade", "crisis")]
    older = MemoryBackend()
    store = MultiStore.open(older, names)
    store.stage(1, {})
    store.commit({"header": b"test-1\n0\n1"})
    store.flush()
    with pytest.raises(StoreError, match="lacks the stores crisis, upgrade"):
        build_application(older)


@pytest.mark.parametrize("upgrades", [[], [V2]])
def test_an_operator_may_skip_the_plan_of_a_height(upgrades: list[Upgrade]) -> None:
    driver, app, kv = started({2: schedule(PLAN)}, blocks=3)
    app.store.flush()
    settings = Settings(skip_upgrades=(4,), invariant_period=1)
    if upgrades:  # its store does not begin when the upgrade is skipped
        with pytest.raises(StoreError, match="lacks the stores notes"):
            build_application(kv, settings, upgrades=upgrades)
        return
    made = build_application(kv, settings)
    driver.apps = [made]
    driver.next_block()
    assert not ask(made, "CurrentPlan").HasField("plan")
    assert ask(made, "AppliedPlan", name="v2").height == 0
    driver.next_block()


def test_a_plan_can_be_replaced_and_cancelled_and_a_name_is_used_once() -> None:
    driver, app, kv = started(
        {2: schedule(PLAN), 3: schedule(Plan(name="v3", height=9)), 4: cancel(), 5: cancel(), 6: schedule(Plan(name="v2", height=7))}
    )
    seen = [ask(app, "CurrentPlan").plan.name]
    for _ in range(3):
        driver.next_block()
        seen.append(ask(app, "CurrentPlan").plan.name)
    assert seen == ["v2", "v3", "", ""]
    driver.next_block()
    made = reopened(driver, app, kv, upgrades=[V2])
    driver.next_block()
    state = State(made.store.latest(), made.store.names)
    with pytest.raises(AppError, match="upgrade with name v2 has already been completed"):
        execute(made, state, schedule(Plan(name="v2", height=100)))


def execute(app: Application, state: Any, message: Any, height: int = 8) -> None:
    app.executor._handlers[message.DESCRIPTOR.full_name].execute(Context(CHAIN_ID, height, 0, Mode.FINALIZE), state, message)


def plan(**fields: Any) -> Any:
    made = Plan(**{"name": "v2", "height": 10, **fields})
    return made


@pytest.mark.parametrize(
    ("message", "codespace", "code", "sentence"),
    [
        (schedule(plan(), text(KEYS[1])), "upgrade", 6, f"expected {GOV} got {text(KEYS[1])}: expected authority account"),
        (schedule(plan(), "nobody"), "upgrade", 6, "got nobody"),
        (schedule(plan(name="")), "sdk", 18, "name cannot be empty"),
        (schedule(plan(height=0)), "sdk", 18, "height must be greater than 0"),
        (schedule(plan(height=-4)), "sdk", 18, "height must be greater than 0"),
        (schedule(plan(height=7)), "sdk", 18, "upgrade cannot be scheduled in the past"),
        (schedule(plan(time={"seconds": 1})), "sdk", 18, "time-based upgrades"),
        (schedule(plan(time={})), "sdk", 18, "time-based upgrades"),
        (schedule(plan(upgraded_client_state={"type_url": "/x"})), "sdk", 18, "moved to the IBC module"),
    ],
)
def test_a_plan_that_cannot_be_is_refused_with_the_sdks_code(message: Any, codespace: str, code: int, sentence: str) -> None:
    app = build_application(MemoryBackend())
    state = State(EmptyView(), app.store.names)
    with pytest.raises(AppError) as caught:
        execute(app, state, message)
    assert (caught.value.codespace, caught.value.code) == (codespace, code)
    assert sentence in str(caught.value)
    assert state.net_changes()["upgrade"] == []


def test_gos_zero_time_is_no_time_and_the_height_of_this_block_is_not_the_past() -> None:
    app = build_application(MemoryBackend())
    state = State(EmptyView(), app.store.names)
    execute(app, state, schedule(plan(height=8, time={"seconds": GO_NO_TIME_S})))
    # The bytes that the SDK stores: name, Go's zero time, height.
    assert state.store("upgrade").get(b"\x00") == bytes.fromhex("0a02763212 0b088092b8c398feffffff01 1808")


def test_a_user_who_names_himself_the_authority_is_refused_in_a_transaction() -> None:
    driver = chain()
    message = schedule(plan(), text(KEYS[2]))
    raw = build_tx([message], fee=FEE, gas_limit=GAS, signers=[Signer(KEYS[2].public_key, 0, 2)]).sign([KEYS[2]], CHAIN_ID)
    result = driver.next_block([raw]).results[0]
    assert (result.codespace, result.code) == ("upgrade", 6)


def test_a_new_chain_has_the_versions_of_its_binary() -> None:
    app: Application = chain().apps[0]  # type: ignore[assignment]
    told = {one.name: one.version for one in ask(app, "ModuleVersions").module_versions}
    assert told == {module.name: module.consensus_version for module in app.modules}
    assert (told["auth"], told["bank"], told["upgrade"]) == (5, 4, 2)
    assert list(told) == sorted(told)
    [one] = ask(app, "ModuleVersions", module_name="bank").module_versions
    assert (one.name, one.version) == ("bank", 4)
    with pytest.raises(AppError, match="module nothing not found: module version not found"):
        ask(app, "ModuleVersions", module_name="nothing")
    assert ask(app, "Authority").address == GOV
    assert ask(app, "UpgradedConsensusState", last_height=3).upgraded_consensus_state == b""
    assert app.export()["upgrade"] == {}


def test_migrations_run_step_by_step_in_the_sdks_order_and_new_modules_start_from_their_default() -> None:
    seen: list[str] = []

    class Fresh:
        def default(self) -> Any:
            return {"from": "default"}

        def validate(self, section: Any) -> None: ...
        def export(self, ctx: Any, state: Any) -> Any: ...
        def load(self, ctx: Any, state: Any, section: Any) -> Any:
            seen.append(f"fresh {section['from']}")
            return ()

    def step(name: str) -> Any:
        return lambda ctx, state: seen.append(name)

    modules = [
        Module("auth", consensus_version=3, migrations={1: step("auth 1"), 2: step("auth 2")}),
        Module("zebra", consensus_version=2, migrations={1: step("zebra 1")}),
        Module("bank", consensus_version=4),
        Module("fresh", consensus_version=7, genesis=Fresh()),
    ]
    ctx: Any = Context(CHAIN_ID, 5, 0, Mode.FINALIZE)
    state: Any = None
    migrate = migrations_of(modules)
    assert migrate(ctx, state, {"auth": 1, "bank": 4, "zebra": 1}) == {"auth": 3, "bank": 4, "fresh": 7, "zebra": 2}
    assert seen == ["fresh default", "zebra 1", "auth 1", "auth 2"]
    with pytest.raises(InvariantBroken, match="no migration found for module bank from version 3 to version 4"):
        migrate(ctx, state, {"auth": 3, "bank": 3, "fresh": 7, "zebra": 2})
