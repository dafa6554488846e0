"""What a resource node keeps of limits and receipts."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from modules.settlement import leaves
from modules.settlement.documents import Receipt
from sds_node.documents import signed
from sds_node.resource.limits import Limits
from sds_node.resource.receipts import (
    AlreadyUsed,
    Progress,
    ReceiptLog,
    ReceiptsDamaged,
    ReceiptsLocked,
    ReceiptsUnusable,
    UnknownSerial,
    open_receipts,
)
from tests.sds_node.documenting import BENEFICIARY, CHAIN_ID, NODE, NOW_S, SESSION, Chain, certificate, evidence, limit, meta_address
from tests.serials import own_serial

EXPIRED_S = NOW_S + 601


def serial(number: int) -> bytes:
    return own_serial(meta_address(1), number)


def receipt(number: int, acked: int, sequence: int = 1, *, is_final: bool = False) -> Any:
    times = {"first_ms": NOW_S * 1000, "last_ms": NOW_S * 1000 + sequence}
    fields = {"chain_id": CHAIN_ID, "serial": serial(number), "sequence": sequence, "bytes_acked": acked, "chunks_digest": b"d" * 32}
    return signed(Receipt(**fields, **times, is_final=is_final), SESSION)


def accept(log: ReceiptLog, number: int, **changes: Any) -> None:
    log.accept(certificate(), evidence(number, **changes), limit(number, **changes)).result()


def pending(log: ReceiptLog, now_s: int = NOW_S) -> list[int]:
    return [int.from_bytes((leaves.identity(leaf) or b"")[leaves.PREFIX_BYTES :]) for leaf in log.pending(now_s)]


def test_a_final_receipt_is_ready_for_settlement_as_the_chain_judges_it(tmp_path: Path) -> None:
    with open_receipts(tmp_path / "receipts") as log:
        accept(log, 1)
        accept(log, 2)
        log.finish(serial(1), receipt(1, 999, is_final=True)).result()
        (leaf,) = log.pending(NOW_S)
        assert leaf.noz == 999
        assert leaves.fault(leaf, CHAIN_ID, Chain().ledger_key) is None


def test_the_last_receipt_of_an_expired_serial_is_ready_for_settlement_and_no_other(tmp_path: Path) -> None:
    with open_receipts(tmp_path / "receipts") as log:
        for number in (1, 2, 3):
            accept(log, number)
        log.note(serial(1), receipt(1, 10))
        log.note(serial(1), receipt(1, 700, 2))
        log.note(serial(3), receipt(3, 0))
        assert pending(log) == []
        assert pending(log, EXPIRED_S) == [1]
        (leaf,) = log.pending(EXPIRED_S)
        assert leaf.noz == 700
        assert leaves.fault(leaf, CHAIN_ID, Chain().ledger_key) is None


def test_receipts_are_kept_while_the_disk_refuses_and_written_when_it_works_again(tmp_path: Path) -> None:
    with open_receipts(tmp_path / "receipts", window_s=0.05) as log:
        accept(log, 1)
        accept(log, 2)

        def fails(database: sqlite3.Connection) -> None:
            log._write_noted(database)
            raise sqlite3.OperationalError("database or disk is full")

        log.note(serial(1), receipt(1, 700))
        with pytest.raises(ReceiptsUnusable, match="has room"):
            log._do(fails, is_durable=True).result()
        final = log.finish(serial(2), receipt(2, 300, is_final=True))
        final.result()
        entry = log.find(serial(1)).result()
        assert entry is not None
        assert entry.receipt.bytes_acked == 700  # type: ignore[union-attr]
        assert pending(log, EXPIRED_S) == [1, 2]
    with open_receipts(tmp_path / "receipts") as log:
        assert pending(log, EXPIRED_S) == [1, 2]


def test_a_final_receipt_that_is_not_written_leaves_the_one_before_it(tmp_path: Path) -> None:
    with open_receipts(tmp_path / "receipts", window_s=30) as log:
        accept(log, 1)
        log.note(serial(1), receipt(1, 700))

        def fails(database: sqlite3.Connection) -> None:
            raise sqlite3.OperationalError("disk I/O error")

        # One batch: the thread is held until all three are in the queue.
        started, held = threading.Event(), threading.Event()

        def holds(database: sqlite3.Connection) -> None:
            started.set()
            held.wait()

        log._do(holds)
        started.wait()
        final = log.finish(serial(1), receipt(1, 900, 2, is_final=True))
        failing = log._do(fails)
        held.set()
        assert isinstance(failing.exception(), ReceiptsUnusable)
        assert isinstance(final.exception(), ReceiptsUnusable)
        assert pending(log, EXPIRED_S) == [1]
        (leaf,) = log.pending(EXPIRED_S)
        assert leaf.noz == 700


def test_work_that_is_refused_takes_no_receipt_along(tmp_path: Path) -> None:
    with open_receipts(tmp_path / "receipts", window_s=30) as log:
        accept(log, 1)
        log.note(serial(1), receipt(1, 700))

        def refused(database: sqlite3.Connection) -> None:
            log._write_noted(database)
            raise UnknownSerial("no such serial")

        with pytest.raises(UnknownSerial):
            log._do(refused).result()
        assert pending(log, EXPIRED_S) == [1]


def test_a_serial_is_accepted_once_over_restarts_too(tmp_path: Path) -> None:
    with open_receipts(tmp_path / "receipts") as log:
        accept(log, 1)
        with pytest.raises(AlreadyUsed, match="accepted before"):
            accept(log, 1)
    with open_receipts(tmp_path / "receipts") as log, pytest.raises(AlreadyUsed):
        accept(log, 1)


def test_what_was_accepted_is_taken_again_after_a_restart(tmp_path: Path) -> None:
    with open_receipts(tmp_path / "receipts") as log:
        for number in range(1, 6):
            accept(log, number)
        log.finish(serial(2), receipt(2, 5, is_final=True)).result()
    limits = Limits(Chain(), NODE, BENEFICIARY)
    with open_receipts(tmp_path / "receipts") as log:
        limits.restore(log.accepted(NOW_S), NOW_S)
        assert list(log.accepted(EXPIRED_S)) == []
    for number in range(1, 6):
        with pytest.raises(Exception, match="was used already"):
            limits.accept(certificate(), evidence(number), NOW_S)
    limits.accept(certificate(), evidence(6), NOW_S)


def test_a_receipt_needs_an_open_serial(tmp_path: Path) -> None:
    with open_receipts(tmp_path / "receipts") as log:
        with pytest.raises(UnknownSerial):
            log.finish(serial(1), receipt(1, 5, is_final=True)).result()
        accept(log, 1)
        log.finish(serial(1), receipt(1, 5, is_final=True)).result()
        with pytest.raises(UnknownSerial):
            log.finish(serial(1), receipt(1, 9, 2, is_final=True)).result()
        log.note(serial(1), receipt(1, 9, 2))
        entry = log.find(serial(1)).result()
        assert entry is not None
        assert (entry.progress, entry.receipt.bytes_acked) == (Progress.FINAL, 5)  # type: ignore[union-attr]


def test_what_is_settled_is_told_no_more_and_goes_when_its_time_has_passed(tmp_path: Path) -> None:
    with open_receipts(tmp_path / "receipts") as log:
        for number in range(1, 9):
            accept(log, number)
            if number < 7:
                log.finish(serial(number), receipt(number, number, is_final=True)).result()
        assert log.settled([serial(1), serial(4), serial(99)]) == [serial(99)]
        assert pending(log) == [2, 3, 5, 6]
        assert log.pending_count(NOW_S).result() == 4
        assert log.compact(EXPIRED_S, keep_s=10) == 0
        # The settled ones and those whose receipt pays nothing: 1, 4, 7 and 8.
        assert [log.compact(EXPIRED_S + 10, keep_s=10, limit=3) for _ in range(3)] == [3, 1, 0]
        assert pending(log) == [2, 3, 5, 6]
        assert log.find(serial(1)).result() is None


def test_pages_of_leaves_follow_one_another(tmp_path: Path) -> None:
    with open_receipts(tmp_path / "receipts") as log:
        for number in range(1, 8):
            accept(log, number)
            log.finish(serial(number), receipt(number, number, is_final=True))
        found: list[bytes] = []
        while page := log.pending(NOW_S, found[-1] if found else b"", limit=3):
            found += [leaves.identity(leaf) or b"" for leaf in page]
        assert found == [serial(number) for number in range(1, 8)]
        with pytest.raises(ValueError, match="1 to 1000"):
            log.pending(NOW_S, limit=1001)
        with pytest.raises(ValueError, match="at most 1000"):
            log.settled([serial(1)] * 1001)


def test_closed_sessions_and_proofs_are_kept(tmp_path: Path) -> None:
    with open_receipts(tmp_path / "receipts") as log:
        log.close_session(b"k" * 32, NOW_S + 5).result()
        log.keep_proof(evidence(1).order_limit, evidence(2).order_limit).result()
    with open_receipts(tmp_path / "receipts") as log:
        assert log.closed_sessions(NOW_S) == [(b"k" * 32, NOW_S + 5)]
        assert log.closed_sessions(NOW_S + 5) == []
        assert log.proofs() == [(evidence(1).order_limit, evidence(2).order_limit)]


def test_one_process_has_the_file_and_a_closed_one_says_so(tmp_path: Path) -> None:
    log = open_receipts(tmp_path / "receipts")
    assert (tmp_path / "receipts").stat().st_mode & 0o777 == 0o600
    with pytest.raises(ReceiptsLocked, match="another process"):
        open_receipts(tmp_path / "receipts")
    log.close()
    log.close()
    with pytest.raises(ReceiptsUnusable, match="is closed"):
        accept(log, 1)
    with pytest.raises(ReceiptsUnusable, match="closed"):
        log.note(serial(1), receipt(1, 1))


def test_a_row_that_rotted_is_told_and_the_others_are_paid(tmp_path: Path) -> None:
    with open_receipts(tmp_path / "receipts") as log:
        for number in (1, 2, 3):
            accept(log, number)
            log.finish(serial(number), receipt(number, 7, is_final=True)).result()
    database = sqlite3.connect(tmp_path / "receipts")
    database.execute("UPDATE serials SET evidence = x'00' WHERE serial = ?", (serial(2),))
    database.commit()
    database.close()
    with open_receipts(tmp_path / "receipts") as log:
        assert pending(log) == [1, 3]
        assert [text for text in log.damaged if serial(2).hex() in text]
        assert list(log.verify()) == [f"receipts: the row of serial {serial(2).hex()} is not what was written"]
        with pytest.raises(ReceiptsDamaged):
            log.find(serial(2)).result()
        assert len(list(log.accepted(NOW_S))) == 2


def test_a_torn_tail_is_cut_off_and_what_was_synced_before_stays(tmp_path: Path) -> None:
    """The file and its log are copied as a crash leaves them, and cut at every hundredth byte: what is there is a beginning of what was written."""
    log = open_receipts(tmp_path / "receipts")
    for number in range(1, 6):
        accept(log, number)
        log.finish(serial(number), receipt(number, 7, is_final=True)).result()
    main, tail = (tmp_path / "receipts").read_bytes(), (tmp_path / "receipts-wal").read_bytes()
    assert len(tail) > 0
    seen = set()
    for cut in [*range(0, len(tail), max(len(tail) // 40, 1)), len(tail)]:
        copy = tmp_path / f"cut{cut}"
        copy.write_bytes(main)
        (tmp_path / f"cut{cut}-wal").write_bytes(tail[:cut])
        with open_receipts(copy) as opened:
            found = pending(opened)
            assert found == list(range(1, len(found) + 1))
            assert list(opened.verify()) == []
            seen.add(len(found))
    log.close()
    assert {0, 5} <= seen
    assert len(seen) > 2


def test_a_file_that_is_no_record_is_refused(tmp_path: Path) -> None:
    (tmp_path / "receipts").write_bytes(b"not a database, but long enough to look like one" * 100)
    with pytest.raises(ReceiptsDamaged, match="is damaged"):
        open_receipts(tmp_path / "receipts")
    with pytest.raises(ReceiptsUnusable):
        open_receipts(tmp_path / "missing" / "receipts")


CHILD = """
import sys
from pathlib import Path
from sds_node.resource.receipts import open_receipts
from tests.sds_node.data.test_receipts import accept, receipt, serial
log = open_receipts(Path(sys.argv[1]), window_s=60.0)
for number in range(int(sys.argv[2]), int(sys.argv[2]) + 1000):
    accept(log, number)
    print("accepted", number, flush=True)
    if number % 2:
        log.finish(serial(number), receipt(number, 7, is_final=True)).result()
        print("final", number, flush=True)
"""


def test_a_killed_process_loses_no_final_receipt_and_no_accepted_limit(tmp_path: Path) -> None:
    told: dict[str, set[int]] = {"accepted": set(), "final": set()}
    for first in (1_000, 3_000):
        child = subprocess.Popen([sys.executable, "-c", CHILD, str(tmp_path / "receipts"), str(first)], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        for line in child.stdout:
            what, number = line.split()
            told[what].add(int(number))
            if int(number) == first + 12:
                child.send_signal(signal.SIGKILL)
        child.stdout.close()
        assert child.wait() == -signal.SIGKILL
        with open_receipts(tmp_path / "receipts") as log:
            assert told["final"] <= set(pending(log))
            for number in told["accepted"]:
                with pytest.raises(AlreadyUsed):
                    accept(log, number)
