"""How a program begins and ends, so that Ctrl-C is quiet (exit code 130) at any moment, also in the second in which its modules are imported.

    console script, python -m ─► launch ─ Ctrl-C ends it at once ─► import ─► main(): Ctrl-C is KeyboardInterrupt ─► at once again, until Python ends

A KeyboardInterrupt within an import would be a traceback, or lost: some modules and all callbacks of Python itself swallow it. Nothing is imported here that
takes time.
"""

from __future__ import annotations

import os
import signal
import sys
from importlib import import_module

INTERRUPTED = 130


def launch(module: str) -> None:
    """Import a program's module and call its ``main``; does not return. A Ctrl-C that whoever started it has it ignore stays ignored."""
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        import_module(module).main()
        sys.exit()
    signal.signal(signal.SIGINT, _end)
    program = import_module(module)
    try:
        try:
            # The very one: asyncio looks for it, and cancels its task instead.
            signal.signal(signal.SIGINT, signal.default_int_handler)
            program.main()
        finally:
            signal.signal(signal.SIGINT, _end)
    except KeyboardInterrupt:
        # Before the program took care of it, or after.
        signal.signal(signal.SIGINT, _end)
        sys.exit(INTERRUPTED)
    sys.exit()


def stchaind() -> None:
    """Console script ``stchaind``."""
    launch("chain.cli.main")


def _end(_signal: int, _frame: object) -> None:
    # There is nothing to put in order: the program has not begun, or is done and has written what it had to.
    os._exit(INTERRUPTED)
