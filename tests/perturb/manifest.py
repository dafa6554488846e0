"""What a run does, read from TOML::

validators = 4          # and full_nodes = 1, block_time = "500ms", voting_s = 8 (of a proposal)
rate = 20               # sends offered a second
senders = 40            # accounts that send them
seconds = 0             # with [random]: how long steps are drawn; without: the steps below, once each

[[step]]
do = "kill"             # a name of tests/perturb/steps.py: STEPS
node = "node1"          # left out: drawn
for_s = 3               # how long the trouble lasts
delay_ms = 200          # what else a step takes

[random]
gap_s = 5               # from one step's recovery to the next step
weights = { kill = 3, pause = 2 }
most = { upgrade = 2 }  # of a step in one run
"""

from __future__ import annotations

import random
import tomllib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chain.codec.times import parse_go_duration


class ManifestError(Exception):
    """The file cannot be used; the message says where and what was expected."""


@dataclass(frozen=True)
class Step:
    """One trouble. ``settings`` are the step's own numbers."""

    do: str
    node: str = ""
    for_s: float = 3.0
    settings: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Manifest:
    validators: int = 4
    full_nodes: int = 1
    block_time: str = "500ms"
    voting_s: int = 8
    rate: float = 20.0
    senders: int = 40
    seconds: float = 0.0
    steps: tuple[Step, ...] = ()
    gap_s: float = 0.0
    weights: dict[str, int] = field(default_factory=dict)
    most: dict[str, int] = field(default_factory=dict)

    @property
    def block_s(self) -> float:
        """The least time of a block."""
        return parse_go_duration(self.block_time) / 10**9

    def names(self) -> list[str]:
        return [*(f"node{at}" for at in range(self.validators)), *(f"full{at}" for at in range(self.full_nodes))]

    def draw(self, choose: random.Random) -> Iterator[Step]:
        """The steps in order; with ``weights`` any number of drawn ones."""
        yield from self.steps
        drawn: Counter[str] = Counter()
        while self.weights:
            weights = {name: weight for name, weight in self.weights.items() if drawn[name] < self.most.get(name, drawn[name] + 1)}
            [name] = choose.choices(list(weights), list(weights.values()))
            drawn[name] += 1
            yield Step(
                name,
                for_s=round(choose.uniform(1, 8), 1),
                settings={"delay_ms": choose.choice((50, 200, 500)), "loss": choose.choice((0, 0.05, 0.2))},
            )


def load(path: Path, known: dict[str, Any]) -> Manifest:
    """``known`` are the steps there are. Raises ManifestError, OSError."""
    try:
        document = tomllib.loads(path.read_text())
    except tomllib.TOMLDecodeError as error:
        raise ManifestError(f"{path} is not TOML: {error}") from None
    drawn = document.pop("random", {})
    steps = tuple(_step(path, at, one, known) for at, one in enumerate(document.pop("step", [])))
    weights = drawn.get("weights", {})
    most = drawn.get("most", {})
    _require_known(path, "random.weights", weights, known)
    _require_known(path, "random.most", most, known)
    try:
        manifest = Manifest(**document, steps=steps, gap_s=drawn.get("gap_s", 0.0), weights=weights, most=most)
    except TypeError as error:
        raise ManifestError(f"{path}: {str(error).rpartition('argument ')[2]} is no setting") from None
    for step in steps:
        if step.node and step.node not in manifest.names():
            raise ManifestError(f"{path}: there is no node {step.node!r}: expected one of {', '.join(manifest.names())}")
    if bool(weights) != bool(manifest.seconds):
        raise ManifestError(f"{path}: seconds and [random] weights go together")
    return manifest


def _step(path: Path, at: int, given: dict[str, Any], known: dict[str, Any]) -> Step:
    _require_known(path, f"step[{at}].do", [given.get("do")], known)
    rest = {name: value for name, value in given.items() if name not in ("do", "node", "for_s")}
    return Step(given["do"], given.get("node", ""), float(given.get("for_s", 3)), rest)


def _require_known(path: Path, where: str, names: Any, known: dict[str, Any]) -> None:
    for name in names:
        if name not in known:
            raise ManifestError(f"{path}: {where}: {name!r} is no step: expected one of {', '.join(known)}")
