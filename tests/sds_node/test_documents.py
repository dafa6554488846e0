"""What is signed in the storage network: who has to sign, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from sds_node.documents import Lease as LeaseDocument
from sds_node.documents import Refused, check_ack, check_lease, check_manifest, lease_quorum, opened
from tests.sds_node.documenting import NODE_KEY, SESSION, Chain, ack, certificate, manifest, meta_key

KEY = bytes(NODE_KEY.verify_key)


@pytest.mark.parametrize(("meta_nodes", "needed"), [(1, 1), (2, 1), (3, 1), (4, 2), (6, 2), (7, 3), (30, 10)])
def test_a_lease_needs_more_meta_nodes_than_may_lie(meta_nodes: int, needed: int) -> None:
    assert lease_quorum(meta_nodes) == needed
    assert 3 * (needed - 1) < meta_nodes, "as many as sign at least, less one, are fewer than a third"


def test_a_lease_that_enough_meta_nodes_signed_holds() -> None:
    assert check_lease(certificate(1, 2), Chain()).noz == 1_000_000
    assert check_lease(certificate(3, 4, 2), Chain()).noz == 1_000_000


@pytest.mark.parametrize("signers", [(1,), (1, 1, 1), (2, 7), (1, 9, 8)])
def test_one_signature_short_or_repeated_or_by_a_stranger_is_refused(signers: tuple[int, ...]) -> None:
    with pytest.raises(Refused, match="expected 2 of 4 active meta nodes"):
        check_lease(certificate(*signers), Chain())


def test_who_has_left_does_not_count() -> None:
    chain = Chain(metas=7)
    check_lease(certificate(1, 2, 3), chain)
    chain.gone = {3}
    with pytest.raises(Refused, match="expected 2 of 6"):
        check_lease(certificate(1, 3), chain)
    check_lease(certificate(1, 2), chain)


def test_without_any_meta_node_no_lease_holds() -> None:
    with pytest.raises(Refused, match="of 0 active"):
        check_lease(certificate(1, 2), Chain(metas=0))


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"chain_id": "other-1"}, "expected a lease of chain"),
        ({"lease_id": b"L" * 31}, "an id of 32 bytes"),
        ({"wallet": "st1"}, "a wallet"),
        ({"meta_node": "st1"}, "a meta node"),
        ({"noz": 0}, "at least one noz"),
        ({"fund": 0}, "paid or promo"),
        ({"fund": 3}, "paid or promo"),
        ({"created_s": 0}, "expires after it was made"),
        ({"expires_s": 1}, "expires after it was made"),
    ],
)
def test_a_lease_that_is_none_is_refused(changes: dict[str, Any], part: str) -> None:
    with pytest.raises(Refused, match=part):
        check_lease(certificate(1, 2, **changes), Chain())


def test_a_lease_with_a_changed_body_or_too_many_signatures_is_refused() -> None:
    made = certificate(1, 2)
    made.body += b"\x01"
    with pytest.raises(Refused, match="canonical form"):
        check_lease(made, Chain())
    with pytest.raises(Refused, match="at most 100 signatures"):
        check_lease(certificate(*[1] * 101), Chain())


def test_a_document_with_an_unknown_field_or_over_4096_bytes_is_none() -> None:
    for body in (b"", b"\xff", b"\xfa\x01\x01x", b"\x0a\x81\x20" + b"x" * 4097):
        with pytest.raises(Refused, match="expected a Lease in canonical form"):
            opened(LeaseDocument, body)


def checked_ack(given: Any, key: bytes = KEY) -> Any:
    return check_ack(given, Chain(), key, serial=b"s" * 16, share_root=b"S" * 32, size_bytes=5)


def test_a_store_ack_holds_for_exactly_its_share() -> None:
    assert checked_ack(ack()).size_bytes == 5
    for changes in ({"serial": b"t" * 16}, {"share_root": b"T" * 32}, {"size_bytes": 6}, {"chain_id": "x"}, {"node": "stsds1x"}):
        with pytest.raises(Refused, match="acknowledges share"):
            checked_ack(ack(**changes))
    with pytest.raises(Refused, match="has not signed this StoreAck"):
        checked_ack(ack(meta_key(1)))
    with pytest.raises(Refused, match="has not signed this StoreAck"):
        checked_ack(ack(), bytes(32))


def test_a_manifest_holds_if_its_session_signed_it() -> None:
    assert check_manifest(manifest(), "stratos-test-1").index == 4
    with pytest.raises(Refused, match="the session key has not signed"):
        check_manifest(manifest(meta_key(2)), "stratos-test-1")
    other = manifest()
    other.session_pubkey = bytes(meta_key(3).verify_key)
    with pytest.raises(Refused, match="the session key has not signed"):
        check_manifest(other, "stratos-test-1")
    assert bytes(SESSION.verify_key) == manifest().session_pubkey


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"chain_id": "other-1"}, "a manifest of chain"),
        ({"wallet": ""}, "with a wallet"),
        ({"object_id": b""}, "an object id"),
        ({"share_root": b"S"}, "share root of 32 bytes"),
        ({"serial": b"s" * 17}, "a serial of 16 bytes"),
        ({"index": 5}, "share i of n"),
        ({"data_shares": 0}, "share i of n"),
        ({"data_shares": 6}, "share i of n"),
        ({"total_shares": 257}, "share i of n"),
        ({"segment": 1 << 31}, "below 2"),
        ({"segment_bytes": 0}, "at least a byte"),
        ({"size_bytes": 0}, "at least a byte"),
    ],
)
def test_a_manifest_that_is_none_is_refused(changes: dict[str, Any], part: str) -> None:
    with pytest.raises(Refused, match=part):
        check_manifest(manifest(**changes), "stratos-test-1")
