"""CometBFT's RPC as a thread-safe client."""

from __future__ import annotations

import base64
from typing import Any, Final

import httpx
import orjson

TIMEOUT_S: Final = 15.0


class CometUnavailable(Exception):
    """CometBFT's RPC does not answer."""


class CometRefused(Exception):
    """CometBFT answered with an error; the message is its own."""


class CometClient:
    """JSON-RPC over HTTP to ``tcp://host:port``, ``http://host:port`` or ``host:port``."""

    def __init__(self, address: str) -> None:
        address = address if "://" in address else f"http://{address}"
        self.url = address.replace("tcp://", "http://").replace("//0.0.0.0", "//127.0.0.1")
        self._http = httpx.Client(timeout=TIMEOUT_S, trust_env=False)

    def call(self, method: str, **params: Any) -> Any:
        """The result of a method. Raises CometUnavailable, CometRefused."""
        body = orjson.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
        try:
            answer = orjson.loads(self._http.post(self.url, content=body, headers={"content-type": "application/json"}).content)
        except (httpx.HTTPError, httpx.InvalidURL, orjson.JSONDecodeError) as error:
            raise CometUnavailable(f"CometBFT's RPC at {self.url} does not answer ({type(error).__name__}): is the node running?") from None
        if not isinstance(answer, dict) or not ("result" in answer or answer.get("error")):
            raise CometUnavailable(f"{self.url} answers, but it is not CometBFT's RPC: name its address with --node")
        if answer.get("error"):
            refusal = answer["error"]
            raise CometRefused(str(refusal.get("data") or refusal.get("message")))
        return answer["result"]

    def abci_query(self, path: str, data: bytes, height: int = 0, prove: bool = False) -> Any:
        """ABCI Query; the ``response`` object."""
        return self.call("abci_query", path=path, data=data.hex(), height=str(height), prove=prove)["response"]

    def broadcast(self, raw: bytes, mode: str = "sync") -> Any:
        """``broadcast_tx_sync`` or ``broadcast_tx_async``."""
        return self.call(f"broadcast_tx_{mode}", tx=base64.b64encode(raw).decode())

    def close(self) -> None:
        self._http.close()
