"""Kills of a process that writes, confirms, trashes, restores, purges, collects and scrubs with four threads; afterwards everything that it was told is
done must be there, with right bytes, and nothing else may be seen.

    parent ──"label count"──► nursery ──fork──► child: a line before and after every operation, SIGKILL at the step or at a moment
       └── opens the store, compares, and its findings are where the next child begins

``torture(folder, rounds, seed)`` is for the soak; the tests run a few rounds and one kill at every labelled step.
"""

from __future__ import annotations

import os
import random
import select
import signal
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sds_node.resource.store import Key, Settings, ShareExists, ShareStore, State, StoreError, collect, open_store, scrub, verify
from tests.sds_node.store.samples import files_of, path, serial, share

STEPS = (
    "begin",
    "data written",
    "trailer written",
    "file synced",
    "changes made",
    "changes committed",
    "indexed",
    "moved in",
    "folder synced",
    "state changed",
    "slots written",
    "rows removed",
    "files removed",
    "marked damaged",
    "put aside",
    "dues settled",
    "dues forgotten",
)
"""Every label of the store; a test holds this list and the code together."""

SETTINGS = Settings(reserve_bytes=0)
THREADS = 4
SLOTS = 6
"""Copies that each thread plays with. Roots are shared between threads, so copies share bytes."""
ABSENT = "ABSENT"
MOVES = {
    "write": {ABSENT: "PENDING"},
    "confirm": {"PENDING": "CONFIRMED"},
    "trash": {"PENDING": "TRASH", "CONFIRMED": "TRASH"},
    "restore": {"TRASH": "CONFIRMED"},
    "purge": {"TRASH": ABSENT},
}


def content(thread: int, slot: int) -> tuple[bytes, Key]:
    """The share of a thread's slot: every third is one that all threads have, of 3 KiB to 60 KiB."""
    number = slot if slot % 3 == 0 else thread * 100 + slot
    data, root = share(number, 3000 + number * 7919 % 57_000)
    return data, (root, serial(thread * 100 + slot))


def manifest_of(key: Key) -> bytes:
    return b"manifest of " + key[1]


# --- the child ----------------------------------------------------------------------------------------------------------------


def play(home: Path, seed: int, label: str, count: int, known: dict[str, str]) -> None:
    """Open the store and change it until the ``count``-th time at step ``label``, or for ever. ``known``: "thread slot" → state."""
    lock = threading.Lock()
    seen: Counter[str] = Counter()

    def at_step(step: str) -> None:
        with lock:
            seen[step] += 1
            if step == label and seen[step] == count:
                os.kill(os.getpid(), signal.SIGKILL)

    store = open_store(home, SETTINGS, at_step=at_step)
    threads = [threading.Thread(target=_play_slots, args=(store, seed, thread, known)) for thread in range(THREADS)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    os._exit(3)  # a thread ends by an error only


def _play_slots(store: ShareStore, seed: int, thread: int, known: dict[str, str]) -> None:
    choose = random.Random(seed * 1000 + thread)
    while True:
        slot = choose.randrange(SLOTS)
        name = f"{thread} {slot}"
        state = known.get(name, ABSENT)
        data, key = content(thread, slot)
        action = choose.choice([action for action, moves in MOVES.items() if state in moves])
        after = MOVES[action][state]
        _tell(f"begin {name} {after}")
        try:
            if action == "write":
                with store.begin(key[0], len(data), key[1], manifest_of(key)) as writer:
                    half = choose.randrange(len(data))
                    writer.write(data[:half])
                    writer.write(data[half:])
                    writer.finish()
            elif missing := getattr(store, action)([key]):
                raise AssertionError(f"{action} of {name} in {state}: {missing}")
            if after in ("PENDING", "CONFIRMED") and store.read(key[0]) != data:
                raise AssertionError(f"{name} has other bytes")
            if choose.random() < 0.15:
                collect(store)
            if choose.random() < 0.1:
                _damage_and_scrub(store, thread)
        except ShareExists:
            # Its bytes are still shared by other copies, which is told apart from being kept.
            after = ABSENT
        except Exception as error:  # the parent reads why
            _tell(f"error {name} {action} {state}: {type(error).__name__} {error}".replace("\n", " "))
            return
        known[name] = after
        _tell(f"done {name} {after}")


def _damage_and_scrub(store: ShareStore, thread: int) -> None:
    """A share of its own, which rots, is found, put aside and removed: so the steps of damage are met as well."""
    data, root = share(7000 + thread, 20_000)
    key = (root, serial(7000 + thread))
    try:
        with store.begin(root, len(data), key[1], b"") as writer:
            writer.write(data)
            writer.finish()
        file = path(store, key)
        file.write_bytes(bytes(10) + file.read_bytes()[10:])
        try:
            store.read(root)
            raise AssertionError("a damaged share was read")
        except StoreError:
            pass
        scrub(store, 1 << 20, 50)
    except StoreError as error:
        if type(error).__name__ not in ("ShareExists", "StoreBusy"):
            raise
    store.trash([key])
    store.purge([key])


def _tell(line: str) -> None:
    os.write(1, (line + "\n").encode())


def nursery() -> None:
    """Read "home seed label count known" lines; fork a child for each and say "dead <signal>" when it has died. Imports are paid once."""
    for line in sys.stdin:
        home, seed, label, count, known = line.rstrip("\n").split("\t")
        pid = os.fork()
        if pid == 0:
            play(Path(home), int(seed), label, int(count), dict(one.rsplit("=", 1) for one in known.split(",") if one))
        _tell(f"child {pid}")
        _, status = os.waitpid(pid, 0)
        _tell(f"dead {os.WTERMSIG(status) if os.WIFSIGNALED(status) else -os.WEXITSTATUS(status)}")


# --- the parent ---------------------------------------------------------------------------------------------------------------


class Nursery:
    """The process that forks the children, and the lines that it and they write."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._stdin, self._fd = process.stdin, process.stdout.fileno()
        self._rest = b""

    def ask(self, line: str) -> None:
        self._stdin.write(line.encode() + b"\n")
        self._stdin.flush()

    def lines(self) -> Iterator[str]:
        """A silence of 90 s is an error, not a hang."""
        while True:
            while b"\n" not in self._rest:
                assert select.select([self._fd], [], [], 90)[0], "the child is silent"
                data = os.read(self._fd, 1 << 16)
                assert data, "the nursery is gone"
                self._rest += data
            line, _, self._rest = self._rest.partition(b"\n")
            yield line.decode()


@contextmanager
def a_nursery() -> Iterator[Nursery]:
    command = [sys.executable, "-c", "from tests.sds_node.store.torture import nursery; nursery()"]
    root = Path(__file__).parents[3]
    # A session of its own, so that a child that plays on ends with it.
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, cwd=root, start_new_session=True) as process:
        try:
            yield Nursery(process)
        finally:
            os.killpg(process.pid, signal.SIGKILL)


class Life:
    """One store, killed again and again, and what is known of its copies."""

    def __init__(self, home: Path, nursery: Nursery) -> None:
        self.home, self._nursery = home, nursery
        self.known: dict[str, str] = {}
        self.operations = 0

    def kill(self, seed: int, label: str = "none", count: int = 0, after_operations: int | None = None) -> bool:
        """Let a child play until it dies at the step, or until it has told ``after_operations`` ends. Compares. Returns whether it met the step."""
        known = ",".join(f"{name}={state}" for name, state in self.known.items())
        self._nursery.ask(f"{self.home}\t{seed}\t{label}\t{count}\t{known}")
        allowed = {name: {state} for name, state in self.known.items()}
        pid, ended, signalled = 0, 0, False
        for line in self._nursery.lines():
            word, *rest = line.split(" ", 3)
            if word == "child":
                pid = int(rest[0])
            elif word == "error":
                raise AssertionError(line)
            elif word == "dead":
                assert int(rest[0]) == signal.SIGKILL, line
                break
            else:
                name, state = f"{rest[0]} {rest[1]}", rest[2]
                if word == "begin":
                    allowed[name] = {self.known.get(name, ABSENT), state}
                else:
                    allowed[name], self.known[name] = {state}, state
                    ended += 1
                    self.operations += 1
            if after_operations is not None and ended >= after_operations and pid and not signalled:
                os.kill(pid, signal.SIGKILL)
                signalled = True
        self._compare(allowed)
        return not signalled

    def _compare(self, allowed: dict[str, set[str]]) -> None:
        with open_store(self.home, SETTINGS) as store:
            ghosts = {copy.key for copy in store.index.after((b"", b"")) if copy.state is State.GHOST}
            assert all(any(copy.key not in ghosts for copy in store.index.of_root(root)) for root, _ in ghosts), "a ghost that nobody needs"
            found = {copy.key: copy for copy in store.inventory() if copy.serial not in {serial(7000 + thread) for thread in range(THREADS)}}
            for name, states in allowed.items():
                thread, slot = map(int, name.split())
                data, key = content(thread, slot)
                copy = found.pop(key, None)
                state = copy.state.name if copy is not None else ABSENT
                assert state in states, f"{name} is {state}, expected one of {states}"
                if state in ("PENDING", "CONFIRMED"):
                    assert store.has(*key)
                    assert store.read(key[0]) == data, name
                if copy is not None:
                    assert store.manifest(*key) == manifest_of(key)
                self.known[name] = state
            assert found == {}, "copies that nobody wrote are seen"
            self._clean(store)
            assert list(verify(store, with_bytes=True)) == []
            rows = sorted(path(store, copy.key).name for copy in store.index.after((b"", b"")))
            assert files_of(store) == rows, "a file without a row, or the reverse"

    def _clean(self, store: ShareStore) -> None:
        """Remove the shares that were damaged on purpose: they may have been met in any state, but never with wrong bytes."""
        for thread in range(THREADS):
            data, root = share(7000 + thread, 20_000)
            key = (root, serial(7000 + thread))
            with suppress(StoreError):
                assert store.read(root) == data
            store.trash([key])
            store.purge([key])


def torture(rounds: int = 500, seed: int = 0, folder: Path | None = None) -> dict[str, Any]:
    """For the soak: ``rounds`` kills, every other one at a labelled step in turn, the rest at random moments. Raises AssertionError."""
    choose = random.Random(seed)
    met: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(dir=folder) as home, a_nursery() as forks:
        life = Life(Path(home) / "store", forks)
        for number in range(rounds):
            label = STEPS[number // 2 % len(STEPS)] if number % 2 else "none"
            if life.kill(choose.randrange(1 << 30), label, choose.randint(1, 5), choose.randint(1, 60) if label == "none" else 2000):
                met[label] += 1
    return {"kills": rounds, "operations": life.operations, "kills_at_steps": dict(met)}
