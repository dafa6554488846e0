"""Runs a history on an application: real CheckTx, proposals, votes and commits, and after every block what must hold.

every transaction of a block has one result, none comes of an exception that no rule raised, none succeeds twice
no invariant of any module is broken
what an import of an export computes is the same (``imported.py``)
"""

from __future__ import annotations

import hashlib
import json
import random
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from chain.application import Application
from chain.codec.registry import message_class, unpack_any
from chain.coins import Coin
from chain.errors import AppError
from chain.light.validators import ValidatorSet
from chain.testing.driver import BlockResult, Driver
from chain.tx.build import Signer, build_tx
from chain.tx.signing import DIRECT, LEGACY_AMINO_JSON
from tests.simulation.imported import ImportDiffers, Imported, ends_now
from tests.simulation.script import Block, Operation, Outcome, Script, types_in
from tests.simulation.world import DENOM, account

FAULTS = ("old sequence", "future sequence", "foreign key", "small fee", "late", "another chain")
GAS_PRICE_WEI = 10**9
PASSED = 3
KEEP_BLOCKS = 40
RECOVERED = "recovered: the node's log has the details"
"""The log of what no rule raised. Where the SDK itself panics, ``undefined``/111222 comes with a reason."""
Open = Callable[[], Application]


class Failed(Exception):
    """Something that must hold does not. ``kind`` is what a shrunk history has to fail with, too."""

    def __init__(self, kind: str, height: int, detail: str) -> None:
        super().__init__(f"block {height}: {kind}: {detail}")
        self.kind, self.height, self.detail = kind, height, detail


class Run:
    """One history in progress. ``open_application`` gives the application at its last commit; ``reopen`` is how likely it is closed and
    opened after a block; ``open_fresh`` an empty one to import into, None for no imports."""

    def __init__(self, genesis: dict[str, Any], open_application: Open, *, open_fresh: Open | None = None, reopen: float = 0.0) -> None:
        self._open, self._open_fresh, self._reopen = open_application, open_fresh, reopen
        self._restarts = random.Random("restarts")
        self.app = open_application()
        self.driver = Driver([self.app], genesis, keep_blocks=KEEP_BLOCKS)
        self.outcome = Outcome()
        self._waiting: dict[bytes, Operation] = {}
        self._facts: dict[int, list[int]] = {}
        self._done: set[bytes] = set()
        self._evidence: set[tuple[str, int]] = set()
        self._imported: Imported | None = None
        self._guarded(self._start)

    def _start(self) -> None:
        self.driver.start()
        self.driver.next_block()  # queries are answered from the first commit on

    def block(self, block: Block) -> None:
        """Raises Failed."""
        self._guarded(lambda: self._block(block))

    def close(self) -> None:
        """Close every application; what is still followed is compared once more. Raises Failed."""
        try:
            self._guarded(self._end_import)
            self._guarded(self._tally_proposals)
        finally:
            self.app.close()

    # --- one block ------------------------------------------------------------------------------------------------------------

    def _guarded(self, act: Callable[[], None]) -> None:
        try:
            act()
        except Failed:
            raise
        except ImportDiffers as error:
            raise Failed(f"import: {error.what}", self.driver.height, str(error)) from error
        except Exception as error:
            where = "".join(traceback.format_exception(error)[-4:])
            raise Failed(f"stopped by {type(error).__name__}", self.driver.height + 1, f"{error}\n{where}") from error

    def _block(self, block: Block) -> None:
        driver = self.driver
        self._facts.clear()
        raws = [self._checked(one) for one in block.operations]
        last = driver.blocks.get(driver.height)
        members = last.validators if last is not None else ValidatorSet()
        options: dict[str, Any] = {
            "time_step_s": block.time_step_s,
            "absent": _indices(members, block.absent),
            "nil": _indices(members, block.nil),
            "evidence": self._evidence_of(block),
        }
        if block.is_forced:
            waiting = [raw for raw in driver.mempool if raw not in raws]
            # A block takes a fee that CheckTx finds too small: last, or what was signed for the state of CheckTx would come too early.
            cheap = [raw for raw in raws if self._waiting[raw].fault == "small fee"]
            ordered = [*waiting, *(raw for raw in raws if raw not in cheap), *cheap]
            result = driver.next_block(ordered, **options)
            driver.recheck()
        else:
            result = driver.next_height(failed_rounds=[None] * block.failed_rounds, **options)
        self._look_at(result)
        self._check_invariants()
        self._follow(block)
        self._restart()

    def _checked(self, operation: Operation) -> bytes:
        """Sign it for the state that CheckTx has come to, and have it checked."""
        raw = operation.raw or self._signed(operation)
        if raw in self._waiting:
            return raw
        answer = self.driver.check_tx(raw)
        if answer.code:
            self._count(operation, answer, "refused ")
        else:
            for number in operation.signers:
                self._facts_of(number)[1] += 1
        self._waiting[raw] = operation
        return raw

    def _look_at(self, result: BlockResult) -> None:
        for raw, one in zip(result.txs, result.results, strict=True):
            operation = self._waiting.get(raw)
            assert operation is not None, "a proposer can only take what was offered"
            self._count(operation, one)
            if one.code == 0:
                if raw in self._done:
                    raise Failed("a transaction succeeded twice", result.height, operation.name)
                self._done.add(raw)
                self._tally(self.outcome.succeeded, operation.decoded(), skip="MsgSubmitProposal")
            self._tally(self.outcome.attempted, operation.decoded())
        self._waiting = {raw: operation for raw, operation in self._waiting.items() if raw in self.driver.mempool}
        shown = [(one.code, one.codespace, one.data.hex(), one.gas_wanted, one.gas_used) for one in result.results]
        events = [one.events for one in result.results]
        self.outcome.lines.append([result.app_hash.hex(), _digest(shown), _digest(events)])

    def _count(self, operation: Operation, answer: Any, prefix: str = "") -> None:
        if RECOVERED in answer.log:
            raise Failed("panic", self.driver.height + 1, f"{operation.name}: {answer.log}")
        codes = self.outcome.codes.setdefault(operation.name + (f" ({operation.fault})" if operation.fault else ""), {})
        code = f"{prefix}{answer.codespace}/{answer.code}" if answer.code else "ok"
        codes[code] = codes.get(code, 0) + 1

    def _tally(self, counts: dict[str, int], messages: Sequence[Any], *, skip: str = "") -> None:
        for message in messages:
            names = list(types_in(message))
            for name in names[:1] if skip and names[0].endswith(skip) else names:
                counts[name] = counts.get(name, 0) + 1

    def _tally_proposals(self) -> None:
        """What passed proposals carried, was executed."""
        request = message_class("cosmos.gov.v1.QueryProposalsRequest")(proposal_status=PASSED, pagination={"limit": 10_000})
        for proposal in self.app.query_rpc("/cosmos.gov.v1.Query/Proposals", request)[0].proposals:
            self._tally(self.outcome.succeeded, [unpack_any(one) for one in proposal.messages])

    def _check_invariants(self) -> None:
        broken = self.app.broken_invariants()
        if broken:
            raise Failed("invariant " + broken[0].partition(":")[0], self.driver.height, "; ".join(broken))

    # --- signing --------------------------------------------------------------------------------------------------------------

    def _facts_of(self, number: int) -> list[int]:
        """[account number, next sequence] of an account, what waits in the mempool counted in."""
        if number not in self._facts:
            request = message_class("cosmos.auth.v1beta1.QueryAccountInfoRequest")(address=account(number).text)
            try:
                info = self.app.query_rpc("/cosmos.auth.v1beta1.Query/AccountInfo", request)[0].info
                found = [int(info.account_number), int(info.sequence)]
            except AppError:
                found = [0, 0]
            found[1] += sum(number in operation.signers for raw, operation in self._waiting.items() if raw in self.driver.mempool)
            self._facts[number] = found
        return self._facts[number]

    def _signed(self, operation: Operation) -> bytes:
        fault = operation.fault
        shift = {"old sequence": -1, "future sequence": 3}.get(fault, 0)
        mode = LEGACY_AMINO_JSON if operation.amino else DIRECT
        signers = []
        for number in operation.signers:
            account_number, sequence = self._facts_of(number)
            signers.append(Signer(account(number).key.public_key, max(sequence + shift, 0), account_number, mode))
        price = GAS_PRICE_WEI // 2 if fault == "small fee" else GAS_PRICE_WEI
        unsigned = build_tx(
            operation.decoded(),
            fee=(Coin(DENOM, operation.gas * price),),
            gas_limit=operation.gas,
            signers=signers,
            timeout_height=max(self.driver.height, 1) if fault == "late" else 0,
            granter=account(operation.granter).text if operation.granter >= 0 else "",
        )
        keys = [account(number + (1 if fault == "foreign key" else 0)).key for number in operation.signers]
        try:
            return unsigned.sign(keys, "another-1" if fault == "another chain" else self.driver.chain_id)
        except AppError:
            if not operation.name.startswith(("mangled", "batch", "usurper")):
                raise
            return unsigned.encode([bytes(64)] * len(keys))  # nobody could sign this; a node is sent it all the same

    # --- validators -----------------------------------------------------------------------------------------------------------

    def _evidence_of(self, block: Block) -> list[Any]:
        """Each double vote once, as CometBFT sees to."""
        found, driver = [], self.driver
        for address, ago in block.evidence:
            height = driver.height - ago
            stored = driver.blocks.get(height)
            indices = _indices(stored.validators, (address,)) if stored is not None else []
            if indices and (address, height) not in self._evidence:
                self._evidence.add((address, height))
                found.append(driver.duplicate_vote(indices[0], height=height))
        self.outcome.evidence += len(found)
        return found

    # --- other lives ----------------------------------------------------------------------------------------------------------

    def _follow(self, block: Block) -> None:
        if self._imported is not None:
            self.outcome.followed += 1
            if self._imported.follow(self.driver):
                return
            self._end_import()
        if block.imports and self._open_fresh is not None and not ends_now(self.app, self.driver):
            self._imported = Imported(self.app, self.driver, self._open_fresh())
            self.outcome.imports += 1

    def _end_import(self) -> None:
        imported, self._imported = self._imported, None
        if imported is not None:
            imported.end(self.app)

    def _restart(self) -> None:
        if self._reopen and self._restarts.random() < self._reopen:
            self.app.close()
            self.app = self._open()
            self.driver.apps = [self.app]
            self.driver.recheck()


def run(script: Script, open_application: Open, **options: Any) -> Outcome:
    """A whole history. Raises Failed."""
    running = Run(script.genesis, open_application, **options)
    try:
        for block in script.blocks:
            running.block(block)
    except Failed:
        running.app.close()
        raise
    running.close()
    return running.outcome


def _indices(members: ValidatorSet, addresses: tuple[str, ...]) -> list[int]:
    wanted = frozenset(addresses)
    return [at for at, one in enumerate(members) if one.address.hex() in wanted]


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()
