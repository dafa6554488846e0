"""Store ``evidence``: SDK 0.50's layout."""

STORE = "evidence"

EVIDENCE = b"\x00"


def evidence(digest: bytes) -> bytes:
    """``00 | SHA-256 of the evidence`` → Any of it."""
    return EVIDENCE + digest
