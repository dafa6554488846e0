"""Databases for the ledger's tests: one of each kind."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.sds_node.postgres import Server, postgres

__all__ = ["Server", "kind_url", "postgres"]


@pytest.fixture(params=["sqlite", "postgres"])
def kind_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database, once for each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/ledger.db"
    server: Server = request.getfixturevalue("postgres")
    return server.database()
