"""Claims of a campaign race through a real node: many operators, each over a connection of its own, and wallets that several of them claim for.

    plan ──► 20 threads broadcast at once ──► blocks decide who was first ──► what was refused whole is sent again without whoever has it ──► books

Beside the campaign with money enough runs one with half of what is asked of it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import random
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from threading import Barrier
from typing import Any, Final

from chain.api.comet import CometClient, CometRefused, CometUnavailable
from chain.codec.registry import message_class
from chain.coins import Coin, to_messages
from chain.crypto import address as bech32
from chain.crypto import hd
from chain.crypto.keys import PrivateKey
from chain.tx.build import Signer, build_tx
from tests.modules.granting import GRANT, PREPAID, STOS, claim, create_pool, make
from tests.support import Devnet, ask_until, devnet, key

BANK, AUTH = "cosmos.bank.v1beta1", "cosmos.auth.v1beta1"
NOZ: Final = 10**9
"""Of each claim."""
GAS: Final = 3_000_000
FUNDING_WEI: Final = 1_000 * STOS
PLENTY, SHORT = 1, 2
"""Campaigns."""
ALREADY_CLAIMED, BUDGET_SPENT = ("grant", 9), ("grant", 13)
EARLY: Final = 2
"""Of an operator's duplicates: they are sent among its own claims, and may come before what they repeat. The others come after them."""
FIRST_KEY: Final = 5_000
TIMEOUT_S: Final = 1_800


def claims_race(seed: int, *, claims: int = 10_000, duplicates: int = 1_000, operators: int = 20, batch: int = 100) -> dict[str, Any]:
    """``claims`` wallets in transactions of ``batch``, ``duplicates`` claims of one of them alone by other operators, all at once on a new devnet. Figures;
    AssertionError where a wallet has two claims, a budget is exceeded, or money or ozone does not add up to the last wei and noz.
    """
    with tempfile.TemporaryDirectory() as folder, devnet(Path(folder)) as running:
        return Race(running, seed, claims, duplicates, operators, batch).run()


@dataclass
class Sent:
    """A claim on its way."""

    campaign_id: int
    wallets: list[str]
    hash: str = ""


@dataclass
class Operator:
    """Who claims, one transaction after the other."""

    private: PrivateKey
    number: int = 0
    sequence: int = 0
    plan: list[Sent] = field(default_factory=list)

    @property
    def address(self) -> str:
        return bech32.encode(self.private.public_key.address)


class Race:
    """One race on one devnet."""

    def __init__(self, running: Devnet, seed: int, claims: int, duplicates: int, operators: int, batch: int) -> None:
        assert claims % (batch * operators) == 0, "expected whole transactions, equally many for each operator"
        self.net = running.net
        self.chain_id = str(running.net["chain_id"])
        self.choose = random.Random(seed)
        self.client = CometClient(running.net["rpc"], timeout_s=120)
        self.duplicates, self.batch = duplicates, batch
        self.operators = [Operator(key(FIRST_KEY + number, "eth_secp256k1" if number % 2 else "secp256k1")) for number in range(operators)]
        self.wallets = [wallet(seed, number) for number in range(claims)]
        self.others = [wallet(seed, claims + number) for number in range(operators * batch)]
        alice = next(one for one in running.net["accounts"] if one["name"] == "alice")
        self.sponsor = Operator(hd.derive(alice["mnemonic"], alice["hd_path"], alice["key_type"]))
        self.outcomes: dict[str, tuple[str, int]] = {}
        self.given: list[tuple[int, str, int, int]] = []
        """(campaign, wallet, noz, wei) of every EventClaim, in order."""
        self.read_height = running.height()

    def run(self) -> dict[str, Any]:
        try:
            prepaid_before = self._begin()
            self._plan()
            began = time.monotonic()
            self._broadcast()
            sent_s = time.monotonic() - began
            self._decided()
            raced = Counter(self.outcomes.values())
            first = self.read_height
            again = self._again()
            self._broadcast()
            self._decided()
            took_s = time.monotonic() - began
            return {
                "claims": len(self.wallets),
                "duplicates": self.duplicates,
                "operators": len(self.operators),
                "transactions": len(self.outcomes),
                "refused_as_claimed": raced[ALREADY_CLAIMED],
                "sent_again": again,
                "raced_until_block": first,
                "sent_in_s": round(sent_s, 1),
                "decided_in_s": round(took_s, 1),
                **self._check(prepaid_before),
            }
        finally:
            self.client.close()

    # --- before ---------------------------------------------------------------------------------------------------------------

    def _begin(self) -> int:
        """Operators with money for fees, a pool, two campaigns; returns the prepaid wei before the first claim."""
        self._account(self.sponsor)
        sponsor, texts = self.sponsor.address, [one.address for one in self.operators]
        sends = [make("MsgSend", BANK, from_address=sponsor, to_address=one, amount=to_messages((Coin("wei", 10 * STOS),))) for one in texts]
        self._must(*sends, create_pool(sponsor, FUNDING_WEI))
        asked = [self._quote_wei(len(wallets) * NOZ) for wallets in (self.wallets, self.others)]
        self._must(self._campaign(2 * asked[0]), self._campaign(asked[1] // 2))
        for one in self.operators:
            self._account(one)
        return self._held(PREPAID)

    def _campaign(self, budget_wei: int) -> Any:
        now_s = int(time.time())
        promotion = make("Promotion", promotion_id=1, name="welcome", noz_per_wallet=str(NOZ))
        promotion.start_time.seconds, promotion.end_time.seconds = now_s - 3_600, now_s + 86_400
        money = {"budget_wei": str(budget_wei), "max_wei_per_day": str(budget_wei), "max_noz_per_wallet": str(10 * NOZ)}
        made = make("MsgCreateCampaign", admin=self.sponsor.address, pool_id=2, name="race", validity_s=3_600, promotions=[promotion], **money)
        made.operators.extend(one.address for one in self.operators)
        made.end_time.seconds = now_s + 86_400
        return made

    def _plan(self) -> None:
        """Each operator's claims; duplicates are of other operators' wallets."""
        batches = [self.wallets[at : at + self.batch] for at in range(0, len(self.wallets), self.batch)]
        count = len(self.operators)
        for at, one in enumerate(self.operators):
            mine = [Sent(PLENTY, wallets) for wallets in batches[at::count]]
            mine.append(Sent(SHORT, self.others[at * self.batch : (at + 1) * self.batch]))
            self.choose.shuffle(mine)
            strangers = [wallet for other, wallets in enumerate(batches) if other % count != at for wallet in wallets]
            alone = [Sent(PLENTY, [wallet]) for wallet in self.choose.sample(strangers, self.duplicates // count + (at < self.duplicates % count))]
            mixed = mine + alone[:EARLY]
            self.choose.shuffle(mixed)
            one.plan = mixed + alone[EARLY:]

    def _again(self) -> int:
        """Plan the claims that a duplicate's earlier claim of one wallet refused whole, without whoever has his; returns how many."""
        has = {wallet for campaign, wallet, _, _ in self.given if campaign == PLENTY}
        count = 0
        for one in self.operators:
            refused = [sent for sent in one.plan if len(sent.wallets) > 1 and self.outcomes[sent.hash] == ALREADY_CLAIMED]
            one.plan = [Sent(PLENTY, left) for left in ([wallet for wallet in sent.wallets if wallet not in has] for sent in refused) if left]
            count += len(one.plan)
        return count

    # --- the race -------------------------------------------------------------------------------------------------------------

    def _broadcast(self) -> None:
        """Sign everything, then send it from as many connections as there are operators, all of which begin at the same moment."""
        raws = {one.address: [self._signed(one, claim(one.address, sent.wallets, sent.campaign_id)) for sent in one.plan] for one in self.operators}
        for one in self.operators:
            for sent, raw in zip(one.plan, raws[one.address], strict=True):
                sent.hash = hash_of(raw)
        start = Barrier(len(self.operators))

        def send(one: Operator) -> None:
            with closing(CometClient(self.net["rpc"], timeout_s=120)) as client:
                client.call("health")
                start.wait()
                for raw in raws[one.address]:
                    answer = client.broadcast(raw)
                    assert answer["code"] == 0, f"{one.address}: {answer}"

        with ThreadPoolExecutor(len(self.operators)) as threads:
            for done in [threads.submit(send, one) for one in self.operators]:
                done.result()

    def _decided(self) -> None:
        """Read blocks until every claim that was sent has an outcome. Raises TimeoutError."""
        waiting = {sent.hash for one in self.operators for sent in one.plan}
        until = time.monotonic() + TIMEOUT_S
        while waiting - self.outcomes.keys():
            if time.monotonic() > until:
                raise TimeoutError(f"{len(waiting - self.outcomes.keys())} transactions are in no block")
            try:
                latest = int(self.client.call("status")["sync_info"]["latest_block_height"])
                while self.read_height < latest:
                    self._read_block(self.read_height + 1)
                    self.read_height += 1
            except (CometUnavailable, CometRefused):  # a block may be there before its results are
                pass
            time.sleep(0.3)

    def _read_block(self, height: int) -> None:
        txs = self.client.call("block", height=str(height))["block"]["data"]["txs"]
        if not txs:
            return
        results = self.client.call("block_results", height=str(height))["txs_results"]
        for raw, result in zip(txs, results, strict=True):
            self.outcomes[hash_of(base64.b64decode(raw))] = (result.get("codespace", ""), int(result["code"]))
            for event in result["events"] if result["code"] == 0 else ():
                if event["type"] == f"{GRANT}.EventClaim":
                    values = {one["key"]: json.loads(one["value"]) for one in event["attributes"] if one["key"] != "msg_index"}
                    self.given.append((int(values["campaign_id"]), values["wallet"], int(values["granted_noz"]), int(values["cost_wei"])))

    # --- after ----------------------------------------------------------------------------------------------------------------

    def _check(self, prepaid_before_wei: int) -> dict[str, Any]:
        """The books. AssertionError where they do not balance."""
        kinds = Counter(self.outcomes.values())
        assert kinds.keys() <= {("", 0), ALREADY_CLAIMED, BUDGET_SPENT}, kinds
        told = Counter((campaign, wallet) for campaign, wallet, _, _ in self.given)
        assert max(told.values()) == 1, "a wallet was told of two claims"
        kept = {campaign: {one.wallet: one for one in self._claims(campaign)} for campaign in (PLENTY, SHORT)}
        assert kept[PLENTY].keys() == set(self.wallets), "not every wallet has its claim"
        assert {(campaign, wallet) for campaign, found in kept.items() for wallet in found} == told.keys(), "claims and events differ"
        budgets, spent = {}, {}
        for number in (PLENTY, SHORT):
            campaign = self._ask(GRANT, "Campaign", campaign_id=number).campaign
            budgets[number], spent[number] = int(campaign.budget_wei), int(campaign.spent_wei)
            running = 0
            for of, _, _, cost_wei in self.given:
                running += cost_wei if of == number else 0
                assert running <= budgets[number], f"campaign {number} had spent {running}wei of {budgets[number]}wei"
            assert running == spent[number] == sum(int(one.cost_wei) for one in kept[number].values())
            assert campaign.claims == len(kept[number])
        left_wei = budgets[SHORT] - spent[SHORT]
        assert kinds[BUDGET_SPENT], "no claim was refused for the short budget"
        assert left_wei < self._quote_wei(self.batch * NOZ), "the short campaign has money left for another claim"
        reserved = sum(budgets.values()) - sum(spent.values())
        free, common = (int(self._ask(GRANT, "Pool", pool_id=number).pool.free_wei) for number in (2, 1))
        assert free + reserved + sum(spent.values()) == FUNDING_WEI, "the pool's money does not add up"
        assert self._held("grant") == common + free + reserved, "the account does not hold what pool and campaigns have"
        assert self._held(PREPAID) - prepaid_before_wei == sum(spent.values()), "the prepaid wei did not grow by what was spent"
        outstanding = self._ask(GRANT, "Outstanding")
        assert int(outstanding.promo_outstanding_noz) == sum(noz for _, _, noz, _ in self.given) == NOZ * len(self.given)
        assert int(outstanding.promo_cost_wei) == sum(spent.values())
        for operator in self.operators:
            sent = operator.sequence
            self._account(operator)
            assert operator.sequence == sent, f"{operator.address} is at {operator.sequence}, and sent {sent} transactions"
        return {
            "given": len(self.given),
            "refused_for_the_budget": kinds[BUDGET_SPENT],
            "spent_wei": str(sum(spent.values())),
            "left_of_the_short_budget_wei": str(left_wei),
            "missing": 0,
        }

    # --- the node -------------------------------------------------------------------------------------------------------------

    def _signed(self, one: Operator, *messages: Any, gas: int = GAS) -> bytes:
        signer = Signer(one.private.public_key, one.sequence, one.number)
        one.sequence += 1
        return build_tx(messages, fee=(Coin("wei", gas * 10**9),), gas_limit=gas, signers=[signer]).sign([one.private], self.chain_id)

    def _must(self, *messages: Any) -> None:
        """The sponsor's transaction, in a block without an error."""
        raw = self._signed(self.sponsor, *messages)
        answer = self.client.broadcast(raw)
        assert answer["code"] == 0, answer
        found = ask_until(lambda: self.client.call("tx", hash=base64.b64encode(hashlib.sha256(raw).digest()).decode(), prove=False))
        assert found["tx_result"]["code"] == 0, found["tx_result"]["log"]

    def _account(self, one: Operator) -> None:
        info = self._ask(AUTH, "AccountInfo", address=one.address).info
        one.number, one.sequence = info.account_number, info.sequence

    def _quote_wei(self, noz: int) -> int:
        return int(self._ask(GRANT, "SimClaim", granted_noz=str(noz)).cost_wei)

    def _held(self, module: str) -> int:
        return int(self._ask(BANK, "Balance", address=bech32.encode(bech32.module_address(module)), denom="wei").balance.amount)

    def _claims(self, campaign_id: int) -> Iterator[Any]:
        at = b""
        while True:
            page = self._ask(GRANT, "ClaimsByCampaign", campaign_id=campaign_id, pagination={"limit": 1_000, "key": at})
            yield from page.claims
            at = page.pagination.next_key
            if not at:
                return

    def _ask(self, package: str, method: str, **fields: Any) -> Any:
        request = message_class(f"{package}.Query{method}Request")(**fields)
        answer = self.client.abci_query(f"/{package}.Query/{method}", request.SerializeToString())
        assert not answer.get("code"), answer
        return message_class(f"{package}.Query{method}Response").FromString(base64.b64decode(answer["value"] or ""))


def wallet(seed: int, number: int) -> str:
    """A newcomer: an address without coins."""
    return bech32.encode(hashlib.sha256(b"newcomer %d of %d" % (number, seed)).digest()[:20])


def hash_of(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()
