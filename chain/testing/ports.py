"""Ports for tests: neighbouring ones that are free, below those that outgoing connections get."""

from __future__ import annotations

import contextlib
import random
import socket
from typing import Final

FIRST_OUTGOING_PORT: Final = 32768
"""Linux's ``ip_local_port_range`` begins here unless somebody changed it."""


def free_ports(count: int) -> int:
    """The first of ``count`` neighbouring free ports. Raises OSError where there are none.

    They are below those that the system gives to outgoing connections: one of these could take a port while the node that has it is down.
    """
    for _ in range(50):
        base = random.SystemRandom().randrange(10_000, FIRST_OUTGOING_PORT - count)
        with contextlib.ExitStack() as stack:
            try:
                for at in range(count):
                    stack.enter_context(socket.socket()).bind(("127.0.0.1", base + at))
            except OSError:
                continue
            return base
    raise OSError("no free neighbouring ports")
