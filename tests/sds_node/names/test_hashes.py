"""Names of content: the vectors, an oracle that shares no line with the code, streams cut anywhere, and texts that are no names."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sds_node import hashes
from sds_node.hashes import (
    FILE,
    MAX_FILE_BYTES,
    MAX_SLICES,
    PIECE_BYTES,
    RAW,
    SLICE_BYTES,
    UPLOAD_CHUNK_BYTES,
    VIDEO,
    ContentHasher,
    FileHasher,
    Hash,
    HashError,
    SliceHasher,
    file_hash,
    format_hash,
    is_hash,
    is_legacy,
    is_video,
    parse_hash,
    parse_slice_hash,
    piece_at,
    pieces,
    slice_at,
    slice_count,
    slice_hash,
    slice_range,
    slice_ranges,
    upload_chunk_at,
    upload_chunks,
)

CALM = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""How fast the machine is decides nothing."""
VECTORS: Any = json.loads((Path(__file__).parents[2] / "vectors" / "sds.json").read_text())
HELLO = b"hello stratos\n"
NAME = "v05j1m54j7o2qk2uilomc01mmcqmv90s14t09tbg"
SMALL_SLICE = 16
NAMES = st.builds(Hash, st.sampled_from(hashes.CODECS), st.binary(min_size=20, max_size=20))


def of_any_length(most_bytes: int) -> st.SearchStrategy[bytes]:
    """Bytes of every length alike: hypothesis alone keeps to short ones, which cross no border twice."""
    return st.integers(0, most_bytes).flatmap(lambda size: st.binary(min_size=size, max_size=size))


# --- The oracle: Keccak-256 and CIDs from their definitions ---


def keccak(data: bytes) -> bytes:
    """Keccak-256 (rate 136, padding 0x01 … 0x80), 24 rounds of the sponge's permutation."""

    def rotate(lane: int, by: int) -> int:
        return (lane << by | lane >> (64 - by)) & (1 << 64) - 1 if by else lane

    padded = bytearray(data) + b"\x01" + bytes(-(len(data) + 1) % 136)
    padded[-1] |= 0x80
    lanes = [[0] * 5 for _ in range(5)]
    for start in range(0, len(padded), 136):
        for at in range(17):
            lanes[at % 5][at // 5] ^= int.from_bytes(padded[start + 8 * at : start + 8 * at + 8], "little")
        register = 1
        for _ in range(24):
            columns = [a[0] ^ a[1] ^ a[2] ^ a[3] ^ a[4] for a in lanes]
            lanes = [[lanes[x][y] ^ columns[x - 1] ^ rotate(columns[(x + 1) % 5], 1) for y in range(5)] for x in range(5)]
            x, y, current = 1, 0, lanes[1][0]
            for turn in range(24):
                x, y = y, (2 * x + 3 * y) % 5
                current, lanes[x][y] = lanes[x][y], rotate(current, (turn + 1) * (turn + 2) // 2 % 64)
            lanes = [[lanes[x][y] ^ (~lanes[(x + 1) % 5][y] & lanes[(x + 2) % 5][y]) for y in range(5)] for x in range(5)]
            for bit in range(7):
                if register & 1:
                    lanes[0][0] ^= 1 << (1 << bit) - 1
                register = register << 1 ^ (0x171 if register & 0x80 else 0)
    return b"".join(lanes[at % 5][at // 5].to_bytes(8, "little") for at in range(4))


def multihash(data: bytes) -> bytes:
    return bytes([0x1B, 20]) + keccak(data)[:20]


def cid_text(codec: int, digest: bytes) -> str:
    bits = "".join(f"{byte:08b}" for byte in bytes([1, codec]) + digest)
    bits += "0" * (-len(bits) % 5)
    return "v" + "".join("0123456789abcdefghijklmnopqrstuv"[int(bits[at : at + 5], 2)] for at in range(0, len(bits), 5))


def oracle_file(content: bytes, codec: int, tag: bytes) -> bytes:
    return multihash(tag + multihash(content))


def oracle_slice(content: bytes, codec: int, tag: bytes, number: int, part: bytes) -> str:
    inside, own = oracle_file(content, codec, tag), multihash(number.to_bytes(8, "big") + part)
    return cid_text(0x55, multihash(bytes(a ^ b for a, b in zip(inside, own, strict=True))))


def test_the_oracle_knows_keccak() -> None:
    assert keccak(b"").hex() == "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470"


# --- Vectors ---


@pytest.mark.parametrize("vector", VECTORS["file_hashes"], ids=lambda vector: vector["file_hash"])
def test_file_hashes_are_those_of_the_original(vector: Any) -> None:
    content, codec, tag = bytes.fromhex(vector["content_hex"]), vector["codec"], vector["encryption_tag"]
    assert file_hash(content, codec, tag) == vector["file_hash"] == cid_text(codec, oracle_file(content, codec, tag.encode()))
    assert is_video(vector["file_hash"]) == (codec == 0x72)
    assert not is_legacy(vector["file_hash"])


@pytest.mark.parametrize("vector", VECTORS["slice_hashes"], ids=lambda vector: vector["slice_hash"])
def test_slice_hashes_are_those_of_the_original(vector: Any) -> None:
    content, number = bytes.fromhex(vector["content_hex"]), vector["number"]
    assert slice_hash(vector["file_hash"], number, content) == vector["slice_hash"]
    mixed = bytes(a ^ b for a, b in zip(multihash(number.to_bytes(8, "big") + content), _inside(vector["file_hash"]), strict=True))
    assert vector["slice_hash"] == cid_text(0x55, multihash(mixed))
    assert parse_slice_hash(vector["slice_hash"]).codec == RAW


def _inside(text: str) -> bytes:
    bits = "".join(f"{int(character, 32):05b}" for character in text[1:])
    return int(bits[:192], 2).to_bytes(24, "big")[2:]


def test_the_documented_slice_hash_is_made() -> None:
    assert slice_hash(NAME, 1, HELLO) == "v05ahm56149lbohaogf3oimj3um3p3hm8i8ulih0"


@pytest.mark.parametrize("text", VECTORS["legacy_names"])
def test_an_old_files_name_is_recognised(text: str) -> None:
    assert is_legacy(text)
    assert not is_video(text)
    assert format_hash(parse_hash(text)) == text


# --- Streams ---


@CALM
@given(content=of_any_length(200), cuts=st.lists(st.integers(0, 200), max_size=12), codec=st.sampled_from((FILE, VIDEO)), tag=st.text(max_size=8))
def test_a_stream_has_the_names_of_its_content_wherever_it_is_cut(content: bytes, cuts: list[int], codec: int, tag: str) -> None:
    with patch.object(hashes, "SLICE_BYTES", SMALL_SLICE):
        hasher = ContentHasher(codec, tag)
        borders = [0, *sorted(min(cut, len(content)) for cut in cuts), len(content)]
        for start, end in pairwise(borders):
            hasher.update(memoryview(content)[start:end])
        names = hasher.names()
    assert names.size_bytes == len(content)
    assert names.file_hash == file_hash(content, codec, tag)
    parts = [content[at : at + SMALL_SLICE] for at in range(0, len(content), SMALL_SLICE)]
    assert list(names.slice_hashes) == [slice_hash(names.file_hash, number, part) for number, part in enumerate(parts, 1)]


@settings(CALM, max_examples=8)
@given(content=of_any_length(150), tag=st.text(max_size=8))
def test_names_are_what_the_definitions_say(content: bytes, tag: str) -> None:
    with patch.object(hashes, "SLICE_BYTES", 64):
        hasher = ContentHasher(VIDEO, tag)
        hasher.update(content)
        names = hasher.names()
    assert names.file_hash == cid_text(VIDEO, oracle_file(content, VIDEO, tag.encode()))
    assert list(names.slice_hashes) == [
        oracle_slice(content, VIDEO, tag.encode(), at // 64 + 1, content[at : at + 64]) for at in range(0, len(content), 64)
    ]


def test_names_may_be_asked_for_before_the_end_and_do_not_change_it() -> None:
    hasher = ContentHasher()
    hasher.update(HELLO[:5])
    assert hasher.names().file_hash == file_hash(HELLO[:5])
    hasher.update(HELLO[5:])
    assert hasher.names().file_hash == NAME
    assert hasher.size_bytes == len(HELLO)


def test_a_slice_ends_at_32_mib_and_a_file_that_ends_there_has_no_empty_slice_behind_it() -> None:
    hasher = ContentHasher()
    hasher.update(bytes(SLICE_BYTES - 3))
    hasher.update(b"abc")
    assert len(hasher.names().slice_hashes) == 1
    hasher.update(b"d")
    names = hasher.names()
    assert names.size_bytes == SLICE_BYTES + 1
    assert names.slice_hashes[1] == slice_hash(names.file_hash, 2, b"d")
    assert len(names.slice_hashes) == 2


def test_an_empty_file_has_a_name_and_no_slice() -> None:
    assert ContentHasher().names() == hashes.ContentNames("v05j1m555fu587j6jih6c1k0uheu1g2o8stakpm0", (), 0)


def test_the_same_bytes_have_another_slice_hash_in_another_file_and_at_another_place() -> None:
    assert len({slice_hash(NAME, 1, b"x"), slice_hash(NAME, 2, b"x"), slice_hash(file_hash(b"x"), 1, b"x")}) == 3


def test_a_slice_hasher_takes_no_more_than_a_slice() -> None:
    hasher = SliceHasher(1)
    with patch.object(hashes, "SLICE_BYTES", 8):
        hasher.update(bytes(8))
        with pytest.raises(HashError, match="a slice has at most 8 bytes, got 9"):
            hasher.update(b"x")
    assert hasher.size_bytes == 8


def test_hashers_take_no_more_than_a_file_and_keep_what_they_had() -> None:
    hasher = ContentHasher()
    with patch.object(hashes, "MAX_FILE_BYTES", 8):
        hasher.update(bytes(8))
        with pytest.raises(HashError, match="a file has at most 8 bytes, got 9"):
            hasher.update(b"x")
    assert hasher.names().file_hash == file_hash(bytes(8))


@pytest.mark.parametrize("number", [0, -1, MAX_SLICES + 1, 1 << 64])
def test_slices_are_numbered_from_one(number: int) -> None:
    with pytest.raises(HashError, match="numbered from 1"):
        SliceHasher(number)


def test_names_on_md5_are_not_made() -> None:
    with pytest.raises(HashError, match=r"0x66 \(file\) or 0x72"):
        FileHasher(RAW)


@pytest.mark.parametrize("tag", ["x" * 65, "ä" * 33, "\ud800"])
def test_a_tag_is_short_and_unicode(tag: str) -> None:
    with pytest.raises(HashError, match="encryption tag"):
        FileHasher(FILE, tag)


# --- Texts ---


@CALM
@given(NAMES)
def test_a_name_is_read_as_it_was_written(name: Hash) -> None:
    text = format_hash(name)
    assert len(text) == 40
    assert parse_hash(text) == name
    assert text == cid_text(name.codec, bytes([0x1B, 20]) + name.digest)


@CALM
@given(st.one_of(st.text(max_size=60), st.text(alphabet="0123456789abcdefghijklmnopqrstuv", min_size=39, max_size=39).map(lambda text: "v" + text)))
def test_a_text_is_refused_with_a_sentence_or_is_the_one_form_of_a_name(text: str) -> None:
    try:
        name = parse_hash(text)
    except HashError:
        assert not is_hash(text)
    else:
        assert format_hash(name) == text
        assert is_hash(text)


@CALM
@given(at=st.integers(0, 39), character=st.characters(), name=NAMES)
def test_a_changed_character_gives_another_name_or_none(at: int, character: str, name: Hash) -> None:
    text = format_hash(name)
    changed = text[:at] + character + text[at + 1 :]
    if changed != text and is_hash(changed):
        assert parse_hash(changed) != name


@pytest.mark.parametrize(
    "text",
    [
        "",
        NAME[:-1],
        NAME + "0",
        NAME.upper(),
        " " + NAME[1:],
        NAME[:-1] + "h",  # a bit beyond the digest
        cid_text(0x70, bytes([0x1B, 20]) + bytes(20)),  # a codec that is none of ours
        cid_text(0x66, bytes([0x12, 20]) + bytes(20)),  # SHA-256, cut
        cid_text(0x66, bytes([0x1B, 19]) + bytes(20)),
        "z" + NAME[1:],
        "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi",
        "v" + "٣" * 39,
    ],
)
def test_what_is_no_name_of_ours_is_refused(text: str) -> None:
    assert not is_hash(text)
    with pytest.raises(HashError):
        is_video(text)


def test_a_files_hash_is_no_slice_hash() -> None:
    with pytest.raises(HashError, match="is it the hash of a file"):
        parse_slice_hash(NAME)


@pytest.mark.parametrize(("codec", "size"), [(0x70, 20), (FILE, 19), (FILE, 21)])
def test_a_name_has_a_codec_of_ours_and_20_bytes(codec: int, size: int) -> None:
    with pytest.raises(HashError, match="digest of 20 bytes"):
        Hash(codec, bytes(size))


# --- Cuts ---

SIZES = st.one_of(st.integers(0, 3 * SLICE_BYTES + 5), st.integers(0, 4).map(lambda count: count * SLICE_BYTES), st.integers(0, 1 << 33))


@settings(CALM, max_examples=60)
@given(size_bytes=SIZES)
def test_pieces_and_chunks_cover_a_file_once_and_cross_no_slice_border(size_bytes: int) -> None:
    for cuts, longest_bytes in ((pieces(size_bytes), PIECE_BYTES), (upload_chunks(size_bytes), UPLOAD_CHUNK_BYTES)):
        at = 0
        for start, end in cuts:
            assert start == at < end <= start + longest_bytes
            assert start // SLICE_BYTES == (end - 1) // SLICE_BYTES
            assert end == size_bytes or end % SLICE_BYTES == 0 or end - start == longest_bytes
            at = end
        assert at == size_bytes


@CALM
@given(size_bytes=SIZES)
def test_slices_cover_a_file_once(size_bytes: int) -> None:
    ranges = list(slice_ranges(size_bytes))
    assert len(ranges) == slice_count(size_bytes)
    assert [start for start, _ in ranges] == [at * SLICE_BYTES for at in range(len(ranges))]
    assert [end for _, end in ranges] == [*(start for start, _ in ranges[1:]), *([size_bytes] if ranges else [])]


@CALM
@given(size_bytes=SIZES.filter(bool), data=st.data())
def test_any_offset_is_in_the_slice_that_is_told(size_bytes: int, data: st.DataObject) -> None:
    offset = data.draw(st.integers(0, size_bytes - 1))
    start, end = slice_range(size_bytes, slice_at(size_bytes, offset))
    assert start <= offset < end
    assert piece_at(size_bytes, offset) == (offset, min(offset + PIECE_BYTES, end))
    assert upload_chunk_at(size_bytes, offset) == (offset, min(offset + UPLOAD_CHUNK_BYTES, end))


def test_the_sizes_are_the_originals() -> None:
    assert (slice_count(1), slice_count(SLICE_BYTES), slice_count(SLICE_BYTES + 1)) == (1, 1, 2)
    assert upload_chunk_at(100_000_000, 0) == (0, 3_500_000)
    assert upload_chunk_at(100_000_000, 31_500_000) == (31_500_000, 33_554_432)
    assert piece_at(100_000_000, 31_457_280) == (31_457_280, 33_554_432)
    assert piece_at(5, 0) == (0, 5)


@pytest.mark.parametrize("size_bytes", [-1, MAX_FILE_BYTES + 1])
def test_a_size_that_no_file_has_is_refused_at_once(size_bytes: int) -> None:
    for cut in (slice_count, slice_ranges, pieces, upload_chunks):
        with pytest.raises(HashError, match="a file has 0 to"):
            cut(size_bytes)


@pytest.mark.parametrize(("size_bytes", "offset"), [(0, 0), (5, 5), (5, -1)])
def test_an_offset_outside_the_file_is_refused(size_bytes: int, offset: int) -> None:
    for cut in (slice_at, piece_at, upload_chunk_at):
        with pytest.raises(HashError, match="an offset in a file"):
            cut(size_bytes, offset)


@pytest.mark.parametrize("number", [0, 3])
def test_a_slice_that_a_file_has_not_is_refused(number: int) -> None:
    with pytest.raises(HashError, match="has slices 1 to 2"):
        slice_range(SLICE_BYTES + 1, number)
