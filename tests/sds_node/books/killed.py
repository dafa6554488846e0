"""A meta node's books in a process of its own that is killed between two steps: ``python -m tests.sds_node.books.killed FOLDER STEP``."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

from tests.sds_node.books.world import World, world


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


async def main(folder: Path, step: str) -> None:
    async with world(folder) as made:
        lease = await made.lease(100_000)
        answers = await made.hand_in(made.peer(1), *(made.leaf(lease, 1, 10 + at) for at in range(20)))
        print("held", sum(one.state == 1 for one in answers), flush=True)
        if step == "held":
            kill()
        await _settle(made, step)


async def _settle(made: World, step: str) -> None:
    propose = made.proposer.propose

    async def killed(kind: str, body: Any) -> Any:
        if step == "intended":
            kill()
        result = await propose(kind, body)
        if step == "applied":
            kill()
        return result

    made.proposer.propose = killed  # type: ignore[assignment,method-assign]
    await made.windows.settle()
    kill()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
