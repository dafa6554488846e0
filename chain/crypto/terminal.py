"""What a user types, read as simd reads it: from the terminal, without echo for passphrases, else line by line from standard input."""

from __future__ import annotations

import getpass
import sys
from typing import Final

from chain.crypto.keyring_backends import MIN_PASSPHRASE_CHARACTERS, KeyringError

MAX_LINE_CHARACTERS: Final = 1 << 16


def remark(text: str) -> None:
    """A line on stderr, beside the result."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def ask_line(prompt: str) -> str:
    """A line from the user, trimmed. Raises EOFError."""
    if prompt and sys.stdin.isatty():
        remark(f"> {prompt}")
    return _read_line()


def ask_secret(prompt: str) -> str:
    """A line that is not echoed on a terminal. Raises EOFError."""
    if sys.stdin.isatty():
        return getpass.getpass(prompt, stream=sys.stderr)
    return _read_line()


def ask_passphrase(prompt: str) -> str:
    """A passphrase of at least eight characters. Raises EOFError, KeyringError."""
    typed = ask_secret(prompt)
    if len(typed) < MIN_PASSPHRASE_CHARACTERS:
        raise KeyringError(f"password must be at least {MIN_PASSPHRASE_CHARACTERS} characters")
    return typed


def confirmed(question: str) -> bool:
    """True if the user's answer begins with y or Y. Raises EOFError."""
    if sys.stdin.isatty():
        sys.stderr.write(f"{question} [y/N]: ")
        sys.stderr.flush()
    return _read_line().lower().startswith("y")


def _read_line() -> str:
    line = sys.stdin.readline(MAX_LINE_CHARACTERS)
    if not line:
        raise EOFError
    return line.strip()
