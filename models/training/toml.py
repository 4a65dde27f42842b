"""Nested plain dictionaries as TOML text: `config.toml` of a run folder.

Python reads TOML (`tomllib`) but does not write it. This writes tables, text, numbers, truth
values and lists of them; a value of None has no place in TOML and is left out.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def to_toml(values: Mapping[str, Any]) -> str:
    """Write nested dictionaries as TOML tables."""
    return "\n".join(_table(values, ())).lstrip("\n") + "\n"


def _table(values: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    tables = {key: value for key, value in values.items() if isinstance(value, Mapping)}
    rows = [
        f"{_key(key)} = {_value(value)}"
        for key, value in values.items()
        if key not in tables and value is not None
    ]
    if path and (rows or not tables):
        yield f"\n[{'.'.join(_key(key) for key in path)}]"
    yield from rows
    for key, table in tables.items():
        yield from _table(table, (*path, key))


def _key(key: str) -> str:
    return key if _BARE_KEY.fullmatch(key) else _text(key)


def _value(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)  # also inf and nan are spelled alike
        case str():
            return _text(value)
        case list() | tuple():
            return f"[{', '.join(_value(item) for item in value)}]"
    msg = f"TOML cannot hold {value!r}"
    raise TypeError(msg)


def _text(text: str) -> str:
    # TOML's basic strings have JSON's escapes, and forbid a bare DEL besides
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
