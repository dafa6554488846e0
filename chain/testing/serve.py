"""An application alone at a socket, for drivers: ``python -m chain.testing.serve --address unix:///tmp/a.sock --database /tmp/db``.

``--application package.module:function`` names what builds it, called with the key-value backend, ``settings`` and ``cache_nodes`` as
``chain.app.build_application`` is. It ends at SIGTERM, at a fatal error, and when its standard input ends, so that none is left behind.
"""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
import threading
from pathlib import Path

import orjson

from chain.abci.server import AbciServer, AddressError
from chain.application import Settings
from chain.store.errors import StoreError
from chain.store.kv import open_backend
from chain.store.multistore import DEFAULT_CACHE_NODES


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m chain.testing.serve", description="An application at an ABCI socket.")
    parser.add_argument("--address", required=True, help="unix:///path or tcp://host:port")
    parser.add_argument("--database", required=True, type=Path)
    parser.add_argument("--backend", default="", help="goleveldb, rocksdb or memdb")
    parser.add_argument("--settings", default="{}", help="fields of chain.application.Settings as a JSON object")
    parser.add_argument("--cache-nodes", type=int, default=DEFAULT_CACHE_NODES)
    parser.add_argument("--application", default="chain.app:build_application", help="package.module:function")
    arguments = parser.parse_args()
    done = threading.Event()
    fatal: list[BaseException] = []

    def stop_for(error: BaseException) -> None:
        fatal.append(error)
        done.set()

    try:
        module, _, function = arguments.application.partition(":")
        build = getattr(importlib.import_module(module), function)
        settings = Settings(**orjson.loads(arguments.settings))
        app = build(open_backend(arguments.backend, arguments.database), settings, cache_nodes=arguments.cache_nodes)
        server = AbciServer(app, arguments.address, on_fatal=stop_for)
        server.start()
    except (AddressError, StoreError, ValueError, TypeError, ImportError, AttributeError) as error:
        print(f"chain.testing.serve: {error}", file=sys.stderr)  # noqa: T201  a command's own words
        return 1
    signal.signal(signal.SIGTERM, lambda *_: done.set())
    signal.signal(signal.SIGINT, lambda *_: done.set())
    threading.Thread(target=_end_with_input, daemon=True).start()
    done.wait()
    server.stop()
    app.close()
    return 1 if fatal else 0


def _end_with_input() -> None:
    while os.read(0, 4096):
        pass
    os._exit(3)


if __name__ == "__main__":
    sys.exit(main())
