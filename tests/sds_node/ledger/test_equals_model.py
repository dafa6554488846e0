"""SQLite, PostgreSQL and dictionaries in memory agree: results, rows, app hash; whatever the grouping, the cache or who gives the order."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from sds_node.meta.ledger.blocks import BlockLedger
from sds_node.meta.ledger.core import Core
from sds_node.meta.ledger.engine import Ledger
from sds_node.meta.ledger.log import first_head
from sds_node.meta.ledger.sql import open_store
from sds_node.meta.ledger.verify import verify
from tests.sds_node.ledger.shop import LEDGER_ID, RULES, SCHEMA, Model, all_rows, history
from tests.sds_node.postgres import Server

OPERATIONS = 1_000


def fresh_model() -> Model:
    return Model(first_head(LEDGER_ID, "shop", 1, SCHEMA.digest).app_hash)


@pytest.mark.parametrize("seed", range(10, 20))
def test_random_operations_give_equal_results_rows_and_app_hashes_on_sqlite_postgresql_and_in_memory(
    tmp_path: Path, postgres: Server, seed: int
) -> None:
    """Ten thousand of them, in ten histories."""
    operations = history(seed, OPERATIONS)
    chosen = random.Random(2)
    model = fresh_model()
    cores = [
        # A cache too small to hold anything for long, and one that is never full.
        Core.open(open_store(f"sqlite:///{tmp_path}/ledger.db"), RULES, LEDGER_ID, cache_bytes=4_000),
        Core.open(open_store(postgres.database()), RULES, LEDGER_ID),
    ]
    codes: dict[int, int] = {}
    at, time_ms = 0, 1_000
    while at < len(operations):
        group = operations[at : at + chosen.choice((1, 3, 40, 200))]
        at += len(group)
        time_ms += chosen.randrange(-50, 200)  # a clock that also goes back
        for core in cores:
            core.begin(time_ms)
        time_of_group = max(time_ms, cores[0].head.time_ms)
        for raw in group:
            results = [core.apply(raw) for core in cores]
            wanted = model.run(raw, time_of_group)
            codes[wanted[0]] = codes.get(wanted[0], 0) + 1
            for result in results:
                assert (result.code, result.result, result.reason, result.app_hash) == (*wanted, model.app_hash), raw
                assert result.time_ms == time_of_group
        for core in cores:
            core.write()
            core.commit()
    assert {0, 1, 2, 16, 17, 19} <= set(codes)  # the ways to end were taken
    for core in cores:
        assert all_rows(core.tables) == model.all_rows()
        assert (core.head.app_hash, core.head.sequence) == (model.app_hash, OPERATIONS)
        core.close()


@pytest.mark.parametrize("seed", [3, 4])
def test_the_app_hash_does_not_depend_on_how_operations_are_grouped_or_put_into_blocks(tmp_path: Path, seed: int) -> None:
    operations = history(seed, 300)
    heads = []
    with Ledger.open(f"sqlite:///{tmp_path}/local.db", RULES, LEDGER_ID, now_ms=lambda: 5_000) as ledger:
        for answer in [ledger.submit(raw) for raw in operations]:
            answer.result()
        heads.append(ledger.head)
    for size in (1, 7, 300):
        with BlockLedger.open(f"sqlite:///{tmp_path}/{size}.db", RULES, LEDGER_ID) as blocks:
            for height, at in enumerate(range(0, len(operations), size), 1):
                blocks.begin(height, 5_000)
                blocks.deliver(operations[at : at + size])
                app_hash = blocks.end()
                blocks.commit()
                assert blocks.head.app_hash == app_hash
            heads.append(blocks.head)
    assert len({head._replace(height=0) for head in heads}) == 1


def test_a_ledger_verifies_from_its_log_alone(kind_url: str, tmp_path: Path) -> None:
    with Ledger.open(kind_url, RULES, LEDGER_ID) as ledger:
        for answer in [ledger.submit(raw) for raw in history(5, 300)]:
            answer.result()
        with ledger.snapshot() as view:
            verified = verify(view, RULES, tmp_path / "scratch.db")
            assert verified.operations == 300
            assert verified.rows == sum(map(len, all_rows(view).values())) > 0
