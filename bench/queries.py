"""How long balance queries over gRPC take while something else keeps the node busy; printed when told to stop.

python -m bench.queries 127.0.0.1:9090 wei ADDRESS …
"""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from itertools import cycle

import grpc

from chain.codec.registry import message_class

PER_SECOND = 40
TIMEOUT_S = 30


def main() -> None:
    target, denom, *addresses = sys.argv[1:]
    request, response = (message_class(f"cosmos.bank.v1beta1.QueryBalance{kind}") for kind in ("Request", "Response"))
    took_ms: list[float] = []
    failed = 0
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit())
    with contextlib.suppress(SystemExit), grpc.insecure_channel(target) as channel:
        ask = channel.unary_unary(
            "/cosmos.bank.v1beta1.Query/Balance", request_serializer=request.SerializeToString, response_deserializer=response.FromString
        )
        for address in cycle(addresses):
            started = time.perf_counter()
            try:
                ask(request(address=address, denom=denom), timeout=TIMEOUT_S)
                took_ms.append((time.perf_counter() - started) * 1000)
            except grpc.RpcError:
                failed += 1
            time.sleep(max(1 / PER_SECOND - (time.perf_counter() - started), 0))
    took_ms.sort()
    at = [took_ms[int(len(took_ms) * share)] for share in (0.5, 0.99)] if took_ms else [0, 0]
    print(f"{len(took_ms)}, median {at[0]:.1f} ms, p99 {at[1]:.1f} ms, {failed} failed")


if __name__ == "__main__":
    main()
