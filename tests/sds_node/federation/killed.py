"""One meta node's part of a federation as a process, for a test that kills it: ``python -m tests.sds_node.federation.killed FOLDER NUMBER BASE``.

It says "ready" once it has started, and ends with its standard input.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

from sds_node.cli.output import configure_logs
from tests.sds_node.federation.orders import with_comet


async def main() -> None:
    folder, number, base = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    party = await with_comet(folder, folder / "ledger.export", number, base, time.time)
    await party.order.start()
    print("ready", flush=True)
    try:
        await asyncio.to_thread(sys.stdin.read)
    finally:
        await party.close()


if __name__ == "__main__":
    configure_logs("warn", "plain")
    asyncio.run(main())
