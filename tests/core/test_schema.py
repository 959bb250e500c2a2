"""The schema's version stands for what the collections declare."""

import hashlib

import msgspec
import pytest

from visavis.core import collections
from visavis.core.schema import MIGRATIONS, Migration, Schema

DECLARED = {1: "3f2ace00d3d0ec46"}
"""By version, what the collections declared. Add to it together with a migration; never change what is there."""


def fingerprint() -> str:
    return hashlib.sha256(msgspec.json.encode(collections.ALL)).hexdigest()[:16]


def test_another_declaration_is_another_version() -> None:
    """An index was added, changed or removed, or a field to search: then a Migration belongs to it, if only to say so.

    An older program that starts on the store would otherwise remove the new program's indexes.
    """
    assert DECLARED.get(Schema().version) == fingerprint()


def test_no_migration_is_taken_away() -> None:
    """The version is their number, and what an old backup needs must be there."""
    assert len(MIGRATIONS) == len(DECLARED) - 1
    for version, migration in enumerate(MIGRATIONS, 2):
        assert 1 <= migration.oldest <= version
        assert {*migration.changes, *migration.rewrites} <= {one.name for one in collections.ALL}


def test_an_old_document_goes_through_every_later_migration_in_order() -> None:
    """As it is read from an old backup."""
    migrations = (
        Migration(
            about="a",
            oldest=1,
            changes={"notes": lambda data: {**data, "to": [*data["to"], 2]} if 2 not in data["to"] else data},
        ),
        Migration(about="b", oldest=1, changes={"other": lambda data: {}}),
        Migration(about="c", oldest=1, changes={"notes": lambda data: {"to": data["to"], "last": data["to"][-1]}}),
    )
    schema = Schema((), migrations)
    assert schema.version == 4
    assert schema.changed("notes", {"to": [1]}, 1) == {"to": [1, 2], "last": 2}
    assert schema.changed("notes", {"to": [1]}, 2) == {"to": [1], "last": 1}
    assert schema.changed("notes", {"to": [1]}, 4) == {"to": [1]}
    assert schema.changed("unknown", {"to": [1]}, 1) == {"to": [1]}


def test_a_migration_that_would_not_come_to_rest_is_refused() -> None:
    """One that was cut short begins anew, on documents that it has changed."""
    counting = Migration(about="count", oldest=1, changes={"notes": lambda data: {"n": data["n"] + 1}})
    with pytest.raises(ValueError, match="leave what it changed"):
        Schema((), (counting,)).changed("notes", {"n": 1}, 1)
