"""A node's settings: sections of named values, declared once as dataclasses; a TOML file that explains each.

    @dataclass(frozen=True)
    class Network:
        port: int = value(18081, "TCP port of the wire.", least=0, most=65535)

    @dataclass(frozen=True)
    class Settings:
        network: Network = field(default_factory=Network)

    read(Settings, path) ─► Settings(network=Network(port=18081), …)          write(settings, path): the same with a comment for each value

Values are int, float, bool, str, or tuple[str, ...]. An unknown name or another type is an error that names it, and says what was expected.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, TypeVar, get_type_hints

import tomlkit
from tomlkit.exceptions import TOMLKitError

MAX_FILE_BYTES: Final = 1 << 20
MAX_LISTED: Final = 1_000
_SHOWN: Final = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", tuple: "a list of texts"}

T = TypeVar("T")


class SettingsError(Exception):
    """A settings file, or a value for one, that cannot be used. The text says where, what was expected and what came."""


def value(default: Any, text: str, *, least: float | None = None, most: float | None = None) -> Any:
    """A field of a section: its default, one sentence for the file, and bounds of a number."""
    return dataclasses.field(default=default, metadata={"text": text, "least": least, "most": most})


def read(kind: type[T], path: Path) -> T:
    """The settings of a file; what it does not name has its default. Raises SettingsError."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_FILE_BYTES + 1)
        if len(raw) > MAX_FILE_BYTES:
            raise SettingsError(f"{path} has more than {MAX_FILE_BYTES} bytes: expected a settings file")
        found: dict[str, Any] = tomlkit.parse(raw.decode()).unwrap()
    except OSError as error:
        raise SettingsError(f"{path} cannot be read ({error.strerror}): make it with `init`, or name another home") from None
    except (TOMLKitError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is no TOML: {error}") from None
    return _settings(kind, found, str(path))


def _settings(kind: type[T], found: dict[str, Any], where: str) -> T:
    sections = {field.name: _type_of(kind, field.name) for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    made = {}
    for name, given in found.items():
        if name not in sections or not isinstance(given, dict):
            raise SettingsError(f"{where} has [{name}]: expected sections named {', '.join(sections)}")
        fields = {field.name: field for field in dataclasses.fields(sections[name])}
        for key in given:
            if key not in fields:
                raise SettingsError(f"{where}: [{name}] has {key}: expected {', '.join(fields)}")
        made[name] = sections[name](**{key: _checked(sections[name], fields[key], one, f"{where}: {name}.{key}") for key, one in given.items()})
    return kind(**made)


def _type_of(kind: Any, name: str) -> Any:
    return get_type_hints(kind)[name]


def _checked(kind: Any, field: dataclasses.Field[Any], given: Any, where: str) -> Any:
    """A value of the field's type and within its bounds. Raises SettingsError."""
    wanted = _type_of(kind, field.name)
    base = getattr(wanted, "__origin__", wanted)
    if base is float and type(given) is int:
        given = float(given)
    if base is tuple and isinstance(given, list):
        if len(given) > MAX_LISTED or any(type(one) is not str for one in given):
            raise SettingsError(f"{where}: expected a list of at most {MAX_LISTED} texts")
        given = tuple(given)
    if type(given) is not base:
        raise SettingsError(f"{where}: expected {_SHOWN[base]}, got {given!r:.100}")
    least, most = field.metadata.get("least"), field.metadata.get("most")
    if base in (int, float):
        is_within = (least is None or given >= least) and (most is None or given <= most) and math.isfinite(given)
        if not is_within:
            raise SettingsError(f"{where}: expected {_SHOWN[base]} from {least} to {most}, got {given}")
    return given


def write(settings: Any) -> str:
    """The text of a settings file, each value under a line that says what it is for."""
    document = tomlkit.document()
    for outer in dataclasses.fields(settings):
        table = tomlkit.table()
        part = getattr(settings, outer.name)
        for field in dataclasses.fields(part):
            for line in _lines(field.metadata["text"]):
                table.add(tomlkit.comment(line))
            one = getattr(part, field.name)
            table.add(field.name, list(one) if isinstance(one, tuple) else one)
        document.add(outer.name, table)
    return tomlkit.dumps(document)


def _lines(text: str) -> Iterator[str]:
    yield from text.splitlines()


def names(kind: Any) -> list[str]:
    """All values as ``section.name``."""
    return [f"{outer.name}.{field.name}" for outer in dataclasses.fields(kind) for field in dataclasses.fields(_type_of(kind, outer.name))]


def get(settings: Any, name: str) -> Any:
    """The value ``section.name``. Raises SettingsError for a name that there is not."""
    outer, field = _found(type(settings), name)
    return getattr(getattr(settings, outer), field.name)


def changed(settings: T, name: str, text: str) -> T:
    """The settings with ``section.name`` as a person wrote it: a list is comma-separated. Raises SettingsError."""
    outer, field = _found(type(settings), name)
    kind = _type_of(type(settings), outer)
    base = _type_of(kind, field.name)
    base = getattr(base, "__origin__", base)
    given: Any = text
    try:
        if base is bool:
            given = {"true": True, "false": False}[text.lower()]
        elif base is tuple:
            given = [one.strip() for one in text.split(",") if one.strip()]
        elif base is not str:
            given = base(text)
    except (ValueError, KeyError):
        raise SettingsError(f"{name}: expected {_SHOWN[base]}, got {text[:100]!r}") from None
    part = dataclasses.replace(getattr(settings, outer), **{field.name: _checked(kind, field, given, name)})
    return dataclasses.replace(settings, **{outer: part})  # type: ignore[type-var]


def _found(kind: Any, name: str) -> tuple[str, dataclasses.Field[Any]]:
    outer, dot, inner = name.partition(".")
    if dot and outer in {field.name for field in dataclasses.fields(kind)}:
        for field in dataclasses.fields(_type_of(kind, outer)):
            if field.name == inner:
                return outer, field
    raise SettingsError(f"there is no setting {name[:100]!r}: expected one of {', '.join(names(kind))}")
