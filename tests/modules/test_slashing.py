"""Slashing over a staking that only keeps what it is told: windows against a model, chunks against their layout, every refusal of an unjail."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chain.codec.canonical import encode
from chain.codec.registry import message_class, pack_any
from chain.context import Context, Mode, Vote
from chain.crypto import address as bech32
from chain.crypto.keys import public_key_to_any
from chain.dec import ONE, Dec
from chain.errors import AppError
from chain.light.headers import ABSENT, COMMIT, NIL
from chain.module import GenesisError
from chain.store.state import EmptyView, State
from chain.testing.validators import ValidatorKey
from modules.slashing import keys
from modules.slashing.genesis import SlashingGenesis
from modules.slashing.hooks import SlashingHooks
from modules.slashing.invariants import checks
from modules.slashing.keeper import SlashingKeeper
from modules.slashing.params import check_params, default_params

SECOND = 10**9
START_NS = 1_767_225_600 * SECOND
Validator = message_class("cosmos.staking.v1beta1.Validator")
Delegation = message_class("cosmos.staking.v1beta1.Delegation")


def cons(number: int) -> bytes:
    return ValidatorKey.numbered(number).address


def operator(number: int) -> bytes:
    return bytes([number + 1]) * 20


@dataclass
class Staking:
    """Validators with one share per token, their self-delegations, and the punishments in order."""

    count: int = 1
    punished: list[tuple[Any, ...]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.known = {
            operator(number): Validator(
                operator_address=bech32.encode(operator(number), bech32.VALIDATOR),
                consensus_pubkey=public_key_to_any(ValidatorKey.numbered(number).public_key),
                status=3,
                tokens=str(10**18),
                delegator_shares=str(10**18 * ONE),
                min_self_delegation=str(10**17),
            )
            for number in range(self.count)
        }
        self.own = {one: 10**18 for one in self.known}
        self.addresses = {cons(number): operator(number) for number in range(self.count)}

    def validator(self, state: Any, operator: bytes) -> Any | None:
        return self.known.get(operator)

    def validator_by_cons(self, state: Any, cons: bytes) -> Any | None:
        return self.known.get(self.addresses.get(cons, b""))

    def validators(self, state: Any) -> Iterator[Any]:
        return iter(self.known.values())

    def delegation(self, state: Any, delegator: bytes, operator: bytes) -> Any | None:
        return Delegation(shares=str(self.own[operator] * ONE)) if delegator == operator and operator in self.own else None

    def tokens_from_shares(self, validator: Any, shares: Dec) -> Dec:
        return Dec(shares.scaled * int(validator.tokens) * ONE // int(validator.delegator_shares))

    def slash(self, ctx: Any, state: Any, cons: bytes, infraction_height: int, power: int, fraction: Dec, reason: int = 0) -> int:
        self.punished.append(("slash", cons, infraction_height, power, str(fraction), reason))
        return fraction.scaled * power * 10**15 // ONE

    def jail(self, ctx: Any, state: Any, cons: bytes) -> None:
        self.punished.append(("jail", cons))
        self.known[self.addresses[cons]].jailed = True

    def unjail(self, ctx: Any, state: Any, cons: bytes) -> None:
        self.punished.append(("unjail", cons))
        self.known[self.addresses[cons]].jailed = False


@dataclass
class World:
    """A chain of begin-blocks over an overlay."""

    window: int = 10
    min_signed: int = 5 * 10**17
    validators: int = 1
    height: int = 0

    def __post_init__(self) -> None:
        self.staking = Staking(self.validators)
        self.keeper = SlashingKeeper(self.staking)
        self.hooks = SlashingHooks(self.keeper, self.staking)
        self.state = State(EmptyView(), (keys.STORE,))
        self.resize(self.window)
        for number in range(self.validators):
            self.hooks.after_validator_created(self.ctx(), self.state, operator(number))
            self.hooks.after_validator_bonded(self.ctx(), self.state, cons(number), operator(number))

    def resize(self, window: int) -> None:
        params = default_params()
        params.signed_blocks_window, params.min_signed_per_window = window, str(self.min_signed).encode()
        self.window = window
        self.keeper.set_params(self.state, params)

    def ctx(self, *flags: int) -> Context:
        votes = tuple(Vote(cons(number), 1000, flag) for number, flag in enumerate(flags))
        return Context("test-1", self.height, START_NS + self.height * SECOND, Mode.FINALIZE, last_commit=votes)

    def block(self, *flags: int) -> list[Any]:
        """The events of a block whose last commit has these votes."""
        self.height += 1
        ctx = self.ctx(*flags)
        self.keeper.watch_signatures(ctx, self.state)
        return ctx.events.events

    def info(self, number: int = 0) -> Any:
        return self.keeper.signing_info(self.state, cons(number))

    def broken(self) -> list[str]:
        return [problem for check in checks(self.keeper, self.staking).values() if (problem := check(self.state)) is not None]


def test_an_absence_is_told_and_half_a_window_of_them_is_punished_once_the_window_is_over() -> None:
    world = World()
    text = bech32.encode(cons(0), bech32.CONSENSUS)
    for missed in range(1, 11):
        [liveness] = world.block(ABSENT)
        assert liveness == ("liveness", (("address", text), ("missed_blocks", str(missed)), ("height", str(missed))))
        assert world.staking.punished == [], "nobody is punished before a whole window has gone by"
    told, slash = world.block(ABSENT)
    assert told[0] == "liveness"
    assert slash == (
        "slash",
        (("address", text), ("power", "1000"), ("reason", "missing_signature"), ("jailed", text), ("burned_coins", str(2 * 10**14))),
    )
    assert world.staking.punished == [("slash", cons(0), 11 - 2, 1000, "0.000200000000000000", 2), ("jail", cons(0))]
    info = world.info()
    assert (info.index_offset, info.missed_blocks_counter, info.start_height) == (0, 0, 0)
    assert info.jailed_until.seconds == (START_NS // SECOND) + 11 + 21_600
    assert world.keeper.missed_blocks(world.state, cons(0)) == []
    before = encode(info)
    assert world.block(ABSENT) == [], "a jailed validator is not watched"
    assert encode(world.info()) == before
    assert world.broken() == []


def test_exactly_the_allowed_number_of_absences_goes_unpunished() -> None:
    world = World()
    for _ in range(4):
        for flag in [ABSENT] * 5 + [COMMIT] * 5:
            world.block(flag)
    for _ in range(5):
        world.block(ABSENT)
    assert world.info().missed_blocks_counter == 5, "each of these takes the place of one that leaves the window"
    assert world.staking.punished == []
    world.block(ABSENT)
    assert [one[0] for one in world.staking.punished] == ["slash", "jail"]


def test_a_vote_for_nil_is_a_signature() -> None:
    world = World()
    for _ in range(30):
        assert world.block(NIL) == []
    assert world.info().missed_blocks_counter == 0


def test_a_stored_chunk_has_gos_layout() -> None:
    world = World(window=3000, min_signed=0)
    missed = {0, 1, 63, 64, 65, 1000, 1023, 1024, 2047, 2500}
    for at in range(2600):
        world.block(ABSENT if at in missed else COMMIT)
    store = world.state.store(keys.STORE)
    stored = dict(store.iterate(b"\x02", b"\x03"))
    expected = {}
    for number in range(3):
        words = [0] * 16
        for index in missed:
            if index // 1024 == number:
                words[index % 1024 // 64] |= 1 << (index % 64)
        expected[b"\x02\x14" + cons(0) + struct.pack("<Q", number)] = struct.pack(">Q16Q", 1024, *words)
    assert stored == expected
    assert world.keeper.missed_blocks(world.state, cons(0)) == sorted(missed)
    assert store.get(b"\x01\x14" + cons(0)) == encode(world.info())
    assert store.get(b"\x03\x14" + cons(0)) == encode(public_key_to_any(ValidatorKey.numbered(0).public_key))
    assert store.get(b"\x00") == encode(world.keeper.params(world.state))


@dataclass
class Model:
    """One validator by the rules in words: bits in a plain mapping, of which those outside a smaller window stay where they are."""

    window: int
    required: int
    start: int = 0
    offset: int = 0
    counter: int = 0
    bits: dict[int, bool] = field(default_factory=dict)
    punished_at: list[int] = field(default_factory=list)

    def block(self, height: int, missed: bool) -> None:
        at, self.offset = self.offset % self.window, self.offset + 1
        self.counter += int(missed) - int(self.bits.get(at, False))
        self.bits[at] = missed
        if height > self.start + self.window and self.counter > self.window - self.required:
            self.punished_at.append(height)
            self.offset = self.counter = 0
            self.bits = {}


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([3, 10, 40, 1024, 1025, 2100]), st.integers(1, 60), st.integers(0, 10)), min_size=1, max_size=8),
    st.integers(0, 20),
    st.randoms(use_true_random=False),
)
def test_a_window_that_shrinks_and_grows_counts_as_the_model_does(phases: list[tuple[int, int, int]], twentieths: int, random: Any) -> None:
    world = World(window=phases[0][0], min_signed=twentieths * ONE // 20)
    model = Model(world.window, 0)
    for window, blocks, tenths in phases:
        world.resize(window)
        exact, rest = divmod(twentieths * window, 20)
        model.window, model.required = window, exact + (rest > 10 or (rest == 10 and exact % 2 == 1))
        for _ in range(blocks):
            missed = random.randrange(10) < tenths
            world.block(ABSENT if missed else COMMIT)
            before = len(model.punished_at)
            model.block(world.height, missed)
            if len(model.punished_at) > before:  # out again at once, and bonded anew
                world.staking.unjail(world.ctx(), world.state, cons(0))
                world.hooks.after_validator_bonded(world.ctx(), world.state, cons(0), operator(0))
                model.start = world.height
            info = world.info()
            assert (info.start_height, info.index_offset, info.missed_blocks_counter) == (model.start, model.offset, model.counter)
        assert world.keeper.missed_blocks(world.state, cons(0)) == sorted(at for at, bit in model.bits.items() if bit)
    assert [height for kind, *_, height in [(one[0], one[2]) for one in world.staking.punished if one[0] == "slash"]] == [
        height - 2 for height in model.punished_at
    ]
    assert world.broken() == []


def test_votes_of_nobody_are_left_out_and_a_validator_without_an_info_gets_one() -> None:
    world = World(validators=2)
    store = world.state.store(keys.STORE)
    store.delete(keys.signing_info(cons(1)))
    del world.staking.addresses[cons(0)]
    world.height = 41
    world.block(ABSENT, ABSENT)
    assert world.info(0).index_offset == 0
    assert (world.info(1).start_height, world.info(1).index_offset, world.info(1).missed_blocks_counter) == (42, 1, 1)


def test_keys_are_remembered_while_a_validator_exists() -> None:
    world = World()
    assert world.keeper.has_public_key(world.state, cons(0))
    world.hooks.after_validator_removed(world.ctx(), world.state, cons(0), operator(0))
    assert not world.keeper.has_public_key(world.state, cons(0))
    assert world.info() is not None, "who comes back with the same key comes back to its record"
    world.height = 77
    world.block(COMMIT)
    world.hooks.after_validator_bonded(world.ctx(), world.state, cons(0), operator(0))
    assert (world.info().start_height, world.info().index_offset) == (78, 1)


def code_of(call: Any) -> tuple[str, int]:
    with pytest.raises(AppError) as raised:
        call()
    return raised.value.codespace, raised.value.code


def test_every_refusal_of_an_unjail() -> None:
    world = World()
    keeper, staking, state = world.keeper, world.staking, world.state
    one = staking.known[operator(0)]

    def unjail(after_s: int = 0, who: bytes = operator(0)) -> None:
        keeper.unjail(Context("test-1", 5, START_NS + after_s * SECOND, Mode.FINALIZE), state, who)

    assert code_of(lambda: unjail(who=bytes(20))) == ("staking", 3)
    assert code_of(unjail) == ("slashing", 5), "not jailed"
    one.jailed = True
    keeper.jail_until(world.ctx(), state, cons(0), START_NS + 100 * SECOND)
    assert code_of(lambda: unjail(99)) == ("slashing", 4), "too early"
    staking.own[operator(0)] = 10**17 - 1
    assert code_of(lambda: unjail(100)) == ("slashing", 7), "its own stake is too small"
    assert one.min_self_delegation == str(10**17)
    staking.own[operator(0)] = 10**17
    one.tokens = str(10**18 - 1)  # slashed: the same shares are worth less
    assert code_of(lambda: unjail(100)) == ("slashing", 7)
    one.tokens = str(10**18)
    del staking.own[operator(0)]
    assert code_of(lambda: unjail(100)) == ("staking", 19)
    staking.own[operator(0)] = 10**18
    unjail(100)
    assert staking.punished == [("unjail", cons(0))]
    one.jailed = True
    keeper.tombstone(world.ctx(), state, cons(0))
    assert code_of(lambda: unjail(10**9)) == ("slashing", 4), "tombstoned"
    assert code_of(lambda: keeper.tombstone(world.ctx(), state, cons(0))) == ("slashing", 9)
    state.store(keys.STORE).delete(keys.signing_info(cons(0)))
    unjail()  # never bonded: nothing to wait for
    assert code_of(lambda: keeper.tombstone(world.ctx(), state, cons(0))) == ("slashing", 8)
    assert code_of(lambda: keeper.jail_until(world.ctx(), state, cons(0), 0)) == ("slashing", 8)


def test_a_slash_by_another_module_is_told_with_its_reason() -> None:
    world = World()
    ctx, text = world.ctx(), bech32.encode(cons(0), bech32.CONSENSUS)
    for infraction in (0, 1, 2):
        world.keeper.slash_with_infraction_reason(ctx, world.state, cons(0), Dec(ONE // 20), 1000, 3, infraction)
    world.keeper.slash(ctx, world.state, cons(0), Dec(ONE // 20), 1000, 3)
    world.keeper.jail(ctx, world.state, cons(0))
    reasons = [dict(attributes).get("reason") for _, attributes in ctx.events.events]
    assert reasons == ["unspecified", "double_sign", "missing_signature", "unspecified", None]
    assert ctx.events.events[0][1] == (("address", text), ("power", "1000"), ("reason", "unspecified"), ("burned_coins", str(5 * 10**16)))
    assert ctx.events.events[-1] == ("slash", (("jailed", text),))


@pytest.mark.parametrize(
    ("name", "value", "outcome"),
    [
        ("signed_blocks_window", 0, ("undefined", 1)),
        ("signed_blocks_window", -1, ("undefined", 1)),
        ("min_signed_per_window", b"", ("undefined", 1)),
        ("min_signed_per_window", b"-1", ("undefined", 1)),
        ("min_signed_per_window", str(ONE + 1).encode(), ("undefined", 1)),
        ("min_signed_per_window", b"a half", ("sdk", 2)),
        ("slash_fraction_double_sign", b"-1", ("undefined", 1)),
        ("slash_fraction_downtime", str(2 * ONE).encode(), ("undefined", 1)),
    ],
)
def test_parameters_out_of_bounds_are_refused(name: str, value: Any, outcome: tuple[str, int]) -> None:
    params = default_params()
    check_params(params)
    setattr(params, name, value)
    assert code_of(lambda: check_params(params)) == outcome


def test_a_jail_without_length_or_without_end_is_refused() -> None:
    for seconds in (0, -1, 1 << 62):
        params = default_params()
        params.downtime_jail_duration.seconds = seconds
        assert code_of(lambda params=params: check_params(params)) == ("undefined", 1)


def test_genesis_is_the_same_after_a_round_trip_and_goes_on_the_same_way() -> None:
    world = World(window=2200, validators=3, min_signed=0)
    for at in range(2000):
        world.block(ABSENT if at > 1100 else COMMIT, ABSENT if at % 3 == 0 else COMMIT, COMMIT)
    world.keeper.jail_until(world.ctx(), world.state, cons(2), 253_402_300_799 * SECOND)
    genesis = SlashingGenesis(world.keeper, world.staking)
    section = genesis.export(world.ctx(), world.state)
    assert [len(one["missed_blocks"]) for one in section["missed_blocks"]] == [
        world.info(number).missed_blocks_counter for number in sorted(range(3), key=cons)
    ]
    genesis.validate(section)
    other = World(window=2200, validators=3)
    other.state = State(EmptyView(), (keys.STORE,))
    SlashingGenesis(other.keeper, other.staking).load(other.ctx(), other.state, section)
    other.height = world.height
    assert SlashingGenesis(other.keeper, other.staking).export(other.ctx(), other.state) == section
    for at in range(300):
        flags = [ABSENT if (at + number) % 2 else COMMIT for number in range(3)]
        assert world.block(*flags) == other.block(*flags)
    assert [one.SerializeToString() for _, one in world.keeper.signing_infos(world.state)] == [
        one.SerializeToString() for _, one in other.keeper.signing_infos(other.state)
    ]
    assert other.broken() == []


@pytest.mark.parametrize(
    ("change", "path"),
    [
        (lambda section: section["params"].update(signed_blocks_window="0"), "signed blocks window must be positive"),
        (lambda section: section["params"].update(downtime_jail_duration="0s"), "downtime jail duration must be positive"),
        (lambda section: section["params"].update(slash_fraction_downtime="1.1"), "app_state.slashing"),
        (lambda section: section["signing_infos"][0].update(address="stvalcons1xx"), "signing_infos[0].address"),
        (lambda section: section["signing_infos"][0]["validator_signing_info"].update(index_offset="-1"), "index_offset"),
        (lambda section: section["missed_blocks"][0]["missed_blocks"].append({"index": "-5", "missed": True}), "missed_blocks[0].index"),
    ],
)
def test_a_genesis_section_that_cannot_be_is_refused_by_its_field(change: Any, path: str) -> None:
    world = World()
    genesis = SlashingGenesis(world.keeper, world.staking)
    section = genesis.export(world.ctx(), world.state)
    genesis.validate(section)
    genesis.validate(genesis.default())
    change(section)
    with pytest.raises(GenesisError, match=path.replace("[", r"\[").replace("]", r"\]")):
        genesis.validate(section)


def test_a_public_key_is_stored_as_the_any_that_staking_holds() -> None:
    key = ValidatorKey.numbered(0).public_key
    inner = message_class("cosmos.crypto.ed25519.PubKey")(key=key.raw)
    assert encode(public_key_to_any(key)) == encode(pack_any(inner))
