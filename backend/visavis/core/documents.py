"""What all document stores must agree on, wherever SQLite and MongoDB would differ if left to themselves.

Hides: which data is safe to hand to either (no key that one of them could take for an operator or a path, no number
that one of them would round), how indexed values compare, and what a word is to `search`. A store asks here first,
so that the same call has the same outcome on both. Everything refused here is a ValueError: a mistake of the
program, never of a guest, whose input the contract has bounded before.
"""

import json
import time
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from visavis.core.ports import Collection, Index

LARGEST = 1 << 19
"""Bytes of JSON in a document: more than the longest report the contract allows, and written within a second."""

DEEPEST = 32
"""Levels of nesting in a document; MongoDB allows 100."""

PAGE = 1 << 20
"""Bytes of JSON after which a page of many documents is long enough, in upkeep."""

NEVER = 253_402_300_799_999
"""The last millisecond of the year 9999: no expiry can be later."""

WORD = 64
"""A word counts by its first 64 characters."""

QUESTION = 100
"""A text to search for counts by its first 100 distinct words."""

_SMALLEST_INT, _LARGEST_INT = -(1 << 63), (1 << 63) - 1


def milliseconds() -> int:
    """Milliseconds since the epoch: the clock that a store uses unless a test moves it."""
    return time.time_ns() // 1_000_000


def as_json(collection: Collection, data: Mapping[str, Any]) -> str:
    """The document as JSON text. Raises ValueError for what a store could not give back unchanged."""
    plain = _plain(data, 1)
    for index in collection.indexes:
        for field in index.fields:
            if indexable(plain.get(field)) is None and index.unique:
                raise ValueError(f"{collection.name}: {field} is part of a unique index and must be there")
    text = json.dumps(plain, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    # A lone surrogate raises UnicodeEncodeError here, which is a ValueError.
    if len(text.encode()) > LARGEST:
        raise ValueError(f"{collection.name}: a document has at most {LARGEST} bytes of JSON")
    return text


def checked_id(id: str) -> str:
    """The id, if it is one: 1 to 200 characters, without NUL."""
    if not isinstance(id, str) or not 1 <= len(id) <= 200 or "\0" in id:
        raise ValueError("an id is a string of 1 to 200 characters, without NUL")
    return id


def indexable(value: Any) -> str | int | None:
    """The value, if an index can hold it: a string without NUL, a 64-bit whole number, or None (as if absent).

    Not a boolean: to one store that is a number, to the other it is not.
    """
    if value is None:
        return None
    if isinstance(value, str) and "\0" not in value:
        return value
    if isinstance(value, int) and not isinstance(value, bool) and _SMALLEST_INT <= value <= _LARGEST_INT:
        return value
    raise ValueError("an indexed value is a string without NUL, a 64-bit whole number or None")


def asked(collection: Collection, index: str, values: Sequence[Any]) -> list[tuple[str, str | int | None]]:
    """The fields, each with the value it must equal, that a `find` by this index means."""
    declared: Index | None = next((i for i in collection.indexes if i.name == index), None)
    if declared is None:
        raise ValueError(f"{collection.name} has no index {index!r}")
    if isinstance(values, str) or len(values) > len(declared.fields):
        raise ValueError(f"index {index!r} of {collection.name} takes up to {len(declared.fields)} values")
    return [(field, indexable(value)) for field, value in zip(declared.fields, values, strict=False)]


def expiry(expires_at: int | None) -> int | None:
    """The time of expiry, if it is one: milliseconds since the epoch, up to the year 9999."""
    if expires_at is not None and not 0 <= expires_at <= NEVER:
        raise ValueError("an expiry is in milliseconds since the epoch")
    return expires_at


def position(cursor: str | None) -> int | None:
    """Where a cursor points: the sequence number of the last document of the page that gave it."""
    if cursor is None:
        return None
    if len(cursor) > 18 or not (cursor.isascii() and cursor.isdigit()):
        raise ValueError("not a cursor")
    return int(cursor)


def at_least_one(limit: int) -> int:
    """The limit, if a page can have it."""
    if limit < 1:
        raise ValueError("a page has at least one document")
    return limit


def words(text: str) -> list[str]:
    """The distinct words of a text, as `search` compares them: folded to one case and one way of writing.

    A word is a run of letters, digits and the marks that belong to them; every Chinese or Japanese character
    is a word by itself, since those are written without spaces. Linear in the text: normalising is quadratic
    in a run of combining marks (7 s for 100 KB), hence only after cutting words to `WORD` characters.
    """
    folded: dict[str, None] = {}
    for word in text.translate(_Spacing()).split():
        whole = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", word[:WORD]).casefold())
        # Compatibility forms may hold spaces and signs of their own: "¨" is " " and a mark.
        for part in whole.translate(_Spacing()).split():
            folded[part] = None
    return list(folded)


def words_of(collection: Collection, data: Mapping[str, Any]) -> list[str]:
    """The distinct words in the text fields of a document: of every string in them, at any depth."""
    found: list[str] = []
    waiting: list[Any] = [data.get(field) for field in collection.text]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            found.append(value)
        elif isinstance(value, Mapping):
            waiting.extend(value.values())
        elif isinstance(value, list | tuple):
            waiting.extend(value)
    return words("\n".join(found))


class _Spacing(dict[int, str]):
    """For str.translate: spaces in place of what separates words. Fills itself, one look-up a character."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        if not character.isalnum() and unicodedata.category(character)[0] != "M":
            character = " "
        elif 0x3040 <= code <= 0x30FF or 0x3400 <= code <= 0x9FFF or 0x20000 <= code <= 0x3FFFF:
            character = f" {character} "
        self[code] = character
        return character


def _plain(value: Any, depth: int) -> Any:
    """A copy in dicts, lists, strings, numbers, booleans and None."""
    if value is None or isinstance(value, bool | str | float):
        return value
    if isinstance(value, int) and _SMALLEST_INT <= value <= _LARGEST_INT:
        return value
    if depth > DEEPEST:
        raise ValueError(f"a document has at most {DEEPEST} levels")
    if isinstance(value, Mapping):
        return {_key(key): _plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, depth + 1) for item in value]
    raise ValueError(f"a document cannot hold this {type(value).__name__}")


def _key(key: Any) -> str:
    # To MongoDB a leading dollar is an operator, and a dot leads into a document.
    if not isinstance(key, str) or key.startswith("$") or "." in key or "\0" in key:
        raise ValueError("a key is a string without a leading dollar, a dot or NUL")
    return key
