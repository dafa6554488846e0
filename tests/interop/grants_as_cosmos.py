"""tests/interop/grants_scenario.py on our application with the reference chain's prefixes: python -m tests.interop.grants_as_cosmos

Prints {"steps": {name: result}, "answers": {name: JSON}}.
"""

from __future__ import annotations

import json
from typing import Any

from tests.interop.send_as_cosmos import Driver, MemoryBackend, Settings, build_application, genesis_document  # isort: skip  it sets the prefixes

from chain.codec.json import to_json
from chain.codec.registry import message_class
from chain.errors import AppError
from tests.interop.grants_scenario import COINS, Player, questions, steps


def main() -> None:
    app = build_application(MemoryBackend(), Settings(min_gas_prices=""))
    document = genesis_document(app)
    bank = document["app_state"]["bank"]
    for balance in bank["balances"]:
        balance["coins"] = [{"denom": denom, "amount": str(amount)} for denom, amount in sorted(COINS.items())]
    bank["supply"] = []
    driver = Driver([app], document)
    driver.start()
    driver.next_block()

    def submit(raw: bytes) -> dict[str, Any]:
        checked = driver.check_tx(raw)
        if checked.code:
            return {"code": checked.code, "codespace": checked.codespace, "log": checked.log}
        [one] = driver.next_block([raw]).results
        found = {"code": one.code, "codespace": one.codespace, "log": one.log}
        return {
            **found,
            "gas_used": one.gas_used,
            "data": one.data.hex(),
            "events": [[kind, [list(pair) for pair in pairs]] for kind, pairs in one.events],
        }

    def number(address: str) -> int:
        request = message_class("cosmos.auth.v1beta1.QueryAccountInfoRequest")(address=address)
        return int(app.query_rpc("/cosmos.auth.v1beta1.Query/AccountInfo", request)[0].info.account_number)

    player = Player(submit, number)
    played = {step.name: player.play(step) for step in steps()}
    answers = {}
    for name, (path, request) in questions().items():
        try:
            answers[name] = to_json(app.query_rpc(path, request)[0])
        except AppError as error:
            answers[name] = str(error)
    print(json.dumps({"steps": played, "answers": answers}))


if __name__ == "__main__":
    main()
