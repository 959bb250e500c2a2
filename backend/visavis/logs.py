"""Logs as JSON lines on standard error: what happened and to which request, never who, whence or what was said."""

import logging
import sys

import structlog


def configure(level: str) -> None:
    """Send every logger's records through one JSON formatter."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # These name peers' addresses or whole requests.
    for noisy in ("aiohttp.access", "aiohttp.server", "engineio", "socketio"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
