"""Videos for players: prepared once, handed out by segment, forgotten after an hour."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, BinaryIO

import httpx
import pytest

from sds_node.gateway.server import Listener
from sds_node.gateway.streaming import PLAYLIST, Streaming, cut_with_pyav, segment_seconds
from tests.sds_node.gateway.memory import HELLO, HELLO_HASH, KEY, OTHER, Site, signature, site, wallet_of

pytestmark = pytest.mark.asyncio
WALLET = wallet_of(KEY)


def halves(video: BinaryIO, folder: Path, size_bytes: int) -> None:
    """Stands for PyAV: two segments and a playlist."""
    data = video.read()
    assert len(data) == size_bytes
    (folder / "0.ts").write_bytes(data[: size_bytes // 2])
    (folder / "1.ts").write_bytes(data[size_bytes // 2 :])
    (folder / PLAYLIST).write_text("#EXTM3U\n0.ts\n1.ts\n")


@asynccontextmanager
async def streaming(here: Site, folder: Path, cut: Any = halves) -> AsyncIterator[httpx.AsyncClient]:
    made = Streaming(here.gateway, folder, cut=cut)
    listener = Listener(made.app)
    port = await listener.start()
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False) as http:
            yield http
    finally:
        await listener.stop()
        made.close()


async def body(here: Site, subject: str, key: Any = KEY) -> dict[str, Any]:
    signed = signature(key, f"{subject}{wallet_of(key)}{await here.sequence(key)}{here.time()}")
    return {"pubKey": signed["pubkey"], "walletAddress": signed["address"], "signature": signed["signature"], "reqTime": here.time()}


async def test_a_video_is_prepared_and_played(tmp_path: Path) -> None:
    async with site(tmp_path) as here, streaming(here, tmp_path) as http:
        await here.stored(HELLO)
        ozone = (await http.get(f"/getOzone/{WALLET}", headers={"Origin": "https://player.example"})).json()
        assert ozone == {"walletAddress": WALLET, "sequenceNumber": await here.sequence(), "ozone": str(here.memory.noz[WALLET])}
        ready = (await http.post(f"/prepareVideoFileCache/{WALLET}/{HELLO_HASH}", json=await body(here, HELLO_HASH))).json()
        assert ready["headerFile"] == PLAYLIST
        base = f"/getVideoSliceCache/{ready['reqId']}"
        playlist = await http.get(f"{base}/{PLAYLIST}", headers={"Origin": "https://player.example"})
        assert playlist.headers["content-type"].startswith("application/x-mpegURL")
        assert playlist.headers["access-control-allow-origin"] == "*"
        parts = [await http.get(f"{base}/{name}.ts") for name in (0, 1)]
        assert b"".join(one.content for one in parts) == HELLO
        assert parts[0].headers["content-type"] == "video/MP2T"
        for name in ("2.ts", "..%2f..%2fx", "index.html", "0.ts.ts", "%2e%2e"):
            assert (await http.get(f"{base}/{name}")).status_code in (404, 500)
        here.clock.now_s += 3_601
        gone = await http.get(f"{base}/0.ts")
        assert (gone.status_code, set(gone.json())) == (500, {"errcode", "data", "message"})
        assert here.gateway.room.taken_bytes == 0
        assert here.memory.open == 0


async def test_a_shared_video_is_paid_by_who_watches(tmp_path: Path) -> None:
    async with site(tmp_path) as here, streaming(here, tmp_path) as http:
        await here.stored(HELLO)
        shared = await here.call("user_requestShare", bool=True, **here.file_params(HELLO_HASH))
        link, before = shared["shareid"], here.memory.noz[wallet_of(OTHER)]
        wrong = await http.post(f"/prepareSharedVideoFileCache/{link}?password=no", json=await body(here, link, OTHER))
        assert (wrong.status_code, wrong.json()["errcode"]) == (500, -6)
        here.clock.now_s += 1
        right = await http.post(f"/prepareSharedVideoFileCache/{link}", params={"password": shared["password"]}, json=await body(here, link, OTHER))
        assert right.status_code == 200
        assert before - here.memory.noz[wallet_of(OTHER)] == len(HELLO)


async def test_who_has_not_signed_is_refused(tmp_path: Path) -> None:
    async with site(tmp_path) as here, streaming(here, tmp_path) as http:
        await here.stored(HELLO)
        path, good = f"/prepareVideoFileCache/{WALLET}/{HELLO_HASH}", await body(here, HELLO_HASH)
        theirs = await body(here, HELLO_HASH, OTHER)
        for wrong in (theirs, good | {"signature": theirs["signature"]}, good | {"reqTime": 5}, good | {"reqTime": "5"}, {}, [], {"pubKey": 1}):
            assert (await http.post(path, json=wrong)).status_code == 500
        assert (await http.post(path, content=b"x" * 20_000)).json()["errcode"] == -7
        assert (await http.post(f"/prepareVideoFileCache/{WALLET}/nothing", json=good)).json()["errcode"] == -7
        assert (await http.get("/getOzone/nobody")).json()["errcode"] == -7
        assert (await http.post(path, json=good)).status_code == 200


async def test_without_pyav_a_sentence_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    async with site(tmp_path) as here, streaming(here, tmp_path, cut_with_pyav) as http:
        await here.stored(HELLO)
        answer = await http.post(f"/prepareVideoFileCache/{WALLET}/{HELLO_HASH}", json=await body(here, HELLO_HASH))
        assert answer.status_code == 500
        assert "PyAV" in answer.json()["message"]
        assert here.gateway.room.taken_bytes == 0
        assert not list((tmp_path / "hls").iterdir())


async def test_segments_are_as_long_as_the_originals() -> None:
    assert segment_seconds(100, 32 << 20) == 60
    assert segment_seconds(100, 320 << 20) == 11  # 100 s in sqrt(91) parts
    assert segment_seconds(3, 3_200 << 20) == 2
