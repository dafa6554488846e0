"""An epoch is reported and paid (stratos-chain.md 4.4; storage-protocol.md 1.2, 1.3, 1.6, 1.7).

rules ─► signature of a quorum ─► commitment ─► distribution ─► coins ─► rewards, totals ─► Lt ─► roots
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from chain.codec.times import set_ns
from chain.context import Context
from chain.crypto import address as bech32
from chain.crypto import bls
from chain.dec import Dec, dec_of
from chain.errors import wrapped
from chain.ozone import Ozone
from chain.quorum import quorum
from chain.reports import ReportFacts, signed_message, tx_data
from chain.store.api import StateReader, StateWriter
from modules.pot import events, keys
from modules.pot.epochs import check_epoch, maturity_epoch
from modules.pot.errors import (
    BLSNotReachThreshold,
    BLSPubkeysInvalid,
    BLSTxDataInvalid,
    BLSVerifyFailed,
    EpochTooHigh,
    ReporterAddressOrOwner,
    TooManyWallets,
    VolumeReport,
)
from modules.pot.maturity import Maturity, coins
from modules.pot.params import DENOM, reward_params
from modules.pot.records import (
    FEE_COLLECTOR,
    FOUNDATION,
    FOUNDATION_ADDRESS,
    PREPAID,
    PREPAID_ADDRESS,
    REWARD_POOL,
    Amounts,
    Economics,
    ReportRecord,
    TotalMessage,
    wei,
)
from modules.pot.rewards import Distribution, Work, distribute

GAS_PER_SIGNATURE: Final = 30_000
GAS_PER_KEY: Final = 2_000
GAS_PER_WALLET: Final = 500
"""Beside what its records in the store cost."""


@dataclass(frozen=True, slots=True)
class Report:
    """A report whose form was checked: ``volumes`` are (wallet, noz), ascending by the wallets' texts; ``message`` the ``MsgVolumeReport``."""

    message: Any
    epoch: int
    reporter: bytes
    owner: bytes
    volumes: Sequence[tuple[bytes, int]]


def price(pool: Ozone) -> Dec:
    """wei per noz; 0 where all ozone is sold and nothing has a price."""
    return dec_of(pool.deposit_wei + pool.prepaid_wei).quo(dec_of(pool.remaining_noz)) if pool.remaining_noz else Dec(0)


class Reports(Maturity):
    """Reports of what was done in an epoch."""

    def report(self, ctx: Context, state: StateWriter, report: Report) -> None:
        """Check, pay, keep. Gas is charged before the work it is for.

        Raises ReporterAddressOrOwner (pot/33), MatureEpoch (8), EpochNotDue (101), EpochTooHigh (103), TooManyWallets (104), BLSTxDataInvalid (21),
        BLSPubkeysInvalid (22), BLSNotReachThreshold (24), BLSVerifyFailed (23), the rules of settlement and of grant, and VolumeReport (32) for what
        cannot be paid.
        """
        ctx.gas.consume(GAS_PER_WALLET * len(report.volumes), "wallets of a volume report")
        params = self.params(state)
        active = self.register.active_meta_nodes(state)
        self._check_reporter(report, active)
        self._check_epoch(ctx, state, report, params)
        if params.max_wallets_per_report and len(report.volumes) > params.max_wallets_per_report:
            raise TooManyWallets(f"expected at most {params.max_wallets_per_report}, got {len(report.volumes)}")
        signers = self._check_signature(ctx, state, report.message, len(active))

        promo = self.settlement.close(ctx, state, report.epoch, report.owner, report.message.report_reference, report.volumes)
        with wrapped(VolumeReport):
            paid_noz, paid = self._distribution(state, report, promo, active, params)
            self._pay(ctx, state, paid)
            matures = self._save(ctx, state, report, paid, params)
            if paid.volume_noz:
                self.register.return_ozone(ctx, state, paid.volume_noz)
        facts = ReportFacts(report.epoch, report.reporter, report.owner, report.message.report_reference, signers, report.volumes, matures)
        self.settlement.keep(ctx, state, facts)
        self._keep_economics(ctx, state, report.epoch, matures, paid_noz, paid)
        events.volume_report(ctx, report.message.report_reference, report.epoch)
        events.epoch_paid(ctx, report.epoch, paid.volume_noz, paid_noz, paid.spent_wei, paid.mined_wei, paid.community_wei)

    # --- rules ----------------------------------------------------------------------------------------------------------------

    @staticmethod
    def _check_reporter(report: Report, active: Sequence[Any]) -> None:
        text, owner = bech32.encode(report.reporter, bech32.NODE), bech32.encode(report.owner)
        for node in active:
            if node.network_address == text:
                if node.owner_address != owner:
                    raise ReporterAddressOrOwner(f"{text} is owned by {node.owner_address}, not by {owner}")
                return
        raise ReporterAddressOrOwner(f"expected an active meta node as the reporter, got {text}")

    def _check_epoch(self, ctx: Context, state: StateReader, report: Report, params: Any) -> None:
        # A chain that goes on from the original's genesis does not know when its last report was: it waits for none.
        last_ns = self.last_report_ns(state) or 0
        check_epoch(report.epoch, self.last_epoch(state), ctx.time_ns, last_ns, int(params.epoch_duration_s))
        if report.epoch > keys.MAX_EPOCH:
            raise EpochTooHigh(f"got {report.epoch}")

    def _check_signature(self, ctx: Context, state: StateReader, message: Any, voters: int) -> tuple[bytes, ...]:
        """The network addresses of who signed. Selectors must be registered keys of active meta nodes, ascending, and a quorum."""
        info = message.BLS_signature
        data = tx_data(message)
        if info.txData != data:
            raise BLSTxDataInvalid(f"expected {data.hex()}, the keccak-256 of the report without its signature, got {info.txData.hex()[:64]}")
        ctx.gas.consume(GAS_PER_SIGNATURE + GAS_PER_KEY * len(info.pub_keys), "BLS signature of a volume report")
        registered = self.settlement.active_keys(state)
        signers: list[bytes] = []
        previous = b""
        for key in info.pub_keys:
            if key <= previous:
                raise BLSPubkeysInvalid(f"selectors must ascend, each once: {key.hex()[:16]}… comes after {previous.hex()[:16]}…")
            if key not in registered:
                raise BLSPubkeysInvalid(f"expected registered keys of active meta nodes, got {key.hex()[:16]}…")
            signers.append(registered[key])
            previous = key
        if len(signers) < quorum(voters):
            raise BLSNotReachThreshold(f"expected {quorum(voters)} of {voters} active meta nodes, got {len(signers)}")
        if not bls.verify_aggregate(list(info.pub_keys), signed_message(ctx.chain_id, data), info.signature):
            raise BLSVerifyFailed(f"the signature is not the sum of those of {len(signers)} meta nodes under this report, on chain {ctx.chain_id}")
        return tuple(signers)

    # --- payment --------------------------------------------------------------------------------------------------------------

    def _distribution(
        self, state: StateReader, report: Report, promo: dict[bytes, int], active: Sequence[Any], params: Any
    ) -> tuple[int, Distribution]:
        """(noz that were paid for, the payments)."""
        texts = [one.wallet_address for one in report.message.wallet_volumes]
        work = [Work(text, noz, promo.get(wallet, 0)) for text, (wallet, noz) in zip(texts, report.volumes, strict=True)]
        foundation_wei = self.bank.balance(state, FOUNDATION_ADDRESS, DENOM)
        wallets = [node.beneficiary_address or node.owner_address for node in active]
        paid = distribute(self.register.ozone(state), self.total_mined_wei(state), foundation_wei, work, wallets, reward_params(params))
        return paid.volume_noz - sum(promo.values()), paid

    def _pay(self, ctx: Context, state: StateWriter, paid: Distribution) -> None:
        """In the original's order."""
        between = (
            (FOUNDATION, FEE_COLLECTOR, paid.mining.chain_wei),
            (PREPAID, FEE_COLLECTOR, paid.traffic.chain_wei),
            (FOUNDATION, REWARD_POOL, paid.mining_to_wallets_wei),
            (PREPAID, REWARD_POOL, paid.traffic_to_wallets_wei),
        )
        for sender, recipient, amount_wei in between:
            if amount_wei:
                self.bank.send_between_modules(ctx, state, sender, recipient, coins(amount_wei))
        if paid.community_wei:
            self.community.fund_community_pool(ctx, state, coins(paid.community_wei), PREPAID_ADDRESS)

    def _save(self, ctx: Context, state: StateWriter, report: Report, paid: Distribution, params: Any) -> int:
        """Rewards, totals and the record; returns the maturity epoch."""
        matures = maturity_epoch(report.epoch, int(params.mature_epoch))
        for one in paid.rewards:
            if one.mining_wei or one.traffic_wei:
                self.add_reward(state, matures, bech32.decode(one.wallet), one.wallet, Amounts(one.mining_wei, one.traffic_wei))
        self.set_due(state, matures, report.epoch)
        self.set_total_reward(state, report.epoch, TotalMessage(mining_reward=wei(paid.mined_wei), traffic_reward=wei(paid.spent_wei)))
        self.set_total_mined(state, self.total_mined_wei(state) + paid.mined_wei)
        self.set_last_epoch(state, report.epoch)
        self.set_last_report(state, ctx.time_ns)
        message = report.message
        record = ReportRecord(reporter=message.reporter, report_reference=message.report_reference, tx_hash=ctx.tx_hash.hex().upper())
        self.set_report(state, report.epoch, record)
        return matures

    def _keep_economics(self, ctx: Context, state: StateWriter, epoch: int, matures: int, paid_noz: int, paid: Distribution) -> None:
        pool = self.register.ozone(state)
        economics = Economics(
            epoch=epoch,
            height=ctx.height,
            effective_deposit_wei=str(pool.deposit_wei),
            unissued_prepay_wei=str(pool.prepaid_wei),
            remaining_noz=str(pool.remaining_noz),
            reported_noz=str(paid.volume_noz),
            paid_noz=str(paid_noz),
            traffic_reward_wei=str(paid.spent_wei),
            mining_reward_wei=str(paid.mined_wei),
            price_wei_per_noz=str(price(pool).scaled),
            maturity_epoch=matures,
        )
        set_ns(economics.time, ctx.time_ns)
        self.set_economics(state, economics)
