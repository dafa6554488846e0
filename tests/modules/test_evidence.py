"""Evidence over a slashing that only keeps what it is told: every reason to ignore it, what is kept, and what users may submit."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

import pytest

from chain.codec.canonical import encode
from chain.codec.registry import message_class, pack_any
from chain.context import Context, Misbehavior, Mode
from chain.crypto import address as bech32
from chain.dec import ONE, Dec
from chain.errors import AppError, InvalidRequest
from chain.module import GenesisError
from chain.store.state import EmptyView, State
from modules.evidence import keys, messages, queries
from modules.evidence.genesis import EvidenceGenesis
from modules.evidence.keeper import Equivocation, EvidenceKeeper

SECOND = 10**9
NOW_NS = 1_800_000_000 * SECOND
CONS = bytes(range(20))
TEXT = bech32.encode(CONS, bech32.CONSENSUS)
Validator = message_class("cosmos.staking.v1beta1.Validator")
SigningInfo = message_class("cosmos.slashing.v1beta1.ValidatorSigningInfo")
ConsensusParams = message_class("tendermint.types.ConsensusParams")
MAX_AGE_S, MAX_AGE_BLOCKS = 1000, 100


@dataclass
class Chain:
    """One bonded validator; consensus parameters; the punishments in order."""

    punished: list[tuple[Any, ...]] = field(default_factory=list)
    has_key: bool = True
    ages: bool = True

    def __post_init__(self) -> None:
        self.one: Any = Validator(status=3)
        self.info: Any = SigningInfo(address=TEXT)
        self.state = State(EmptyView(), (keys.STORE,))
        self.keeper = EvidenceKeeper(self, self, self)

    def validator_by_cons(self, state: Any, cons: bytes) -> Any | None:
        return self.one if cons == CONS else None

    def has_public_key(self, state: Any, cons: bytes) -> bool:
        return self.has_key

    def signing_info(self, state: Any, cons: bytes) -> Any | None:
        return self.info

    def slash_fraction_double_sign(self, state: Any) -> Dec:
        return Dec(ONE // 20)

    def slash_with_infraction_reason(self, ctx: Any, state: Any, *what: Any) -> None:
        self.punished.append(("slash", *what))

    def jail(self, ctx: Any, state: Any, cons: bytes) -> None:
        self.punished.append(("jail", cons))

    def jail_until(self, ctx: Any, state: Any, cons: bytes, time_ns: int) -> None:
        self.punished.append(("until", cons, time_ns))

    def tombstone(self, ctx: Any, state: Any, cons: bytes) -> None:
        self.info.tombstoned = True
        self.punished.append(("tombstone", cons))

    def get(self, state: Any) -> Any:
        params = ConsensusParams()
        if self.ages:
            params.evidence.max_age_num_blocks = MAX_AGE_BLOCKS
            params.evidence.max_age_duration.seconds = MAX_AGE_S
        return params

    def block(self, *reported: Misbehavior, height: int = 500) -> None:
        self.keeper.take_misbehavior(Context("test-1", height, NOW_NS, Mode.FINALIZE, misbehavior=reported), self.state)


def misbehavior(*, kind: int = 1, cons: bytes = CONS, age_s: int = 10, height: int = 498, power: int = 7) -> Misbehavior:
    return Misbehavior(kind, cons, power, height, NOW_NS - age_s * SECOND, 100)


@pytest.mark.parametrize("kind", [1, 2])
def test_an_equivocation_is_punished_once_and_kept(kind: int) -> None:
    chain = Chain()
    chain.block(misbehavior(kind=kind), misbehavior(kind=kind, height=497))
    assert chain.punished == [
        ("slash", CONS, Dec(ONE // 20), 7, 497, 1),
        ("jail", CONS),
        ("until", CONS, 253_402_300_799 * SECOND),
        ("tombstone", CONS),
    ]
    expected = Equivocation(height=498, power=7, consensus_address=TEXT)
    expected.time.seconds = NOW_NS // SECOND - 10
    digest = hashlib.sha256(encode(expected)).digest()
    assert dict(chain.state.store("evidence").iterate()) == {b"\x00" + digest: encode(pack_any(expected))}


def test_a_validator_in_jail_is_slashed_and_not_jailed_again() -> None:
    chain = Chain()
    chain.one.jailed = True
    chain.block(misbehavior())
    assert [one[0] for one in chain.punished] == ["slash", "until", "tombstone"]


def test_evidence_of_the_first_block_reaches_below_it() -> None:
    chain = Chain()
    chain.block(misbehavior(height=1), height=2)
    assert chain.punished[0] == ("slash", CONS, Dec(ONE // 20), 7, 0, 1)


@pytest.mark.parametrize(
    ("change", "reported"),
    [
        (lambda chain: None, misbehavior(cons=bytes(20))),
        (lambda chain: None, misbehavior(kind=0)),
        (lambda chain: None, misbehavior(kind=3)),
        (lambda chain: setattr(chain.one, "status", 1), misbehavior()),
        (lambda chain: setattr(chain, "has_key", False), misbehavior()),
        (lambda chain: setattr(chain, "info", None), misbehavior()),
        (lambda chain: setattr(chain.info, "tombstoned", True), misbehavior()),
        (lambda chain: None, misbehavior(age_s=MAX_AGE_S + 1, height=500 - MAX_AGE_BLOCKS - 1)),
    ],
)
def test_evidence_that_cannot_be_used_is_ignored(change: Any, reported: Misbehavior) -> None:
    chain = Chain()
    change(chain)
    chain.block(reported)
    assert chain.punished == []
    assert list(chain.state.store("evidence").iterate()) == []


@pytest.mark.parametrize(
    ("age_s", "blocks", "ages"),
    [(MAX_AGE_S, MAX_AGE_BLOCKS + 1, True), (MAX_AGE_S + 1, MAX_AGE_BLOCKS, True), (10**6, 1, True), (1, 499, True), (10**6, 499, False)],
)
def test_evidence_is_too_old_only_in_time_and_in_blocks(age_s: int, blocks: int, ages: bool) -> None:
    chain = Chain(ages=ages)
    chain.block(misbehavior(age_s=age_s, height=500 - blocks))
    assert [one[0] for one in chain.punished] == ["slash", "jail", "until", "tombstone"]


def test_an_unbonding_validator_is_punished() -> None:
    chain = Chain()
    chain.one.status = 2
    chain.block(misbehavior())
    assert chain.punished


# --- submitted ----------------------------------------------------------------------------------------------------------------


def equivocation(**changed: Any) -> Any:
    made = Equivocation(**{"height": 3, "power": 5, "consensus_address": TEXT, **changed})
    made.time.seconds = 1_700_000_000
    return made


def submit(chain: Chain, evidence: Any | None, submitter: str = bech32.encode(bytes(20))) -> tuple[Any, Context]:
    message = message_class("cosmos.evidence.v1beta1.MsgSubmitEvidence")(submitter=submitter)
    if evidence is not None:
        message.evidence.CopyFrom(pack_any(evidence))
    [handler] = messages.handlers(chain.keeper).values()
    handler.check_stateless(message)
    ctx = Context("test-1", 5, NOW_NS, Mode.FINALIZE)
    return handler.execute(ctx, chain.state, message), ctx


@pytest.mark.parametrize(
    ("evidence", "outcome"),
    [
        (equivocation(), ("evidence", 2)),
        (None, ("evidence", 3)),
        (equivocation(height=0), ("evidence", 3)),
        (equivocation(power=0), ("evidence", 3)),
        (equivocation(consensus_address=""), ("evidence", 3)),
        (Equivocation(height=3, power=5, consensus_address=TEXT), ("evidence", 3)),
        (Validator(), ("sdk", 2)),
    ],
)
def test_what_users_submit_is_refused(evidence: Any, outcome: tuple[str, int]) -> None:
    with pytest.raises(AppError) as raised:
        submit(Chain(), evidence)
    assert (raised.value.codespace, raised.value.code) == outcome


def test_a_submitter_needs_an_address() -> None:
    with pytest.raises(AppError, match="invalid submitter address"):
        submit(Chain(), equivocation(), "nobody")


def test_known_evidence_and_what_a_handler_would_make_of_new_one() -> None:
    chain = Chain()
    seen = []

    def take(ctx: Any, state: Any, evidence: Any) -> None:
        if evidence.height == 4:
            raise InvalidRequest("not that one")
        seen.append(evidence.height)

    chain.keeper = EvidenceKeeper(chain, chain, chain, {"equivocation": take})
    response, ctx = submit(chain, equivocation())
    digest = hashlib.sha256(encode(equivocation())).digest()
    assert response.hash == digest
    assert (seen, ctx.events.events) == ([3], [("submit_evidence", (("evidence_hash", digest.hex().upper()),))])
    for evidence, code in ((equivocation(), 5), (equivocation(height=4), 3)):
        with pytest.raises(AppError) as raised:
            submit(chain, evidence)
        assert (raised.value.codespace, raised.value.code) == ("evidence", code)


# --- queries and genesis ------------------------------------------------------------------------------------------------------


def test_queries_find_it_by_hash_and_in_pages() -> None:
    chain = Chain()
    pieces = {hashlib.sha256(encode(one)).hexdigest(): one for one in (equivocation(height=at) for at in range(1, 8))}
    for one in pieces.values():
        chain.keeper.add(chain.state, one)
    by_hash, listed = queries.handlers(chain.keeper).values()
    ctx = Context("test-1", 5, NOW_NS, Mode.QUERY)
    request = message_class("cosmos.evidence.v1beta1.QueryEvidenceRequest")
    for digest, one in pieces.items():
        assert by_hash(ctx, chain.state, request(hash=digest.upper())).evidence == pack_any(one)
    for text, code in (("", ("sdk", 18)), ("xy", ("undefined", 1)), ("abc", ("undefined", 1)), ("00" * 32, ("sdk", 38))):
        with pytest.raises(AppError) as raised:
            by_hash(ctx, chain.state, request(hash=text))
        assert (raised.value.codespace, raised.value.code) == code
    found, key = [], b""
    while True:
        page = listed(ctx, chain.state, message_class("cosmos.evidence.v1beta1.QueryAllEvidenceRequest")(pagination={"key": key, "limit": 3}))
        found += page.evidence
        key = page.pagination.next_key
        if not key:
            break
    assert found == [pack_any(pieces[digest]) for digest in sorted(pieces)]


def test_genesis_is_the_same_after_a_round_trip() -> None:
    chain, ctx = Chain(), Context("test-1", 0, NOW_NS, Mode.GENESIS)
    for at in range(1, 8):
        chain.keeper.add(chain.state, equivocation(height=at))
    section = EvidenceGenesis(chain.keeper).export(ctx, chain.state)
    other = Chain()
    genesis = EvidenceGenesis(other.keeper)
    genesis.validate(section)
    genesis.load(ctx, other.state, section)
    assert other.state.net_changes() == chain.state.net_changes()
    assert genesis.export(ctx, other.state) == section
    assert len(section["evidence"]) == 7
    for bad, problem in (
        ([section["evidence"][0]] * 2, "already exists"),
        ([{**section["evidence"][0], "power": "0"}], "power"),
        ([{"@type": "/cosmos.staking.v1beta1.Validator"}], "expected evidence"),
    ):
        with pytest.raises(GenesisError, match=problem):
            genesis.validate({"evidence": bad})
