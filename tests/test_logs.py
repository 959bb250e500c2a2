"""The form of a log line, and what becomes of words that others chose."""

import json
import subprocess
import sys
from typing import Any

from rig import ROOT

BEGIN = """
import asyncio, logging, threading, warnings
from visavis import logs
logs.configure("debug")
log = logging.getLogger("visavis.part")
"""


def logged(program: str) -> list[dict[str, Any]]:
    """What a program logs; nothing of it says `secret`, and nothing else is printed."""
    path = {"PYTHONPATH": str(ROOT / "backend")}
    done = subprocess.run([sys.executable, "-c", BEGIN + program], capture_output=True, text=True, check=True, env=path)
    assert "secret" not in done.stderr + done.stdout
    return [json.loads(line) for line in done.stderr.splitlines()]


def test_what_we_say_has_a_name_fields_a_level_and_a_time() -> None:
    """One line of JSON, with whatever the context says of the request."""
    (line,) = logged("""
import structlog
structlog.contextvars.bind_contextvars(request_id="r1")
log.debug("beat", extra={"worker": "w1", "ms": 3})
""")
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "beat",
        "level": "debug",
        "logger": "visavis.part",
        "worker": "w1",
        "ms": 3,
        "request_id": "r1",
    }


def test_an_exception_is_its_kind_and_its_way_without_its_words() -> None:
    """Also that of its cause, and of each in a group; a system's error keeps its number's name."""
    one, two = logged("""
def read(text):
    try:
        return int(text)
    except ValueError as error:
        raise LookupError(text) from error
try:
    read("secret")
except LookupError:
    log.exception("failed")
try:
    raise ExceptionGroup("secret", [KeyError("secret"), ConnectionRefusedError(111, "secret")])
except ExceptionGroup:
    log.exception("failed")
""")
    kinds = [line for line in one["exception"] if not line.startswith(" ")]
    assert kinds == ["LookupError", "from", "ValueError"]
    assert [line.split()[1] for line in one["exception"] if line.startswith(" ")] == ["<module>", "read", "read"]
    kinds = [line for line in two["exception"] if not line.startswith(" ")]
    assert kinds == ["ExceptionGroup", "from", "KeyError", "from", "ConnectionRefusedError ECONNREFUSED"]


def test_of_a_library_s_words_only_its_own_are_kept() -> None:
    """A warning's wording, before anything was put into it; what is less than a warning, not at all."""
    lines = logged("""
library = logging.getLogger("library.part")
library.debug("asked %s", "secret")
library.info("asked %s", "secret")
library.warning("no answer from %s", "secret", extra={"peer": "secret"})
library.warning("no answer from " + "secret")
logging.getLogger("asyncio").error("Task exception was never retrieved\\nfuture: secret")
logging.getLogger("aiohttp.server").error("Error from %s", "secret")
warnings.warn("secret")
""")
    assert [line["event"] for line in lines[:1]] == ["no answer from %s"]
    assert lines[1]["event"].startswith("<string>:")
    assert lines[2]["event"] == "Task exception was never retrieved"
    assert lines[3]["logger"] == "py.warnings"
    assert len(lines) == 4


def test_what_nobody_caught_is_logged_as_well() -> None:
    """In a thread, in a finaliser, in a task that nobody waited for."""
    lines = logged("""
class Ending:
    def __del__(self):
        raise ValueError("secret")
Ending()
thread = threading.Thread(target=lambda: int("secret"))
thread.start()
thread.join()
async def main():
    async def fail():
        raise ValueError("secret")
    task = asyncio.get_running_loop().create_task(fail())
    await asyncio.sleep(0)
    del task
asyncio.run(main())
""")
    assert [line["event"] for line in lines] == ["crashed", "crashed", "Task exception was never retrieved"]
    assert all(line["exception"][0] == "ValueError" for line in lines)
