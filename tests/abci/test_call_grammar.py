"""The checker of ABCI call sequences: against a second writing of the grammar, against the driver, and against what the real CometBFT sends."""

from __future__ import annotations

import base64
import json
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chain.api.comet import CometClient, CometRefused, CometUnavailable
from chain.codec.registry import message_class
from chain.comet import ensure_comet
from chain.testing.grammar import Call, GrammarError, check
from chain.testing.recorder import Recorded, RecordingProxy
from chain.testing.remote import ApplicationProcess
from chain.testing.validators import ValidatorKey
from genesis.document import comet_shape
from tests.abci.toy import Toy, driven
from tests.support import chain, free_ports, genesis_document, send

LETTERS = {
    "N": "init_chain",
    "O": "offer_snapshot",
    "A": "apply_snapshot_chunk",
    "I": "info",
    "P": "prepare_proposal",
    "R": "process_proposal",
    "X": "extend_vote",
    "V": "verify_vote_extension",
    "F": "finalize_block",
    "C": "commit",
    "q": "query",
    "t": "check_tx",
}
# Beginnings of what the grammar derives: Info may come at any time, and has to come where a recovery starts and where a state sync ends.
HEIGHTS = "(?:[PRXVI]*FI*C)*[PRXVI]*(?:FI*)?"
SYNC = "(?:O[AI]*)*"
GRAMMAR = re.compile(f"I*(?:N[I]*)?{SYNC}|I*N{HEIGHTS}|I*(?:NI*)?{SYNC}OI*A[AI]*I{HEIGHTS}|I{HEIGHTS}")


def word(text: str) -> list[Call]:
    return [Call(LETTERS[letter]) for letter in text]


PIECES = [*"NOAIPRXVFCqt", "IN", "OA", "OAI", "OAAqI", "PR", "RXV", "FC", "RFC", "PRXVFtC", "FIC"]


@settings(max_examples=1000, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=9).map("".join))
def test_the_checker_accepts_exactly_what_the_grammar_derives(text: str) -> None:
    allowed = GRAMMAR.fullmatch(text.replace("q", "").replace("t", "")) is not None
    try:
        check(word(text))
    except GrammarError:
        assert not allowed, text
    else:
        assert allowed, text


@pytest.mark.parametrize(
    ("text", "position", "why"),
    [
        ("F", 0, "a node starts with"),
        ("C", 0, "a node starts with"),
        ("IPRC", 3, "Commit without FinalizeBlock"),
        ("INRFF", 4, "after FinalizeBlock comes Commit"),
        ("INRFqRC", 5, "after FinalizeBlock comes Commit"),
        ("INFCN", 4, "only at the start"),
        ("IFCOA", 3, "only at the start"),
        ("NOF", 2, "was not restored"),
        ("OAOIR", 4, "was not restored"),
        ("OAAF", 3, "Info has to show"),
    ],
)
def test_a_call_out_of_order_is_named_with_the_reason(text: str, position: int, why: str) -> None:
    with pytest.raises(GrammarError, match=why) as caught:
        check(word(text))
    assert caught.value.position == position


@pytest.mark.parametrize(
    ("calls", "why"),
    [
        ([Call("init_chain", 5), Call("finalize_block", 4)], "this is height 5"),
        ([Call("info"), Call("finalize_block", 4), Call("commit"), Call("finalize_block", 6)], "this is height 5"),
        ([Call("info"), Call("process_proposal", 4), Call("finalize_block", 5)], "this is height 4"),
        ([Call("info"), Call("process_proposal", 4, b"a"), Call("extend_vote", 4, b"b")], "was not asked about"),
    ],
)
def test_heights_and_hashes_have_to_fit(calls: list[Call], why: str) -> None:
    with pytest.raises(GrammarError, match=why):
        check(calls)


def test_the_driver_keeps_to_the_grammar_for_each_application() -> None:
    recorded = [Recorded(Toy()), Recorded(Toy()), Recorded(Toy())]
    driver = driven(*recorded, initial_height=7, extensions_from=8)  # type: ignore[arg-type]
    driver.check_tx(b"a")
    for at in range(6):
        driver.next_height(failed_rounds=[None, [b"x"]] if at % 2 else [])
    driver.next_block([b"c"])
    again = Recorded(Toy())
    driver.apps = [recorded[0], recorded[1], again]  # type: ignore[list-item]
    driver.handshake(2)
    driver.next_height()
    for one, height in ((recorded[0], 8), (recorded[2], 7), (again, 8)):
        run = check(one.calls)
        assert (run.start, run.committed) == ("clean", height)
    assert check(again.calls).replayed == 7
    kinds = {call.kind for call in recorded[0].calls}
    assert {"prepare_proposal", "process_proposal", "extend_vote", "verify_vote_extension", "check_tx"} <= kinds


# --- the real CometBFT --------------------------------------------------------------------------------------------------------


class Node:
    """CometBFT in front of our application, with a recording proxy between them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.comet = str(ensure_comet())
        self.home = folder / "home"
        (folder / "app").mkdir()
        subprocess.run([self.comet, "init", "--home", str(self.home)], check=True, capture_output=True)
        key = ValidatorKey.numbered(0)
        public, private = (base64.b64encode(raw).decode() for raw in (key.public_key.raw, key.seed + key.public_key.raw))
        document = {
            "address": key.address.hex().upper(),
            "pub_key": {"type": "tendermint/PubKeyEd25519", "value": public},
            "priv_key": {"type": "tendermint/PrivKeyEd25519", "value": private},
        }
        (self.home / "config" / "priv_validator_key.json").write_text(json.dumps(document))
        consensus = {"abci": {"vote_extensions_enable_height": "2"}}
        genesis = comet_shape(genesis_document(chain(blocks=0).apps[0], consensus=consensus))  # type: ignore[arg-type]
        genesis["consensus_params"]["evidence"]["max_age_duration"] = str(172_800 * 10**9)  # CometBFT counts nanoseconds
        (self.home / "config" / "genesis.json").write_text(json.dumps(genesis))
        config = self.home / "config" / "config.toml"
        config.write_text(re.sub(r'^timeout_commit = ".*"$', 'timeout_commit = "100ms"', config.read_text(), flags=re.MULTILINE))
        self.app = ApplicationProcess.serve(folder / "app")
        self.app.info(info_request())
        self.proxy = RecordingProxy(str(folder / "proxy.sock"), str(folder / "app" / "abci.sock"))
        base = free_ports(2)
        self.rpc = f"tcp://127.0.0.1:{base}"
        self.flags = ["--rpc.laddr", self.rpc, "--p2p.laddr", f"tcp://127.0.0.1:{base + 1}", "--proxy_app", self.proxy.address]
        self.client = CometClient(self.rpc)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self.folder / "comet.log").open("ab") as log:
            self.process = subprocess.Popen([self.comet, "start", "--home", str(self.home), *self.flags], stdout=log, stderr=log)

    def height(self) -> int:
        try:
            return int(self.client.call("status")["sync_info"]["latest_block_height"])
        except (CometUnavailable, CometRefused):
            return 0

    def run_to(self, height: int) -> int:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            found = self.height()
            if found >= height:
                return found
            if self.process is None or self.process.poll() is not None:
                break
            time.sleep(0.05)
        raise TimeoutError(f"no block {height}: {(self.folder / 'comet.log').read_text()[-2000:]}")

    def kill_comet(self, kind: int = signal.SIGKILL) -> None:
        assert self.process is not None
        self.process.send_signal(kind)
        self.process.wait(30)

    def ended(self) -> None:
        """Wait until CometBFT is gone. It ends by itself when its application does; on a busy machine it was once seen to hang instead: then it is killed, as
        a supervisor would, since what it sent is looked at here and not how it ends."""
        assert self.process is not None
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.kill_comet()


def info_request() -> Any:
    return message_class("tendermint.abci.RequestInfo")()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    node = Node(tmp_path)
    yield node
    if node.process is not None and node.process.poll() is None:
        node.kill_comet()
    node.client.close()
    node.proxy.close()
    node.app.close()
    node.app.kill()


@pytest.mark.timeout(240)
def test_what_the_real_cometbft_sends_at_a_clean_start_and_after_kills_fits_the_grammar(node: Node) -> None:
    node.start()
    reached = node.run_to(4)
    for sequence in range(3):
        assert node.client.broadcast(send(2, 3, sequence=sequence))["code"] == 0
    node.run_to(reached + 2)
    node.kill_comet()
    time.sleep(0.2)
    calls = node.proxy.take()
    run = check(calls)
    assert run.start == "clean"
    assert run.committed >= reached + 1
    kinds = {call.kind for call in calls}
    assert {"info", "init_chain", "prepare_proposal", "process_proposal", "extend_vote", "finalize_block", "commit", "check_tx"} <= kinds

    # Each way of dying is a recovery afterwards: CometBFT alone, the application, both at once.
    for way in ("comet", "application", "both", "in order"):
        node.start()
        node.run_to(node.run_to(1) + 2)
        assert node.process is not None
        if way in ("application", "both"):
            node.app.kill()
        if way in ("comet", "both"):
            node.kill_comet()
        elif way == "in order":
            node.kill_comet(signal.SIGTERM)
        node.ended()
        time.sleep(0.2)
        run = check(node.proxy.take())
        assert (way, run.start) == (way, "recovery")
        assert run.committed >= 1
        if way in ("application", "both"):
            node.app.restart()
            node.app.info(info_request())


@pytest.mark.timeout(120)
def test_a_replay_from_the_first_block_is_a_clean_start_of_heights_without_rounds(node: Node) -> None:
    node.start()
    reached = node.run_to(4)
    node.kill_comet(signal.SIGTERM)
    time.sleep(0.2)
    node.proxy.take()
    node.app.kill()
    shutil.rmtree(node.folder / "app" / "db")
    node.app.restart()
    node.app.info(info_request())
    node.start()
    node.run_to(reached + 2)
    node.kill_comet()
    time.sleep(0.2)
    run = check(node.proxy.take())
    assert run.start == "clean"
    assert run.replayed >= reached
    assert run.committed > run.replayed
