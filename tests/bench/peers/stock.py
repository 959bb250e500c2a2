"""The stock python-socketio doing the same work: a validated message with an ack, forwarded to the partner.

Environment: PORT (0 takes a free one), REDIS_URL (its Redis manager between processes; empty: none).
Prints the port once it listens.
"""

import asyncio
import gc
import hashlib
import hmac
import os
import re
import signal
import socket
import time

import msgspec
import socketio
import uvloop
from aiohttp import web

KEY = b"bench"
ID = re.compile(r"[A-Za-z0-9_-]{22}")
MOST_TEXT = 4000


class Json:
    """The json module's two functions, by a fast library."""

    @staticmethod
    def dumps(value, **_):
        return msgspec.json.encode(value).decode()

    @staticmethod
    def loads(text, **_):
        return msgspec.json.decode(text)


def refused(code):
    return {"error": {"code": code}}


def valid(said):
    body = said.get("body")
    return (
        isinstance(said.get("id"), str)
        and ID.fullmatch(said["id"])
        and isinstance(said.get("seq"), int)
        and said["seq"] > 0
        and isinstance(body, dict)
        and body.get("kind") == "text"
        and isinstance(body.get("text"), str)
        and 0 < len(body["text"]) <= MOST_TEXT
    )


async def serve():
    redis_url = os.environ.get("REDIS_URL", "")
    server = socketio.AsyncServer(
        async_mode="aiohttp",
        # With redis-py's 100 connections it loses messages once more than that are on their way.
        client_manager=socketio.AsyncRedisManager(redis_url, redis_options={"max_connections": 10_000})
        if redis_url
        else None,
        json=Json,
        http_compression=False,
        logger=False,
        engineio_logger=False,
    )
    seats = {}

    @server.on("connect")
    async def connect(sid, environ, auth):
        name, _, proof = str((auth or {}).get("token", "")).partition(".")
        if not hmac.compare_digest(hmac.new(KEY, name.encode(), hashlib.sha256).hexdigest(), proof):
            raise ConnectionRefusedError("token_invalid")

    @server.on("match:find")
    async def find(sid, asked):
        seats[sid] = asked["pair"]
        await server.enter_room(sid, asked["pair"])
        await server.emit("match:found", {"conversation": {"id": asked["pair"]}}, to=sid)
        return {"ok": {}}

    @server.on("chat:message")
    async def say(sid, said):
        if not isinstance(said, dict) or not valid(said):
            return refused("bad_request")
        if seats.get(sid) != said.get("conversationId"):
            return refused("not_in_conversation")
        at = time.time_ns() // 1_000_000
        await server.emit("chat:message", {**said, "seat": 0, "at": at}, room=said["conversationId"], skip_sid=sid)
        return {"ok": {"at": at}}

    @server.on("disconnect")
    async def gone(sid, reason):
        seats.pop(sid, None)

    app = web.Application()
    server.attach(app)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    listener = socket.create_server(("127.0.0.1", int(os.environ.get("PORT", "0"))), backlog=4096)
    await web.SockSite(runner, listener).start()
    # So that the memory of idle connections is theirs alone.
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR2, gc.collect)
    print(listener.getsockname()[1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as here:
        here.run(serve())
