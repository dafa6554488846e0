"""What operators copy: the dashboard names metrics that a node really serves, the unit and the container file name commands and files that exist."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from chain import comet, config
from chain.config import Home
from tests.support import ROOT, devnet, follower, free_ports, stchaind
from tools.check_docs import command_problems
from tools.devnet import make

DASHBOARD = ROOT / "docs" / "grafana" / "stratos.json"
UNIT = ROOT / "deploy" / "stchaind.service"
CONTAINER = ROOT / "deploy" / "Containerfile"


def metrics_of_the_dashboard() -> list[str]:
    board = json.loads(DASHBOARD.read_text())
    expressions = [target["expr"] for panel in board["panels"] for target in panel.get("targets", [])]
    return sorted({name for expression in expressions for name in re.findall(r"\b(?:stratos|cometbft)_\w+", expression)})


@pytest.mark.timeout(90)
def test_every_metric_of_the_dashboard_is_served(tmp_path: Path) -> None:
    base = free_ports(5)
    (tmp_path / "peer").mkdir()
    make(tmp_path, base)
    instrumentation = {"instrumentation.prometheus": True, "instrumentation.prometheus_listen_addr": f"127.0.0.1:{base + 4}"}
    config.update(Home(tmp_path / "home").comet_config, instrumentation)
    # CometBFT counts its peers from the first one on.
    with devnet(tmp_path, ports=base) as running, follower(tmp_path / "peer", running.net) as peer:
        peer.wait_for(2)
        httpx.get(f"{running.net['rest']}/cosmos/bank/v1beta1/supply")
        told = httpx.get(f"{running.net['rest']}/metrics").text + httpx.get(f"http://127.0.0.1:{base + 4}/metrics").text
    # A series without a label's value yet (no exception so far) is declared by its TYPE line alone.
    served = set(re.findall(r"^(?:# TYPE )?(\w+)", told, re.MULTILINE))
    served |= {f"{name}_{part}" for name in re.findall(r"^# TYPE (\w+) histogram", told, re.MULTILINE) for part in ("bucket", "count", "sum")}
    names = metrics_of_the_dashboard()
    assert len(names) > 15
    assert [name for name in names if name not in served] == []


def test_the_panels_of_the_dashboard_lie_beside_each_other() -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for place in (panel["gridPos"] for panel in panels):
        assert place["x"] + place["w"] <= 24
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        assert not cells & taken
        taken |= cells


def test_commands_of_the_unit_and_the_container_exist() -> None:
    [start] = re.findall(r"^ExecStart=(.*)$", UNIT.read_text(), re.MULTILINE)
    text = CONTAINER.read_text()
    [entry], [words] = (
        json.loads(f"[{found[0]}]") for found in (re.findall(r"^ENTRYPOINT (.*)$", text, re.M), re.findall(r"^CMD (.*)$", text, re.M))
    )
    for command in (start, " ".join([*entry, *words])):
        assert command_problems(command) == []
    assert command_problems(start + " --no-such-flag") != []
    assert f"cometbft@{comet.VERSION}" in text
    for line in re.findall(r"^COPY (?!--from)(.*)$", text, re.MULTILINE):
        *sources, _ = line.split()
        for source in sources:
            assert (ROOT / source).exists(), source
    for module in re.findall(r"python -m (tools\.\w+)", text):
        assert (ROOT / (module.replace(".", "/") + ".py")).exists()
    assert 'requires-python = ">=3.11,<3.14"' in (ROOT / "pyproject.toml").read_text(), "the container has Python 3.12"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    text = UNIT.read_text()
    [start] = re.findall(r"^ExecStart=(\S+)", text, re.MULTILINE)
    unit = tmp_path / UNIT.name
    unit.write_text(text.replace(start, sys.executable).replace("User=stratos", "User=root").replace("Group=stratos", "Group=root"))
    done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True)
    ours = [line for line in (done.stdout + done.stderr).splitlines() if UNIT.name in line]
    assert ours == []
    unit.write_text(unit.read_text().replace("Restart=on-failure", "Restart=perhaps"))
    done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True)
    assert "perhaps" in done.stdout + done.stderr, "it does look"


def test_the_prometheus_targets_are_where_a_new_node_serves(tmp_path: Path) -> None:
    assert stchaind(tmp_path / "home", "init", "v")[0] == 0
    home = Home(tmp_path / "home")
    targets = re.findall(r'targets: \["([^"]+)"\]', (ROOT / "deploy" / "prometheus.yml").read_text())
    rest = config.read_app(home)["api"]["address"].removeprefix("tcp://")
    assert targets == [rest, "127.0.0.1" + config.read_comet(home)["instrumentation"]["prometheus_listen_addr"]]
