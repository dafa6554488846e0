"""A simd chain replayed on our application: the same genesis file, the same transactions in the same blocks, with the reference chain's prefixes.

python -m tests.interop.replay_as_cosmos HOME ASKED.json     prints JSON

HOME is simd's home. ASKED: ``txs`` (height → transactions in base64), ``times`` (of the blocks from the first on), ``stores`` (names),
``queries`` ([method, request in hex]). Printed: ``txs`` (height → results), ``blocks`` (height → events outside transactions),
``stores`` (name → [key, value] in hex), ``queries`` (answer in hex, and as JSON), ``exports`` (app_state as it is, and for a chain that begins at
height 1).
"""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path
from typing import Any

from tests.interop.send_as_cosmos import Driver, MemoryBackend, Settings, build_application  # isort: skip  it sets the prefixes

from chain import app as wiring
from chain.codec.canonical import encode
from chain.codec.json import to_json
from chain.codec.times import parse_rfc3339
from chain.testing.validators import ValidatorKey
from genesis import document
from modules.distribution import keeper as distribution
from modules.pot.supply import Supply

distribution.BASE_DENOM = "stake"  # type: ignore[misc]  # simd registers no denom, so that it shows no rewards as 0stake
wiring.MODULE_ACCOUNTS["distribution"] = ()  # only Stratos lets it burn; the permission is 8 bytes in every read of its account

Supply.keep_supply = lambda *_: None  # type: ignore[method-assign]  # simd keeps the supply at no level


def main() -> None:
    home, asked = Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text())
    app = build_application(MemoryBackend(), Settings(min_gas_prices=""))
    made = document.load(home / "config" / "genesis.json")
    known = {module.name for module in app.modules}
    made["app_state"] = {name: section for name, section in made["app_state"].items() if name in known}
    made["consensus"]["params"] = to_json(document.consensus_params(made))
    driver = Driver([app], made, keys=[ValidatorKey.from_file(home / "config" / "priv_validator_key.json")])
    driver.start()
    found: dict[str, Any] = {"txs": {}, "blocks": {}}
    for height, time in enumerate(asked["times"], 1):
        txs = [base64.b64decode(raw) for raw in asked["txs"].get(str(height), ())]
        seconds, nanos = parse_rfc3339(time)
        driver.time_ns = seconds * 10**9 + nanos
        results = driver.next_block(txs, time_step_s=0).results
        if txs:
            found["txs"][height] = [
                {"code": one.code, "codespace": one.codespace, "gas_used": one.gas_used, "data": one.data.hex(), "events": one.events}
                for one in results
            ]
        found["blocks"][height] = _events(driver.blocks[height].response.events)
    view = app.store.view()
    found["stores"] = {name: [[key.hex(), value.hex()] for key, value in view.store(name).iterate()] for name in asked["stores"]}
    answers = [app.query_rpc(path, bytes.fromhex(request))[0] for path, request in asked["queries"]]
    found["queries"] = [[encode(answer).hex(), to_json(answer)] for answer in answers]
    found["exports"] = [app.export(), app.export_for_zero_height()]
    print(json.dumps(found))


def _events(messages: Any) -> list[Any]:
    return [[event.type, [[pair.key, pair.value] for pair in event.attributes]] for event in messages]


if __name__ == "__main__":
    main()
