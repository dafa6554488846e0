"""Which order limits a resource node takes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chain.crypto import address as bech32
from chain.crypto.keys import Ed25519PublicKey
from modules.settlement import leaves
from modules.settlement.documents import OrderLimit
from sds_node.documents import REPAIR_LEASE_NOZ, REPAIR_LEASE_S, Refused
from sds_node.resource.limits import CLOCK_SKEW_S, Limits, Overlap, UsedAlready
from tests.sds_node.documenting import BENEFICIARY, NODE, NOW_S, Chain, certificate, evidence, meta_address, meta_text
from tests.serials import own_serial
from tests.support import KEYS, text


def limits() -> Limits:
    return Limits(Chain(), NODE, BENEFICIARY)


def test_a_good_limit_is_taken_once() -> None:
    node = limits()
    assert node.accept(certificate(), evidence(7), NOW_S).from_noz == 7_000
    with pytest.raises(Refused, match="was used already"):
        node.accept(certificate(), evidence(7), NOW_S)
    node.accept(certificate(), evidence(8), NOW_S)
    assert node.leases == 1


def test_the_certificate_is_looked_at_once_for_each_lease() -> None:
    node = limits()
    node.accept(certificate(), evidence(1), NOW_S)
    node.accept(None, evidence(2), NOW_S)
    with pytest.raises(Refused, match="expected the certificate of lease"):
        node.accept(certificate(), evidence(3, lease_id=b"M" * 32), NOW_S)
    node.accept(certificate(lease_id=b"M" * 32), evidence(3, lease_id=b"M" * 32), NOW_S)
    assert node.leases == 2


def test_under_a_lease_for_repair_nothing_but_repair_and_audits_is_taken() -> None:
    """It is in no ledger, so nobody would be paid for anything else."""
    node = limits()
    lease = certificate(noz=REPAIR_LEASE_NOZ, created_s=NOW_S - 10, expires_s=NOW_S - 10 + REPAIR_LEASE_S)
    for action in (leaves.GET, leaves.PUT):
        with pytest.raises(Refused, match="for repair under a lease for repair"):
            node.accept(lease, evidence(7, action=action, expires_s=NOW_S + 60), NOW_S)
    repair = evidence(7, action=leaves.REPAIR, expires_s=NOW_S + 60)
    repair.ClearField("grant")
    node.accept(lease, repair, NOW_S)


OTHER_NODE = bech32.encode(Ed25519PublicKey(b"\x05" * 32).address, bech32.NODE)


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"chain_id": "other-1"}, "for another chain"),
        ({"node": OTHER_NODE}, "expected an order limit for"),
        ({"beneficiary": text(KEYS[5])}, "paid to"),
        ({"created_s": NOW_S + CLOCK_SKEW_S + 1}, "the order limit holds from"),
        ({"expires_s": NOW_S}, "the order limit holds from"),
        ({"expires_s": NOW_S + 3_601}, "its lease to"),
        ({"fund": 2}, "of the lease's wallet, meta node and fund"),
        ({"from_noz": 999_001, "to_noz": 1_000_001}, "of a lease of 1000000"),
        ({"to_noz": 9_000}, "range is not max_noz long"),
        ({"serial": b"s"}, "serial of the order limit has not 16 bytes"),
        ({"serial": own_serial(meta_address(2), 7)}, "not one of its meta node"),
        ({"action": 5}, "the action of the order limit is none"),
        ({"session_pubkey": b"k" * 32}, "session key of the session grant"),
        ({"max_noz": 0, "to_noz": 7_000}, "allows nothing"),
    ],
)
def test_a_limit_that_does_not_hold_is_refused_and_takes_nothing(changes: dict[str, Any], part: str) -> None:
    node = limits()
    with pytest.raises(Refused, match=part):
        node.accept(certificate(), evidence(7, **changes), NOW_S)
    node.accept(certificate(), evidence(7), NOW_S)


def test_a_limit_by_another_meta_node_or_a_stranger_is_refused() -> None:
    node = limits()
    with pytest.raises(Refused, match="its meta node has not signed"):
        node.accept(certificate(), evidence(7, signer=2), NOW_S)
    with pytest.raises(Refused, match="is no meta node with keys"):
        node.accept(certificate(), evidence(7, meta_node=OTHER_NODE), NOW_S)
    with pytest.raises(Refused, match="of the lease's wallet, meta node and fund"):
        node.accept(certificate(), evidence(7, signer=2, meta_node=meta_text(2), serial=own_serial(meta_address(2), 7)), NOW_S)


def test_an_expired_lease_is_refused() -> None:
    with pytest.raises(Refused, match="the lease expired"):
        limits().accept(certificate(expires_s=NOW_S - 1), evidence(7), NOW_S)


def test_a_grant_that_does_not_cover_the_limit_is_refused() -> None:
    for changes, part in (({"max_noz": 999}, "more noz"), ({"actions": [1]}, "does not allow the action"), ({"expires_s": NOW_S + 599}, "within")):
        with pytest.raises(Refused, match=part):
            limits().accept(certificate(), evidence(7, grant_changes=changes), NOW_S)
    made = evidence(7)
    made.ClearField("grant")
    with pytest.raises(Refused, match="no wallet has asked for it"):
        limits().accept(certificate(), made, NOW_S)


def test_a_range_that_is_taken_is_evidence_against_the_meta_node() -> None:
    node = limits()
    node.accept(certificate(), evidence(7), NOW_S)
    for number, start in ((8, 7_999), (9, 6_001), (10, 7_000)):
        with pytest.raises(Overlap) as found:
            node.accept(certificate(), evidence(number, from_noz=start, to_noz=start + 1_000), NOW_S)
        pair = [OrderLimit.FromString(one.body) for one in (found.value.first, found.value.second)]
        assert max(one.from_noz for one in pair) < min(one.to_noz for one in pair)
        assert pair[0].serial != pair[1].serial
    node.accept(certificate(), evidence(11, from_noz=8_000, to_noz=9_000), NOW_S)


def test_one_serial_with_two_bodies_is_refused_and_shown_where_ranges_meet() -> None:
    node = limits()
    node.accept(certificate(), evidence(7), NOW_S)
    with pytest.raises(Overlap):
        node.accept(certificate(), evidence(7, max_bytes=999), NOW_S)
    with pytest.raises(Refused, match="is another order limit's"):
        node.accept(certificate(), evidence(7, from_noz=20_000, to_noz=21_000), NOW_S)


def test_leases_are_forgotten_when_they_have_expired_and_their_limits_stay_refused() -> None:
    node = limits()
    node.accept(certificate(), evidence(7), NOW_S)
    later = NOW_S + 3_600 + CLOCK_SKEW_S
    node.expire(later - 1)
    assert node.leases == 1
    node.expire(later)
    assert node.leases == 0
    with pytest.raises(Refused, match="the order limit holds from"):
        node.accept(certificate(), evidence(7), later)


def test_what_was_accepted_before_a_restart_is_not_accepted_again() -> None:
    first = limits()
    accepted = []
    nobody = Limits(Chain(metas=0), NODE, BENEFICIARY)  # what a node knows when the chain does not answer
    for number in (1, 2, 5):
        made = evidence(number)
        first.accept(certificate(), made, NOW_S)
        accepted.append((certificate(), made.order_limit))
    second = limits()
    second.restore([*accepted, accepted[0]], NOW_S + 1)
    for number in (1, 2, 5):
        with pytest.raises(Refused, match="was used already"):
            second.accept(certificate(), evidence(number), NOW_S)
    second.accept(certificate(), evidence(3), NOW_S)
    nobody.restore(accepted, NOW_S + 1)
    assert nobody.leases == 1
    nobody._authority = Chain()
    for number in (1, 2, 5):
        with pytest.raises(Refused, match="was used already"):
            nobody.accept(certificate(), evidence(number), NOW_S)
    with pytest.raises(Overlap):
        nobody.accept(certificate(), evidence(9, from_noz=5_500, to_noz=6_500), NOW_S)


def test_only_what_was_taken_counts_as_taken_and_how_often() -> None:
    one, made = limits(), evidence(1)
    one.accept(certificate(), made, NOW_S)
    with pytest.raises(UsedAlready):
        one.accept(certificate(), made, NOW_S)
    with pytest.raises(Refused, match="was used already") as caught:
        one.accept(certificate(), evidence(2, meta_node="it was used already"), NOW_S)
    assert not isinstance(caught.value, UsedAlready)
    serial = OrderLimit.FromString(made.order_limit.body).serial
    assert [one.again(serial), one.again(serial)] == [2, 3]
    one.expire(NOW_S + 100_000)
    assert not one._again


@pytest.mark.parametrize(
    ("action", "is_put", "max_bytes", "least_noz"),
    [
        (1, None, 1_000, 1_000), (1, None, 1, 1), (1, False, 8 << 20, 8 << 20), (2, None, 1_000, 500), (2, True, 1_001, 500), (2, None, 1, 1),
        (3, True, 1_000, 500), (3, False, 1_000, 1), (3, None, 1_000, 1), (4, None, 1_000, 1),
    ],
)  # fmt: skip
def test_no_byte_is_moved_below_the_price(action: int, is_put: bool | None, max_bytes: int, least_noz: int) -> None:
    node = limits()
    grant: dict[str, Any] = {"actions": [1, 2, 3, 4]}
    for number, noz in ((1, least_noz - 1), (2, 1)):
        if 0 < noz < least_noz:
            made = evidence(number, grant_changes=grant, action=action, max_bytes=max_bytes, max_noz=noz, from_noz=0, to_noz=noz)
            with pytest.raises(Refused, match=f"pays {noz} noz for {max_bytes} bytes: the price is {least_noz} noz"):
                node.accept(certificate(noz=10**9), made, NOW_S, is_put=is_put)
    made = evidence(3, grant_changes=grant, action=action, max_bytes=max_bytes, max_noz=least_noz, from_noz=0, to_noz=least_noz)
    assert node.accept(certificate(noz=10**9), made, NOW_S, is_put=is_put).max_noz == least_noz


def test_the_price_of_a_put_follows_the_escrows_ratio() -> None:
    for ratio_e18, noz, is_taken in ((0, 999, False), (0, 1_000, True), (3 * 10**17, 699, False), (3 * 10**17, 700, True), (10**18, 1, True)):
        node, made = Limits(Chain(), NODE, BENEFICIARY, ratio_e18), evidence(7, max_noz=noz, to_noz=7_000 + noz)
        if is_taken:
            node.accept(certificate(), made, NOW_S)
        else:
            with pytest.raises(Refused, match="the price is"):
                node.accept(certificate(), made, NOW_S)


def test_limits_in_memory_are_bounded_over_all_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sds_node.resource.limits.MAX_LIMITS", 2)
    node = limits()
    node.accept(certificate(), evidence(1), NOW_S)
    node.accept(certificate(lease_id=b"M" * 32), evidence(2, lease_id=b"M" * 32), NOW_S)
    with pytest.raises(Refused, match="try another node"):
        node.accept(certificate(), evidence(3), NOW_S)
    node.expire(NOW_S + 3_600 + CLOCK_SKEW_S)
    assert node.leases == 0


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 10)), max_size=15))
def test_ranges_that_are_taken_never_share_a_noz(wanted: list[tuple[int, int]]) -> None:
    node, taken = limits(), set[int]()
    for number, (start, length) in enumerate(wanted):
        noz = set(range(start, start + length))
        made = evidence(number, from_noz=start, to_noz=start + length, max_noz=length, max_bytes=1)
        try:
            node.accept(certificate(), made, NOW_S)
        except Overlap:
            assert noz & taken
        else:
            assert not noz & taken
            taken |= noz


def test_a_node_judges_by_the_rules_that_judge_evidence_on_chain() -> None:
    made = evidence(7)
    limit = limits().accept(certificate(), made, NOW_S)
    assert next(leaves.faults_of_limit(limit, Chain().chain_id), None) is None
    assert next(leaves.faults_of_authority(made, limit, Chain().chain_id), None) is None
