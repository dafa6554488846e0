"""Whole conversations over HTTP, in both dialects, with the strings and hashes of sds.md 1.5 (a network in memory)."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path
from typing import Any

import pytest

from sds_node.gateway.backend import BackendError, NotEnoughOzone
from sds_node.hashes import file_hash
from tests.sds_node.data.network import content
from tests.sds_node.gateway.memory import HELLO, HELLO_HASH, KEY, NOW_S, OTHER, SN1, VECTORS, Site, signature, site, wallet_of

pytestmark = pytest.mark.asyncio
WALLET = wallet_of(KEY)
OWN = VECTORS["signed_strings"][0]
SIGNATURE = {"address": VECTORS["wallet"]["address"], "pubkey": VECTORS["wallet"]["public_key_text"], "signature": OWN["signature"]}


async def poll(here: Site, wanted: str = HELLO_HASH) -> dict[str, Any]:
    for _ in range(400):
        status = await here.call("user_getFileStatus", **here.file_params(wanted))
        if status["file_upload_state"] != 1:
            return status
        await asyncio.sleep(0.02)
    raise AssertionError("the upload did not end")


async def test_the_exchange_of_the_reference_goes_as_it_is_written(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        assert await here.call("user_requestGetOzone", walletaddr=WALLET) == {"return": "0", "ozone": "1000000000", "sequencynumber": SN1}
        signed = {"req_time": NOW_S, "sequencenumber": SN1, "signature": SIGNATURE, "filehash": HELLO_HASH}
        assert await here.call("user_requestUpload", filename="hello.txt", filesize=14, **signed) == {
            "return": "1",
            "offsetstart": 0,
            "offsetend": 14,
        }
        assert await here.call("user_uploadData", data="aGVsbG8gc3RyYXRvcwo=", **signed) == {"return": "0"}
        assert await poll(here) == {"return": "0", "file_upload_state": 3, "user_has_file": True, "replicas": 3}
        here.clock.now_s += 1
        shared = await here.call("user_requestShare", duration=0, bool=False, **here.file_params(HELLO_HASH))
        assert shared == {"return": "0", "shareid": shared["shareid"], "sharelink": shared["shareid"]}
        link, time_s = shared["sharelink"], here.time()
        first = await here.call(
            "user_requestGetShared", sharelink=link, req_time=time_s, signature=signature(OTHER, f"{link}{wallet_of(OTHER)}{time_s}")
        )
        assert first["return"] == "4"
        assert (first["filehash"], first["sequencenumber"]) == (HELLO_HASH, SN1)
        text = f"{HELLO_HASH}{wallet_of(OTHER)}{first['sequencenumber']}{time_s}"
        second = {"filehash": HELLO_HASH, "reqid": first["reqid"], "req_time": time_s, "signature": signature(OTHER, text)}
        packet = await here.call("user_requestDownloadShared", **second)
        assert (packet["return"], packet["offsetstart"], packet["offsetend"], packet["filename"]) == ("2", 0, 14, "hello.txt")
        assert await here.downloaded(packet, HELLO_HASH) == HELLO


async def test_with_upload_sign_the_file_is_stored_at_once(tmp_path: Path) -> None:
    async with site(tmp_path, grace_s=60.0) as here:
        assert (await here.send(HELLO))["return"] == "0"
        assert await here.call("user_uploadSign", **await here.upload_params(HELLO_HASH)) == {"return": "0"}
        assert (await poll(here))["file_upload_state"] == 3
        # A client that is late, or has lost the answer.
        assert await here.call("user_uploadSign", **await here.upload_params(HELLO_HASH)) == {"return": "0"}
        assert len(here.memory.files_of[WALLET]) == 1


async def test_a_late_upload_sign_is_no_error(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        await here.stored(HELLO)
        assert await here.call("user_uploadSign", **await here.upload_params(HELLO_HASH)) == {"return": "0"}


@pytest.mark.parametrize("size", [1, 3_500_000, 3_500_001, 33_554_432, 33_554_433])
async def test_files_go_in_and_out_in_chunks_that_never_cross_a_slice(tmp_path: Path, size: int) -> None:
    async with site(tmp_path) as here:
        data = content(1, size)
        wanted = await here.stored(data, "data.bin")
        assert here.gateway.room.taken_bytes == 0
        sequence, time_s = await here.sequence(), here.time()
        text = signature(KEY, f"{wanted}{WALLET}{sequence}{time_s}")
        first = await here.call("user_requestDownload", filehandle=f"sdm://{WALLET}/{wanted}", req_time=time_s, signature=text)
        assert await here.downloaded(first, wanted) == data
        assert first["filesize"] == size
        assert here.memory.noz[WALLET] == 10**9 - 4 * size
        assert here.gateway.room.taken_bytes == 0
        assert here.memory.open == 0


async def test_an_empty_file_goes_in_and_out(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        wanted = file_hash(b"")
        first = await here.call("user_requestUpload", filename="empty", filesize=0, **await here.upload_params(wanted))
        assert first == {"return": "1", "offsetstart": 0, "offsetend": 0}
        assert await here.call("user_uploadData", data="", **await here.upload_params(wanted)) == {"return": "0"}
        assert (await poll(here, wanted))["file_upload_state"] == 3
        here.clock.now_s += 1
        text = signature(KEY, f"{wanted}{WALLET}{await here.sequence()}{here.time()}")
        packet = await here.call("user_requestDownload", filehandle=f"sdm://{WALLET}/{wanted}", req_time=here.time(), signature=text)
        assert (packet["return"], packet["offsetstart"], packet["offsetend"], packet["filedata"]) == ("2", 0, 0, "")
        assert (await here.call("user_downloadData", filehash=wanted, reqid=packet["reqid"]))["return"] == "3"


async def test_content_of_another_hash_is_refused_and_costs_nothing(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        await here.call("user_requestUpload", filename="x", filesize=14, **await here.upload_params(HELLO_HASH))
        data = base64.b64encode(b"hello_stratos\n").decode()
        answer = await here.call("user_uploadData", data=data, **await here.upload_params(HELLO_HASH))
        assert answer["return"] == "-11"
        assert "nothing was charged" in answer["detail"]
        assert here.memory.noz[WALLET] == 10**9
        assert len(here.gateway.uploads) == 0
        assert (await here.stored(HELLO)) == HELLO_HASH


async def test_stop_frees_the_upload_at_once(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        params = await here.upload_params(HELLO_HASH)
        begin = {"filename": "x", "filesize": 14, **params}
        assert (await here.call("user_requestUpload", **begin))["return"] == "1"
        assert (await here.call("user_requestUpload", **begin))["return"] == "-13"
        assert (await here.call("user_uploadData", data="", stop=True, **params))["return"] == "-14"
        assert here.gateway.room.taken_bytes == 0
        # The SDK repeats the very same signed call.
        assert await here.call("user_requestUpload", **begin) == {"return": "1", "offsetstart": 0, "offsetend": 14}


async def test_an_upload_that_was_broken_off_is_resumed(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        data = content(2, 4_000_000)
        wanted = file_hash(data)
        await here.call("user_requestUpload", filename="x", filesize=len(data), **await here.upload_params(wanted))
        chunk = {"data": base64.b64encode(data[:3_500_000]).decode(), "offsetstart": 0}
        assert (await here.call("user_uploadData", **chunk, **await here.upload_params(wanted)))["offsetstart"] == 3_500_000
        # The answer was lost: the same chunk comes again and is not taken twice.
        assert (await here.call("user_uploadData", **chunk, **await here.upload_params(wanted)))["offsetstart"] == 3_500_000
        again = await here.call("user_requestUpload", filename="x", filesize=len(data), resume=True, **await here.upload_params(wanted))
        assert again == {"return": "1", "offsetstart": 3_500_000, "offsetend": 4_000_000}
        last = base64.b64encode(data[3_500_000:]).decode()
        assert (await here.call("user_uploadData", data=last, **await here.upload_params(wanted)))["return"] == "0"
        assert (await poll(here, wanted))["file_upload_state"] == 3


async def test_bytes_of_another_length_than_was_asked_for_are_refused(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        params = await here.upload_params(HELLO_HASH)
        await here.call("user_requestUpload", filename="x", filesize=14, **params)
        for data in (b"", HELLO[:13], HELLO + b"!"):
            assert (await here.call("user_uploadData", data=base64.b64encode(data).decode(), **params))["return"] == "-4"
        assert (await here.call("user_uploadData", data="not base64!", **params))["return"] == "-7"
        assert (await here.call("user_uploadData", data=base64.b64encode(HELLO).decode(), **params))["return"] == "0"


async def test_two_wallets_upload_the_same_content_at_the_same_time(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        await asyncio.gather(here.stored(HELLO, key=KEY), here.stored(HELLO, "theirs.txt", key=OTHER))
        for key in (KEY, OTHER):
            assert (await here.call("user_requestList", page=0, **here.list_params(key)))["totalnumber"] == 1
        assert (await here.call("user_requestDeleteFile", **here.file_params(HELLO_HASH, KEY)))["return"] == "0"
        assert "fileinfo" not in await here.call("user_requestList", page=0, **here.list_params(KEY))
        assert (await here.call("user_requestList", page=0, **here.list_params(OTHER)))["fileinfo"][0]["filename"] == "theirs.txt"


async def test_the_same_file_again_is_taken_and_not_charged(tmp_path: Path) -> None:
    async with site(tmp_path, grace_s=0.3) as here:
        await here.stored(HELLO)
        paid = here.memory.noz[WALLET]
        assert (await here.send(HELLO))["return"] == "0"
        answer = await here.call("user_uploadSign", **await here.upload_params(HELLO_HASH))
        assert answer["return"].startswith("-9, Same file with the name hello.txt")
        assert "Same file with the name" in answer["detail"]
        assert (await poll(here))["file_upload_state"] == 3
        here.clock.now_s += 1
        # Without uploadSign the client never sees it.
        assert (await here.stored(HELLO)) == HELLO_HASH
        assert here.memory.noz[WALLET] == paid


async def test_too_little_ozone_is_told_and_the_bytes_wait_for_more(tmp_path: Path) -> None:
    async with site(tmp_path, grace_s=60.0) as here:
        here.memory.noz[WALLET] = 20
        assert (await here.send(HELLO))["return"] == "0"
        answer = await here.call("user_uploadSign", **await here.upload_params(HELLO_HASH))
        assert answer["return"] == "-9"
        assert "not enough ozone" in answer["detail"]
        status = await here.call("user_getFileStatus", **here.file_params(HELLO_HASH))
        assert (status["return"], status["file_upload_state"]) == ("0", 2)
        here.memory.noz[WALLET] = 1_000
        assert (await here.call("user_uploadSign", **await here.upload_params(HELLO_HASH)))["return"] == "0"
        here.clock.now_s += 1
        assert (await poll(here))["file_upload_state"] == 3
        here.memory.noz[WALLET] = 13
        assert (await here.call("user_requestUpload", filename="x", filesize=14, **await here.upload_params(HELLO_HASH)))["return"] == "-9"


async def test_a_network_that_fails_is_told_by_the_status(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        here.memory.fail = BackendError("segment 0 has 2 acknowledged shares and needs 3")
        assert (await here.send(HELLO))["return"] == "0"
        status = await poll(here)
        assert (status["return"], status["file_upload_state"]) == ("0", 2)
        assert "acknowledged" in status["error"]
        here.memory.fail = None
        assert (await here.stored(HELLO)) == HELLO_HASH  # a failed upload is in nobody's way


async def test_an_upload_longer_than_its_string_lives_takes_its_lease_on_the_way(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        data = content(3, 8_000_000)
        wanted = file_hash(data)
        params = await here.upload_params(wanted)  # as old clients do, one string for all of it
        answer = await here.call("user_requestUpload", filename="x", filesize=len(data), **params)
        while answer["return"] == "1":
            here.clock.now_s += 250
            chunk = base64.b64encode(data[answer["offsetstart"] : answer["offsetend"]]).decode()
            answer = await here.call("user_uploadData", data=chunk, **params)
        assert answer == {"return": "0"}
        assert (await poll(here, wanted))["file_upload_state"] == 3


async def test_idle_uploads_and_downloads_are_dropped(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        await here.stored(HELLO)
        text = signature(KEY, f"{HELLO_HASH}{WALLET}{await here.sequence()}{here.time()}")
        first = await here.call("user_requestDownload", filehandle=f"sdm://{WALLET}/{HELLO_HASH}", req_time=here.time(), signature=text)
        other = file_hash(b"other")
        await here.call("user_requestUpload", filename="x", filesize=5, **await here.upload_params(other))
        here.clock.now_s += 1_000
        here.gateway.uploads.expire()
        here.gateway.downloads.expire()
        assert (len(here.gateway.uploads), len(here.gateway.downloads), here.gateway.room.taken_bytes) == (0, 0, 0)
        assert (await here.call("user_downloadData", filehash=HELLO_HASH, reqid=first["reqid"]))["return"] == "-1"
        assert (await here.call("user_uploadData", data="", **await here.upload_params(other)))["return"] == "-14"


async def test_only_a_range_is_read_and_paid(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        data = content(4, 40_000_000)
        here.memory.noz[WALLET] = 10**10
        wanted = await here.stored(data)
        before = here.memory.noz[WALLET]

        async def ask(start: int, end: int) -> dict[str, Any]:
            here.clock.now_s += 1
            text = signature(KEY, f"{wanted}{WALLET}{await here.sequence()}{here.time()}")
            handle = f"{WALLET}/{wanted}/any name"
            return await here.call("user_requestDownload", filehandle=handle, req_time=here.time(), signature=text, offsetstart=start, offsetend=end)

        first = await ask(33_000_000, 34_000_000)
        assert (first["offsetstart"], first["offsetend"]) == (33_000_000, 33_554_432)
        second = await here.call("user_downloadData", filehash=wanted, reqid=first["reqid"])
        assert (second["offsetstart"], second["offsetend"]) == (33_554_432, 34_000_000)
        again = await here.call("user_downloadData", filehash=wanted, reqid=first["reqid"], offsetstart=33_600_000)
        assert base64.b64decode(again["filedata"]) == data[33_600_000:34_000_000]
        assert (await here.call("user_downloadData", filehash=wanted, reqid=first["reqid"]))["return"] == "3"
        await here.call("user_downloadedFileInfo", filehash=wanted, reqid=first["reqid"])
        for start, end in ((-1, 5), (5, 5), (6, 5), (0, len(data) + 1), (len(data), len(data) + 1)):
            assert (await ask(start, end))["return"] == "-7"
        assert before - here.memory.noz[WALLET] == 1_000_000


async def test_who_only_looks_pays_for_one_packet(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        wanted = await here.stored(content(5, 9_000_000))
        before = here.memory.noz[WALLET]
        text = signature(KEY, f"{wanted}{WALLET}{await here.sequence()}{here.time()}")
        first = await here.call("user_requestDownload", filehandle=f"sdm://{WALLET}/{wanted}", req_time=here.time(), signature=text)
        assert (first["offsetend"], first["filesize"]) == (3_145_728, 9_000_000)
        assert (await here.call("user_downloadedFileInfo", filehash=wanted, reqid=first["reqid"]))["return"] == "0"
        assert before - here.memory.noz[WALLET] == 3_145_728


async def test_content_that_is_not_the_hash_is_not_handed_out_whole(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        await here.stored(HELLO)
        here.memory.files_of[WALLET][HELLO_HASH].content = b"hello_stratos\n"
        text = signature(KEY, f"{HELLO_HASH}{WALLET}{await here.sequence()}{here.time()}")
        answer = await here.call("user_requestDownload", filehandle=f"sdm://{WALLET}/{HELLO_HASH}", req_time=here.time(), signature=text)
        assert answer["return"] == "-9"
        assert "filedata" not in answer
        assert len(here.gateway.downloads) == 0


async def test_a_private_share_has_a_password_that_is_told(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        await here.stored(HELLO)
        for at, flag in enumerate(("private_flag", "bool", "privateflag")):
            here.clock.now_s += 1
            shared = await here.call("user_requestShare", duration=60, **{flag: True}, **here.file_params(HELLO_HASH))
            assert shared["sharelink"] == f"{shared['shareid']}/{shared['password']}"

            async def get(link: str, *, is_bare: bool = False) -> dict[str, Any]:
                here.clock.now_s += 1
                bare = link.removeprefix("sds://").partition("/")[0]
                text = f"{bare}{wallet_of(OTHER)}{await here.sequence(OTHER)}{here.time()}"
                return await here.call("user_requestGetShared", sharelink=link, req_time=here.time(), signature=signature(OTHER, text))

            assert (await get(shared["shareid"]))["return"] == "-6"
            assert (await get(shared["shareid"] + "/wrong"))["return"] == "-6"
            packet = await get(("sds://" if at else "") + shared["sharelink"])
            assert (packet["return"], base64.b64decode(packet["filedata"])) == ("2", HELLO)
            assert await here.downloaded(packet, HELLO_HASH) == HELLO
        listed = await here.call("user_requestListShare", page=0, **here.list_params())
        assert (listed["totalnumber"], len(listed["fileinfo"]), listed["fileinfo"][0]["filename"]) == (3, 3, "hello.txt")
        share = listed["fileinfo"][0]["shareid"]
        stop = {"shareid": share, "req_time": here.time(), "signature": signature(KEY, f"{share}{WALLET}{here.time()}")}
        assert (await here.call("user_requestStopShare", **stop))["return"] == "0"
        assert (await here.call("user_requestStopShare", **stop))["return"] == "0"  # the answer was lost
        here.clock.now_s += 1_000
        cleared = await here.call("user_requestClearExpiredShareLinks", **here.list_params())
        assert (cleared["return"], cleared["walletaddr"], cleared["deleted"], cleared["new_count"]) == ("0", WALLET, 2, 0)


async def test_a_cid_becomes_a_link(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        await here.stored(HELLO)
        cid = "QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWKPbdG"
        shared = await here.call("user_requestShare", ipfs_cid=cid, **here.file_params(HELLO_HASH))
        assert (shared["shareid"], shared["sharelink"]) == (cid, cid)
        here.clock.now_s += 1
        for wrong in ("nonsense", "0123456789abcdef_0123456789_abcdef", HELLO_HASH, f"sds://{cid}", f"{cid}/pw"):
            assert (await here.call("user_requestShare", ipfs_cid=wrong, **here.file_params(HELLO_HASH)))["return"] == "-7"
        assert (await here.call("user_requestShare", meta_info="x" * 41, **here.file_params(HELLO_HASH)))["return"] == "-7"


async def test_a_video_comes_as_slices(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        wanted = file_hash(HELLO, 0x72)
        params = await here.upload_params(wanted)
        assert (await here.call("user_requestUploadStream", filename="v.mp4", filesize=14, **params))["return"] == "1"
        assert (await here.call("user_uploadData", data=base64.b64encode(HELLO).decode(), **params))["return"] == "0"
        assert (await poll(here, wanted))["file_upload_state"] == 3
        here.clock.now_s += 1
        text = signature(KEY, f"{wanted}{WALLET}{await here.sequence()}{here.time()}")
        found = await here.call("user_requestVideoDownload", filehandle=f"sdm://{WALLET}/{wanted}", req_time=here.time(), signature=text)
        assert found["slices"] == [{"slicenumber": 1, "slicesize": 14, "offsetstart": 0, "offsetend": 14}]
        name = "v05ahm56149lbohaogf3oimj3um3p3hm8i8ulih0"
        one = {
            "filehash": wanted,
            "reqid": found["reqid"],
            "slicenumber": 1,
            "slicesize": 14,
            "networkaddress": "x",
            "p2pAddress": "y",
            "req_time": 1,
        }
        assert base64.b64decode((await here.call("user_requestDownloadSliceData", slicehash=name, **one))["filedata"]) == HELLO
        assert (await here.call("user_requestDownloadSliceData", slicehash=HELLO_HASH, **one))["return"] == "-11"
        assert (await here.call("user_requestDownloadSliceData", **one | {"slicenumber": 2}))["return"] == "-7"
        assert (await here.call("user_requestUploadStream", filename="x", filesize=14, **await here.upload_params(HELLO_HASH)))["return"] == "-7"


async def test_a_download_that_cannot_be_paid_is_refused(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        await here.stored(HELLO)
        here.memory.noz[WALLET] = 13
        text = signature(KEY, f"{HELLO_HASH}{WALLET}{await here.sequence()}{here.time()}")
        answer = await here.call("user_requestDownload", filehandle=f"sdm://{WALLET}/{HELLO_HASH}", req_time=here.time(), signature=text)
        assert (answer["return"], "not enough ozone" in answer["detail"]) == ("-9", True)
        assert isinstance(NotEnoughOzone("x"), BackendError)


async def test_long_names_keep_their_extension(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        await here.stored(HELLO, "ü" * 300 + ".jpeg")
        name = (await here.call("user_requestList", page=0, **here.list_params()))["fileinfo"][0]["filename"]
        assert (len(name), name[-6:]) == (128, "ü.jpeg")
