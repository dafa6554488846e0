"""The tables of tools/economics.py say what the decisions about mining and grants say (storage-protocol.md 1.3, 1.5), print as text and JSON, and are
those of docs/economics.md."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

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


def test_the_page_and_the_picture_are_what_the_script_makes() -> None:
    written = economics.PAGE.read_text()
    marked = [found[2] for found in economics.MARKED.finditer(written)]
    assert sorted(marked) == sorted(economics.TITLES)
    assert economics.page(TABLES, written) == written, "python -m tools.economics --write makes them anew"
    assert economics.PICTURE.read_text() == economics.picture()
    assert f"]({economics.PICTURE.name})" in written


def test_a_page_with_other_figures_is_not_what_the_script_makes() -> None:
    written = economics.PAGE.read_text()
    assert "48.5933" in written
    assert economics.page(TABLES, written.replace("48.5933", "48.5934")) == written


def test_the_picture_is_well_formed_and_has_a_line_for_each_tier() -> None:
    root = ElementTree.fromstring(economics.picture())
    lines = root.findall("{http://www.w3.org/2000/svg}polyline")
    assert len(lines) == 6
    assert all(len(one.get("points", "").split()) == 20 for one in lines)


def test_the_page_says_which_roles_gain_with_the_default_cap() -> None:
    gains = [
        (one["tier"], one["role"], one["back_per_paid"]) for one in TABLES["ratios"] if one["rules"] == "0.4" and float(one["back_per_paid"]) > 1
    ]
    assert [one for one in gains if one[1] != "everything"] == [(5, "+ 1 of 7 validators", "1.0090"), (6, "+ 1 of 7 validators", "1.0328")]
    assert "(0.9 % and 3.3 % of what he spends)" in economics.PAGE.read_text()


def test_the_price_rises_by_sales_and_by_a_leaving_and_falls_by_deposits_and_reports() -> None:
    prices = [int(one["price_wei"]) for one in TABLES["prices"]]
    assert prices[0] == 10**6
    assert [after > before for before, after in pairwise(prices)] == [True, True, True, False, False, True]
