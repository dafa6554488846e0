"""Handles: what is read is what was written, CIDs are really decoded, and nothing else passes."""

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chain.crypto import address
from sds_node import handles
from sds_node.handles import (
    Cid,
    FileHandle,
    HandleError,
    LinkKind,
    format_file_handle,
    format_share_link,
    new_share_link,
    parse_cid,
    parse_file_handle,
    parse_share_id,
    parse_share_link,
    parse_wallet,
)
from sds_node.hashes import CODECS, Hash, format_hash

CALM = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""How fast the machine is decides nothing."""
VECTORS: Any = json.loads((Path(__file__).parents[2] / "vectors" / "sds.json").read_text())
WALLET = "st18yesadx3t8x3jjsygpqeqzh0j7xh2vh66945zx"
HASH = "v05j1m54j7o2qk2uilomc01mmcqmv90s14t09tbg"
V1 = "a1B2c3_0123456789abcdef"
V2 = "0123456789abcdef_0123456789_abcdef"
CID_0 = "QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWKPbdG"
CID_1 = "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi"
NAMES = st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=200)
WALLETS = st.binary(min_size=20, max_size=20).map(address.encode)
HASHES = st.builds(Hash, st.sampled_from(CODECS), st.binary(min_size=20, max_size=20)).map(format_hash)
PASSWORDS = st.one_of(st.just(""), st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="/"), min_size=1, max_size=64))


@CALM
@given(st.builds(FileHandle, WALLETS, HASHES, NAMES))
def test_a_file_handle_is_read_as_it_was_written(handle: FileHandle) -> None:
    text = format_file_handle(handle)
    assert parse_file_handle(text) == parse_file_handle(text.removeprefix("sdm://")) == handle
    assert text.startswith(f"sdm://{handle.wallet}/{handle.file_hash}")


def test_the_originals_file_handle_is_88_characters_and_its_test_passes_here() -> None:
    assert len(format_file_handle(FileHandle(WALLET, HASH))) == 88
    text = "sdm://st1jn9skjsnxv26mekd8eu8a8aquh34v0m4mwgahg/v05j1m56k3597bm5a96nq7103fos15oe48qd2ud0"
    assert parse_file_handle(text) == FileHandle(text[6:47], text[48:])


def test_a_files_name_may_have_slashes_and_a_slash_alone_is_no_name() -> None:
    assert parse_file_handle(f"sdm://{WALLET}/{HASH}/a/b.txt").name == "a/b.txt"
    assert parse_file_handle(f"sdm://{WALLET}/{HASH}/").name == ""


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sdm://",
        f"sdm://{WALLET}",
        f"sdm://{WALLET}//{HASH}",
        f"sdm://{WALLET}/{HASH[:-1]}",
        f"sdm://{WALLET}/{HASH}x",
        f"sdm://{WALLET[:-1]}y/{HASH}",
        f"sdm://{WALLET.upper()}/{HASH}",
        f"sdm://{WALLET}/{HASH.upper()}",
        f"SDM://{WALLET}/{HASH}",
        f"sds://{WALLET}/{HASH}",
        f"sdm://{WALLET}/{HASH}/{'x' * 1025}",
        f"sdm://{WALLET}/{HASH}/a\nb",
        f"sdm://{WALLET}/{HASH}/\ud800",
        "sdm://st1jn9skjsnxv26mekd8eu8a8aquh30m4mwgahg/v05ahm52iirbq55177uii2bmbsmmcemnjtm740s8",
    ],
)
def test_what_is_no_file_handle_is_refused(text: str) -> None:
    with pytest.raises(HandleError):
        parse_file_handle(text)


@CALM
@given(st.text(max_size=140))
def test_no_text_raises_anything_but_a_handle_error(text: str) -> None:
    for parse in (parse_file_handle, parse_share_link, parse_share_id, parse_cid, parse_wallet):
        with contextlib.suppress(HandleError):
            parse(text)


@CALM
@given(st.sampled_from(("b", "B", "f", "F", "k", "u", "v", "V", "z")), st.text("0123456789abcdefghijklmnopqrstuvwxyzABCXYZ-_=+/", max_size=70))
def test_text_after_a_bases_letter_is_refused_or_encodes_to_itself(letter: str, rest: str) -> None:
    try:
        cid = parse_cid(letter + rest)
    except HandleError:
        return
    assert handles._MULTIBASE[letter][1](cid.raw) == rest


# --- Shares ---


@pytest.mark.parametrize("vector", VECTORS["share_links"])
def test_a_new_link_is_made_of_sixteen_random_bytes(vector: Any) -> None:
    assert new_share_link(bytes.fromhex(vector["entropy"])) == vector["link"]


@pytest.mark.parametrize("size", [0, 15, 17])
def test_a_link_of_another_number_of_random_bytes_is_not_made(size: int) -> None:
    with pytest.raises(HandleError, match="16 random bytes"):
        new_share_link(bytes(size))


@CALM
@given(st.one_of(st.binary(min_size=16, max_size=16).map(new_share_link), st.sampled_from((V1, CID_0, CID_1))), PASSWORDS)
def test_a_share_link_is_read_as_it_was_written(link: str, password: str) -> None:
    text = f"sds://{link}" + (f"/{password}" if password else "")
    share = parse_share_link(text)
    assert format_share_link(share) == text
    assert parse_share_link(text.removeprefix("sds://")) == share
    assert (share.link, share.password) == (link, password)
    assert parse_share_id(share.share_id) == share.share_id


@pytest.mark.parametrize(
    ("link", "kind", "share_id", "code"),
    [
        (V1, LinkKind.V1, "0123456789abcdef", "a1B2c3"),
        (V2, LinkKind.V2, V2, ""),
        (CID_0, LinkKind.CID, CID_0, ""),
        (CID_1, LinkKind.CID, CID_1, ""),
        ("zdj7WWeQ43G6JJvLWQWZpyHuAMq6uYWRjkBXFad11vE2LHhQ7", LinkKind.CID, "zdj7WWeQ43G6JJvLWQWZpyHuAMq6uYWRjkBXFad11vE2LHhQ7", ""),
    ],
)
def test_each_kind_of_link_tells_the_share_that_it_names(link: str, kind: LinkKind, share_id: str, code: str) -> None:
    share = parse_share_link(f"sds://{link}/")
    assert (share.kind, share.share_id, share.random_code, share.password) == (kind, share_id, code, "")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sds://",
        "sds:///pass",
        f"sdm://{V2}",
        V1.upper(),
        V1[:-1],
        "0123456789abcdef_a1B2c3",
        V2 + "0",
        V2.replace("a", "A"),
        V2.replace("_", "-"),
        f"{V2}/a/b",
        f"{V2}/{'x' * 65}",
        f"{V2}/a b",
        f"{V2}/ä",
        f"{V2}\n",
    ],
)
def test_what_is_no_share_link_is_refused(text: str) -> None:
    with pytest.raises(HandleError):
        parse_share_link(text)


@CALM
@given(HASHES)
def test_a_file_hash_is_no_share_link_though_it_is_a_cid(text: str) -> None:
    assert parse_cid(text).hash_code == 0x1B
    for parse in (parse_share_link, parse_share_id):
        with pytest.raises(HandleError, match="hash of a file or slice"):
            parse(text)


# --- CIDs ---

DIGEST = "c3c4733ec8affd06cf9e9ff50ffc6bcd2ec85a6170004bb709669c31de94391a"


@pytest.mark.parametrize(
    ("text", "cid"),
    [
        (CID_0, Cid(0, 0x70, 0x12, bytes.fromhex("9d6c2be50f706953479ab9df2ce3edca90b68053c00b3004b7f0accbcfb2ae2f"))),
        (CID_1, Cid(1, 0x70, 0x12, bytes.fromhex(DIGEST))),
        (CID_1.upper(), Cid(1, 0x70, 0x12, bytes.fromhex(DIGEST))),
        ("f01701220" + DIGEST, Cid(1, 0x70, 0x12, bytes.fromhex(DIGEST))),
        ("F01701220" + DIGEST.upper(), Cid(1, 0x70, 0x12, bytes.fromhex(DIGEST))),
        ("bafkqaaa", Cid(1, 0x55, 0, b"")),
        (
            "zdj7WWeQ43G6JJvLWQWZpyHuAMq6uYWRjkBXFad11vE2LHhQ7",
            Cid(1, 0x70, 0x12, bytes.fromhex("120f6af601d46e10b2d2e11ed71c55d25f3042c22501e41d1246e7a1e9d3d8ec")),
        ),
    ],
)
def test_a_cid_is_decoded(text: str, cid: Cid) -> None:
    assert parse_cid(text) == cid


@CALM
@given(
    st.sampled_from(sorted(handles._MULTIBASE)),
    st.integers(0, (1 << 63) - 1),
    st.integers(1, (1 << 63) - 1),
    st.binary(min_size=1, max_size=64),
)
def test_a_cid_is_read_as_it_was_written_in_every_base(letter: str, codec: int, hash_code: int, digest: bytes) -> None:
    cid = Cid(1, codec, hash_code, digest)
    text = letter + handles._MULTIBASE[letter][1](cid.raw)
    assert len(text) <= handles.MAX_CID_CHARACTERS
    assert parse_cid(text) == cid


@pytest.mark.parametrize(
    "text",
    [
        "Q",
        CID_0[:-1],
        CID_0[:-1] + "0",  # no character of base 58
        "Qm" + "z" * 44,  # more than 34 bytes
        "z" + CID_0,  # version 0 behind a base
        CID_1[:-1],
        CID_1 + "a",
        CID_1[:-1] + "j",  # a bit beyond the digest
        "b" + CID_1[1:].upper(),
        "f02701220" + DIGEST,  # version 2
        "f01701221" + DIGEST,  # a byte is missing
        "f01701220" + DIGEST + "00",
        "f0170122" + DIGEST[:1],
        "f8100701220" + DIGEST,  # the version not in its shortest form
        "f01" + "80" * 10 + "011220" + DIGEST,
        "f0170128201" + "00" * 130,  # a digest of 130 bytes
        "f01701200",  # no digest, and not the identity
        "f",
        "m" + "AXASIA",
        "b" * 300,
        "bä",
    ],
)
def test_what_is_no_cid_is_refused(text: str) -> None:
    with pytest.raises(HandleError):
        parse_cid(text)
