"""The rules of the house: who may import whom, what is written down must be true, and what never gets committed."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from openapi_spec_validator import validate

from rig import ROOT
from visavis import describe
from visavis.contract import ERRORS, EVENT_OF, PUSHES, REQUESTS
from visavis.settings import settings_markdown

PACKAGE = ROOT / "backend" / "visavis"
SOURCES = {path.relative_to(PACKAGE).as_posix(): path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py")}


def committed() -> list[Path]:
    """Every file in git."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.decode()
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def text_of(path: Path) -> str | None:
    """The text of a file, or None if it is none."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return None


def imported(source: str) -> set[str]:
    """The modules a source imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


# --------------------------------------------------------------------------- who may import whom


def test_the_layers_hold() -> None:
    """As pyproject.toml draws them."""
    linter = Path(sys.executable).with_name("lint-imports")
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "backend")}
    told = subprocess.run(
        [linter, "--no-cache"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert told.returncode == 0, told.stdout + told.stderr


@pytest.mark.parametrize(
    ("library", "where"),
    [
        ("socketio", {"probe.py"}),
        ("engineio", {"doors/stock.py"}),
        ("redis", {"adapters/redis.py", "adapters/topology.py", "adapters/valkey.py"}),
        ("sqlite3", {"adapters/sqlite.py"}),
        ("pymongo", {"adapters/mongo.py"}),
        ("jwt", {"adapters/tokens.py"}),
        ("opentelemetry", {"adapters/tracing.py"}),
        ("prometheus_client", {"adapters/metrics.py"}),
        ("pyrage", {"adapters/age.py"}),
        ("cryptography", {"adapters/certificate.py", "adapters/tokens.py"}),
        (
            "visavis.settings",
            {"__main__.py", "app.py", "archives.py", "check.py", "cluster.py", "drain.py", "recorder.py", "top.py"},
        ),
    ],
)
def test_what_one_place_hides_is_known_nowhere_else(library: str, where: set[str]) -> None:
    """A library or the settings can be exchanged in one file."""
    users = {
        name
        for name, source in SOURCES.items()
        if any(one == library or one.startswith(library + ".") for one in imported(source))
    }
    assert users == where


@pytest.mark.parametrize("library", ["aiortc", "aioice", "av"])
def test_media_are_known_to_the_recorder_alone(library: str) -> None:
    """And to the probe, which makes a call, the process that takes a file apart, and who asks for a relay."""
    users = {name for name, source in SOURCES.items() if library in {one.split(".")[0] for one in imported(source)}}
    assert users <= {"adapters/allocation.py", "adapters/recorder.py", "adapters/takeapart.py", "probe.py"}


def test_a_worker_holds_no_codecs_in_its_memory() -> None:
    """Nor does the recorder itself: only the processes of its recordings do."""
    for root in ("visavis.__main__", "visavis.app", "visavis.recorder"):
        asked = f"import sys, {root}; print(*sorted({{'av', 'aiortc', 'aioice'}} & set(sys.modules)))"
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "backend")}
        told = subprocess.run(
            [sys.executable, "-c", asked], env=environment, capture_output=True, text=True, check=True
        )
        assert told.stdout.split() == [], root


def test_nobody_but_the_state_machine_makes_a_consent_to_a_recording() -> None:
    """What a recorder starts on can only come out of both members' agreement."""
    makers = {
        name for name, source in SOURCES.items() if re.search(r"\bConsent\(", source.replace("class Consent(", ""))
    }
    assert makers == {"core/calls.py"}


def test_the_rules_stand_on_nothing_but_the_standard_library_and_the_contract() -> None:
    """And on msgspec, and rustworkx for the matching."""
    allowed = {*sys.stdlib_module_names, "msgspec", "visavis"}
    for name, source in SOURCES.items():
        if name.startswith("core/"):
            foreign = {one.split(".")[0] for one in imported(source)} - allowed
            assert foreign <= ({"rustworkx"} if name == "core/matching.py" else set()), name


def test_the_core_writes_no_event_name() -> None:
    """Names belong to the contract; the core speaks in Structs."""
    names = {*REQUESTS, *PUSHES}
    for name, source in SOURCES.items():
        if name.startswith("core/"):
            said = {node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant)}
            assert not said & names, name


# --------------------------------------------------------------------------- what is written down is true


def test_generated_files_are_fresh() -> None:
    """`python -m visavis contract` would change nothing."""
    for name, text in describe.texts(settings_markdown()).items():
        assert (ROOT / name).read_text(encoding="utf-8") == text, name


def test_every_code_is_declared_and_every_declared_one_is_raised() -> None:
    """A refusal nobody declared would be unknown to clients; one nobody raises is a promise about nothing."""
    raised: set[str] = set()
    for source in SOURCES.values():
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Refused":
                raised.update(
                    part.value
                    for part in ast.walk(node.args[0])
                    if isinstance(part, ast.Constant) and isinstance(part.value, str) and part.value in ERRORS
                )
                if isinstance(node.args[0], ast.Constant):
                    assert node.args[0].value in ERRORS
    assert set(ERRORS) - raised == set()


def test_every_push_has_one_name() -> None:
    """And every name one Struct."""
    assert {struct: name for name, struct in PUSHES.items()} == EVENT_OF


def test_the_openapi_document_is_valid() -> None:
    """By the specification's own schema."""
    validate(json.loads((ROOT / "docs" / "openapi.json").read_text(encoding="utf-8")))


def test_every_reference_of_the_asyncapi_document_leads_somewhere() -> None:
    """And every event is in it."""
    document: dict[str, Any] = json.loads((ROOT / "docs" / "asyncapi.json").read_text(encoding="utf-8"))
    assert document["asyncapi"].startswith("3.")
    references: list[str] = []

    def walk(node: Any) -> None:
        if isinstance(node, dict):
            if isinstance(reference := node.get("$ref"), str):
                references.append(reference)
            for value in node.values():
                walk(value)
        elif isinstance(node, list):
            for value in node:
                walk(value)

    walk(document)
    assert len(references) > 20
    for reference in references:
        target: Any = document
        for step in reference.removeprefix("#/").split("/"):
            target = target[step.replace("~1", "/").replace("~0", "~")]
    addresses = [channel["address"] for channel in document["channels"].values()]
    assert sorted(addresses) == sorted([*REQUESTS, *PUSHES])


def test_every_test_says_in_a_sentence_what_it_holds() -> None:
    """So that a red one can be read."""
    for path in (ROOT / "tests").rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                said = ast.get_docstring(node) or ""
                assert said.endswith((".", "?", ":")), f"{path.relative_to(ROOT)}: {node.name}"


# --------------------------------------------------------------------------- what is in the house


def test_the_top_level_is_the_house() -> None:
    """A new folder there is a decision, not an accident."""
    top = {path.relative_to(ROOT).parts[0] for path in committed()}
    folders = {name for name in top if (ROOT / name).is_dir() and not name.startswith(".")}
    assert folders <= {"backend", "web", "turn", "ecosystem", "scripts", "tests", "docs"}
    assert {"backend", "web", "tests", "docs"} <= folders
    assert "pyproject.toml" in top


def test_no_file_has_a_name_that_says_nothing() -> None:
    """Where everything fits, nothing is found."""
    for path in committed():
        assert path.stem not in ("utils", "util", "helpers", "helper", "common", "misc", "manager", "base"), path


def test_locks_name_no_index_and_no_file_a_machine() -> None:
    """What is committed has to work anywhere: no addresses of package indexes, no folders of somebody's machine."""
    machine = re.compile(r"(?<![\w.])/(?:home|Users|root|work|workspace|mnt|srv)/[a-z][\w.-]*/")
    index = re.compile(
        r"https?://[^\s\"']*(?:pypi|npmjs|npm\.pkg|pythonhosted|artifactory|nexus)[^\s\"']*", re.IGNORECASE
    )
    option = re.compile(r"^\s*(?:-i|--index-url|--extra-index-url|--find-links|registry\s*=)", re.MULTILINE)
    for path in committed():
        text = text_of(path)
        if text is None or path == Path(__file__):
            continue
        name = path.relative_to(ROOT).as_posix()
        assert not (found := machine.search(text)), f"{name}: {found[0]}"
        if path.name.startswith("requirements") or "lock" in path.name or path.name in (".npmrc", "pyproject.toml"):
            assert not (found := index.search(text)), f"{name}: {found[0]}"
            assert not (found := option.search(text)), f"{name}: {found[0]}"
        if path.name == "package-lock.json":
            assert '"resolved"' not in text


def test_every_requirement_is_locked_with_its_hashes() -> None:
    """So that what is installed is what was tested."""
    for name in ("requirements.txt", "requirements-dev.txt"):
        lines = (ROOT / name).read_text(encoding="utf-8").replace("\\\n", "").splitlines()
        locked = [line for line in lines if line.strip() and not line.lstrip().startswith("#")]
        assert locked
        for line in locked:
            assert "==" in line, line[:60]
            assert "--hash=sha256:" in line, line[:60]
