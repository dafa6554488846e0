"""The light client against chains of the driver, whose validators change and whose servers lie in every way one field can."""

from __future__ import annotations

import base64
import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from chain.codec.times import parse_go_duration, rfc3339
from chain.light.bootstrap import Restored, gather
from chain.light.client import LightBlock, LightClient, LightError, Server, Trust
from chain.light.headers import NANOS, types
from chain.testing.driver import Driver
from tests.abci.toy import KEYS, Toy, driven, update

LAST = 40
PERIOD_NS = 3600 * NANOS


def block_id(message: Any) -> dict[str, Any]:
    parts = {"total": message.part_set_header.total, "hash": message.part_set_header.hash.hex().upper()}
    return {"hash": message.hash.hex().upper(), "parts": parts}


def header(message: Any) -> dict[str, Any]:
    found = {name: getattr(message, name).hex().upper() for name in message.DESCRIPTOR.fields_by_name if name.endswith(("hash", "address"))}
    found |= {"version": {"block": str(message.version.block), "app": str(message.version.app)}, "chain_id": message.chain_id}
    return found | {
        "height": str(message.height),
        "time": rfc3339(message.time.seconds, message.time.nanos),
        "last_block_id": block_id(message.last_block_id),
    }


def commit(message: Any) -> dict[str, Any]:
    signatures = [
        {
            "block_id_flag": one.block_id_flag,
            "validator_address": one.validator_address.hex().upper(),
            "timestamp": rfc3339(one.timestamp.seconds, one.timestamp.nanos),
            "signature": base64.b64encode(one.signature).decode(),
        }
        for one in message.signatures
    ]
    return {"height": str(message.height), "round": message.round, "block_id": block_id(message.block_id), "signatures": signatures}


class Served(Server):
    """A server of a driver's blocks; ``lie(method, height, answer)`` may change what it answers."""

    def __init__(self, driver: Driver, lie: Callable[[str, int, Any], Any] | None = None) -> None:
        self.address, self.driver, self.lie, self.asked = "the driver", driver, lie, list[tuple[str, int]]()

    def _call(self, method: str, height: int, **params: str) -> Any:
        self.asked.append((method, height))
        stored = self.driver.blocks[height]
        if method == "commit":
            answer: Any = {"signed_header": {"header": header(stored.block.header), "commit": commit(self.driver.commit_of(height))}}
        else:
            members = [
                {
                    "address": one.address.hex().upper(),
                    "pub_key": {"type": "tendermint/PubKeyEd25519", "value": base64.b64encode(one.raw_key).decode()},
                    "voting_power": str(one.power),
                    "proposer_priority": str(one.priority),
                }
                for one in stored.validators
            ]
            answer = {"validators": members, "total": str(len(members))}
        return self.lie(method, height, answer) if self.lie else answer


def changing() -> Driver:
    """A chain whose validators are all replaced at height 20: nobody of the first set is in the second."""
    toy = Toy()
    change = [update(key, 50) for key in KEYS[4:6]] + [update(key, 0) for key in KEYS[:4]]
    toy.script["finalize_block", 18] = lambda response: response.validator_updates.extend(change)
    driver = driven(toy)
    for at in range(LAST):
        driver.next_block([bytes([at])])
    return driver


@pytest.fixture(scope="module")
def chain() -> Driver:
    return changing()


@pytest.fixture(scope="module")
def fork() -> Driver:
    """Another chain of the same name: other validators at once, and so other blocks."""
    toy = Toy()

    def other(response: Any) -> None:
        del response.validators[:]
        response.validators.append(update(KEYS[5], 100))

    toy.script["init_chain", 0] = other
    driver = driven(toy)
    for at in range(LAST):
        driver.next_block([bytes([at, at])])
    return driver


def client(*servers: Server, at: int = 2, of: Driver, now_ns: int | None = None) -> LightClient:
    trust = Trust(at, of.blocks[at].id.hash, PERIOD_NS)
    return LightClient("toy-1", servers, trust, now_ns if now_ns is not None else of.time_ns)


@pytest.mark.parametrize("trusted", [1, 25, LAST])
def test_every_block_follows_from_any_trusted_one(chain: Driver, trusted: int) -> None:
    light = client(Served(chain), at=trusted, of=chain)
    for height in (LAST, *range(1, LAST + 1)):
        block = light.block(height)
        assert (block.hash, list(block.validators)) == (chain.blocks[height].id.hash, list(chain.blocks[height].validators))


def test_known_validators_are_followed_in_one_step_and_a_change_of_all_of_them_by_halving(chain: Driver) -> None:
    server = Served(chain)
    light = client(server, at=2, of=chain)
    light.block(19)
    assert [height for method, height in server.asked if method == "commit"] == [2, 19]
    server.asked.clear()
    light.block(LAST)
    assert [height for method, height in server.asked if method == "commit"] == [40, 29, 24, 21, 20]


def test_blocks_of_other_validators_never_follow(chain: Driver, fork: Driver) -> None:
    """A server that has a whole chain of its own, well signed, which only the trusted block is not of."""

    def forward(method: str, height: int, answer: Any) -> Any:
        return Served(fork)._call(method, height) if height > 2 else answer

    with pytest.raises(LightError, match="the validators of block 3 are not those that block 2 names"):
        client(Served(chain, forward), at=2, of=chain).block(LAST)

    def backward(method: str, height: int, answer: Any) -> Any:
        return Served(fork)._call(method, height) if height < 30 else answer

    with pytest.raises(LightError, match="block 29 is not the one that block 30 follows"):
        client(Served(chain, backward), at=LAST, of=chain).block(10)
    with pytest.raises(LightError, match=r"block 2 is [0-9A-F]{64}, trusted is [0-9A-F]{64}"):
        client(Served(fork), at=2, of=chain)


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """(container, key) of everything inside a JSON value."""
    for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from places(value[key])


def test_whatever_one_field_of_an_answer_says_the_block_is_refused_or_the_same(chain: Driver) -> None:
    original = Served(chain)
    refused: list[str] = []
    for method in ("commit", "validators"):
        count = len(list(places(original._call(method, 10))))
        for number in range(count):
            for junk in (None, "", "7", -1, 1 << 70, [], {}, "AA==", ["x"], "0" * 64, "9" * 5000):

                def lie(asked: str, height: int, answer: Any, number: int = number, junk: Any = junk, method: str = method) -> Any:
                    if (asked, height) == (method, 10):
                        answer = copy.deepcopy(answer)
                        container, key = list(places(answer))[number]
                        container[key] = junk
                    return answer

                try:
                    block = client(Served(chain, lie), at=2, of=chain).block(10)
                except LightError as error:
                    refused.append(str(error))
                    continue
                assert block.hash == chain.blocks[10].id.hash
                assert block.validators.hash() == chain.blocks[10].validators.hash()
    assert len(refused) > 500
    assert "\n" not in "".join(refused)


def test_the_power_behind_a_block_is_more_than_two_thirds(chain: Driver) -> None:
    def absent(*gone: int) -> Callable[[str, int, Any], Any]:
        def lie(method: str, height: int, answer: Any) -> Any:
            for at in gone if method == "commit" and height == 10 else ():
                answer["signed_header"]["commit"]["signatures"][at] |= {"block_id_flag": 1}
            return answer

        return lie

    assert client(Served(chain, absent(2, 3)), of=chain).block(10).height == 10, "40 and 30 of 100 are enough"
    with pytest.raises(LightError, match="power 60 of 100 is for the block"):
        client(Served(chain, absent(0)), of=chain).block(10)


def test_a_trusted_block_has_its_time(chain: Driver) -> None:
    then = chain.blocks[2].time_ns
    client(Served(chain), of=chain, now_ns=then + PERIOD_NS - 1)
    with pytest.raises(LightError, match="block 2 is older than trust_period"):
        client(Served(chain), of=chain, now_ns=then + PERIOD_NS)
    with pytest.raises(LightError, match="block 40 is of the future"):
        client(Served(chain), of=chain, now_ns=then + 60 * NANOS).block(LAST)


def test_servers_that_tell_other_turns_to_propose_disagree(chain: Driver) -> None:
    def lie(method: str, height: int, answer: Any) -> Any:
        if method == "validators" and height == 11:
            answer["validators"][0]["proposer_priority"] = "1"
        return answer

    light = client(Served(chain), Served(chain), Served(chain, lie), of=chain)
    light.require_agreement(10)
    with pytest.raises(LightError, match="disagree about block 11"):
        light.require_agreement(11)


def restored(chain: Driver, **other: Any) -> Restored:
    facts = {"chain_id": "toy-1", "initial_height": 1, "height": 10, "app_hash": chain.blocks[10].response.app_hash, "params": chain.params}
    return Restored(**{**facts, **other})


def test_only_the_state_and_the_parameters_of_the_chain_are_taken(chain: Driver) -> None:
    def light() -> LightClient:
        return client(Served(chain), Served(chain), of=chain)

    found: tuple[LightBlock, ...] = gather(light(), restored(chain))
    assert [block.height for block in found] == [10, 11, 12]
    with pytest.raises(LightError, match=r"the application's hash at height 10 is [0-9A-F]{64}, the chain's is"):
        gather(light(), restored(chain, app_hash=chain.blocks[9].response.app_hash))
    params = types("ConsensusParams")()
    params.CopyFrom(chain.params)
    params.block.max_gas += 1
    with pytest.raises(LightError, match="consensus parameters at height 10 are not those of the chain"):
        gather(light(), restored(chain, params=params))


def test_durations_of_config_toml_are_read_as_go_reads_them() -> None:
    assert parse_go_duration("168h0m0s") == 168 * 3600 * NANOS
    assert parse_go_duration("1h2m3.25s") == 3723 * NANOS + NANOS // 4
    assert parse_go_duration("1.5ms") == 1_500_000
    for wrong in ("", "5", "h", "1x", "-1s", "1s 2s"):
        with pytest.raises(ValueError, match="expected a duration"):
            parse_go_duration(wrong)
