"""Logs as JSON lines on standard error: what happened and to which request, never who, whence or what was said.

Hides how that is made sure of. What this program says is a fixed name with fields of its own choosing. What a library
says is only its wording, before anything was put into it, and nothing below a warning: libraries name peers'
addresses, commands with their values, whole requests. Of an exception the log keeps its kind and the way to it, not
its text, which may quote what it could not read.
"""

import errno
import logging
import sys
import threading
from types import TracebackType
from typing import Any

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

OURS = ("visavis", "__main__")
SILENT = ("aiohttp.access", "aiohttp.server", "engineio", "socketio")
"""Name peers' addresses or whole requests; what they have to say is said by the doors."""
MOST_FRAMES = 30
"""Of one exception, the last ones: where it came from."""


def configure(level: str) -> None:
    """Send every logger's records, and what would be printed of unforeseen errors, through one JSON formatter."""
    shared: list[Processor] = [
        _discreet,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.contextvars.merge_contextvars,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            use_get_message=False,
            pass_foreign_args=True,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _without_words,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(logging.WARNING, logging.getLevelNamesMapping()[level.upper()]))
    for name in OURS:
        logging.getLogger(name).setLevel(level.upper())
    for name in SILENT:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    logging.captureWarnings(True)
    sys.unraisablehook = lambda unraisable: _crashed(
        unraisable.exc_type, unraisable.exc_value or unraisable.exc_type(), unraisable.exc_traceback
    )
    threading.excepthook = lambda crash: _crashed(
        crash.exc_type, crash.exc_value or crash.exc_type(), crash.exc_traceback
    )


def _crashed(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    logging.getLogger("visavis").critical("crashed", exc_info=(kind, error, trace))


_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


def _discreet(logger: WrappedLogger, method: str, said: EventDict) -> EventDict:
    """Fields for ours; for others, their wording alone."""
    record: logging.LogRecord = said["_record"]
    given = said.pop("positional_args", None)
    family = record.name.partition(".")[0]
    if family in OURS:
        said.update((name, value) for name, value in record.__dict__.items() if name not in _STANDARD)
    elif family == "gunicorn":
        # It says what becomes of processes and ports; it does not see requests.
        said["event"] = str(record.msg) % given if given else str(record.msg)
    elif family == "asyncio":
        # What went wrong; the lines below show the objects it went wrong with.
        said["event"] = str(record.msg).partition("\n")[0]
    elif not given:
        # Perhaps already put together.
        said["event"] = f"{record.module}:{record.lineno}"
    return said


def _without_words(logger: WrappedLogger, method: str, said: EventDict) -> EventDict:
    info: Any = said.pop("exc_info", None)
    if info and info[1] is not None:
        said["exception"] = _way(info[1], set())
    return said


def _way(error: BaseException, seen: set[int]) -> list[str]:
    """The kind of an exception, where it was raised and how it came there, then the same of what caused it."""
    seen.add(id(error))
    name = f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins.")
    if isinstance(error, OSError) and error.errno is not None and error.errno in errno.errorcode:
        name += f" {errno.errorcode[error.errno]}"
    lines = [name]
    trace, frames = error.__traceback__, []
    while trace is not None:
        code = trace.tb_frame.f_code
        frames.append(f"  {'/'.join(code.co_filename.split('/')[-3:])}:{trace.tb_lineno} {code.co_qualname}")
        trace = trace.tb_next
    lines += frames[-MOST_FRAMES:]
    others = list(error.exceptions) if isinstance(error, BaseExceptionGroup) else []
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    for other in (*others, *([cause] if cause is not None else [])):
        if id(other) not in seen:
            lines += ["from", *_way(other, seen)]
    return lines
