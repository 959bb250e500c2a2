"""The settings: read once, every mistake named, every field documented."""

from pathlib import Path

import msgspec
import pytest

from visavis.settings import Settings, SettingsError, settings_markdown, variable, without

FIELDS = Settings.__struct_fields__


def problems(**environment: str) -> list[str]:
    """What is said about an environment; nothing if it is valid."""
    try:
        Settings.from_environment(environment)
    except SettingsError as error:
        return str(error).splitlines()
    return []


def test_without_an_environment_everything_has_a_default() -> None:
    """Which is valid itself, and meant for this machine alone."""
    settings = Settings.from_environment({})
    assert settings == Settings()
    assert settings.host == "127.0.0.1"
    assert settings.minimum_age == 18


def test_a_variable_nobody_knows_is_refused() -> None:
    """A mistyped setting must not leave the default in force unnoticed; other programs' variables are theirs."""
    assert problems(VISAVIS_PROT="3000") == ["VISAVIS_PROT: no such setting; did you mean VISAVIS_PORT?"]
    assert problems(VISAVIS_REDIS_URL="redis://x") == ["VISAVIS_REDIS_URL: no such setting; did you mean REDIS_URL?"]
    assert problems(VISAVIS_SECRET_FILE="x") == [
        "VISAVIS_SECRET_FILE: no such setting; did you mean VISAVIS_SECRETS_FILE?"
    ]
    assert problems(VISAVIS_QUXQUX="x") == ["VISAVIS_QUXQUX: no such setting"]
    assert problems(HOME="/", PORT="x") == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("VISAVIS_PORT", "many"),
        ("VISAVIS_PORT", "65536"),
        ("VISAVIS_PORT", "-1"),
        ("VISAVIS_PORT", "3e3.1"),
        ("VISAVIS_GRACE_SECONDS", "0"),
        ("VISAVIS_GRACE_SECONDS", "nan"),
        ("VISAVIS_TRUST_FORWARDED", "perhaps"),
        ("VISAVIS_LEASE_MS", "10"),
        ("VISAVIS_LOG_LEVEL", "loud"),
        ("VISAVIS_MODES", "text smell"),
    ],
)
def test_a_wrong_value_is_named_by_its_variable(name: str, value: str) -> None:
    """One line for each, without repeating what was given: it may be a secret."""
    (said,) = problems(**{name: value})
    assert said.startswith(f"{name}: ")
    assert len(said) > len(name) + 5


def test_every_problem_is_told_at_once() -> None:
    """So that it is mended in one go."""
    assert len(problems(VISAVIS_PORT="x", VISAVIS_LEASE_MS="x", VISAVIS_X="x", VISAVIS_MODES="y")) == 4


def test_an_empty_variable_means_the_default() -> None:
    """As a line left blank in a file of settings does."""
    assert Settings.from_environment({"VISAVIS_PORT": "", "REDIS_URL": ""}) == Settings()


def test_values_are_read_as_their_kind() -> None:
    """Numbers, truth and text."""
    settings = Settings.from_environment(
        {
            "VISAVIS_PORT": "0",
            "VISAVIS_TRUST_FORWARDED": "true",
            "VISAVIS_GRACE_SECONDS": "0.5",
            "REDIS_URL": "redis://x",
        }
    )
    assert (settings.port, settings.trust_forwarded, settings.grace_seconds) == (0, True, 0.5)
    assert settings.redis_url == "redis://x"


def test_a_secret_may_lie_in_a_file(tmp_path: Path) -> None:
    """As Docker, Kubernetes and systemd hand secrets out; an editor's last line break is no part of it."""
    held = tmp_path / "redis"
    held.write_text("redis://:secret@x\n", encoding="utf-8")
    assert Settings.from_environment({"REDIS_URL_FILE": str(held)}).redis_url == "redis://:secret@x"
    assert Settings.from_environment({"VISAVIS_SECRETS_FILE": str(held)}).secrets == "redis://:secret@x"
    assert Settings.from_environment({"VISAVIS_SECRETS_FILE": ""}) == Settings()


def test_a_value_from_a_file_is_checked_as_any_other(tmp_path: Path) -> None:
    """And told by its variable."""
    held = tmp_path / "port"
    held.write_text("many", encoding="utf-8")
    (said,) = problems(VISAVIS_PORT_FILE=str(held))
    assert said.startswith("VISAVIS_PORT: ")


def test_a_file_that_holds_no_value_is_a_problem(tmp_path: Path) -> None:
    """A secret that is not there must not become the default; what a file holds is never repeated."""
    binary, large, empty = tmp_path / "binary", tmp_path / "large", tmp_path / "empty"
    empty.write_text("\n", encoding="utf-8")
    binary.write_bytes(b"\xff\xfe")
    large.write_bytes(b"x" * 70_000)
    for path, why in (
        (tmp_path / "nowhere", "No such file"),
        (tmp_path, "directory"),
        (binary, "text"),
        (large, "too large"),
        (empty, "empty"),
        (Path("a\0b"), "null"),
    ):
        (said,) = problems(VISAVIS_SECRETS_FILE=str(path))
        assert said.startswith("VISAVIS_SECRETS_FILE: ")
        assert why in said
    assert problems(VISAVIS_NOBODY_FILE="/") == ["VISAVIS_NOBODY_FILE: no such setting"]
    (said,) = problems(VISAVIS_SECRETS="one", VISAVIS_SECRETS_FILE=str(binary))
    assert said.startswith("VISAVIS_SECRETS_FILE: VISAVIS_SECRETS is set as well")


def test_no_setting_is_called_like_the_file_of_another() -> None:
    """Else a path would be taken for a value."""
    assert not [field for field in FIELDS if field.endswith("_file")]


def test_what_takes_a_variables_place_takes_its_files_too() -> None:
    """A private recorder gets its worker's environment, but for what the worker chose itself."""
    assert without({"A_FILE": "x", "A": "y", "B": "z"}, "A") == {"B": "z"}


def test_every_setting_says_what_it_is_for() -> None:
    """In the code, and in the table people read."""
    info = msgspec.inspect.type_info(Settings)
    assert isinstance(info, msgspec.inspect.StructType)
    table = settings_markdown()
    assert table == (Path(__file__).parents[2] / "docs" / "settings.md").read_text(encoding="utf-8")
    for field in info.fields:
        assert isinstance(field.type, msgspec.inspect.Metadata), field.name
        about = (field.type.extra_json_schema or {}).get("description", "")
        assert about.endswith("."), field.name
        assert f"| `{variable(field.name)}` |" in table
        assert about in table
    assert len(info.fields) == len(FIELDS)
