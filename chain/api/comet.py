"""CometBFT's RPC as a thread-safe client."""

from __future__ import annotations

import base64
from typing import Any, Final

import httpx
import orjson

TIMEOUT_S: Final = 15.0
MAX_ANSWER_BYTES: Final = 1 << 30
"""A block of CometBFT's largest size with its results, as JSON."""


class CometUnavailable(Exception):
    """CometBFT's RPC does not answer."""


class CometRefused(Exception):
    """CometBFT answered with an error; the message is its own."""


class CometClient:
    """JSON-RPC over HTTP to ``tcp://host:port``, ``http://host:port`` or ``host:port``."""

    def __init__(self, address: str, max_answer_bytes: int = MAX_ANSWER_BYTES, timeout_s: float = TIMEOUT_S) -> None:
        self._max_answer_bytes = max_answer_bytes
        address = address if "://" in address else f"http://{address}"
        self.url = address.replace("tcp://", "http://").replace("//0.0.0.0", "//127.0.0.1")
        # Reading the certificates that TLS trusts takes longer than most questions: a node on loopback needs none.
        self._http = httpx.Client(timeout=timeout_s, trust_env=False, verify=self.url.lower().startswith("https:"))

    def call(self, method: str, **params: Any) -> Any:
        """The result of a method. Raises CometUnavailable, CometRefused."""
        body = orjson.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
        try:
            answer = orjson.loads(self._post(body))
        except (httpx.HTTPError, httpx.InvalidURL, orjson.JSONDecodeError) as error:
            raise CometUnavailable(f"CometBFT's RPC at {self.url} does not answer ({type(error).__name__}): is the node running?") from None
        refusal = answer.get("error") if isinstance(answer, dict) else None
        if isinstance(refusal, dict):
            raise CometRefused(str(refusal.get("data") or refusal.get("message")))
        if not isinstance(answer, dict) or "result" not in answer:
            raise CometUnavailable(f"{self.url} answers, but it is not CometBFT's RPC: name its address with --node")
        return answer["result"]

    def _post(self, body: bytes) -> bytes:
        found = bytearray()
        with self._http.stream("POST", self.url, content=body, headers={"content-type": "application/json"}) as response:
            for part in response.iter_bytes():
                found += part
                if len(found) > self._max_answer_bytes:
                    raise CometUnavailable(f"{self.url} answers with more than {self._max_answer_bytes} bytes: is it CometBFT's RPC?")
        return bytes(found)

    def abci_query(self, path: str, data: bytes, height: int = 0, prove: bool = False) -> Any:
        """ABCI Query; the ``response`` object."""
        return self.call("abci_query", path=path, data=data.hex(), height=str(height), prove=prove)["response"]

    def broadcast(self, raw: bytes, mode: str = "sync") -> Any:
        """``broadcast_tx_sync`` or ``broadcast_tx_async``."""
        return self.call(f"broadcast_tx_{mode}", tx=base64.b64encode(raw).decode())

    def close(self) -> None:
        self._http.close()
