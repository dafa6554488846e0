"""A stored stream opens for its key, whole or in ranges, and no change to it goes unseen; keys and names open for whom they were wrapped.

The oracle opens what was sealed with AES-GCM, HMAC and the words of ADR 7 alone, so another implementation can.
"""

from __future__ import annotations

import hmac
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from typing import Any

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from hypothesis import given, settings
from hypothesis import strategies as st

from sds_node import cipher
from sds_node.cipher import FRAME_BYTES, TAG_BYTES, Decryptor, Encryptor
from sds_node.schemes import MAX_OBJECT_BYTES

SEED, OBJECT_ID, FILE_KEY = bytes(range(32)), bytes(range(100, 132)), bytes(range(200, 232))
SMALL = 8


@contextmanager
def small_frames(frame_bytes: int = SMALL) -> Iterator[None]:
    """Frames of a few bytes, so that many of them are tried; the code has no other place that knows their size."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cipher, "FRAME_BYTES", frame_bytes)
        patch.setattr(cipher, "STORED_FRAME_BYTES", frame_bytes + TAG_BYTES)
        yield


def content(size_bytes: int, seed: int = 5) -> bytes:
    return random.Random(seed).randbytes(size_bytes)


def cut_at(data: bytes, lengths: list[int]) -> Iterator[bytes]:
    at = 0
    for length in lengths:
        yield data[at : at + length]
        at += length
    yield data[at:]


def sealed(plain: bytes, lengths: list[int] | None = None) -> tuple[bytes, bytes]:
    """(key, stored stream) of content that comes in pieces of these lengths."""
    encryptor = Encryptor()
    frames = [frame for piece in cut_at(plain, lengths or []) for frame in encryptor.update(piece)]
    return encryptor.key, b"".join([*frames, encryptor.finish()])


def opened(key: bytes, stored: bytes, size: int | None = None, lengths: list[int] | None = None) -> bytes:
    decryptor = Decryptor(key, len(stored) if size is None else size)
    found = [bytes(one) for piece in cut_at(stored, lengths or []) for one in decryptor.update(piece)]
    decryptor.finish()
    return b"".join(found)


def oracle_open(key: bytes, stored: bytes, frame_bytes: int) -> bytes:
    """ADR 7, word for word: frames of plaintext, nonce = number, 12 bytes big-endian, the top bit set on the last frame, no other data."""
    frames = [stored[at : at + frame_bytes + 16] for at in range(0, len(stored), frame_bytes + 16)]
    found = b""
    for number, frame in enumerate(frames):
        nonce = bytearray(number.to_bytes(12, "big"))
        if number == len(frames) - 1:
            nonce[0] |= 0x80
        found += AESGCM(key).decrypt(bytes(nonce), frame, None)
    return found


def hkdf(secret: bytes, info: bytes) -> bytes:
    """RFC 5869 with SHA-256, no salt, one block."""
    return hmac.digest(hmac.digest(bytes(32), secret, "sha256"), info + b"\x01", "sha256")


@pytest.mark.parametrize("size_bytes", [0, 1, FRAME_BYTES - 1, FRAME_BYTES, FRAME_BYTES + 1, 2 * FRAME_BYTES, 2 * FRAME_BYTES + 77])
def test_a_stored_stream_is_the_adrs_frames_and_opens_again(size_bytes: int) -> None:
    plain = content(size_bytes)
    key, stored = sealed(plain)
    assert len(stored) == cipher.stored_bytes(size_bytes)
    assert cipher.plain_bytes(len(stored)) == size_bytes
    assert oracle_open(key, stored, 1 << 20) == plain
    assert opened(key, stored) == plain


@given(st.binary(max_size=70), st.lists(st.integers(0, 30), max_size=8), st.lists(st.integers(0, 60), max_size=8))
@settings(max_examples=100, deadline=None)
def test_any_cut_of_content_and_stored_stream_gives_the_same(plain: bytes, lengths: list[int], stored_lengths: list[int]) -> None:
    with small_frames():
        key, stored = sealed(plain, lengths)
        assert oracle_open(key, stored, SMALL) == plain
        assert opened(key, stored, lengths=stored_lengths) == plain
        assert cipher.plain_bytes(len(stored)) == len(plain)


def test_content_of_every_kind_of_buffer_is_sealed() -> None:
    for kind in (bytes, bytearray, memoryview, lambda data: memoryview(data).cast("Q")):
        plain = content(FRAME_BYTES + 800)
        encryptor = Encryptor()
        stored = [*encryptor.update(kind(plain)), encryptor.finish()]
        assert opened(encryptor.key, b"".join(stored)) == plain


@given(st.integers(0, 100), st.data())
@settings(max_examples=100, deadline=None)
def test_a_range_needs_only_its_frames(size_bytes: int, data: st.DataObject) -> None:
    with small_frames():
        plain = content(size_bytes)
        key, stored = sealed(plain)
        start = data.draw(st.integers(0, size_bytes))
        stop = data.draw(st.integers(start, size_bytes))
        needed = cipher.frame_range(len(stored), start, stop - start)
        part = stored[needed.stored_offset : needed.stored_offset + needed.stored_length]
        assert cipher.decrypt_range(key, len(stored), start, stop - start, part) == plain[start:stop]
        assert needed.frames == len(range(start // SMALL, -(-stop // SMALL))) if stop > start else needed.frames == (size_bytes == 0)
        assert (needed.length, needed.first_frame * SMALL + needed.skip_bytes) == (stop - start, start if needed.frames else 0)
        to_the_end = Decryptor(key, len(stored), start)
        assert to_the_end.range.length == size_bytes - start
        for call in (lambda: to_the_end.update(stored + b"x"), lambda: cipher.decrypt_range(key, len(stored), start, stop - start, part + b"x")):
            with pytest.raises(cipher.WrongSize, match="stop reading"):
                call()
        if part:
            with pytest.raises(cipher.WrongSize, match="ask for the rest"):
                cipher.decrypt_range(key, len(stored), start, stop - start, b"")


@given(st.integers(0, 100), st.data())
@settings(max_examples=150, deadline=None)
def test_no_change_to_a_stored_stream_opens_whatever_length_is_claimed(size_bytes: int, data: st.DataObject) -> None:
    with small_frames():
        plain = content(size_bytes)
        key, stored = sealed(plain)
        frames = [stored[at : at + SMALL + TAG_BYTES] for at in range(0, len(stored), SMALL + TAG_BYTES)]
        at, other = data.draw(st.integers(0, len(frames) - 1)), data.draw(st.integers(0, len(frames) - 1))
        changed = list(frames)
        kind = data.draw(st.sampled_from(["cut", "drop", "swap", "double", "move", "flip", "foreign", "end again"]))
        if kind == "cut":
            changed = [stored[: data.draw(st.integers(0, len(stored) - 1))]]
        elif kind == "drop":
            del changed[at]
        elif kind == "swap":
            changed[at], changed[other] = changed[other], changed[at]
        elif kind == "double":
            changed.insert(at, changed[at])
        elif kind == "move":
            changed.insert(other, changed.pop(at))
        elif kind == "flip":
            byte = data.draw(st.integers(0, len(frames[at]) - 1))
            changed[at] = frames[at][:byte] + bytes([frames[at][byte] ^ data.draw(st.integers(1, 255))]) + frames[at][byte + 1 :]
        elif kind == "foreign":
            changed[at] = sealed(plain)[1][at * (SMALL + TAG_BYTES) :][: len(frames[at])]
        else:
            changed.append(frames[-1])
        bad = b"".join(changed)
        if bad == stored:
            return
        for claimed in {len(bad), len(stored)}:
            with pytest.raises(cipher.CipherError):
                opened(key, bad, claimed)


@given(st.binary(max_size=60), st.integers(0, 200))
@settings(max_examples=100, deadline=None)
def test_a_wrong_length_in_the_record_is_told(plain: bytes, claimed: int) -> None:
    with small_frames():
        key, stored = sealed(plain)
        if claimed == len(stored):
            return
        with pytest.raises(cipher.CipherError):
            opened(key, stored[:claimed], claimed)


def test_a_damaged_frame_is_named_and_what_was_proved_before_it_comes_out_first() -> None:
    with small_frames():
        plain = content(5 * SMALL)
        key, stored = sealed(plain)
        bad = bytearray(stored)
        bad[2 * (SMALL + TAG_BYTES)] ^= 1
        decryptor = Decryptor(key, len(stored))
        assert b"".join(decryptor.update(bad)) == plain[: 2 * SMALL]
        for call in (lambda: decryptor.update(b""), decryptor.finish):
            with pytest.raises(cipher.Damaged, match="frame 2 does not open") as told:
                call()
            assert told.value.frame == 2
        again = Decryptor(key, len(stored), 2 * SMALL)
        tail = bytes(bad[again.range.stored_offset :])
        assert again.update(tail[:20]) == []
        with pytest.raises(cipher.Damaged, match="frame 2"):
            again.update(tail[20:])
        # Other frames are not harmed.
        assert cipher.decrypt_range(key, len(stored), 3 * SMALL, SMALL, stored[3 * (SMALL + TAG_BYTES) :][: SMALL + TAG_BYTES]) == plain[24:32]
        with pytest.raises(cipher.Damaged):
            opened(bytes(32), stored)


def test_lengths_that_no_stream_has_are_refused_and_the_others_go_both_ways() -> None:
    with small_frames():
        reached = {cipher.stored_bytes(size) for size in range(200)}
        for stored in range(-5, 500):
            if stored in reached:
                assert cipher.stored_bytes(cipher.plain_bytes(stored)) == stored
            elif stored <= max(reached):
                with pytest.raises(cipher.WrongSize, match="no stored stream has"):
                    cipher.plain_bytes(stored)
    largest = cipher.stored_bytes(cipher.MAX_PLAIN_BYTES)
    assert MAX_OBJECT_BYTES - 2 * FRAME_BYTES < largest <= MAX_OBJECT_BYTES
    assert cipher.plain_bytes(largest) == cipher.MAX_PLAIN_BYTES
    for call in (lambda: cipher.plain_bytes(largest + 17), lambda: cipher.stored_bytes(cipher.MAX_PLAIN_BYTES + 1), lambda: cipher.stored_bytes(-1)):
        with pytest.raises(cipher.WrongSize):
            call()
    for start, length in ((-1, 1), (0, 6), (6, 0), (2, -1)):
        with pytest.raises(cipher.WrongSize, match="not within it"):
            cipher.frame_range(5 + TAG_BYTES, start, length)
    with pytest.raises(cipher.WrongSize):
        Decryptor(FILE_KEY, 5 + TAG_BYTES, 6)
    with pytest.raises(cipher.CipherError, match="32 bytes, not 16"):
        Decryptor(bytes(16), TAG_BYTES)


def test_more_content_than_an_object_holds_is_refused_before_it_is_sealed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cipher, "MAX_PLAIN_BYTES", 100)
    encryptor = Encryptor()
    assert encryptor.update(bytes(60)) == []
    with pytest.raises(cipher.WrongSize, match="60 came and 41 more"):
        encryptor.update(bytes(41))
    encryptor.update(bytes(40))
    assert opened(encryptor.key, encryptor.finish()) == bytes(100)


def test_an_encryptor_ends_with_its_last_frame() -> None:
    encryptor = Encryptor()
    encryptor.finish()
    for call in (encryptor.finish, lambda: encryptor.update(b"more")):
        with pytest.raises(cipher.CipherError, match="a new key"):
            call()


class Recorder:
    """AES-GCM that remembers under which key and nonce it sealed, and fails when it is told to."""

    used: list[tuple[bytes, bytes]] = []
    fail_at = -1

    def __init__(self, key: bytes) -> None:
        self.key = key

    def encrypt(self, nonce: bytes, data: Any, _: Any) -> bytes:
        self.used.append((self.key, nonce))
        if len(self.used) == self.fail_at:
            raise MemoryError
        return bytes(data) + bytes(TAG_BYTES)


def test_no_key_and_nonce_is_used_twice_by_many_streams_many_threads_or_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cipher, "AESGCM", Recorder)
    monkeypatch.setattr(Recorder, "used", [])
    with small_frames():
        for _ in range(20):
            sealed(content(50))
        monkeypatch.setattr(Recorder, "fail_at", len(Recorder.used) + 2)
        failing = Encryptor()
        with pytest.raises(MemoryError):
            failing.update(bytes(40))
        monkeypatch.setattr(Recorder, "fail_at", -1)
        # What failed has lost a frame: it is over, since the rest would not open.
        for call in (failing.finish, lambda: failing.update(bytes(40))):
            with pytest.raises(cipher.CipherError, match="or failed"):
                call()
        shared, start = Encryptor(), threading.Barrier(4)

        def work() -> None:
            start.wait()
            for _ in range(200):
                shared.update(bytes(3 * SMALL))

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        shared.finish()
    for _ in range(50):
        cipher.wrap_key(SEED, OBJECT_ID, FILE_KEY)
        cipher.wrap_for_link(SEED, b"id", FILE_KEY)
        cipher.encrypt_name(SEED, "name")
    assert len(Recorder.used) > 1_000
    assert len(set(Recorder.used)) == len(Recorder.used)


def test_fresh_secrets_differ() -> None:
    made = [Encryptor().key for _ in range(20)] + [cipher.new_link_secret() for _ in range(20)] + [cipher.new_folder_key() for _ in range(20)]
    assert len(set(made)) == 60
    assert {len(one) for one in made} == {32}


def test_a_files_key_opens_for_its_wallet_and_object_alone() -> None:
    wrapped = cipher.wrap_key(SEED, OBJECT_ID, FILE_KEY)
    assert len(wrapped) == cipher.WRAPPED_KEY_BYTES == 60
    assert cipher.unwrap_key(SEED, OBJECT_ID, wrapped) == FILE_KEY
    assert AESGCM(hkdf(SEED, b"stratos/file-key/v1" + OBJECT_ID)).decrypt(wrapped[:12], wrapped[12:], None) == FILE_KEY
    assert cipher.wrap_key(SEED, OBJECT_ID, FILE_KEY) != wrapped
    changed = [wrapped[:at] + bytes([wrapped[at] ^ 1]) + wrapped[at + 1 :] for at in range(60)]
    for seed, object_id, value in [(bytes(32), OBJECT_ID, wrapped), (SEED, SEED, wrapped), *((SEED, OBJECT_ID, one) for one in changed)]:
        with pytest.raises(cipher.WrongKey):
            cipher.unwrap_key(seed, object_id, value)
    for call in (
        lambda: cipher.wrap_key(SEED[1:], OBJECT_ID, FILE_KEY),
        lambda: cipher.wrap_key(SEED, OBJECT_ID[1:], FILE_KEY),
        lambda: cipher.wrap_key(SEED, OBJECT_ID, FILE_KEY[1:]),
        lambda: cipher.unwrap_key(SEED, OBJECT_ID, wrapped[1:]),
    ):
        with pytest.raises(cipher.CipherError, match="bytes, not"):
            call()


def test_a_key_wrapped_for_a_link_opens_by_its_secret_and_share_alone() -> None:
    secret = cipher.new_link_secret()
    wrapped = cipher.wrap_for_link(secret, b"share 1", FILE_KEY)
    assert len(wrapped) == cipher.LINK_WRAPPED_BYTES == 61
    assert cipher.unwrap_for_link(secret, b"share 1", wrapped) == FILE_KEY
    assert cipher.unwrap_for_link(secret, b"share 1", wrapped, "not looked at") == FILE_KEY
    assert AESGCM(hkdf(secret, b"stratos/link-key/v1\x00share 1")).decrypt(wrapped[1:13], wrapped[13:], None) == FILE_KEY
    for bad_secret, share_id in ((bytes(32), b"share 1"), (secret, b"share 2")):
        with pytest.raises(cipher.WrongKey):
            cipher.unwrap_for_link(bad_secret, share_id, wrapped)
    with pytest.raises(cipher.CipherError, match="kinds 0 and 1, not 2"):
        cipher.unwrap_for_link(secret, b"share 1", b"\x02" + wrapped[1:])
    for bad_secret, share_id, key in (
        (secret[1:], b"s", FILE_KEY),
        (secret, b"", FILE_KEY),
        (secret, bytes(65), FILE_KEY),
        (secret, b"s", bytes(31)),
    ):
        with pytest.raises(cipher.CipherError, match="not"):
            cipher.wrap_for_link(bad_secret, share_id, key)


def test_a_link_with_a_password_opens_by_both_and_says_that_it_needs_one() -> None:
    secret = bytes(range(32))
    composed, apart = "pass w\u00f6rt", "pass wo\u0308rt"
    wrapped = cipher.wrap_for_link(secret, b"share 1", FILE_KEY, composed)
    assert cipher.unwrap_for_link(secret, b"share 1", wrapped, apart) == FILE_KEY
    salt = sha256(b"stratos/link-password/v1share 1").digest()
    hashed = Argon2id(salt=salt, length=32, iterations=3, lanes=1, memory_cost=65_536).derive(composed.encode())
    assert AESGCM(hkdf(secret + hashed, b"stratos/link-key/v1\x01share 1")).decrypt(wrapped[1:13], wrapped[13:], None) == FILE_KEY


def test_a_link_with_a_password_says_that_it_needs_one_and_opens_for_no_other() -> None:
    secret = bytes(range(32))
    wrapped = cipher.wrap_for_link(secret, b"share 1", FILE_KEY, "swordfish")
    with pytest.raises(cipher.PasswordNeeded, match="ask for it"):
        cipher.unwrap_for_link(secret, b"share 1", wrapped)
    for bad_secret, password in ((secret, "swordfisH"), (bytes(32), "swordfish")):
        with pytest.raises(cipher.WrongKey):
            cipher.unwrap_for_link(bad_secret, b"share 1", wrapped, password)
    # Nobody can take the password away from a link.
    with pytest.raises(cipher.WrongKey):
        cipher.unwrap_for_link(secret, b"share 1", b"\x00" + wrapped[1:])
    for password in ("", "x" * 1_025, "\ud800"):
        with pytest.raises(cipher.CipherError, match="password"):
            cipher.wrap_for_link(secret, b"share 1", FILE_KEY, password)


@given(st.binary(min_size=32, max_size=32), st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=90))
@settings(max_examples=150, deadline=None)
def test_a_name_opens_by_its_folders_key_and_lookup_id(folder_key: bytes, name: str) -> None:
    lookup_id, sealed_name = cipher.name_lookup_id(folder_key, name), cipher.encrypt_name(folder_key, name)
    assert cipher.decrypt_name(folder_key, lookup_id, sealed_name) == name
    assert lookup_id == hmac.digest(hkdf(folder_key, b"stratos/name-lookup/v1"), name.encode(), "sha256")
    padded = AESGCM(hkdf(folder_key, b"stratos/name-key/v1")).decrypt(sealed_name[:12], sealed_name[12:], lookup_id)
    assert padded == name.encode() + b"\x80" + bytes(len(padded) - len(name.encode()) - 1)
    assert len(padded) % 32 == 0
    assert len(padded) - len(name.encode()) <= 32
    for key, found_by in ((bytes(31) + b"\x01", lookup_id), (folder_key, bytes(32)), (folder_key, cipher.name_lookup_id(folder_key, name + "x"))):
        with pytest.raises(cipher.WrongKey):
            cipher.decrypt_name(key, found_by, sealed_name)


def test_names_of_one_length_class_look_alike_and_equal_names_differ() -> None:
    key = cipher.new_folder_key()
    assert {len(cipher.encrypt_name(key, "n" * length)) for length in range(1, 32)} == {12 + 32 + 16}
    assert len(cipher.encrypt_name(key, "n" * 32)) == 12 + 64 + 16
    assert cipher.encrypt_name(key, "same") != cipher.encrypt_name(key, "same")
    assert cipher.name_lookup_id(key, "same") == cipher.name_lookup_id(key, "same")
    assert cipher.name_lookup_id(cipher.new_folder_key(), "same") != cipher.name_lookup_id(key, "same")
    for name in ("a\x00", "\x80", "é" * 512, "ends in \u0080"):
        assert cipher.decrypt_name(key, cipher.name_lookup_id(key, name), cipher.encrypt_name(key, name)) == name


@pytest.mark.parametrize("padded", [bytes(32), b"\x80" + bytes(31), b"\xff\x80" + bytes(30), b"name" + bytes(28), b"other\x80" + bytes(26)])
def test_what_a_holder_of_the_folders_key_seals_in_another_form_is_refused(padded: bytes) -> None:
    lookup_id = cipher.name_lookup_id(SEED, "name")
    forged = bytes(12) + AESGCM(hkdf(SEED, b"stratos/name-key/v1")).encrypt(bytes(12), padded, lookup_id)
    with pytest.raises(cipher.WrongKey, match="broke the form"):
        cipher.decrypt_name(SEED, lookup_id, forged)


def test_names_and_sealed_names_of_wrong_lengths_are_refused() -> None:
    for name in ("", "x" * 1_025, "é" * 513, "\ud800", "x" * (1 << 20)):
        with pytest.raises(cipher.CipherError, match="name"):
            cipher.encrypt_name(SEED, name)
    longest = cipher.encrypt_name(SEED, "x" * 1_024)
    assert cipher.decrypt_name(SEED, cipher.name_lookup_id(SEED, "x" * 1_024), longest) == "x" * 1_024
    for sealed_name in (b"", bytes(28), bytes(59), bytes(61), bytes(len(longest) + 32)):
        with pytest.raises(cipher.CipherError, match="a sealed name has"):
            cipher.decrypt_name(SEED, bytes(32), sealed_name)
    for call in (
        lambda: cipher.name_lookup_id(SEED[1:], "x"),
        lambda: cipher.decrypt_name(SEED[1:], bytes(32), longest),
        lambda: cipher.decrypt_name(SEED, b"", longest),
    ):
        with pytest.raises(cipher.CipherError, match="bytes, not"):
            call()


def test_these_vectors_are_for_other_implementations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Key 00 01 … 1f, every random nonce 40 41 … 4b; 10-byte content, one frame of no content, and the wraps."""
    monkeypatch.setattr(cipher.secrets, "token_bytes", lambda size: SEED if size == 32 else bytes(range(0x40, 0x40 + size)))
    found = {
        "content": sealed(b"0123456789")[1],
        "empty": sealed(b"")[1],
        "file key": cipher.wrap_key(SEED, OBJECT_ID, FILE_KEY),
        "link": cipher.wrap_for_link(SEED, b"share 1", FILE_KEY),
        "password": cipher.wrap_for_link(SEED, b"share 1", FILE_KEY, "swordfish"),
        "lookup id": cipher.name_lookup_id(SEED, "report.pdf"),
        "name": cipher.encrypt_name(SEED, "report.pdf"),
    }
    assert {name: value.hex() for name, value in found.items()} == VECTORS


VECTORS = {
    "content": "286b991aeec31be390ca55da423705566b82e65ed4a4ba4ab1f4",
    "empty": "707ef16175ec1f7c431e9964cabb53fc",
    "file key": "404142434445464748494a4bdbaffbaf3e740cfdb6f6c6d2b0fb518868b21b4fa6f0888817d62a0e047c94c4d26734578d664da15acc71ecdb7d1da5",
    "link": "00404142434445464748494a4b6c99ab0a1626270b13b7d86a9de3cf07b43614ffc94a20e00d89cd35ef41c329816a3fad11525e1c97bb012fee1f3dd8",
    "password": "01404142434445464748494a4bb80480f569079e9ff1637aa1f8153d41ec4b384e6e50041c71d7072e3bc3e7912b3708503e8942233aedc2ef03ad29a2",
    "lookup id": "e131f341b43909b1da5debabd292fa204f2af64e9d3725d41c012af5ca893664",
    "name": "404142434445464748494a4bdab8324fa4f5688cf8be2b54edea405dbb96d459d9571b105e24966b4a9648b4b7010e9f5e05485cbe1cc5fbf211045c",
}


def test_a_stream_that_is_there_twice_opens_for_nobody() -> None:
    key, stored = sealed(b"abc")
    with pytest.raises(InvalidTag):
        oracle_open(key, stored + stored, FRAME_BYTES)
    with pytest.raises(cipher.Damaged):
        opened(key, stored + stored)
