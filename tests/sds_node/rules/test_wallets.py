"""Leases, what wallets sign, the numbers of legacy clients."""

from __future__ import annotations

from chain.crypto import address as bech32
from chain.crypto.keys import PrivateKey
from modules.settlement.legacy import TASK_S
from sds_node.hashes import file_hash
from sds_node.meta.rules import refusals
from sds_node.meta.rules.asking import sequence_text
from sds_node.meta.rules.leases import MAX_OPEN_LEASES
from sds_node.meta.rules.tables import KEPT, LEASE, USED, WALLET
from sds_node.meta.rules.wire import ORDER_DOMAIN
from sds_node.requests import FRESH_S, Action
from tests.sds_node.rules.support import (
    DAY_MS,
    HASH,
    HOUR_MS,
    OTHER_HASH,
    PARAMS,
    Make,
    World,
    event,
    granted,
    lookup,
    message,
    record,
    wallet,
    wallet_key,
)


def test_a_lease_moves_noz_from_the_wallet_into_the_hands_of_the_meta_node(world: World) -> None:
    key = world.lease(1_000)
    row = world.core.tables.get(LEASE, (key,))
    assert row is not None
    assert (row.noz, row.given_noz, row.ends_ms - world.time_ms) == (1_000, 1_000, HOUR_MS)
    assert (world.wallet().paid_noz, world.wallet().open_leases) == (10**12 - 1_000, 1)


def test_settling_gives_the_rest_back_by_its_meta_node_at_any_time_and_by_others_when_it_is_over(make: Make) -> None:
    world = make(metas=2)
    first, second = world.lease(1_000), world.lease(500)
    world.refused(refusals.NOT_YOURS, "settle_leases", message("SettleLeases", lease_ids=[first]), 2)
    world.refused(refusals.BAD_FORM, "settle_leases", message("SettleLeases", lease_ids=[first, first]))
    world.refused(refusals.BAD_FORM, "settle_leases", message("SettleLeases"))
    world.ok("settle_leases", message("SettleLeases", lease_ids=[first]))
    world.refused(refusals.UNKNOWN_LEASE, "settle_leases", message("SettleLeases", lease_ids=[first]))
    world.wait(HOUR_MS + 600_000 - 1)
    world.refused(refusals.NOT_YOURS, "settle_leases", message("SettleLeases", lease_ids=[second]), 2)
    world.wait(1)
    world.ok("settle_leases", message("SettleLeases", lease_ids=[second]), 2)
    assert (world.wallet().paid_noz, world.wallet().open_leases) == (10**12, 0)


def test_a_lease_that_nobody_settles_goes_back_by_itself(world: World) -> None:
    world.lease(1_000)
    world.wait(HOUR_MS + 600_000)
    world.tick()
    assert (world.wallet().paid_noz, world.core.tables.scan(LEASE, limit=1)) == (10**12, [])


def test_granted_noz_are_leased_in_the_order_in_which_they_end_and_come_back_until_then(world: World) -> None:
    ends_s = world.time_ms // 1_000 + 86_400
    world.observe(granted(1, 100, ends_s), granted(1, 50, ends_s + 86_400))
    lease = world.lease(120, fund=2)
    assert world.wallet().promo_noz == 30
    world.ok("settle_leases", message("SettleLeases", lease_ids=[lease]))
    assert world.wallet().promo_noz == 150
    world.refused(refusals.NOT_ENOUGH, "take_lease", world.lease_request(151, fund=2))
    lease = world.lease(150, fund=2)
    world.time_ms = (ends_s + 86_400) * 1_000
    world.ok("settle_leases", message("SettleLeases", lease_ids=[lease]))
    assert (world.wallet().promo_noz, world.state.promo_expired_noz) == (0, 150)


def test_granted_noz_whose_time_is_over_are_not_leased_even_before_a_tick(world: World) -> None:
    world.observe(granted(1, 100, world.time_ms // 1_000 + 60))
    world.wait(DAY_MS)
    world.refused(refusals.NOT_ENOUGH, "take_lease", world.lease_request(1, fund=2))


def test_leases_under_one_grant_are_together_at_most_its_noz(world: World) -> None:
    grant = world.grant(max_noz=1_000)
    world.ok("take_lease", world.lease_request(600, grant=grant))
    world.refused(refusals.NOT_ENOUGH, "take_lease", world.lease_request(401, grant=grant))
    world.ok("take_lease", world.lease_request(400, grant=grant))
    world.refused(refusals.NOT_ENOUGH, "take_lease", world.lease_request(1, grant=grant))
    world.wait(7_300_000)
    world.tick()
    assert world.core.tables.scan(USED, limit=1) == []  # it has ended anyway
    world.refused(refusals.NOT_ASKED, "take_lease", world.lease_request(1, grant=grant))


def test_a_lease_that_the_grant_does_not_allow_is_refused(world: World) -> None:
    now_s = world.time_ms // 1_000
    cases = [
        (refusals.NOT_ASKED, {"chain_id": "other-1"}),
        (refusals.NOT_ASKED, {"wallet": bech32.encode(wallet(2))}),
        (refusals.NOT_ASKED, {"session_pubkey": b"\x33" * 32}),
        (refusals.NOT_ASKED, {"actions": []}),
        (refusals.NOT_ASKED, {"actions": [2, 1]}),
        (refusals.NOT_ASKED, {"max_noz": 9}),
        (refusals.NOT_ASKED, {"not_before_s": now_s + 1}),
        (refusals.NOT_ASKED, {"expires_s": now_s + 3_599}),
        (refusals.NOT_ASKED, {"not_before_s": now_s - 90_000}),
        (refusals.NOT_ASKED, {"nonce": b""}),
    ]
    for code, changes in cases:
        world.refused(code, "take_lease", world.lease_request(10, grant=world.grant(**changes)))
    stranger = world.grant() | {"public_key": wallet_key(2).public_key.raw}
    world.refused(refusals.NOT_ASKED, "take_lease", world.lease_request(10, grant=stranger))
    world.refused(refusals.NOT_ASKED, "take_lease", world.lease_request(10, grant=world.grant() | {"signature": bytes(64)}))
    world.refused(refusals.BAD_FORM, "take_lease", world.lease_request(10, grant=world.grant() | {"body": b"\xff"}))


def test_leases_of_another_form_or_beyond_what_there_is_are_refused(world: World) -> None:
    cases = [
        (refusals.BAD_FORM, {"wallet": b"short"}),
        (refusals.BAD_FORM, {"session_pubkey": b""}),
        (refusals.BAD_FORM, {"fund": 0}),
        (refusals.BAD_FORM, {"noz": 0}),
        (refusals.BAD_FORM, {"noz": 1 << 63}),
        (refusals.BAD_FORM, {"seconds": 0}),
        (refusals.BAD_FORM, {"seconds": 3_601}),
        (refusals.NOT_ENOUGH, {"noz": 10**12 + 1}),
        (refusals.NOT_ENOUGH, {"fund": 2}),
    ]
    for code, changes in cases:
        world.refused(code, "take_lease", world.lease_request(**{"noz": 10} | changes))
    bare = world.lease_request(10)
    bare.ClearField("grant")
    world.refused(refusals.BAD_FORM, "take_lease", bare)


def test_a_wallet_has_a_bounded_number_of_open_leases(make: Make) -> None:
    world = make(is_checked=False)
    grant = world.grant()
    for _ in range(MAX_OPEN_LEASES):
        world.ok("take_lease", world.lease_request(1, grant=grant))
    world.refused(refusals.TOO_MANY, "take_lease", world.lease_request(1, grant=grant))


# --- legacy strings ---------------------------------------------------------------------------------------------------


def test_a_legacy_string_is_good_for_one_lease_while_it_is_fresh(world: World) -> None:
    ask = world.ask(Action.UPLOAD, HASH)
    world.ok("take_lease", world.lease_request(10, upload=ask))
    world.refused(refusals.USED_BEFORE, "take_lease", world.lease_request(10, upload=ask))
    world.refused(refusals.USED_BEFORE, "take_lease", world.lease_request(10, download=ask))  # the same letters
    for ago_s in (301, -301):
        world.refused(refusals.NOT_FRESH, "take_lease", world.lease_request(10, upload=world.ask(Action.UPLOAD, HASH, ago_s=ago_s)))
    for ago_s in (300, -300):
        world.ok("take_lease", world.lease_request(10, upload=world.ask(Action.UPLOAD, HASH, ago_s=ago_s)))
    ahead = world.ask(Action.UPLOAD, OTHER_HASH, ago_s=-300)
    world.ok("take_lease", world.lease_request(10, upload=ahead))
    world.wait(600_000)
    world.tick()
    world.refused(refusals.USED_BEFORE, "take_lease", world.lease_request(10, upload=ahead))
    world.wait(1_000)
    world.tick()
    world.refused(refusals.NOT_FRESH, "take_lease", world.lease_request(10, upload=ahead))


def test_a_lease_of_a_legacy_string_ends_while_its_order_limits_prove_themselves(world: World) -> None:
    world.observe(event(params=message("LedgerParams", **PARAMS | {"longest_lease_s": 86_400})))
    most_s = FRESH_S + TASK_S
    for ago_s in (-300, 0, 300):
        ask = world.ask(Action.UPLOAD, HASH, ago_s=ago_s)
        world.refused(refusals.LEASE_TIME, "take_lease", world.lease_request(10, upload=ask, seconds=most_s - ago_s + 1))
        world.ok("take_lease", world.lease_request(10, upload=ask, seconds=most_s - ago_s))


def test_a_legacy_string_that_the_wallet_has_not_signed_is_refused(world: World) -> None:
    other = world.ask(Action.UPLOAD, HASH)
    other.subject = OTHER_HASH
    world.refused(refusals.NOT_ASKED, "take_lease", world.lease_request(10, upload=other))
    world.refused(refusals.NOT_ASKED, "take_lease", world.lease_request(10, upload=world.ask(Action.UPLOAD, HASH, 2)))
    broken = world.ask(Action.UPLOAD, HASH)
    broken.subject = "no hash"
    world.refused(refusals.BAD_FORM, "take_lease", world.lease_request(10, upload=broken))
    broken = world.ask(Action.UPLOAD, HASH)
    broken.timestamp_s = -5
    world.refused(refusals.BAD_FORM, "take_lease", world.lease_request(10, upload=broken))


def test_a_sequence_number_goes_on_by_one_and_the_63_before_it_are_taken_too(world: World) -> None:
    assert sequence_text(7) == "SN:0000000000000000007"
    ask = world.ask(Action.UPLOAD, HASH)
    world.ok("take_lease", world.lease_request(10, upload=ask))
    world.ok("advance_sequence", message("AdvanceSequence", wallet=wallet(1), upload=ask))
    world.put(world.lease(10**6), 1, 10_000, [1, 2, 3])
    assert world.wallet().sequence == 1
    # Only the current number moves it, so tasks that were begun with one number move it once.
    world.refused(refusals.WRONG_SEQUENCE, "advance_sequence", message("AdvanceSequence", wallet=wallet(1), upload=ask))
    world.refused(refusals.USED_BEFORE, "take_lease", world.lease_request(10, upload=ask))
    world.ok("take_lease", world.lease_request(10, download=world.ask(Action.DOWNLOAD, HASH, sequence=0, ago_s=1)))
    world.refused(refusals.WRONG_SEQUENCE, "take_lease", world.lease_request(10, download=world.ask(Action.DOWNLOAD, HASH, sequence=2)))
    world.ok("take_lease", world.lease_request(10, download=world.ask(Action.DOWNLOAD, HASH)))
    world.refused(refusals.BAD_FORM, "advance_sequence", message("AdvanceSequence", wallet=wallet(1)))
    for _ in range(63):
        world.ok("advance_sequence", message("AdvanceSequence", wallet=wallet(1), upload=world.ask(Action.UPLOAD, HASH)))
    assert world.wallet().sequence == 64
    world.refused(refusals.WRONG_SEQUENCE, "take_lease", world.lease_request(10, download=world.ask(Action.DOWNLOAD, HASH, sequence=0, ago_s=1)))
    world.ok("take_lease", world.lease_request(10, download=world.ask(Action.DOWNLOAD, HASH, sequence=1, ago_s=1)))


def test_a_legacy_string_deletes_the_files_of_its_hash_once(world: World) -> None:
    lease = world.lease(10**6)
    world.put(lease, 1, 100, [1, 2, 3])
    world.put(lease, 2, 100, [1, 2, 3], lookup_number=2)
    world.put(lease, 3, 100, [1, 2, 3], file_hash=OTHER_HASH)
    ask = world.ask(Action.DELETE_FILE, HASH)
    world.ok("legacy_order", message("LegacyOrder", wallet=wallet(1), ask=ask, delete=True))
    assert (world.wallet().files, world.wallet().trash) == (1, 2)
    world.refused(refusals.USED_BEFORE, "legacy_order", message("LegacyOrder", wallet=wallet(1), ask=ask, delete=True))
    world.wait(1_000)
    world.refused(
        refusals.UNKNOWN_FILE, "legacy_order", message("LegacyOrder", wallet=wallet(1), ask=world.ask(Action.DELETE_FILE, HASH), delete=True)
    )


def test_a_legacy_string_for_the_empty_file_leaves_folders_alone(world: World) -> None:
    """Their records have no bytes, too, and are private, which no file without bytes is."""
    empty, lease = file_hash(b""), world.lease(10**6)
    world.put(lease, 1, 0, [0, 0, 0], file_hash=empty)
    order = {"wallet": wallet(1), "delete": True}
    world.refused(refusals.UNKNOWN_FILE, "legacy_order", message("LegacyOrder", ask=world.ask(Action.DELETE_FILE, empty), **order))
    world.put(lease, 2, 0, [0, 0, 0], file_hash=empty, file=record(2, is_public=True, wrapped_key=b""))
    world.ok("legacy_order", message("LegacyOrder", ask=world.ask(Action.DELETE_FILE, empty, ago_s=1), **order))
    assert (world.object(lookup(1)).state, world.wallet().files, world.wallet().trash) == (KEPT, 1, 1)


def test_a_legacy_string_shares_a_public_file_and_no_private_one(world: World) -> None:
    lease = world.lease(10**6)
    world.put(lease, 1, 100, [1, 2, 3])
    share = message("ShareFile", share_id="0123456789abcdef", link="r4nd0m_0123456789abcdef")
    made = message("LegacyOrder", wallet=wallet(1), ask=world.ask(Action.CREATE_SHARE, HASH), share=share)
    world.refused(refusals.NOT_PUBLIC, "legacy_order", made)
    world.put(lease, 2, 100, [1, 2, 3], file=record(2, is_public=True), lookup_number=2)
    world.ok("legacy_order", made)
    assert world.wallet().shares == 1
    stop = message("LegacyOrder", wallet=wallet(1), ask=world.ask(Action.STOP_SHARE, "0123456789abcdef"), unshare=True)
    world.ok("legacy_order", stop)
    assert world.wallet().shares == 0


def test_legacy_orders_of_no_kind_are_refused(world: World) -> None:
    ask = world.ask(Action.DELETE_FILE, HASH)
    for made in (message("LegacyOrder", wallet=wallet(1), ask=ask), message("LegacyOrder", wallet=wallet(1), ask=ask, delete=False)):
        world.refused(refusals.BAD_FORM, "legacy_order", made)
    world.refused(refusals.BAD_FORM, "legacy_order", message("LegacyOrder", wallet=b"", ask=ask, delete=True))


def test_a_wallet_can_switch_legacy_strings_off_and_on(world: World) -> None:
    world.ok("wallet_order", world.order(allow_legacy=message("AllowLegacy")))
    world.refused(refusals.NOT_ASKED, "take_lease", world.lease_request(10, upload=world.ask(Action.UPLOAD, HASH)))
    world.ok("wallet_order", world.order(allow_legacy=message("AllowLegacy", is_allowed=True)))
    world.ok("take_lease", world.lease_request(10, upload=world.ask(Action.UPLOAD, HASH)))


# --- orders -----------------------------------------------------------------------------------------------------------


def test_an_order_is_done_once_and_only_while_it_is_fresh(world: World) -> None:
    now_s = world.time_ms // 1_000
    order = world.order(allow_legacy=message("AllowLegacy"))
    world.ok("wallet_order", order)
    world.refused(refusals.USED_BEFORE, "wallet_order", order)
    for expires_s in (now_s - 1, now_s + 86_401, -1):
        world.refused(refusals.NOT_FRESH, "wallet_order", world.order(allow_legacy=message("AllowLegacy"), expires_s=expires_s))
    world.wait(601_000)
    world.tick()
    world.refused(refusals.NOT_FRESH, "wallet_order", order)


def test_orders_that_the_wallet_has_not_signed_or_that_say_nothing_are_refused(world: World) -> None:
    allow = message("AllowLegacy")
    cases = [
        (refusals.WRONG_CHAIN, world.order(allow_legacy=allow, chain_id="other-1")),
        (refusals.BAD_FORM, world.order(allow_legacy=allow, wallet=b"")),
        (refusals.BAD_FORM, world.order(allow_legacy=allow, nonce=b"short")),
        (refusals.BAD_FORM, world.order()),
        (refusals.NOT_ASKED, world.order(allow_legacy=allow, wallet=wallet(2))),
        (refusals.NOT_ASKED, world.order(allow_legacy=allow) | {"signature": bytes(64)}),
        (refusals.NOT_ASKED, world.order(allow_legacy=allow) | {"signature": b""}),
        (refusals.NOT_ASKED, world.order(allow_legacy=allow) | {"public_key": b""}),
        (refusals.BAD_FORM, world.order(allow_legacy=allow) | {"body": b"\xff"}),
        (refusals.BAD_FORM, world.order(allow_legacy=allow) | {"body": b"\x0a\x01x" * 10_000}),
    ]
    for code, order in cases:
        world.refused(code, "wallet_order", order)


def test_a_wallet_with_the_sdks_kind_of_key_orders_too(world: World) -> None:
    key = PrivateKey(b"\x07" * 32, "secp256k1")
    order = world.order(key=key, wallet=key.public_key.address, allow_legacy=message("AllowLegacy"))
    # Its digest is Keccak's too, as the original's clients sign.
    signing = PrivateKey(b"\x07" * 32, "eth_secp256k1")
    order["signature"] = signing.sign(ORDER_DOMAIN + b"\x00" + order["body"])
    assert world.ok("wallet_order", order) == b""
    row = world.core.tables.get(WALLET, (key.public_key.address,))
    assert row is not None
    assert not row.is_legacy_allowed  # as the order says
    assert world.wallet().is_legacy_allowed
