"""The tables of tools/economics.py say what the decisions about mining and grants say (storage-protocol.md 1.3, 1.5), and print as text and JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tools import economics

TABLES = economics.tables()


def row(table: str, **wanted: Any) -> dict[str, Any]:
    [found] = [one for one in TABLES[table] if all(one[key] == value for key, value in wanted.items())]
    return found


def test_by_the_original_s_rules_one_epoch_of_own_traffic_costs_1_3_stos_and_gives_about_49_back() -> None:
    found = row("example", rules="original", role="resource node")
    assert round(int(found["paid_wei"]) / 10**18, 1) == 1.3
    assert round(int(found["back_wei"]) / 10**18) == 49


def test_a_resource_node_alone_breaks_even_at_0_6766_in_the_first_tier_and_0_4385_in_the_last() -> None:
    assert [row("break_even", tier=tier, role="resource node")["cap"] for tier in (1, 6)] == ["0.6766", "0.4385"]


def test_with_a_cap_of_0_4_a_resource_node_alone_loses_in_every_tier() -> None:
    back = [float(row("ratios", tier=tier, rules="0.4", role="resource node")["back_per_paid"]) for tier in range(1, 7)]
    assert max(back) < 1
    assert back == sorted(back)


def test_whoever_owns_everything_loses_no_more_than_the_community_tax_without_mining_and_gains_with_it() -> None:
    for tier in range(1, 7):
        assert row("ratios", tier=tier, rules="0.4", role="everything")["back_per_paid"] == "1.3919"
        assert row("grants", tier=tier, role="everything")["back_per_paid"] == "0.9919"


def test_granted_ozone_gives_back_less_than_it_cost_the_pool_in_every_role() -> None:
    assert all(float(one["back_per_paid"]) < 1 for one in TABLES["grants"])
    assert row("grants", tier=1, role="resource node")["back_per_paid"] == "0.5939"


@pytest.mark.parametrize("role", [one.name for one in economics.ROLES])
def test_the_ratio_is_below_one_exactly_where_the_cap_is_below_break_even(role: str) -> None:
    for tier in range(1, 7):
        cap = float(row("break_even", tier=tier, role=role)["cap"])
        for rules in ("0.4", "0.5", "1"):
            assert (float(row("ratios", tier=tier, rules=rules, role=role)["back_per_paid"]) < 1) == (float(rules) < cap)


def test_the_command_prints_text_and_json_alike() -> None:
    root = Path(__file__).parent.parent.parent
    told = [
        subprocess.run([sys.executable, "-m", "tools.economics", *args], cwd=root, capture_output=True, text=True, check=True).stdout
        for args in ([], ["--json"])
    ]
    assert json.loads(told[1]) == TABLES
    for one in TABLES["ratios"]:
        assert one["back_per_paid"] in told[0]
