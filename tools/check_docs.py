"""Holds the docs to the code: generated pages are fresh, every module has its README, every link between pages leads somewhere,
and every file the docs name exists."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from tools import gen_docs

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
CODE_PATH = re.compile(r"`((?:chain|modules|genesis|tools|tests|docs|bench)/[\w./-]+\.(?:py|md|json|proto))`")
WANTED = ("docs/node.md", "docs/wallets.md", "docs/modules.md", "docs/architecture.md", "docs/cli.md", "docs/errors.md")


def main() -> int:
    found: list[str] = []
    found += [f"{name} is missing" for name in WANTED if not (ROOT / name).exists()]
    for module in sorted((ROOT / "modules").iterdir()):
        if (module / "module.py").exists() and not (module / "README.md").exists():
            found.append(f"modules/{module.name}/README.md is missing: it is the module's specification")
    pages = [ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("chain/**/*.md"), *ROOT.glob("modules/**/*.md")]
    for page in pages:
        text = page.read_text()
        for target in LINK.findall(text):
            if "://" not in target and not (page.parent / target).exists():
                found.append(f"{page.relative_to(ROOT)} links to {target}, which does not exist")
        for target in CODE_PATH.findall(text):
            if not (ROOT / target).exists():
                found.append(f"{page.relative_to(ROOT)} names {target}, which does not exist")
    print("\n".join(found), end="\n" if found else "")
    return max(gen_docs.main(), 1 if found else 0)


if __name__ == "__main__":
    sys.argv.append("--check")
    sys.exit(main())
