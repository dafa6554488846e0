"""The documentation says what the gateway does: its methods, codes and settings are those of the tables."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from sds_node.gateway.gateway import Gateway
from sds_node.gateway.methods import WORK
from sds_node.gateway.results import CODES, RPC_CODES
from sds_node.gateway.table import METHODS, OWNER_METHODS, as_markdown
from sds_node.gateway_settings import Settings

DOCS = (Path(__file__).parents[3] / "docs" / "gateway.md").read_text()


def test_every_method_is_documented_as_it_is() -> None:
    assert as_markdown(METHODS) in DOCS
    assert as_markdown(OWNER_METHODS) in DOCS
    assert {one.name for one in METHODS} == set(WORK)
    assert Gateway is not None


def test_every_code_and_setting_is_documented() -> None:
    for code in (*CODES, *RPC_CODES):
        assert f"| `{code.code}` | {code.name} | {code.text} |" in DOCS
    for field in dataclasses.fields(Settings):
        assert f"| `{field.name}` |" in DOCS


def test_the_documentation_names_no_method_that_is_not_there() -> None:
    named = set(re.findall(r"\b(?:user|owner)_request\w+|\buser_\w+", DOCS)) - {"user_has_file", "user_"}
    assert named <= {one.name for one in (*METHODS, *OWNER_METHODS)}
