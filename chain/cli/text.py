"""Text output as simd writes it: YAML with sorted keys, lists at the depth of their key, and strings quoted only where YAML would read them otherwise."""

from __future__ import annotations

import json
import re
from typing import Any, Final

_WORD: Final = re.compile(r"true|false|yes|no|on|off|y|n|null|~|", re.IGNORECASE)
_NUMBER: Final = re.compile(
    r"(?!.*\..*\.)[-+]?(?:0[xob][0-9a-f_]+|\.?[0-9][0-9_:.]*(?:e[-+]?[0-9]+)?|\.inf|\.nan)|[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}.*", re.IGNORECASE
)
"""What YAML reads as a number or a date; two dots make neither (2.0.0, 127.0.0.1)."""
_PLAIN: Final = re.compile(r"(?:[^\s\-?:,\[\]{}#&*!|>'\"%@`]|[-?:](?=\S))(?:[^:#]|:(?=\S)|(?<=\S)#)*")


def yaml_string(text: str) -> str:
    """One string as a YAML scalar."""
    if _WORD.fullmatch(text) or _NUMBER.fullmatch(text) or not text.isprintable():
        return json.dumps(text, ensure_ascii=False)
    if _PLAIN.fullmatch(text) and not text.endswith((" ", ":")):
        return text
    return "'" + text.replace("'", "''") + "'"


def yaml(value: Any) -> str:
    """A JSON value as YAML lines without the last line's end."""
    return "\n".join(_lines(value))


def _lines(value: Any) -> list[str]:
    lines: list[str] = []
    if isinstance(value, dict) and value:
        for name in sorted(value):
            item, key = value[name], yaml_string(name)
            if isinstance(item, dict | list) and item:
                pad = "  " if isinstance(item, dict) else ""
                lines += [f"{key}:", *(pad + line for line in _lines(item))]
            else:
                lines.append(f"{key}: {_scalar(item)}")
        return lines
    if isinstance(value, list) and value:
        for item in value:
            first, *rest = _lines(item)
            lines += [f"- {first}", *(f"  {line}" for line in rest)]
        return lines
    return [_scalar(value)]


def _scalar(value: Any) -> str:
    return yaml_string(value) if isinstance(value, str) else json.dumps(value)
