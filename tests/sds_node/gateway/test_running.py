"""A gateway as a node's program runs it: all doors open, and closed again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from sds_node.client.meta import MetaAddress
from sds_node.gateway.running import RunningGateway
from sds_node.gateway_settings import Settings
from tests.sds_node.gateway.memory import KEY, Clock, wallet_of

pytestmark = pytest.mark.asyncio
NOBODY = MetaAddress(b"\x01" * 20, "127.0.0.1", 1)


class Idle:
    """An owner that has nothing to do."""

    wallet = wallet_of(KEY)

    async def is_registered(self) -> bool:
        return False

    async def status(self) -> str:
        return "idle"

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(name)


async def test_all_doors_open_and_close(tmp_path: Path) -> None:
    home = tmp_path / "home"
    made = RunningGateway(
        home, "stratos-test-1", [NOBODY], Clock(), Settings(port=0), owner=Idle(), owner_port=0, rest_port=0, service_status=lambda _: "a gateway"
    )  # fmt: skip
    await made.start()
    try:
        ask: dict[str, Any] = {"jsonrpc": "2.0", "id": 1, "method": "user_requestServiceStatus", "params": [{"walletaddr": wallet_of(KEY)}]}
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{made.port}", timeout=30, trust_env=False) as http:
            assert (await http.post("/", json=ask)).json()["result"] == {"return": "0", "message": "a gateway"}
            assert (await http.post("/", json=ask | {"method": "owner_requestStatus"})).json()["error"]["code"] == -32_601
            taken = RunningGateway(tmp_path / "second", "stratos-test-1", [NOBODY], Clock(), Settings(port=made.port), rest_port=None)
            with pytest.raises(OSError):
                await taken.start()
        assert (home / "gateway" / "owner.token").exists()
    finally:
        await made.stop()
    assert not (home / "gateway" / "owner.token").exists()


async def test_without_any_meta_node_calls_are_answered_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sds_node.client.meta.PAUSE_S", 0.0)
    made = RunningGateway(tmp_path, "stratos-test-1", [NOBODY], Clock(), Settings(port=0), rest_port=None)
    await made.start()
    try:
        ask = {"jsonrpc": "2.0", "id": 1, "method": "user_requestGetOzone", "params": [{"walletaddr": wallet_of(KEY)}]}
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{made.port}", timeout=60, trust_env=False) as http:
            answer = (await http.post("/", json=ask)).json()["result"]
        assert (answer["return"], "no meta node answers" in answer["detail"]) == ("-10", True)
    finally:
        await made.stop()
