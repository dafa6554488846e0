"""A chain that begins from a given genesis file: blocks of its own validators, invariants in every one, and what queries say held against the file.

Nobody has the validators' keys: the driver's votes carry no signatures, which no application looks at.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any

from chain.app import build_application
from chain.application import Settings
from chain.codec.json import to_json
from chain.codec.registry import message_class
from chain.coins import Coin, to_messages
from chain.store.kv import MemoryBackend
from chain.testing.driver import Driver
from chain.tx.build import Signer, build_tx
from genesis import build, document
from genesis.migrate import read
from tests.simulation.imported import Imported
from tests.support import FEE, GAS, KEYS, Served, serve, stchaind, text

MOVED: dict[str, tuple[str, ...]] = {"bank": ("send_enabled",)}
"""Parameters that are kept elsewhere after the migration."""
POWER_WEI = 10**15


def run_genesis(path: Path, blocks: int) -> dict[str, Any]:
    """Figures of ``blocks`` blocks on two applications that differ in all an operator may choose. Raises AssertionError, GenesisError."""
    started = time.monotonic()
    apps = [
        build_application(MemoryBackend(), Settings(invariant_period=1)),
        build_application(MemoryBackend(), Settings(invariant_period=1, native_core=False, fast_sends=False, workers=0)),
    ]
    made, left_out = read(path, apps[0].modules)
    build.validate(made, apps[0].modules)
    made["consensus"]["params"] = to_json(document.consensus_params(made))
    driver = Driver(apps, made)
    driver.start()
    begun = time.monotonic()
    for _ in range(blocks):
        driver.next_block()
    seconds = time.monotonic() - begun
    state = json.loads(path.read_text())["app_state"]
    served = serve(driver)
    try:
        with tempfile.TemporaryDirectory() as home:
            figures = _printed(served, Path(home), path, left_out)
    finally:
        served.api.stop()
    assert figures["accounts"] == len(state["auth"]["accounts"]) + figures["module_accounts"]
    # crisis has no query, as in the SDK.
    assert apps[0].export()["crisis"] == state["crisis"]
    assert figures["supply"] == ",".join(coin["amount"] + coin["denom"] for coin in state["bank"]["supply"])
    assert figures["validator_powers"] == sorted(validator.power for validator in driver.validators)
    figures |= {
        "blocks": blocks,
        "begun_in_s": round(begun - started, 1),
        "blocks_in_s": round(seconds, 1),
        "genesis_accounts": len(state["auth"]["accounts"]),
        "left_out": left_out,
        "app_hash": driver.app_hash.hex(),
    }
    for one in apps:
        one.close()
    return figures


def _printed(served: Served, folder: Path, path: Path, left_out: list[str]) -> dict[str, Any]:
    """Figures that the command line's queries print, and how many parameters agree with the file."""
    genesis = json.loads(path.read_text())
    sections = {name: section for name, section in genesis["app_state"].items() if name not in left_out}
    supply = _told(served, folder, "bank", "total-supply")["supply"]
    validators = _told(served, folder, "staking", "validators")["validators"]
    return {
        "supply": ",".join(coin["amount"] + coin["denom"] for coin in supply),
        "validator_powers": sorted(int(one["tokens"]) // POWER_WEI for one in validators if one["status"] == "BOND_STATUS_BONDED"),
        "accounts": int(_told(served, folder, "auth", "accounts", "--page-limit", "1", "--page-count-total")["pagination"]["total"]),
        "module_accounts": len(_told(served, folder, "auth", "module-accounts")["accounts"]),
        "parameters_compared": sum(_compare(served, folder, name, section) for name, section in sections.items())
        + _compare_consensus(served, folder, genesis["consensus_params"]),
    }


def mainnet_genesis(seed: int, path: str) -> dict[str, Any]:
    """100 blocks on the mainnet's file: the numbers of reference stratos-chain.md 1.7."""
    figures = run_genesis(Path(path), 100)
    assert figures["supply"] == f"{10**26}wei"
    assert figures["validator_powers"] == [10_000, 90_000, *[99_000] * 5]
    assert figures["genesis_accounts"] == 2858
    return figures | ozone_of(Path(path))


SET_B: tuple[tuple[int, int, int, str], ...] = (
    (1, 999985570193, 69299000014429807, "1000028.860237085333877096"),
    (100, 99853028075142, 69199146986354665, "1002916.987021316003578722"),
    (10_000, 8715148044275848, 60483998942078817, "1312760.422405876910707047"),
)
"""Prepays in stos, the noz that they buy, Lt and price after them (stratos-chain.md 6.2)."""
ALL_NOZ = 69300000000000000


def ozone_of(path: Path) -> dict[str, Any]:
    """The mainnet's nodes, price and supply as the command line prints them, before and after the prepays of set B, with transactions of an account of
    ours that gets its coins from the richest one; and a chain made of the export, whose export, keys and values are the same. Raises AssertionError.
    """
    app = build_application(MemoryBackend(), Settings(invariant_period=1))
    made, _ = read(path, app.modules)
    made["consensus"]["params"] = to_json(document.consensus_params(made))
    bank = made["app_state"]["bank"]["balances"]
    _give(bank, text(KEYS[2]), 20_000 * 10**18)
    number = len(made["app_state"]["auth"]["accounts"])
    made["app_state"]["auth"]["accounts"].append(
        {"@type": "/cosmos.auth.v1beta1.BaseAccount", "address": text(KEYS[2]), "account_number": str(number)}
    )
    driver = Driver([app], made)
    driver.start()
    driver.next_block()
    served = serve(driver)
    try:
        with tempfile.TemporaryDirectory() as home:
            folder = Path(home)
            ours = made["app_state"]["register"]
            nodes = _told(served, folder, "register", "meta-nodes", "--page-limit", "100")["nodes"]
            assert {(one["network_address"], one["owner_address"], one["tokens"], one["status"]) for one in nodes} == {
                (one["network_address"], one["owner_address"], one["tokens"], one["status"]) for one in ours["meta_nodes"]
            }
            assert _told(served, folder, "register", "get-meta-count")["number"] == "7"
            assert _told(served, folder, "register", "get-meta-node", "--network-address", nodes[0]["network_address"])["node"] == nodes[0]
            _hold(served, folder, ALL_NOZ, "1000000.000000000000000000")
            for at, (stos, noz, limit, price) in enumerate(SET_B):
                assert _told(served, folder, "sds", "sim-prepay", f"{stos}stos")["noz"] == str(noz)
                message = message_class("stratos.sds.v1.MsgPrepay")(
                    sender=text(KEYS[2]), beneficiary=text(KEYS[2]), amount=to_messages((Coin("wei", stos * 10**18),))
                )
                account = _told(served, folder, "auth", "account-info", text(KEYS[2]))["info"]
                signer = Signer(KEYS[2].public_key, at, int(account["account_number"]))
                raw = build_tx([message], fee=FEE, gas_limit=GAS, signers=[signer]).sign([KEYS[2]], made["chain_id"])
                (result,) = driver.next_block([raw]).results
                assert result.code == 0, result.log
                _hold(served, folder, limit, price)
    finally:
        served.api.stop()
    other = build_application(MemoryBackend(), Settings(invariant_period=1))
    Imported(app, driver, other)
    sections = len(app.export())
    for one in (app, other):
        one.close()
    return {"meta_nodes": 7, "prepays_as_set_b": len(SET_B), "sections_equal_after_import": sections}


def _give(balances: list[dict[str, Any]], address: str, amount_wei: int) -> None:
    """Move wei from the richest account of a genesis file to a new one."""
    richest = max((one for one in balances if one["coins"]), key=lambda one: int(one["coins"][0]["amount"]))
    richest["coins"][0]["amount"] = str(int(richest["coins"][0]["amount"]) - amount_wei)
    balances.append({"address": address, "coins": [{"denom": "wei", "amount": str(amount_wei)}]})


def _hold(served: Served, folder: Path, limit_noz: int, price: str) -> None:
    """Raise AssertionError unless the queries print this limit and price, of all the ozone there is."""
    assert _told(served, folder, "sds", "noz-price")["price"] == price
    assert _told(served, folder, "sds", "noz-supply") == {"remaining": str(limit_noz), "total": str(ALL_NOZ)}
    assert _told(served, folder, "register", "remaining-ozone-limit")["ozone_limit"] == str(limit_noz)


def _told(served: Served, folder: Path, *query: str) -> Any:
    """What ``stchaind query`` prints."""
    code, out, err = stchaind(folder, "query", *query, "--grpc-addr", served.grpc, "--output", "json")
    assert code == 0, err
    return json.loads(out)


def _compare(served: Served, folder: Path, name: str, section: Any) -> int:
    """How many parameters of the file's section the module's query gives as the file has them. Raises AssertionError for one it does not."""
    wanted = (section or {}).get("params") or {}
    if not wanted:
        return 0
    told = _told(served, folder, name, "params")["params"]
    for key, value in wanted.items():
        assert key in MOVED.get(name, ()) or told[key] == value, f"{name}.params.{key}: the file has {value!r}, the query says {told[key]!r}"
    return len(wanted)


def _compare_consensus(served: Served, folder: Path, wanted: dict[str, Any]) -> int:
    """How many consensus parameters are told as the file has them."""
    told = _told(served, folder, "consensus", "params")["params"]
    pairs = [
        *((told["block"][name], wanted["block"][name]) for name in ("max_bytes", "max_gas")),
        *((told["evidence"][name], wanted["evidence"][name]) for name in ("max_age_num_blocks", "max_bytes")),
        (told["evidence"]["max_age_duration"], f"{int(wanted['evidence']['max_age_duration']) // 10**9}s"),
        (told["validator"]["pub_key_types"], wanted["validator"]["pub_key_types"]),
    ]
    assert all(one == other for one, other in pairs), pairs
    return len(pairs)
