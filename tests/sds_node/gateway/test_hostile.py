"""What strangers send: bytes that are no calls, calls that are too much, strings that were signed for something else."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from sds_node.gateway.gateway import Gateway
from sds_node.gateway.server import MAX_BODY_BYTES, Front, Listener
from sds_node.hashes import file_hash
from sds_node.requests import sign_text, v2_text
from tests.sds_node.data.network import content
from tests.sds_node.gateway.memory import HELLO, HELLO_HASH, KEY, OTHER, Clock, Memory, Site, signature, site, wallet_of

pytestmark = pytest.mark.asyncio
WALLET = wallet_of(KEY)
OZONE = {"jsonrpc": "2.0", "id": 1, "method": "user_requestGetOzone", "params": [{"walletaddr": WALLET}]}
JSON = {"Content-Type": "application/json"}


async def code(here: Site, body: bytes) -> int:
    answer = await here.http.post("/", content=body, headers=JSON)
    assert answer.status_code == 200
    found = answer.json()
    assert found["jsonrpc"] == "2.0"
    number: int = found["error"]["code"]
    assert "Traceback" not in answer.text
    return number


# --- HTTP ---


async def test_http_is_answered_as_the_reference_says(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        http = here.http
        empty = await http.get("/")
        assert (empty.status_code, empty.content) == (200, b"")
        for method in ("PUT", "DELETE", "PATCH"):
            assert (await http.request(method, "/", json=OZONE)).status_code == 405
        assert (await http.request("GET", "/", json=OZONE)).status_code == 405
        assert (await http.post("/other", json=OZONE)).status_code == 404
        for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
            assert (await http.post("/", content=json.dumps(OZONE), headers={"Content-Type": kind})).status_code == 415
        for kind in ("application/json", "application/json-rpc", "application/jsonrequest", "Application/JSON; charset=utf-8"):
            assert (await http.post("/", content=json.dumps(OZONE), headers={"Content-Type": kind})).json()["result"]["return"] == "0"


async def test_names_must_be_allowed_and_numbers_always_are(tmp_path: Path) -> None:
    async with site(tmp_path, allowed_hosts=("gateway.example",)) as here:
        for host, status in (
            ("127.0.0.1:18281", 200), ("[::1]:18281", 200), ("10.0.0.1", 200), ("gateway.example", 200), ("Gateway.Example:99", 200),
            ("evil.example", 403), ("localhost", 403), ("127.0.0.1.evil.example", 403),
        ):  # fmt: skip
            answer = await here.http.post("/", json=OZONE, headers={"Host": host})
            assert answer.status_code == status, host
        assert (await here.http.post("/", json=OZONE, headers={"Host": "x.example"})).text == "invalid host specified\n"


async def test_web_pages_may_call_as_far_as_the_operator_lets_them(tmp_path: Path) -> None:
    page = {"Origin": "https://wallet.example"}
    asks = page | {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
    async with site(tmp_path) as here:
        preflight = await here.http.options("/", headers=asks)
        assert (preflight.status_code, preflight.headers["access-control-allow-origin"]) == (204, "*")
        assert "Content-Type" in preflight.headers["access-control-allow-headers"]
        assert (await here.http.post("/", json=OZONE, headers=page)).headers["access-control-allow-origin"] == "*"
    async with site(tmp_path, allowed_origins=("https://wallet.example",)) as here:
        assert (await here.http.options("/", headers=asks)).headers["access-control-allow-origin"] == "https://wallet.example"
        other = await here.http.post("/", json=OZONE, headers={"Origin": "https://evil.example"})
        assert "access-control-allow-origin" not in other.headers
    async with site(tmp_path, allowed_origins=()) as here:
        assert (await here.http.options("/", headers=asks)).status_code == 405
        assert "access-control-allow-origin" not in (await here.http.post("/", json=OZONE, headers=page)).headers


async def test_giant_bodies_are_refused_before_they_are_read(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        assert (await here.http.post("/", content=b" " * (MAX_BODY_BYTES + 1), headers=JSON)).status_code == 413

        async def endless() -> Any:
            for _ in range(200):
                yield b" " * 65_536

        # Without a length: refused as soon as it is too much. The server may close while the client still sends.
        with contextlib.suppress(httpx.TransportError):
            assert (await here.http.post("/", content=endless(), headers=JSON)).status_code == 413
        assert (await here.http.post("/", json=OZONE)).status_code == 200


async def test_a_client_that_sends_too_slowly_is_let_go(tmp_path: Path) -> None:
    clock = Clock()
    gateway = Gateway(Memory(clock), tmp_path, clock)
    listener = Listener(Front(gateway.call, read_s=0.2).app)
    port = await listener.start()
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
        assert b" 408 " in await asyncio.wait_for(reader.readline(), 10)
        writer.close()
    finally:
        await listener.stop()
        await gateway.close()


async def test_answers_are_compressed_when_a_client_can_read_that(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        ask = {"jsonrpc": "2.0", "id": 1, "method": "rpc.discover", "params": []}
        packed = await here.http.post("/", json=ask, headers={"Accept-Encoding": "gzip"})
        plain = await here.http.post("/", json=ask, headers={"Accept-Encoding": "identity"})
        assert packed.headers["content-encoding"] == "gzip"
        assert "content-encoding" not in plain.headers
        assert packed.json() == plain.json()
        assert int(packed.headers["content-length"]) < len(plain.content) // 3


# --- JSON-RPC ---


async def test_what_is_no_call_is_told_by_the_error_object(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        for body in (b"", b"{", b"nonsense", b"[" * 1_000, b'{"a":' * 500, b"\xff\xfe", b"[1,]", b"NaN"):
            assert await code(here, body) in (-32_700, -32_600)
        assert await code(here, b"{") == -32_700
        deep = b'{"jsonrpc":"2.0","id":1,"method":"user_requestGetOzone","params":[' + b'{"a":' * 40 + b"1" + b"}" * 40 + b"]}"
        for body in (b"1", b"[]", b'"x"', b"null", b"{}", deep, b"[" * 30_000 + b"]" * 30_000, b"[" + b"1," * 30_000 + b"1]"):
            assert await code(here, body) == -32_600
        for change in (
            {"jsonrpc": "1.0"},
            {"method": 1},
            {"method": ""},
            {"method": "x" * 200},
            {"id": {}},
            {"id": [1]},
            {"id": "x" * 300},
            {"id": True},
        ):
            assert await code(here, json.dumps(OZONE | change).encode()) == -32_600
        for method in ("user_nothing", "owner_requestPrepay", "sds_list", "__class__", "user_requestGetOzone "):
            assert await code(here, json.dumps(OZONE | {"method": method}).encode()) == -32_601
        for params in ("x", 5, [], [1], [{}, {}], [{"walletaddr": 5}], [{"walletaddr": {"a": 1}}], [{"walletaddr": "x" * 5_000}]):
            assert await code(here, json.dumps(OZONE | {"params": params}).encode()) == -32_602


async def test_types_are_checked_field_by_field(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        good = {"filename": "x", "filesize": 14, **await here.upload_params(HELLO_HASH)}
        for change in (
            {"filesize": "14"}, {"filesize": 14.5}, {"filesize": True}, {"filesize": 1 << 63}, {"req_time": "now"}, {"signature": "abc"},
            {"signature": []}, {"signature": {"address": 1}}, {"signature": {"v2": 1}}, {"allow_higher_tier": 1}, {"filehash": None, "filename": 1},
        ):  # fmt: skip
            assert await here.error("user_requestUpload", [good | change]) == -32_602, change
        for change, wanted in (
            ({"filesize": -1}, "-4"), ({"filesize": 1 << 46}, "-4"), ({"filehash": "x"}, "-7"), ({"filehash": HELLO_HASH.upper()}, "-7"),
            ({"signature": None}, "-7"), ({"req_time": 0}, "-3"), ({"sequencenumber": ""}, "-3"), ({"filename": "a\x00b"}, "-7"),
            ({"filehash": "v05ahm56149lbohaogf3oimj3um3p3hm8i8ulih0"}, "-3"),
        ):  # fmt: skip
            assert (await here.call("user_requestUpload", **good | change))["return"] == wanted, change
        assert (await here.call("user_requestUpload"))["return"] == "-7"
        assert (await here.call("user_requestGetOzone", walletaddr="st1nobody"))["return"] == "-12"


async def test_batches_are_answered_in_order_and_have_an_end(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        batch = [OZONE | {"id": number} for number in range(100)]
        answers = (await here.http.post("/", json=batch)).json()
        assert [one["id"] for one in answers] == list(range(100))
        assert await code(here, json.dumps([*batch, OZONE]).encode()) == -32_600
        mixed = [
            OZONE | {"id": "a"},
            {"bad": 1},
            5,
            {**OZONE, "method": "nothing", "id": None},
            {key: OZONE[key] for key in ("jsonrpc", "method", "params")},
        ]
        answers = (await here.http.post("/", json=mixed)).json()
        assert [one.get("id") for one in answers] == ["a", None, None, None]
        assert ["error" in one for one in answers] == [False, True, True, True]
        silent = await here.http.post("/", json={key: OZONE[key] for key in ("jsonrpc", "method", "params")})
        assert (silent.status_code, silent.content) == (200, b"")
        named = (await here.http.post("/", json=OZONE | {"id": "abc", "params": {"walletaddr": WALLET}})).json()
        assert (named["id"], named["result"]["return"]) == ("abc", "0")


async def test_the_methods_describe_themselves(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        document = (await here.http.post("/", json={"jsonrpc": "2.0", "id": 1, "method": "rpc.discover"})).json()["result"]
        assert document["openrpc"].startswith("1.")
        methods = {one["name"]: one for one in document["methods"]}
        assert set(methods) == set(here.gateway._methods)
        upload = methods["user_requestUpload"]["params"][0]["schema"]
        assert upload["properties"]["filesize"]["type"] == "integer"
        assert {"filename", "filesize", "filehash", "signature", "req_time", "sequencenumber"} == set(upload["required"])
        assert set(methods["user_requestShare"]["params"][0]["schema"]["properties"]) >= {"private_flag", "bool", "privateflag"}
        assert "-13" in document["components"]["x-returns"]


async def test_a_fault_of_the_gateway_tells_nothing_of_its_inside(tmp_path: Path) -> None:
    async with site(tmp_path) as here:

        async def broken(_: str) -> Any:
            raise ZeroDivisionError("secret /path/to/something")

        here.memory.wallet = broken
        answer = await here.http.post("/", json=OZONE)
        assert answer.json()["error"]["code"] == -32_000
        assert "secret" not in answer.text
        assert "Zero" not in answer.text


# --- strings ---


async def begun(here: Site, key: Any = KEY) -> dict[str, Any]:
    text = signature(key, f"{HELLO_HASH}{wallet_of(key)}{await here.sequence(key)}{here.time()}")
    return {"filehandle": f"sdm://{wallet_of(key)}/{HELLO_HASH}", "req_time": here.time(), "signature": text}


async def test_signatures_of_others_are_refused_everywhere(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        await here.stored(HELLO)
        theirs = signature(OTHER, f"{HELLO_HASH}{WALLET}{here.time()}")
        mine = here.file_params(HELLO_HASH)
        wrong_key = mine | {"signature": mine["signature"] | {"pubkey": theirs["pubkey"]}}
        wrong_text = mine | {"signature": mine["signature"] | {"signature": theirs["signature"]}}
        wrong_wallet = mine | {"signature": mine["signature"] | {"address": wallet_of(OTHER)}}
        no_hex = mine | {"signature": mine["signature"] | {"signature": "zz" * 64}}
        later = mine | {"req_time": here.time() + 2}
        for params in (wrong_key, wrong_text, wrong_wallet, no_hex, later):
            for method in ("user_getFileStatus", "user_requestDeleteFile", "user_requestShare"):
                assert (await here.call(method, **params))["return"] == "-3", (method, params)
        no_wallet = mine | {"signature": mine["signature"] | {"address": "st1xyz"}}
        assert (await here.call("user_getFileStatus", **no_wallet))["return"] == "-12"
        handle = await begun(here, OTHER) | {"filehandle": f"sdm://{WALLET}/{HELLO_HASH}"}
        assert (await here.call("user_requestDownload", **handle))["return"] == "-12"
        assert (await here.call("user_requestDownload", **await begun(here) | {"filehandle": "sdm://x/y"}))["return"] == "-7"


async def test_a_poll_cannot_be_made_a_deletion(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        await here.stored(HELLO)
        polled = here.file_params(HELLO_HASH)
        assert (await here.call("user_getFileStatus", **polled))["file_upload_state"] == 3
        assert (await here.call("user_requestDeleteFile", **polled))["return"] == "-3"
        here.clock.now_s += 1
        deletion = here.file_params(HELLO_HASH)
        together = await asyncio.gather(*(here.call("user_requestDeleteFile", **deletion) for _ in range(3)))
        assert [one["return"] for one in together] == ["0", "0", "0"]
        assert (await here.call("user_getFileStatus", **deletion))["return"] == "-3"
        assert (await here.call("user_requestDeleteFile", **deletion))["return"] == "0"  # sent again, it is done, and does nothing more
        here.clock.now_s += 1
        await here.stored(HELLO, "again.txt")
        assert (await here.call("user_requestDeleteFile", **deletion))["return"] == "0"
        assert HELLO_HASH in here.memory.files_of[WALLET]


async def test_every_signed_request_is_worth_nothing_when_its_time_is_over(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        await here.stored(HELLO)
        download, upload, file, lists = await begun(here), await here.upload_params(file_hash(b"x")), here.file_params(HELLO_HASH), here.list_params()
        share = {"shareid": "0123456789abcdef_0123456789_abcdef", "req_time": here.time()}
        share["signature"] = signature(KEY, f"{share['shareid']}{WALLET}{here.time()}")
        link = {"sharelink": share["shareid"], "req_time": here.time(), "signature": share["signature"]}
        here.clock.now_s += 301
        for method, params in (
            ("user_requestUpload", upload | {"filename": "x", "filesize": 1}), ("user_uploadData", upload | {"data": "eA=="}), ("user_uploadSign", upload),
            ("user_requestDownload", download), ("user_requestVideoDownload", download), ("user_getFileStatus", file), ("user_requestDeleteFile", file),
            ("user_requestShare", file), ("user_requestList", lists), ("user_requestListShare", lists), ("user_requestStopShare", share),
            ("user_requestClearExpiredShareLinks", lists), ("user_requestGetShared", link), ("user_requestGetVideoShared", link),
        ):  # fmt: skip
            assert (await here.call(method, **params))["return"] == "-3", method


async def test_a_download_string_pays_once_and_an_upload_string_no_download(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        await here.stored(HELLO)
        ask = await begun(here)
        first = await here.call("user_requestDownload", **ask)
        again = await here.call("user_requestDownload", **ask)
        assert (first["return"], again["return"], again["reqid"]) == ("2", "2", first["reqid"])
        assert await here.downloaded(first, HELLO_HASH) == HELLO
        assert (await here.call("user_requestDownload", **ask))["return"] == "-3"
        params = await here.upload_params(HELLO_HASH)
        assert (await here.call("user_requestUpload", filename="x", filesize=14, **params))["return"] == "1"
        handle = {"filehandle": f"sdm://{WALLET}/{HELLO_HASH}", "req_time": params["req_time"], "signature": params["signature"]}
        assert (await here.call("user_requestDownload", **handle))["return"] == "-3"


async def test_only_who_began_a_shared_download_goes_on_with_it(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        await here.stored(HELLO)
        link = (await here.call("user_requestShare", **here.file_params(HELLO_HASH)))["sharelink"]
        time_s = here.time()
        old = await here.call(
            "user_requestGetShared", sharelink=link, req_time=time_s, signature=signature(OTHER, f"{link}{wallet_of(OTHER)}{time_s}")
        )
        assert (await here.call("user_downloadData", filehash=HELLO_HASH, reqid=old["reqid"]))["return"] == "-1"
        text = f"{HELLO_HASH}{WALLET}{await here.sequence()}{time_s}"
        stolen = {"filehash": HELLO_HASH, "reqid": old["reqid"], "req_time": time_s, "signature": signature(KEY, text)}
        assert (await here.call("user_requestDownloadShared", **stolen))["return"] == "-12"
        for reqid in ("", "nonsense", "0" * 4_000):
            assert (await here.call("user_requestDownloadShared", **stolen | {"reqid": reqid}))["return"] == "-1"
            assert (await here.call("user_downloadData", filehash=HELLO_HASH, reqid=reqid))["return"] == "-1"
            assert (await here.call("user_downloadedFileInfo", filehash=HELLO_HASH, reqid=reqid))["return"] == "0"
        assert (await here.call("user_downloadData", filehash=file_hash(b"other"), reqid=old["reqid"]))["return"] == "-1"


async def test_nobody_takes_more_than_his_part_of_the_gateway(tmp_path: Path) -> None:
    async with site(tmp_path, uploads_of_wallet=2, uploads_most=3, spool_bytes=1 << 20, downloads_of_wallet=1) as here:

        async def begin(name: bytes, size: int, key: Any = KEY) -> str:
            params = await here.upload_params(file_hash(name), key)
            answer: str = (await here.call("user_requestUpload", filename="x", filesize=size, **params))["return"]
            return answer

        assert await begin(b"1", 1 << 21) == "-9"  # more than the disk that there is
        assert [await begin(b"1", 1_000), await begin(b"2", 1_000), await begin(b"3", 1_000)] == ["1", "1", "-9"]
        assert [await begin(b"1", 1_000, OTHER), await begin(b"2", 1_000, OTHER)] == ["1", "-9"]
        here.clock.now_s += 1_000
        await here.stored(HELLO)
        assert (await here.call("user_requestDownload", **await begun(here)))["return"] == "2"
        here.clock.now_s += 1
        assert (await here.call("user_requestDownload", **await begun(here)))["return"] == "-9"
        here.memory.noz[WALLET] = 10
        assert await begin(b"4", 11) == "-9"


async def test_uploads_interleave_and_late_chunks_change_nothing(tmp_path: Path) -> None:
    async with site(tmp_path, grace_s=60.0) as here:
        data = content(9, 4_000_000)
        wanted = file_hash(data)
        params = await here.upload_params(wanted)
        await here.call("user_requestUpload", filename="x", filesize=len(data), **params)
        first = {"data": base64.b64encode(data[:3_500_000]).decode(), **params}
        answers = await asyncio.gather(*(here.call("user_uploadData", **first) for _ in range(3)))
        # One is taken; to the others it is not what was asked for next.
        assert sorted(one["return"] for one in answers) == ["-4", "-4", "1"]
        assert (await here.call("user_uploadSign", **params))["return"] == "-9"
        last = {"data": base64.b64encode(data[3_500_000:]).decode(), **params}
        assert (await here.call("user_uploadData", **last))["return"] == "0"
        assert (await here.call("user_uploadData", **last))["return"] == "0"
        assert (await here.call("user_uploadSign", **params))["return"] == "0"
        assert (await here.call("user_uploadData", **params | {"data": "", "stop": True}))["return"] == "-14"


async def test_version_2_binds_the_whole_call(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        await here.stored(HELLO)

        def with_v2(method: str, params: dict[str, Any], expiry: int, signed: dict[str, Any] | None = None) -> dict[str, Any]:
            text = v2_text("stratos-test-1", method, signed or params, WALLET, expiry)
            return params | {"signature": params["signature"] | {"v2": {"expiry": expiry, "signature": sign_text(KEY, text)}}}

        expiry = here.time() + 60
        share = {"duration": 60, "bool": True, **here.file_params(HELLO_HASH)}
        changed = with_v2("user_requestShare", share, expiry) | {"duration": 6_000_000}
        assert (await here.call("user_requestShare", **changed))["return"] == "-3"
        assert (await here.call("user_requestShare", **with_v2("user_requestStopShare", share, expiry)))["return"] == "-3"
        assert (await here.call("user_requestShare", **with_v2("user_requestShare", share, here.time() - 1)))["return"] == "-3"
        assert (await here.call("user_requestShare", **with_v2("user_requestShare", share, here.time() + 100_000)))["return"] == "-3"
        assert (await here.call("user_requestShare", **with_v2("user_requestShare", share, expiry)))["return"] == "0"
