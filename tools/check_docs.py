"""Holds the docs to the code: generated pages (commands and flags, errors, metrics, app.toml) are fresh, every module has its README, every
link leads somewhere, and every file, command and flag that the docs name exists."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import click

from chain.cli.main import cli as stchaind
from sds_node.cli.ppd import cli as ppd
from sds_node.cli.spd import cli as spd
from tools import gen_docs

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
CODE_PATH = re.compile(r"`((?:chain|modules|genesis|sds_node|tools|tests|docs|bench|deploy)/[\w./-]+\.(?:py|md|json|proto|yml|service))`")
COMMANDS: dict[str, click.Group] = {"stchaind": stchaind, "ppd": ppd, "spd": spd}
COMMAND = re.compile(r"(?:^|[\s`/(])(stchaind|ppd|spd)((?: +[^\s`|)]+)+)")
WANTED = (
    "docs/metrics.md",
    "docs/app-toml.md",
    "docs/node.md",
    "docs/validators.md",
    "docs/wallets.md",
    "docs/economics.md",
    "docs/modules.md",
    "docs/architecture.md",
    "docs/cli.md",
    "docs/errors.md",
    "docs/resource-nodes.md",
    "docs/storage-users.md",
    "docs/gateway.md",
)


def command_problems(text: str) -> list[str]:
    """What is wrong with the ``stchaind …``, ``ppd …`` and ``spd …`` lines of a page: commands and flags that do not exist."""
    problems = []
    for found in COMMAND.finditer(text.replace("\\\n", " ")):
        program, words = found.group(1), found.group(2).split()
        cli = COMMANDS[program]
        command: click.Command = cli
        known = {option for param in cli.params for option in param.opts} | {"--help", "-h", "-o"}
        for word in words:
            name = word.split("=")[0].rstrip(".,;:")
            if name.startswith("--"):
                if name not in known:
                    problems.append(f"`{program} {' '.join(words)}`: {name} is no flag of that command")
            elif isinstance(command, click.Group) and re.fullmatch(r"[a-z][a-z-]*", name):
                if name not in command.commands:
                    if command is not cli:
                        problems.append(f"`{program} {' '.join(words)}`: {name} is no command")
                    break
                command = command.commands[name]
                known |= {option for param in command.params for option in (*param.opts, *param.secondary_opts)}
    return problems


def main() -> int:
    found: list[str] = []
    found += [f"{name} is missing" for name in WANTED if not (ROOT / name).exists()]
    for module in sorted((ROOT / "modules").iterdir()):
        if (module / "module.py").exists() and not (module / "README.md").exists():
            found.append(f"modules/{module.name}/README.md is missing: it is the module's specification")
    pages = [
        ROOT / "README.md",
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("chain/**/*.md"),
        *ROOT.glob("modules/**/*.md"),
        *ROOT.glob("sds_node/**/*.md"),
    ]
    for page in pages:
        text = page.read_text()
        for target in LINK.findall(text):
            if "://" not in target and not (page.parent / target).exists():
                found.append(f"{page.relative_to(ROOT)} links to {target}, which does not exist")
        for target in CODE_PATH.findall(text):
            if not (ROOT / target).exists():
                found.append(f"{page.relative_to(ROOT)} names {target}, which does not exist")
        if page.name not in ("cli.md", "cli-storage.md"):
            found += [f"{page.relative_to(ROOT)}: {problem}" for problem in command_problems(text)]
    print("\n".join(found), end="\n" if found else "")
    return max(gen_docs.main(), 1 if found else 0)


if __name__ == "__main__":
    sys.argv.append("--check")
    sys.exit(main())
