"""A validator that is absent, unjailed and signs twice, on our application with the reference chain's prefixes: python -m tests.interop.punishments_as_cosmos

Two validators: A votes, B never does. Prints {"genesis": sections for simd, "txs": {name: base64}, "steps": {name: result},
"events": {what happened: events of its block}, "stored": {name: hex}, "answers": {name: JSON}}: everything that simd has to do as well.
"""

from __future__ import annotations

import base64
import json
from typing import Any

from tests.interop.send_as_cosmos import Driver, MemoryBackend, Settings, build_application, genesis_document  # isort: skip  it sets the prefixes

from chain.cli.genesis import tx_message
from chain.codec.json import to_json
from chain.codec.registry import message_class
from chain.crypto import address as bech32
from chain.crypto.keys import public_key_to_any
from chain.testing.validators import ValidatorKey
from chain.tx.build import Signer, build_tx
from tests.interop.punishments import GENESIS_TIME, LOOK_AT, QUESTIONS, WINDOW, stored_keys
from tests.support import CHAIN_ID, KEYS, text

A, B, STRANGER = 2, 3, 4
STAKES = {A: 10**18, B: 10**17}
MIN_SELF_DELEGATION = 6 * 10**16
GAS = 400_000
JAIL_S = 15


def operator(number: int) -> str:
    return bech32.encode(KEYS[number].public_key.address, bech32.VALIDATOR)


def signed(number: int, message: Any, sequence: int, *, genesis: bool = False) -> bytes:
    unsigned = build_tx([message], fee=(), gas_limit=GAS, signers=[Signer(KEYS[number].public_key, sequence, 0 if genesis else number)])
    return unsigned.sign([KEYS[number]], CHAIN_ID)


def gentx(number: int) -> Any:
    message = message_class("cosmos.staking.v1beta1.MsgCreateValidator")(
        description={"moniker": str(number)},
        validator_address=operator(number),
        pubkey=public_key_to_any(ValidatorKey.numbered(number - A).public_key),
        min_self_delegation=str(MIN_SELF_DELEGATION),
        value={"denom": "wei", "amount": str(STAKES[number])},
    )
    message.commission.rate, message.commission.max_rate, message.commission.max_change_rate = str(10**17), str(2 * 10**17), str(10**16)
    return to_json(tx_message(signed(number, message, 0, genesis=True)))


def transactions() -> dict[str, bytes]:
    unjail, undelegate = (message_class(name) for name in ("cosmos.slashing.v1beta1.MsgUnjail", "cosmos.staking.v1beta1.MsgUndelegate"))
    submit = message_class("cosmos.evidence.v1beta1.MsgSubmitEvidence")

    def less(amount: int) -> Any:
        return undelegate(delegator_address=text(KEYS[B]), validator_address=operator(B), amount={"denom": "wei", "amount": str(amount)})

    def out(number: int) -> Any:
        return unjail(validator_addr=operator(number))

    return {
        "in freedom": signed(A, out(A), 1),
        "without a validator": signed(STRANGER, out(STRANGER), 0),
        "without evidence": signed(STRANGER, submit(submitter=text(KEYS[STRANGER])), 1),
        "too early": signed(B, out(B), 1),
        "in time": signed(B, out(B), 2),
        "tombstoned": signed(B, out(B), 3),
        "less stake": signed(B, less(4 * 10**16), 4),
        "with too little stake": signed(B, out(B), 5),
    }


def main() -> None:
    app = build_application(MemoryBackend(), Settings(min_gas_prices=""))
    document = genesis_document(app)
    document["genesis_time"] = GENESIS_TIME
    state = document["app_state"]
    state["genutil"]["gen_txs"] = [gentx(A), gentx(B)]
    state["slashing"]["params"].update(
        signed_blocks_window=str(WINDOW), min_signed_per_window="0.500000000000000000", downtime_jail_duration=f"{JAIL_S}s"
    )
    state["slashing"]["params"]["slash_fraction_downtime"] = "0.010000000000000000"
    driver = Driver([app], document, time_step_s=1)
    driver.start()
    absent = ValidatorKey.numbered(B - A).address
    txs, steps, events, stored, answers = transactions(), {}, {}, {}, {}

    def block(*raws: bytes, step_s: int = 1, evidence: Any = ()) -> Any:
        voted = driver.blocks[driver.height].validators if driver.height else ()
        missing = [at for at, one in enumerate(voted) if one.address == absent]
        return driver.next_block(raws, absent=missing, time_step_s=step_s if driver.height else None, evidence=evidence)

    def send(name: str, *, step_s: int = 1) -> None:
        [one] = block(txs[name], step_s=step_s).results
        shown = [[kind, [list(pair) for pair in pairs]] for kind, pairs in one.events]
        steps[name] = {"code": one.code, "codespace": one.codespace, "log": one.log, "gas_used": one.gas_used, "events": shown}

    def begun() -> list[Any]:
        shown = [[one.type, [[pair.key, pair.value] for pair in one.attributes]] for one in driver.blocks[driver.height].response.events]
        return [[kind, [pair for pair in pairs if pair[0] != "mode"]] for kind, pairs in shown if ["mode", "BeginBlock"] in pairs]

    for name in ("in freedom", "without a validator", "without evidence"):
        send(name)
    while driver.height < LOOK_AT:
        block()
    events["absent"] = begun()
    with app.store.view() as view:
        for name, key in stored_keys().items():
            stored[name] = (view.store("slashing").get(key) or b"").hex()
    while driver.height <= WINDOW:
        block()
    events["jailed"] = begun()
    send("too early")
    send("in time", step_s=JAIL_S)
    for _ in range(4):
        block()
    block(evidence=[driver.duplicate_vote(1, height=LOOK_AT)])
    events["double signed"] = begun()
    for name in ("tombstoned", "less stake", "with too little stake"):
        send(name)
    for name, (path, request) in QUESTIONS.items():
        answers[name] = to_json(app.query_rpc(path, request())[0])
    print(
        json.dumps(
            {
                "genesis": {name: state[name] for name in ("auth", "bank", "genutil", "slashing")},
                "txs": {name: base64.b64encode(raw).decode() for name, raw in txs.items()},
                "steps": steps,
                "events": events,
                "stored": stored,
                "answers": answers,
            }
        )
    )


if __name__ == "__main__":
    main()
