"""Fixtures of the client's tests."""

from __future__ import annotations

import pytest

from sds_node import asking


@pytest.fixture
def one_segment_a_question(monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments that are coded at the same moment are asked for in one question. Tests that let some pass and count them need one for each."""
    monkeypatch.setattr(asking, "MAX_SEGMENTS_ASKED", 1)
