"""Endpoints as text: the one spelling of where something listens."""

from __future__ import annotations


def endpoint_text(host: str, port: int) -> str:
    """``host:port``, an IPv6 address in brackets; an empty host stays empty."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
