"""What wallets sign: every string and its signature, who signed, what is fresh, and what a used string may be used for."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from chain.crypto import address
from chain.crypto.hd import derive
from chain.crypto.keys import PrivateKey
from modules.settlement.documents import legacy_signed
from sds_node import requests
from sds_node.handles import HandleError, parse_share_link
from sds_node.hashes import HASH_CHARACTERS
from sds_node.requests import (
    FRESH_S,
    KEPT_S,
    USES,
    Accepted,
    Action,
    Dialect,
    NotFresh,
    RequestError,
    TooManyRequests,
    Use,
    UsedOtherwise,
    UsedStrings,
    WalletSignature,
    WrongPublicKey,
    WrongRequest,
    WrongSignature,
    accept,
    accept_get_shared,
    accept_v2,
    canonical_params,
    is_signed,
    parse_signature,
    sign_text,
    signed_text,
    text_digest,
    v2_text,
)

CALM = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""How fast the machine is decides nothing."""
VECTORS: Any = json.loads((Path(__file__).parents[2] / "vectors" / "sds.json").read_text())
ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
MNEMONIC = "abandon " * 11 + "about"
KEY = derive(MNEMONIC)
WALLET = VECTORS["wallet"]["address"]
PUBKEY = VECTORS["wallet"]["public_key_text"]
OTHER = PrivateKey(b"\x07" * 32, "eth_secp256k1")
OTHER_WALLET = address.encode(OTHER.public_key.address)
HASH = "v05j1m54j7o2qk2uilomc01mmcqmv90s14t09tbg"
LINK = "0001020304050607_08090a0b0c_0d0e0f"
CID = "QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWKPbdG"
SEQUENCE = "SN:0000000000000000001"
NOW_S = 1_700_000_000


def signed(text: str, key: PrivateKey = KEY) -> WalletSignature:
    pubkey = address.encode(key.public_key.raw, address.ACCOUNT_PUB)
    return parse_signature(address.encode(key.public_key.address), pubkey, sign_text(key, text))


def ask(used: UsedStrings, action: Action, timestamp_s: int = NOW_S, now_s: int = NOW_S, tolerance_s: int = 0, subject: str = HASH) -> Accepted:
    """A request whose signature is right, over the time that it names."""
    sequence = SEQUENCE if action.value[1] else ""
    signature = signed(signed_text(action, subject, WALLET, sequence, timestamp_s))
    return accept(used, action, subject, [sequence] if sequence else [], timestamp_s, signature, now_s, tolerance_s)


# --- Strings ---


@pytest.mark.parametrize("vector", VECTORS["signed_strings"], ids=lambda vector: f"{vector['action']} {vector['subject'][:20]}")
def test_each_string_is_its_parts_without_separators_and_is_signed_as_the_vector_says(vector: Any) -> None:
    text = signed_text(Action[vector["action"]], vector["subject"], vector["wallet"], vector["sequence"], vector["timestamp_s"])
    assert text == vector["text"] == vector["subject"] + vector["wallet"] + vector["sequence"] + str(vector["timestamp_s"])
    assert sign_text(KEY, text) == vector["signature"]
    signature = parse_signature(vector["wallet"], PUBKEY, vector["signature"])
    assert is_signed(text, signature)
    assert legacy_signed(text, signature.public_key, signature.signature, signature.address)


def test_every_action_has_a_vector() -> None:
    assert {vector["action"] for vector in VECTORS["signed_strings"]} == set(Action.__members__)


def test_the_functions_by_name_make_the_same_strings() -> None:
    assert requests.upload_text(HASH, WALLET, SEQUENCE, 1) == requests.download_text(HASH, WALLET, SEQUENCE, 1) == f"{HASH}{WALLET}{SEQUENCE}1"
    assert requests.download_shared_text(CID, WALLET, SEQUENCE, 1) == f"{CID}{WALLET}{SEQUENCE}1"
    assert requests.get_shared_old_text(f"sds://{LINK}/pw", WALLET, 1) == f"sds://{LINK}/pw{WALLET}1"
    assert requests.file_text(HASH, WALLET, 1) == f"{HASH}{WALLET}1"
    assert requests.stop_share_text("0123456789abcdef", WALLET, 1) == f"0123456789abcdef{WALLET}1"
    assert requests.wallet_text(WALLET, 0) == f"{WALLET}0"


def test_the_documented_upload_signature_is_made() -> None:
    text = requests.upload_text(HASH, WALLET, SEQUENCE, NOW_S)
    assert sign_text(KEY, text) == (
        "0e5ee9fc526fed121be291591a1355213e076763b52a360dfd58e2e9d1b3a5a27898ce6bfd34fcc00341461a170cb1ad123e3b6b7fe76416a40d16f2226e2591"
    )


@pytest.mark.parametrize(
    ("action", "subject", "wallet", "sequence", "timestamp_s"),
    [
        (Action.UPLOAD, HASH, WALLET, "", 1),
        (Action.UPLOAD, HASH, WALLET, "SN:1", 1),
        (Action.UPLOAD, HASH, WALLET, "SN:" + "٣" * 19, 1),
        (Action.UPLOAD, HASH, WALLET, SEQUENCE + "\n", 1),
        (Action.UPLOAD, LINK, WALLET, SEQUENCE, 1),
        (Action.DELETE_FILE, HASH, WALLET, SEQUENCE, 1),
        (Action.DELETE_FILE, HASH, WALLET[:-1], "", 1),
        (Action.DELETE_FILE, HASH, WALLET, "", -1),
        (Action.DELETE_FILE, HASH, WALLET, "", 1 << 70),
        (Action.DELETE_FILE, "", WALLET, "", 1),
        (Action.DOWNLOAD_SHARED, f"sds://{LINK}", WALLET, SEQUENCE, 1),
        (Action.DOWNLOAD_SHARED, f"{LINK}/pw", WALLET, SEQUENCE, 1),
        (Action.GET_SHARED_OLD, HASH, WALLET, "", 1),
        (Action.STOP_SHARE, HASH, WALLET, "", 1),
        (Action.STOP_SHARE, "a1B2c3_0123456789abcdef", WALLET, "", 1),
        (Action.LIST_FILES, HASH, WALLET, "", 1),
    ],
)
def test_a_string_is_made_of_right_parts_alone(action: Action, subject: str, wallet: str, sequence: str, timestamp_s: int) -> None:
    with pytest.raises(WrongRequest):
        signed_text(action, subject, wallet, sequence, timestamp_s)


SUBJECTS = {"file": st.just(HASH), "": st.just(""), "share": st.sampled_from((LINK, CID)), "link": st.sampled_from((LINK, CID))}
SUBJECTS["link as shown"] = st.sampled_from((LINK, f"sds://{LINK}", f"sds://{CID}/v05", CID))


@CALM
@given(st.data())
def test_two_actions_have_one_string_only_where_the_record_or_the_reference_says_so(data: st.DataObject) -> None:
    """What keeps the record small: a string that deletes begins with a file hash, and no other subject is one."""

    def draw(action: Action) -> str:
        subject = data.draw(SUBJECTS[action.value[0]])
        sequence = f"SN:{data.draw(st.integers(0, 99)):019}" if action.value[1] else ""
        return signed_text(action, subject, WALLET, sequence, data.draw(st.integers(0, 10**11)))

    action = data.draw(st.sampled_from([action for action in Action if action not in USES]))
    assert not draw(action).startswith("v05")
    assert draw(data.draw(st.sampled_from(list(USES)))) != draw(action)


def test_a_get_of_a_share_cannot_be_made_to_sign_a_deletion() -> None:
    with pytest.raises(HandleError, match="hash of a file"):
        parse_share_link(HASH)
    with pytest.raises(WrongRequest, match="hash of a file"):
        accept_get_shared(UsedStrings(), HASH, [SEQUENCE], NOW_S, signed(f"{HASH}{WALLET}{NOW_S}"), NOW_S)


# --- Who signed ---


def test_64_and_65_bytes_are_taken_and_the_65th_is_not_read() -> None:
    text = requests.wallet_text(WALLET, NOW_S)
    plain = sign_text(KEY, text)
    for shown in (plain, plain + "00", plain + "ff", plain.upper()):
        assert is_signed(text, parse_signature(WALLET, PUBKEY, shown))


@pytest.mark.parametrize("shown", ["", "0x" + "0" * 126, "0" * 126, "0" * 129, "0" * 132, "g" * 128, "0 " * 64, "٣" * 128])
def test_what_is_no_signature_in_hex_is_refused(shown: str) -> None:
    with pytest.raises(WrongSignature, match="64 or 65 bytes in hex"):
        parse_signature(WALLET, PUBKEY, shown)


def test_a_high_s_is_refused_as_by_the_original() -> None:
    text = requests.wallet_text(WALLET, NOW_S)
    raw = bytes.fromhex(sign_text(KEY, text))
    high = raw[:32] + (ORDER - int.from_bytes(raw[32:], "big")).to_bytes(32, "big")
    assert is_signed(text, parse_signature(WALLET, PUBKEY, raw.hex()))
    assert not is_signed(text, parse_signature(WALLET, PUBKEY, high.hex()))


@pytest.mark.parametrize("prefix", ["stpub", "st", "cosmospub", "x"])
def test_the_prefix_of_a_public_key_is_not_looked_at(prefix: str) -> None:
    assert parse_signature(WALLET, address.encode(KEY.public_key.raw, prefix), "00" * 64).public_key == KEY.public_key.raw


def test_a_wallet_may_have_the_sdks_kind_of_address() -> None:
    key = PrivateKey(KEY.raw, "secp256k1")
    wallet = address.encode(key.public_key.address)
    text = requests.wallet_text(wallet, NOW_S)
    assert is_signed(text, parse_signature(wallet, PUBKEY, sign_text(key, text)))


@pytest.mark.parametrize(
    "pubkey",
    [
        "",
        "stpub1",
        PUBKEY[:-1],
        PUBKEY + "q" * 100,
        address.encode(OTHER.public_key.raw, "stpub"),
        address.encode(b"\x02" + b"\xff" * 32, "stpub"),
        address.encode(KEY.public_key.raw[:32], "stpub"),
        address.encode(b"\xeb\x5a\xe9\x87\x21" + KEY.public_key.raw, "stpub"),
    ],
)
def test_a_key_that_is_none_or_another_wallets_is_refused(pubkey: str) -> None:
    with pytest.raises(WrongPublicKey):
        parse_signature(WALLET, pubkey, "00" * 64)


def test_a_wallet_that_is_none_is_refused() -> None:
    with pytest.raises(WrongRequest):
        parse_signature(WALLET.upper(), PUBKEY, "00" * 64)


def test_a_text_of_at_most_32_bytes_is_neither_signed_nor_right() -> None:
    """The original's helper signs 32 bytes as they are, so that such a text could stand for any digest."""
    digest = text_digest(requests.file_text(HASH, WALLET, NOW_S))
    assert len(digest) == 32
    with pytest.raises(WrongRequest, match="more than 32 bytes"):
        sign_text(KEY, "x" * 32)
    raw = KEY.sign(b"x" * 32)
    assert not is_signed("x" * 32, parse_signature(WALLET, PUBKEY, raw.hex()))


def test_a_text_with_half_a_surrogate_pair_is_signed_by_nobody() -> None:
    assert not is_signed("\ud800" * 40, signed(requests.wallet_text(WALLET, 1)))


@settings(CALM, max_examples=50)
@given(st.text(max_size=80), st.text(max_size=150), st.text(max_size=140))
def test_hostile_signature_objects_raise_request_errors_alone(wallet: str, pubkey: str, signature: str) -> None:
    for one in ((wallet, pubkey, signature), (WALLET, pubkey, signature), (WALLET, PUBKEY, signature)):
        with pytest.raises(RequestError):
            parse_signature(*one)


# --- Age and tolerance ---


@pytest.mark.parametrize("age_s", [FRESH_S, -FRESH_S, 0])
def test_a_request_of_five_minutes_on_either_side_is_fresh(age_s: int) -> None:
    assert ask(UsedStrings(), Action.DELETE_FILE, NOW_S - age_s).timestamp_s == NOW_S - age_s


@pytest.mark.parametrize("age_s", [FRESH_S + 1, -FRESH_S - 1, NOW_S])
def test_an_older_or_newer_request_is_refused(age_s: int) -> None:
    for action in (Action.DELETE_FILE, Action.UPLOAD):
        with pytest.raises(NotFresh, match="within 300 s of now"):
            ask(UsedStrings(), action, NOW_S - age_s)


@pytest.mark.parametrize("off_s", [-1, 0, 1])
def test_the_signed_time_may_be_a_second_off_when_that_is_told_and_only_then(off_s: int) -> None:
    signature = signed(requests.upload_text(HASH, WALLET, SEQUENCE, NOW_S + off_s))
    accepted = accept(UsedStrings(), Action.UPLOAD, HASH, [SEQUENCE], NOW_S, signature, NOW_S, tolerance_s=1)
    assert accepted == Accepted(f"{HASH}{WALLET}{SEQUENCE}{NOW_S + off_s}", SEQUENCE, NOW_S + off_s, True)
    if off_s:
        with pytest.raises(WrongSignature):
            accept(UsedStrings(), Action.UPLOAD, HASH, [SEQUENCE], NOW_S, signature, NOW_S)


def test_two_seconds_off_are_refused_and_tolerance_makes_nothing_old_fresh() -> None:
    signature = signed(requests.file_text(HASH, WALLET, NOW_S + 2))
    with pytest.raises(WrongSignature):
        accept(UsedStrings(), Action.FILE_STATUS, HASH, [], NOW_S, signature, NOW_S, tolerance_s=1)
    late = signed(requests.file_text(HASH, WALLET, NOW_S))
    with pytest.raises(WrongSignature):
        accept(UsedStrings(), Action.FILE_STATUS, HASH, [], NOW_S + 1, late, NOW_S + FRESH_S + 1, tolerance_s=1)


def test_a_wider_tolerance_is_not_to_be_had() -> None:
    with pytest.raises(ValueError, match="0 to 1 s"):
        ask(UsedStrings(), Action.UPLOAD, tolerance_s=2)


def test_any_of_the_wallets_sequence_numbers_may_be_the_signed_one_and_it_is_told_which() -> None:
    signature = signed(requests.download_text(HASH, WALLET, SEQUENCE, NOW_S))
    others = [f"SN:{number:019}" for number in (7, 8, 9)]
    assert accept(UsedStrings(), Action.DOWNLOAD, HASH, [*others, SEQUENCE], NOW_S, signature, NOW_S).sequence == SEQUENCE
    with pytest.raises(WrongSignature):
        accept(UsedStrings(), Action.DOWNLOAD, HASH, others, NOW_S, signature, NOW_S)
    for numbers in ([], [SEQUENCE] * 5):
        with pytest.raises(WrongRequest, match="1 to 4 sequence numbers"):
            accept(UsedStrings(), Action.DOWNLOAD, HASH, numbers, NOW_S, signature, NOW_S)
    with pytest.raises(WrongRequest, match="no sequence number"):
        accept(UsedStrings(), Action.DELETE_FILE, HASH, [SEQUENCE], NOW_S, signature, NOW_S)


def test_a_signature_of_another_wallet_another_file_or_another_time_is_refused_and_leaves_no_record() -> None:
    used = UsedStrings()
    right = requests.file_text(HASH, WALLET, NOW_S)
    foreign = dataclasses.replace(signed(right), signature=bytes.fromhex(sign_text(OTHER, right)))
    for signature in (foreign, signed(requests.file_text(HASH, WALLET, NOW_S - 1)), signed(requests.file_text(HASH, OTHER_WALLET, NOW_S))):
        with pytest.raises(WrongSignature):
            accept(used, Action.DELETE_FILE, HASH, [], NOW_S, signature, NOW_S)
    assert len(used) == 0


# --- The record ---

POLLS = [action for action, use in USES.items() if use is Use.OTHER and action is not Action.GET_SHARED_OLD]


@pytest.mark.parametrize("action", POLLS)
def test_a_string_that_was_used_for_anything_else_cannot_delete(action: Action) -> None:
    used = UsedStrings()
    assert ask(used, action).is_first
    for later_s in (0, FRESH_S):
        with pytest.raises(UsedOtherwise, match="used for a request that deletes nothing before and cannot be used for a deletion"):
            ask(used, Action.DELETE_FILE, now_s=NOW_S + later_s)
    assert ask(used, Action.DELETE_FILE, NOW_S + 1).is_first


@pytest.mark.parametrize("action", POLLS)
def test_a_string_that_deleted_can_do_nothing_else(action: Action) -> None:
    used = UsedStrings()
    assert ask(used, Action.DELETE_FILE).is_first
    with pytest.raises(UsedOtherwise):
        ask(used, action)
    assert not ask(used, Action.DELETE_FILE).is_first


def test_the_old_string_that_gets_a_share_cannot_end_it_nor_the_other_way_round() -> None:
    used = UsedStrings()
    signature = signed(requests.get_shared_old_text(LINK, WALLET, NOW_S))
    assert requests.get_shared_old_text(LINK, WALLET, NOW_S) == requests.stop_share_text(LINK, WALLET, NOW_S)
    assert accept_get_shared(used, LINK, [SEQUENCE], NOW_S, signature, NOW_S)[0] is Dialect.OLD
    with pytest.raises(UsedOtherwise, match="end of a share"):
        accept(used, Action.STOP_SHARE, LINK, [], NOW_S, signature, NOW_S)
    assert ask(used, Action.STOP_SHARE, NOW_S + 1, subject=CID).is_first
    with pytest.raises(UsedOtherwise, match="used for the end of a share"):
        accept_get_shared(used, CID, [SEQUENCE], NOW_S + 1, signed(requests.get_shared_old_text(CID, WALLET, NOW_S + 1)), NOW_S + 1)


def test_a_gap_of_one_wallets_record_holds_for_that_wallet_alone() -> None:
    used, signature = UsedStrings(), signed(requests.file_text(HASH, WALLET, NOW_S))
    with pytest.raises(NotFresh, match="does not know what strings were used for"):
        accept(used, Action.DELETE_FILE, HASH, [], NOW_S, signature, NOW_S, gap_until_s=NOW_S)
    assert accept(used, Action.DELETE_FILE, HASH, [], NOW_S, signature, NOW_S).is_first


def test_version_2_is_looked_at_without_a_trace() -> None:
    text = v2_text("stratos-1", "user_requestDeleteFile", {"filehash": HASH}, WALLET, NOW_S)
    assert requests.check_v2("stratos-1", "user_requestDeleteFile", {"filehash": HASH}, NOW_S, signed(text), NOW_S) == text
    with pytest.raises(NotFresh):
        requests.check_v2("stratos-1", "user_requestDeleteFile", {"filehash": HASH}, NOW_S, signed(text), NOW_S + 1)
    with pytest.raises(WrongSignature):
        requests.check_v2("stratos-1", "user_requestDeleteFile", {"filehash": "x"}, NOW_S, signed(text), NOW_S)


def test_polls_with_one_string_go_on_as_clients_make_them() -> None:
    used = UsedStrings()
    assert [ask(used, action).is_first for action in (*POLLS, *POLLS)] == [True, *[False] * 5]


def test_an_upload_and_a_download_cannot_share_a_string() -> None:
    for first, second in ((Action.UPLOAD, Action.DOWNLOAD), (Action.DOWNLOAD, Action.UPLOAD)):
        used = UsedStrings()
        assert [ask(used, first).is_first, ask(used, first).is_first] == [True, False]
        with pytest.raises(UsedOtherwise):
            ask(used, second)
        assert ask(used, second, NOW_S + 1).is_first


def test_a_used_string_is_remembered_as_long_as_it_is_fresh() -> None:
    """The worst case: it was signed five minutes ahead."""
    used = UsedStrings()
    ask(used, Action.FILE_STATUS, NOW_S + FRESH_S)
    with pytest.raises(UsedOtherwise):
        ask(used, Action.DELETE_FILE, NOW_S + FRESH_S, now_s=NOW_S + KEPT_S)
    with pytest.raises(NotFresh):
        ask(used, Action.DELETE_FILE, NOW_S + FRESH_S, now_s=NOW_S + KEPT_S + 1)
    ask(used, Action.FILE_STATUS, NOW_S + KEPT_S + 1, now_s=NOW_S + KEPT_S + 1)
    assert len(used) == 1


def test_a_clock_that_is_set_back_brings_no_string_back_to_life() -> None:
    used = UsedStrings()
    ask(used, Action.FILE_STATUS)
    ask(used, Action.FILE_STATUS, NOW_S + KEPT_S + 1, now_s=NOW_S + KEPT_S + 1)
    assert len(used) == 1
    with pytest.raises(NotFresh):
        ask(used, Action.DELETE_FILE)


def test_a_full_record_refuses_new_strings_and_forgets_none() -> None:
    used = UsedStrings(max_strings=3, max_per_wallet=2)
    ask(used, Action.FILE_STATUS, NOW_S)
    ask(used, Action.FILE_STATUS, NOW_S + 1)
    with pytest.raises(TooManyRequests, match="this wallet used too many"):
        ask(used, Action.FILE_STATUS, NOW_S + 2)
    assert not ask(used, Action.FILE_STATUS, NOW_S).is_first
    with pytest.raises(UsedOtherwise):
        ask(used, Action.DELETE_FILE, NOW_S)
    assert used.use("another wallet's", Use.OTHER, b"1" * 20, NOW_S, NOW_S)
    with pytest.raises(TooManyRequests, match="all wallets used too many"):
        used.use("a third wallet's", Use.OTHER, b"2" * 20, NOW_S, NOW_S)
    later_s = NOW_S + KEPT_S + 1
    assert ask(used, Action.FILE_STATUS, later_s, now_s=later_s).is_first
    assert len(used) == 1


def test_strings_that_can_delete_nothing_take_no_place_in_the_record() -> None:
    used = UsedStrings(max_strings=0)
    for _ in range(2):
        assert ask(used, Action.LIST_FILES, subject="").is_first
        assert ask(used, Action.LIST_SHARES, subject="").is_first


def test_what_was_signed_before_a_node_started_cannot_delete_for_it_may_be_a_used_poll() -> None:
    used = UsedStrings(gap_until_s=NOW_S)
    assert ask(used, Action.FILE_STATUS, NOW_S).is_first
    for timestamp_s in (NOW_S - 1, NOW_S + FRESH_S):
        with pytest.raises(NotFresh, match="later than"):
            ask(used, Action.DELETE_FILE, timestamp_s)
    assert ask(used, Action.DELETE_FILE, NOW_S + FRESH_S + 1, now_s=NOW_S + 1).is_first


def test_wallets_of_a_lost_node_come_with_a_gap() -> None:
    used = UsedStrings()
    assert ask(used, Action.DELETE_FILE, NOW_S).is_first
    used.note_gap(NOW_S)
    used.note_gap(NOW_S - 100)
    assert not ask(used, Action.DELETE_FILE, NOW_S).is_first
    with pytest.raises(NotFresh):
        ask(used, Action.DELETE_FILE, NOW_S + FRESH_S)


class Record(RuleBasedStateMachine):
    """The record beside a model that forgets nothing: no string that is fresh has two uses."""

    def __init__(self) -> None:
        super().__init__()
        self.used = UsedStrings(max_strings=8, max_per_wallet=5)
        self.uses: dict[tuple[int, int], Use] = {}
        self.now_s = 1_000

    @rule(seconds=st.integers(-50, 400))
    def time_passes(self, seconds: int) -> None:
        self.now_s += seconds

    @rule(number=st.integers(0, 6), ahead_s=st.integers(-FRESH_S, FRESH_S), use=st.sampled_from(Use))
    def a_string_is_used(self, number: int, ahead_s: int, use: Use) -> None:
        now_s = self.used.now(self.now_s)
        timestamp_s = now_s + ahead_s
        known = self.uses.get((number, timestamp_s))
        try:
            first = self.used.use(f"{number} {timestamp_s}", use, bytes([number % 2]) * 20, timestamp_s, self.now_s)
        except TooManyRequests:
            assert known is None
        except UsedOtherwise:
            assert known not in (None, use)
        else:
            assert first == (known is None)
            assert known in (None, use)
            self.uses[number, timestamp_s] = use

    @invariant()
    def it_is_bounded(self) -> None:
        assert len(self.used) <= 8
        assert sum(self.used._of_wallet.values()) == len(self.used)
        assert all(self.used._of_wallet.values())


Record.TestCase.settings = settings(CALM, max_examples=40, stateful_step_count=30)
TestRecord = Record.TestCase


# --- Shares in two dialects ---


@pytest.mark.parametrize("shown", [LINK, f"sds://{LINK}", f"sds://{LINK}/pw", f"sds://{CID}"])
def test_the_dialect_of_a_get_is_told_by_what_was_signed(shown: str) -> None:
    link = parse_share_link(shown).link
    current = signed(requests.download_shared_text(link, WALLET, SEQUENCE, NOW_S))
    old = signed(requests.get_shared_old_text(shown, WALLET, NOW_S))
    used = UsedStrings()
    assert accept_get_shared(used, shown, [SEQUENCE], NOW_S, current, NOW_S) == (
        Dialect.CURRENT,
        Accepted(f"{link}{WALLET}{SEQUENCE}{NOW_S}", SEQUENCE, NOW_S, True),
    )
    assert not accept_get_shared(used, shown, [SEQUENCE], NOW_S, current, NOW_S)[1].is_first
    for numbers, is_first in (([SEQUENCE], True), ([], False)):
        found = accept_get_shared(used, shown, numbers, NOW_S, old, NOW_S)
        assert found == (Dialect.OLD, Accepted(f"{shown}{WALLET}{NOW_S}", "", NOW_S, is_first))


def test_a_get_of_another_share_or_another_time_is_refused() -> None:
    used = UsedStrings()
    old = signed(requests.get_shared_old_text(f"sds://{LINK}", WALLET, NOW_S))
    for shown, timestamp_s in ((LINK, NOW_S), (f"sds://{CID}", NOW_S), (f"sds://{LINK}", NOW_S + 1)):
        with pytest.raises(WrongSignature):
            accept_get_shared(used, shown, [SEQUENCE], timestamp_s, old, NOW_S)
    assert accept_get_shared(used, f"sds://{LINK}", [], NOW_S + 1, old, NOW_S, tolerance_s=1)[1].timestamp_s == NOW_S
    with pytest.raises(NotFresh):
        accept_get_shared(used, f"sds://{LINK}", [], NOW_S, old, NOW_S + FRESH_S + 1)
    with pytest.raises(WrongRequest):
        accept_get_shared(used, "sds://nothing", [], NOW_S, old, NOW_S)


# --- Version 2 ---


@pytest.mark.parametrize("vector", VECTORS["version_2"], ids=lambda vector: vector["method"])
def test_version_2_names_chain_method_parameters_and_expiry(vector: Any) -> None:
    arguments = (vector["chain_id"], vector["method"], vector["params"])
    text = v2_text(*arguments, vector["wallet"], vector["expiry_s"])
    assert text == vector["text"]
    assert sign_text(KEY, text) == vector["signature"]
    signature = parse_signature(vector["wallet"], PUBKEY, vector["signature"])
    used = UsedStrings()
    assert [accept_v2(used, *arguments, vector["expiry_s"], signature, vector["expiry_s"]) for _ in range(2)] == [
        Accepted(text, "", vector["expiry_s"], True),
        Accepted(text, "", vector["expiry_s"], False),
    ]
    with_more = {**vector["params"], "walletaddr": WALLET, "signature": {"any": "thing"}, "data": "AAAA"}
    assert v2_text(vector["chain_id"], vector["method"], with_more, WALLET, vector["expiry_s"]) == text


def test_a_version_2_text_has_five_lines_whatever_is_in_it() -> None:
    lines = v2_text("stratos-1", "user_requestList", {"page": 0, "name": "a\nb\r"}, WALLET, NOW_S).split("\n")
    assert lines[:3] == ["stratos-sds/v2", "stratos-1", "user_requestList"]
    assert lines[3:] == [f'{{"name":"a\\nb\\r","page":0,"walletaddr":"{WALLET}"}}', str(NOW_S)]


PARAMS = st.dictionaries(
    st.from_regex(r"[A-Za-z][0-9A-Za-z_]{0,8}", fullmatch=True).filter(lambda key: key not in ("signature", "data", "walletaddr")),
    st.one_of(st.booleans(), st.integers(-(2**53) + 1, 2**53 - 1), st.text(st.characters(exclude_categories=["Cs"]), max_size=30)),
    max_size=8,
)


@CALM
@given(PARAMS, PARAMS)
def test_canonical_params_are_json_in_one_form_and_differ_when_the_parameters_do(one: dict[str, Any], other: dict[str, Any]) -> None:
    text = canonical_params(one, WALLET)
    assert json.loads(text) == {**one, "walletaddr": WALLET}
    assert canonical_params(dict(reversed(one.items())), WALLET) == text
    assert "\n" not in text
    same = {key: (type(value), value) for key, value in one.items()} == {key: (type(value), value) for key, value in other.items()}
    assert (canonical_params(other, WALLET) == text) == same


@pytest.mark.parametrize(
    "params",
    [
        {"a": 1.5},
        {"a": None},
        {"a": []},
        {"a": {}},
        {"a": 1 << 53},
        {"a": -(1 << 53)},
        {"a": "\ud800"},
        {"a": "x" * 4097},
        {"": 1},
        {"a b": 1},
        {"é": 1},
        {"a" * 65: 1},
        {1: 1},
        {f"a{number}": 1 for number in range(33)},
        {"walletaddr": OTHER_WALLET},
        {"walletaddr": 5},
    ],
    ids=lambda params: ascii(params)[:40],
)
def test_parameters_with_no_canonical_form_are_refused(params: Any) -> None:
    with pytest.raises(WrongRequest):
        canonical_params(params, WALLET)


@pytest.mark.parametrize(
    ("chain_id", "method", "params", "expiry_s"),
    [
        ("", "m", {}, 1),
        ("a\nb", "m", {}, 1),
        ("x" * 51, "m", {}, 1),
        ("c", "", {}, 1),
        ("c", "m\n", {}, 1),
        ("c", "m", {}, -1),
        ("c", "m", {}, 1 << 80),
        ("c", "m", {"a": "x" * 2100, "b": "x" * 2100}, 1),
    ],
)
def test_a_version_2_text_has_right_parts_alone(chain_id: str, method: str, params: Any, expiry_s: int) -> None:
    with pytest.raises(WrongRequest):
        v2_text(chain_id, method, params, WALLET, expiry_s)


def test_a_version_2_request_holds_until_its_expiry_which_is_no_later_than_the_record_lasts() -> None:
    used = UsedStrings()
    expiry_s = NOW_S + KEPT_S
    signature = signed(v2_text("stratos-1", "user_requestDeleteFile", {"filehash": HASH}, WALLET, expiry_s))

    def ask_at(now_s: int) -> bool:
        return accept_v2(used, "stratos-1", "user_requestDeleteFile", {"filehash": HASH}, expiry_s, signature, now_s).is_first

    with pytest.raises(NotFresh):
        ask_at(NOW_S - 1)
    assert [ask_at(NOW_S), ask_at(expiry_s)] == [True, False]
    with pytest.raises(NotFresh):
        ask_at(expiry_s + 1)
    with pytest.raises(NotFresh):
        ask_at(NOW_S)


@pytest.mark.parametrize(
    ("chain_id", "method", "params", "expiry_s"),
    [
        ("stratos-2", "user_requestDeleteFile", {"filehash": HASH}, NOW_S),
        ("stratos-1", "user_getFileStatus", {"filehash": HASH}, NOW_S),
        ("stratos-1", "user_requestDeleteFile", {"filehash": HASH, "more": 1}, NOW_S),
        ("stratos-1", "user_requestDeleteFile", {"filehash": HASH}, NOW_S + 1),
    ],
)
def test_a_version_2_signature_is_good_for_one_chain_method_and_set_of_parameters(chain_id: str, method: str, params: Any, expiry_s: int) -> None:
    signature = signed(v2_text("stratos-1", "user_requestDeleteFile", {"filehash": HASH}, WALLET, NOW_S))
    with pytest.raises(WrongSignature):
        accept_v2(UsedStrings(), chain_id, method, params, expiry_s, signature, NOW_S)


def test_no_legacy_string_is_a_version_2_text() -> None:
    assert all(not vector["text"].startswith("stratos-sds/v2") for vector in VECTORS["signed_strings"])
    with pytest.raises(WrongRequest):
        requests.get_shared_old_text("stratos-sds/v2\nstratos-1\nuser_requestDeleteFile\n{}\n1700000000", WALLET, NOW_S)
    assert len(HASH) == HASH_CHARACTERS
