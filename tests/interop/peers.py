"""The real clients and peers: fetched and built once into the tool folder (``STRATOS_TOOLS``), from the package registries alone.

A peer that cannot be had fails the test that needs it; nothing is skipped.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
from pathlib import Path

from chain.comet import go_command, go_environment, tools_folder

HERE = Path(__file__).parent
COSMPY = "cosmpy==0.12.2"
OPENAPI = "openapi-spec-validator==0.7.2"
GRPCURL = "github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.3"


def simd() -> Path:
    """simd of ibc-go v8.7.0, built through the module in ``tests/interop/simd`` (about 6 minutes, once)."""
    tools = tools_folder()
    binary = tools / "bin" / "simd"
    if not binary.exists():
        flags = "-X github.com/cosmos/cosmos-sdk/version.Name=sim -X github.com/cosmos/cosmos-sdk/version.AppName=simd"
        print("building simd (about 6 minutes, once)", flush=True)
        command = [*go_command(tools), "build", "-buildvcs=false", "-ldflags", flags, "-o", str(binary), "."]
        subprocess.run(command, cwd=HERE / "simd", env=go_environment(tools), check=True)
    return binary


def grpcurl() -> Path:
    """grpcurl from its Go module (about a minute after simd, once)."""
    tools = tools_folder()
    binary = tools / "bin" / "grpcurl"
    if not binary.exists():
        print("building grpcurl (about a minute, once)", flush=True)
        environment = {**go_environment(tools), "GOBIN": str(binary.parent)}
        subprocess.run([*go_command(tools), "install", GRPCURL], env=environment, check=True)
    return binary


def other_python() -> Path:
    """An interpreter of another minor version (3.12 beside 3.11 and the other way round) with the lock file's packages."""
    version = "3.11" if sys.version_info[:2] == (3, 12) else "3.12"
    folder = tools_folder() / f"py{version}"
    python = folder / "bin" / "python"
    if not (folder / ".ready").exists():
        subprocess.run([_find_python(version), "-m", "venv", "--clear", folder], check=True)
        lock = str(HERE.parents[1] / "requirements.lock")
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--require-hashes", "-r", lock], check=True)
        (folder / ".ready").touch()
    return python


def _find_python(version: str) -> str:
    candidates = [shutil.which(f"python{version}")]
    pyenv = shutil.which("pyenv")
    if pyenv:
        root = subprocess.run([pyenv, "root"], capture_output=True, text=True).stdout.strip()
        candidates += [str(path) for path in sorted(Path(root).glob(f"versions/{version}.*/bin/python"))]
    for candidate in candidates:
        if candidate and subprocess.run([candidate, "-c", "import ensurepip"], capture_output=True).returncode == 0:
            return candidate
    raise LookupError(f"Python {version} is needed beside {sys.version.split()[0]}: install it")


def cosmjs() -> Path:
    """A folder with CosmJS installed from the lock file beside it."""
    folder = tools_folder() / "cosmjs"
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", "package-lock.json", ".npmrc", "check.mjs", "drive.mjs"):
        shutil.copy(HERE / "cosmjs" / name, folder / name)
    if not (folder / "node_modules").exists():
        subprocess.run(["npm", "ci", "--silent"], cwd=folder, check=True)
    return folder


def cosmpy_python() -> Path:
    """The interpreter of an environment that holds cosmpy (its protobuf is older than ours)."""
    return _environment("cosmpy", COSMPY)


def openapi_python() -> Path:
    """The interpreter of an environment that holds the validator of OpenAPI documents."""
    return _environment("openapi", OPENAPI)


def _environment(name: str, package: str) -> Path:
    folder = tools_folder() / name
    python = folder / "bin" / "python"
    if not (folder / ".ready").exists():
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", package], check=True)
        (folder / ".ready").touch()
    return python


if __name__ == "__main__":
    for peer in (simd, grpcurl, cosmjs, cosmpy_python, openapi_python, other_python):
        print(peer(), flush=True)
