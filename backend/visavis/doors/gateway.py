"""The Socket.IO door: authenticates once at connect, then decodes, limits, dispatches and acknowledges.

Speaks Socket.IO 5 on the main namespace, over whatever carries a session (`carrying`): what is no packet is counted and
ignored, binary packets are refused, every packet is counted and every request acknowledged, and requests of one client
run in order. Requests whose handlers need not wait are answered before the next byte is read, without a task.
"""

import asyncio
import contextlib
import inspect
import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
import structlog
from aiohttp import web

from visavis.contract import ERRORS, EVENT_OF, REQUESTS, Connect, Refused, SessionMove, Wire
from visavis.core.conversations import Conversations, Peer
from visavis.core.identity import Guest, new_id
from visavis.core.limits import COME_BACK_MS, TAKEN_BY, Account, Bucket, Limits, Source
from visavis.core.ports import Meter, Record, StateFull, StateUnavailable
from visavis.doors.carrying import HEARD_SECONDS, Asking, Carrier, Session, soon
from visavis.doors.sources import Sources

log = logging.getLogger(__name__)

Handler = Callable[[Peer, Any], "Wire | Awaitable[Wire]"]

PATIENCE = 100
"""Refusals for haste after which a client is cut; each request in time makes up for one."""
MOVED_PER_SECOND = 4000
"""Clients a stopping worker asks to connect elsewhere, at most."""
MOVING_SECONDS = (0.5, 2.0)
"""For how long at least and at most it asks them to begin."""
ARRIVING_SECONDS = 1.0
"""How long those who began last may take to get there."""

_MOST_DIGITS = 15
"""Of the number that an acknowledgement is asked for by."""
_PACKET = re.compile(rb"0|1(?:/|\Z)|[23](?:/[^,]*,)?[0-9]{0,%d}\[|4|[56][0-9]+-" % _MOST_DIGITS)
"""How every Socket.IO packet begins; a client that says another is no client."""
_BINARY = re.compile(rb"[56][0-9]*-(?:/[^,]*,)?([0-9]{1,15})?")
_call = msgspec.json.Decoder(tuple[str, msgspec.Raw])
_json = msgspec.json.Encoder()
_connect = msgspec.json.Decoder(Connect)
_names = {struct: msgspec.json.encode(event) for struct, event in EVENT_OF.items()}


def encode_push(push: Wire) -> bytes:
    """A push as the Socket.IO event that goes out: `2["name",{...}]`."""
    return b"2[%b,%b]" % (_names[type(push)], _json.encode(push))


class _Route:
    """A request's way through the gateway."""

    __slots__ = ("handler", "decode", "decode_body", "cost", "limit", "asked")

    def __init__(self, event: str, handler: Handler, meter: Meter) -> None:
        request = REQUESTS[event]
        self.handler = handler
        self.decode = msgspec.json.Decoder(tuple[str, request.type]).decode  # type: ignore[name-defined]  # not static
        """The whole call at once."""
        self.decode_body = msgspec.json.Decoder(request.type).decode
        self.cost = request.cost
        self.limit = TAKEN_BY.get(request.type)
        self.asked = meter.tally("requests", event=event)


class _Connection:
    """One client's connection, from its first byte: the Line of its peer, once it said who it is."""

    __slots__ = (
        *("session", "bucket", "account", "peer", "introduced", "told_to_move", "source", "entered"),
        *("_gateway", "_timer", "_answering", "_closing", "_closed"),
    )

    def __init__(self, gateway: "Gateway", session: Session, source: Source, bucket: Bucket) -> None:
        self.session = session
        self.source = source
        self.bucket = bucket
        self.account: Account | None = None
        """What its guest spends, once anything is."""
        self.entered = False
        """It counts among its address's connections."""
        self.peer: Peer | None = None
        self.introduced = False
        """From the packet on that says who it is."""
        self.told_to_move = False
        self._gateway = gateway
        self._timer: asyncio.TimerHandle | None = None
        self._answering = 0
        """Requests under way; by polling, there can be more than one."""
        self._closing: bool | None = None
        """It is to be closed once the request under way is answered, and whether its client knows why."""
        self._closed = False

    # ------------------------------------------------------------------ what its client says

    def packet(self, message: bytes | None) -> Awaitable[None] | None:
        """One Socket.IO packet; whatever it is, it counts."""
        if message is not None and message[:1] == b"2" and self.peer is not None:
            at = message.find(b"[", 1, _MOST_DIGITS + 2)
            ack_id = message[1:at]
            if at > 0 and (not ack_id or ack_id.isdigit()):
                return self._answer(self.peer, ack_id, message[at:])
        return self._other(message)

    def _answer(self, peer: Peer, ack_id: bytes, call: bytes) -> Awaitable[None] | None:
        self._answering += 1
        waiting = False
        try:
            done = self._gateway.dispatch(self, peer, call)
            if isinstance(done, Wire):
                if ack_id:
                    self.session.send(b'3%b[{"ok":%b}]' % (ack_id, _json.encode(done)))
                return None
            waiting = True
            return self._finish(ack_id, done)
        except Exception as error:  # noqa: BLE001  # what it is, is looked at there
            self._refuse(ack_id, error)
            return None
        finally:
            if not waiting:
                self._answered()

    async def _finish(self, ack_id: bytes, done: Awaitable[Wire]) -> None:
        try:
            answer = await done
            if ack_id:
                self.session.send(b'3%b[{"ok":%b}]' % (ack_id, _json.encode(answer)))
        except Exception as error:  # noqa: BLE001  # as above
            self._refuse(ack_id, error)
        finally:
            self._answered()

    def _refuse(self, ack_id: bytes, error: Exception) -> None:
        refused = self._gateway.refusal(self, error)
        if ack_id:
            self.session.send(b"3%b[%b]" % (ack_id, _json.encode(refused.as_error())))
        self._cut_if_too_hasty()

    def _answered(self) -> None:
        self._answering -= 1
        if self._closing is not None:
            self._close(told=self._closing)

    def _other(self, message: bytes | None) -> Awaitable[None] | None:
        """What is no request, or none of somebody known."""
        self.bucket.take(1)
        self._cut_if_too_hasty()
        if message is None:
            return None
        if message[:1] == b"0" and not self.introduced:
            # A second CONNECT would be a second guest behind one session.
            namespace, presented = b"/", message[1:]
            if presented.startswith(b"/"):
                namespace, _, presented = presented.partition(b",")
            if namespace == b"/":
                self.introduced = True
                return self._gateway.join(self, presented)
            self.session.send(b'4%b,{"message":"Invalid namespace"}' % namespace)
        elif message in {b"1", b"1/,"}:
            self._gateway.part(self)
        elif (header := _BINARY.match(message)) and header[1]:
            # Refused before anything is put together; its attachments go unread.
            self._refuse(header[1], Refused("binary_refused"))
        elif not _PACKET.match(message):
            self.session.close(told=False)
        # Acknowledgements of pushes are not asked for; anything else has no meaning here.
        return None

    def _cut_if_too_hasty(self) -> None:
        if self.bucket.refused >= PATIENCE:
            if not self.session.closed:
                self._gateway.flooded(self)
            # Also of a client that has gone: what it said last is still being heard.
            self.session.abort()

    def behind(self) -> None:
        self._gateway.fell_behind(self)

    def gone(self) -> None:
        self._gateway.gone(self)

    # ------------------------------------------------------------------ what is said to it

    def push(self, frame: bytes) -> None:
        self.session.send(frame)

    def close(self, last_words: Wire | None = None) -> None:
        if last_words is not None:
            self.session.send(encode_push(last_words))
        self._close(told=True)

    def leave(self) -> None:
        """Close because the worker stops: for any client that is a lost connection, after which it comes back."""
        self._close(told=False)

    def _close(self, *, told: bool) -> None:
        if self._answering:
            self._closing = self._closing or told
        elif not self._closed:
            self._closed = True
            if told:
                # Socket.IO DISCONNECT: it was meant, so the client does not come back by itself.
                self.session.send(b"1")
            self.session.close(told=told)

    def await_introduction(self, patience: float) -> None:
        """Hang up if the client does not say in time who it is; pings alone are no reason to stay."""
        self.peer = None
        self.account = None
        self.introduced = False
        self.settle()
        self._timer = asyncio.get_running_loop().call_later(patience, self.close)

    def settle(self) -> None:
        """Stop waiting for an introduction."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class Gateway:
    """Connections in, typed requests to their handlers, acknowledgements and pushes out."""

    def __init__(
        self,
        conversations: Conversations,
        routes: Mapping[type[Wire], Handler],
        authenticate: Callable[[Connect], tuple[Guest, Record | None]],
        contract_hash: str,
        limits: Limits,
        sources: Sources,
        carrier: Carrier,
        *,
        patience: float,
        max_connections: int,
        max_strangers: int,
        strangers_per_address: int,
        bucket_size: float,
        bucket_per_second: float,
        meter: Meter,
    ) -> None:
        """`patience`: seconds in which a client has to say who it is."""
        declared = {request.type for request in REQUESTS.values()}
        if set(routes) != declared:
            names = sorted(t.__name__ for t in set(routes) ^ declared)
            raise RuntimeError(f"routes and contract differ: {', '.join(names)}")
        self._conversations = conversations
        self._routes = {event: _Route(event, routes[request.type], meter) for event, request in REQUESTS.items()}
        self._routes_as_said = {b'["%b"' % event.encode(): route for event, route in self._routes.items()}
        """By how a call begins, as every client writes it that does not escape what needs no escaping."""
        self._authenticate = authenticate
        self._contract_hash = contract_hash
        self._carrier = carrier
        self._limits = limits
        self._sources = sources
        self._max_connections = max_connections
        self._max_strangers = max_strangers
        self._strangers_per_address = strangers_per_address
        self._strangers: dict[str, int] = {}
        """Connections that have not said yet who they are, by the address they come from."""
        self._all_strangers = 0
        self._patience = patience
        self._bucket_size = bucket_size
        self._bucket_per_second = bucket_per_second
        self._opened = meter.tally("connections_opened")
        self._slow = meter.tally("connections_cut", reason="slow_reader")
        self._flooders = meter.tally("connections_cut", reason="flood")
        self._refused = {code: meter.tally("refusals", door="socket", code=code) for code in ERRORS}
        self._connections: set[_Connection] = set()
        self.draining = False

    @property
    def connections(self) -> int:
        """Sessions that are open."""
        return len(self._connections)

    def transports(self) -> dict[str, float]:
        """Open connections by how they came, or have been upgraded to."""
        websockets = sum(connection.session.websocket for connection in self._connections)
        return {"websocket": websockets, "polling": len(self._connections) - websockets}

    def attach(self, app: web.Application) -> None:
        """Serve /socket.io/ in this application."""
        self._carrier.attach(app, self)
        app.on_response_prepare.append(self._let_go)

    async def _let_go(self, request: web.Request, response: web.StreamResponse) -> None:
        """While draining, no connection is kept for another request: that one has to go elsewhere."""
        if self.draining and response.status != 101:
            response.force_close()
            response.headers["Connection"] = "close"

    # ------------------------------------------------------------------ connecting

    def crowded(self, request: Asking) -> Refused | None:
        """Why nobody more is let in of whom it is not known who they are.

        A page cannot read why a websocket was refused. Whoever comes in time to say who they are gets to know it in
        words; this holds off those who never do.
        """
        if self._strangers.get(self._sources.of(request).address, 0) >= self._strangers_per_address:
            return Refused("address_full", retryInMs=COME_BACK_MS)
        if self._all_strangers >= self._max_strangers:
            return Refused("busy", retryInMs=COME_BACK_MS)
        return None

    def _count_stranger(self, connection: _Connection, more: int) -> None:
        self._all_strangers += more
        address = connection.source.address
        if left := self._strangers.pop(address, 0) + more:
            self._strangers[address] = left

    def _leave(self, connection: _Connection) -> None:
        """It counts no longer among its address's connections."""
        if connection.entered:
            connection.entered = False
            self._limits.leave(connection.source)

    def opened(self, session: Session, request: Asking) -> _Connection:
        """A session was opened, by nobody knows whom."""
        self._opened.n += 1
        connection = _Connection(
            self, session, self._sources.of(request), Bucket(self._bucket_size, self._bucket_per_second)
        )
        self._connections.add(connection)
        self._count_stranger(connection, 1)
        connection.await_introduction(self._patience)
        return connection

    def gone(self, connection: _Connection) -> None:
        """A session has ended."""
        self._connections.discard(connection)
        connection.settle()
        self._leave(connection)
        if connection.peer is None:
            self._count_stranger(connection, -1)
        else:
            self._conversations.disconnect(connection.peer)

    async def join(self, connection: _Connection, presented: bytes) -> None:
        """Let somebody in, by what a CONNECT packet presents; or say why not."""
        try:
            peer = await self._enter(connection, presented)
        except Exception as error:  # noqa: BLE001  # what it is, is looked at there
            connection.introduced = False
            self._leave(connection)
            refused = self.refusal(connection, error)
            answer = {"message": refused.code, "data": {"code": refused.code, **refused.data}}
            connection.session.send(b"4" + _json.encode(answer))
            return
        connection.peer = peer
        connection.settle()
        self._count_stranger(connection, -1)
        connection.session.send(b'0{"sid":"%b"}' % connection.session.name.encode())
        self._conversations.welcome(peer)

    async def _enter(self, connection: _Connection, presented: bytes) -> Peer:
        guest, claim = self._admit(connection, presented)
        await self._limits.enter(guest.id, connection.source)
        connection.entered = True
        peer = await self._conversations.connect(guest, connection, claim)
        if peer.spent:
            # What cannot be learnt now is heard when more is spent.
            with contextlib.suppress(StateUnavailable):
                await self._limits.learn(guest.id)
        if connection.session.closed:
            # It hung up while Redis was asked.
            self._conversations.disconnect(peer)
            raise Refused("bad_request")
        return peer

    def _admit(self, connection: _Connection, presented: bytes) -> tuple[Guest, Record | None]:
        if self.draining or len(self._connections) > self._max_connections:
            raise Refused("busy", retryInMs=soon())
        try:
            asked = _connect.decode(presented)
        except (msgspec.MsgspecError, RecursionError):
            self._limits.turned_away(connection.source)
            raise Refused("token_invalid") from None
        if asked.contract != self._contract_hash:
            raise Refused("stale_client", contract=self._contract_hash)
        try:
            return self._authenticate(asked)
        except Refused:
            # Who gets in is counted when entering.
            self._limits.turned_away(connection.source)
            raise

    def part(self, connection: _Connection) -> None:
        """Its client is nobody again, and may say once more who it is."""
        if connection.peer is not None:
            self._conversations.disconnect(connection.peer)
            self._count_stranger(connection, 1)
            self._leave(connection)
            connection.await_introduction(self._patience)

    # ------------------------------------------------------------------ requests

    def dispatch(self, connection: _Connection, peer: Peer, call: bytes) -> Wire | Awaitable[Wire]:
        """Do what a call asks for: `["event",{...}]`. Raises Refused, StateUnavailable."""
        route = self._routes_as_said.get(call[: call.find(b",")])
        if route is None:
            route, body = self._read(connection, peer, call)
        else:
            body = None
        route.asked.n += 1
        self._spend(connection, peer, route.cost)
        try:
            asked = route.decode(call)[1] if body is None else route.decode_body(body)
        except (msgspec.MsgspecError, RecursionError):
            asked = self._read_again(route, call)
        if route.limit is not None:
            return self._take_and_do(route, connection, peer, asked)
        return route.handler(peer, asked)

    def _read(self, connection: _Connection, peer: Peer, call: bytes) -> tuple[_Route, msgspec.Raw]:
        """A call that does not begin as usual."""
        try:
            event, body = _call.decode(call)
        except (msgspec.MsgspecError, RecursionError):
            self._spend(connection, peer, 1)
            raise Refused("bad_request") from None
        route = self._routes.get(event)
        if route is None:
            self._spend(connection, peer, 1)
            raise Refused("unknown_event")
        return route, body

    def _read_again(self, route: _Route, call: bytes) -> Any:
        """Say what is wrong with a call, by the names that its client knows."""
        try:
            return route.decode_body(_call.decode(call)[1])
        except (msgspec.MsgspecError, RecursionError) as error:
            raise Refused("bad_request", detail=str(error)[:200]) from None

    async def _take_and_do(self, route: _Route, connection: _Connection, peer: Peer, asked: Any) -> Wire:
        assert route.limit is not None
        await self._limits.take({route.limit: 1}, peer.guest.id, connection.source)
        done = route.handler(peer, asked)
        return await done if inspect.isawaitable(done) else done

    def refusal(self, connection: _Connection, error: Exception) -> Refused:
        """What a client is told of an error, counted; what is nobody's but ours is logged."""
        if isinstance(error, Refused):
            refused = error
        elif isinstance(error, StateUnavailable):
            refused = Refused("busy" if isinstance(error, StateFull) else "unavailable", retryInMs=soon())
        else:
            error_id = new_id()
            with structlog.contextvars.bound_contextvars(connection_id=connection.session.name):
                log.error("request_failed", extra={"error_id": error_id}, exc_info=error)
            refused = Refused("internal", errorId=error_id)
        self._refused[refused.code].n += 1
        return refused

    def flooded(self, connection: _Connection) -> None:
        """A client is about to be cut for its haste."""
        self._flooders.n += 1
        with structlog.contextvars.bound_contextvars(connection_id=connection.session.name):
            log.warning("flooder_cut")

    def fell_behind(self, connection: _Connection) -> None:
        """A client is about to be cut because it does not read."""
        self._slow.n += 1
        with structlog.contextvars.bound_contextvars(connection_id=connection.session.name):
            log.warning("slow_reader_cut")

    def _spend(self, connection: _Connection, peer: Peer, cost: float) -> None:
        """First by what one connection may, then by what everybody counts together."""
        now = time.monotonic()
        if wait := connection.bucket.take(cost, now):
            raise Refused("rate_limited", retryInMs=wait)
        account = connection.account
        if account is None:
            # Most who wait or read never spend.
            account = connection.account = self._limits.account("requests", peer.guest.id, connection.source)
        account.spend(cost, now)

    # ------------------------------------------------------------------ stopping

    async def drain(self, *, elsewhere: bool) -> int:
        """Let every client go: first those who move by themselves, if there is an `elsewhere`, then the rest.

        Takes five seconds at most; says how many did not move. Nobody's socket just breaks, no request that came goes
        unanswered, and from the beginning on whoever is new is sent elsewhere.
        """
        self.draining = self._carrier.draining = True
        if elsewhere:
            least, most = MOVING_SECONDS
            moving = min(most, max(least, len(self._connections) / MOVED_PER_SECOND))
            until = time.monotonic() + moving + ARRIVING_SECONDS
            while self._connections and time.monotonic() < until:
                self._ask_to_move(moving)
                await asyncio.sleep(0.05)
        left = list(self._connections)
        for connection in left:
            connection.leave()
        until = time.monotonic() + HEARD_SECONDS
        while (self._connections or self._carrier.unheard) and time.monotonic() < until:
            await asyncio.sleep(0.02)
        await self._carrier.stop()
        return len(left)

    def _ask_to_move(self, moving: float) -> None:
        """Ask those who have not been asked yet, each to begin at a moment of its own."""
        for connection in list(self._connections):
            if connection.peer is not None and not connection.told_to_move:
                connection.told_to_move = True
                connection.push(encode_push(SessionMove(in_ms=secrets.randbelow(round(moving * 1000)))))
            elif not connection.introduced:
                connection.leave()
