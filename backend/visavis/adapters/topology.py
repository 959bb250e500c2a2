"""Which Redis server has a key: the only one, the primary that Sentinels name, or the owner of its slot in a Cluster.

Hides the forms of REDIS_URL, looking servers up, and looking again when one fails or hands over. Each server has a
plain client of its own; nothing is asked of a server that has not just been found to be the right one, and nothing is
kept from one that is not any more.

A slot that is being moved key by key (ASK) is not followed: what belongs together would be found half here and half
there. Whoever asks is told that it is unavailable until the slot has arrived.
"""

import asyncio
import bisect
import logging
import random
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from typing import Any, Protocol
from urllib.parse import parse_qsl, quote, urlencode

import hiredis
import redis.asyncio as redis
from redis.asyncio.connection import DefaultParser
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.crc import key_slot
from redis.exceptions import (
    ClusterDownError,
    MovedError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
)

from visavis.core import tasks
from visavis.core.ports import StateFull, StateUnavailable

log = logging.getLogger(__name__)

CONNECTIONS = 32
"""To each server at most, besides those that listen; whoever needs one more waits for it."""
SECONDS = 2.0
"""For an answer, a connection, or a free connection."""
LOOK_SECONDS = 1.0
"""For an answer about where the servers are."""
LOOK_LEAST = 0.1
"""Seconds between looks at least, however many commands fail."""
LOOK_EVERY = 2.0
"""Seconds after which is looked again without a reason: a primary that hands over takes commands for seconds yet."""
PAUSES = (0.05, 0.2)
"""Seconds before a command is tried a second and a third time, each after looking again."""
AGAIN = (0.02, 0.1)
"""Seconds before what a lone server did not answer is asked a second and a third time."""
GIVE_UP = 2.5
"""Seconds after which nothing is tried again."""
FORMS = "redis, rediss or unix, redis+sentinel or rediss+sentinel, redis+cluster or rediss+cluster"

Address = tuple[str, int]
Word = str | int | bytes
_PASSING = (redis.ConnectionError, redis.TimeoutError, ReadOnlyError, ClusterDownError, MovedError, OSError)
"""What another server, or the same one a little later, may do better."""
_NOT_DONE = (ReadOnlyError, ClusterDownError, MovedError)
"""Those of them by which a server says that it did nothing."""


class _Directory(Protocol):
    """Knows where keys are, as of the last look."""

    def address(self, key: str) -> Address | None:
        """The server that has the key, if one is known."""

    async def look(self) -> set[Address]:
        """Look anew; gives the servers in use. Raises RedisError, OSError or TimeoutError if nobody could tell."""

    def moved(self, error: MovedError) -> None:
        """A server has said where a slot is."""

    async def aclose(self) -> None:
        """Let go of connections."""


class Servers:
    """The servers behind one REDIS_URL."""

    def __init__(
        self,
        only: "redis.Redis | None",
        directory: _Directory | None = None,
        client_of: Callable[[Address], "redis.Redis"] | None = None,
        *,
        once: "redis.Redis | None" = None,
    ) -> None:
        """Either one for all keys, or those of a directory, with a way to make clients of them.

        `once` is a client of the only one that tries nothing again.
        """
        self._only = only
        self._once = once or only
        self._directory = directory
        self._client_of = client_of
        self._clients: dict[Address, redis.Redis] = {}
        self._talks: dict[redis.Redis, _Talk] = {}
        self._opening: dict[redis.Redis, asyncio.Task[_Talk]] = {}
        self._looking: asyncio.Task[None] | None = None
        self._looked = -LOOK_EVERY
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def scattered(self) -> bool:
        """Whether keys that have no hash tag in common are kept by different servers."""
        return isinstance(self._directory, _Cluster)

    async def owner(self, key: str) -> "redis.Redis":
        """A client of the server that has the key, by what is known. Raises RedisError if nothing is."""
        if self._directory is None:
            assert self._only is not None
            return self._only
        address = self._directory.address(key)
        if address is None:
            await self.look_again()
            address = self._directory.address(key)
            if address is None:
                raise redis.ConnectionError("no server is known to have it")
        elif asyncio.get_running_loop().time() - self._looked > LOOK_EVERY:
            self._look()
        if address not in self._clients:
            assert self._client_of is not None
            self._clients[address] = self._client_of(address)
        return self._clients[address]

    async def together(self, keys: Sequence[str]) -> list[list[int]]:
        """Which of the keys one server has, by what is known, as their places. Raises StateUnavailable."""
        found: dict[redis.Redis, list[int]] = {}
        for n, key in enumerate(keys):
            try:
                found.setdefault(await self.owner(key), []).append(n)
            except RedisError as error:
                raise StateUnavailable(f"{type(error).__name__}: {error}") from error
        return list(found.values())

    async def look_again(self) -> None:
        """Find out where the servers are now; what cannot be found out stays as it was."""
        if self._directory is not None and asyncio.get_running_loop().time() - self._looked > LOOK_LEAST:
            await asyncio.shield(self._look())

    async def ask(self, key: str, command: Callable[["redis.Redis"], Awaitable[Any]], *, once: bool = False) -> Any:
        """What the command, which concerns this key and others with its hash tag, gives on the server that has it.

        With `once`, what may have been carried out is not tried again. Raises StateUnavailable, also if it may have
        been carried out; StateFull if the server has no memory left.
        """
        loop = asyncio.get_running_loop()
        started = loop.time()
        pauses = iter(PAUSES)
        passing = (ReadOnlyError,) if self._directory is None else _NOT_DONE if once else _PASSING
        while True:
            try:
                owner = await self.owner(key)
                return await command(self._once if once and self._once is not None else owner)
            except OutOfMemoryError as error:
                raise StateFull from error
            except (RedisError, OSError, TimeoutError) as error:
                pause = next(pauses, None)
                if pause is None or loop.time() - started > GIVE_UP or not isinstance(error, passing):
                    raise StateUnavailable(f"{type(error).__name__}: {error}") from error
                await self.learn(error, pause)

    async def run(self, node: "redis.Redis", commands: Sequence[Sequence[Word]]) -> list[Any]:
        """The answers of a server, errors of its own among them, in one round trip that others share.

        Raises ConnectionError or TimeoutError of redis-py: then nobody knows what was done.
        """
        pauses = iter(AGAIN if node is self._only and node is not self._once else ())
        loop = asyncio.get_running_loop()
        started = loop.time()
        while True:
            try:
                talk = self._talks.get(node)
                if talk is None or talk.over:
                    talk = await self._talk(node)
                answers = [talk.ask(words) for words in commands]
                return [await answer for answer in answers]
            except (redis.ConnectionError, redis.TimeoutError):
                pause = next(pauses, None)
                if pause is None or loop.time() - started > GIVE_UP:
                    raise
                await asyncio.sleep(pause)

    async def _talk(self, node: "redis.Redis") -> "_Talk":
        """Connect, once for all who wait for it."""

        async def begin() -> _Talk:
            try:
                talk = await _Talk.open(node)
                if node not in (self._only, self._once, *self._clients.values()):
                    # Not in use any more since it was named; nobody would ever end it.
                    error = redis.ConnectionError("another server is asked by now")
                    talk.end(error)
                    raise error
                self._talks[node] = talk
                return talk
            finally:
                del self._opening[node]

        if node not in self._opening:
            self._opening[node] = asyncio.get_running_loop().create_task(begin())
            # Also if those who wait have gone.
            self._opening[node].add_done_callback(lambda task: task.cancelled() or task.exception())
        return await asyncio.shield(self._opening[node])

    def _end_talk(self, node: "redis.Redis") -> None:
        talk = self._talks.pop(node, None)
        if talk is not None:
            talk.end(redis.ConnectionError("another server is asked from now on"))

    async def learn(self, error: Exception, pause: float) -> None:
        """After this error, and so many seconds, find out where to ask next."""
        talks = list(self._talks.items())
        await asyncio.sleep(pause)
        if self._directory is None:
            if isinstance(error, ReadOnlyError):
                # A name or a proxy may lead to another primary by now, but only a new connection does.
                for one in filter(None, (self._only, self._once)):
                    await one.connection_pool.disconnect(inuse_connections=False)
                for one, talk in talks:
                    # Not what somebody with the same error has opened meanwhile, and others wait for answers on.
                    if self._talks.get(one) is talk:
                        self._end_talk(one)
        elif isinstance(error, MovedError) and error.host:
            self._directory.moved(error)
        else:
            await self.look_again()

    async def aclose(self) -> None:
        """Let go of every connection."""
        if self._looking is not None:
            # So that its answer changes nothing any more.
            await tasks.end([self._looking])
        await asyncio.gather(*self._closing)
        await tasks.end(list(self._opening.values()))
        for node in list(self._talks):
            self._end_talk(node)
        for only in (self._only, self._once):
            if only is not None:
                await only.aclose()
        if self._directory is not None:
            await self._directory.aclose()
        for one in self._clients.values():
            await one.aclose()

    def _look(self) -> "asyncio.Task[None]":
        if self._looking is None or self._looking.done():
            self._looking = asyncio.get_running_loop().create_task(self._find())
        return self._looking

    async def _find(self) -> None:
        assert self._directory is not None
        try:
            used = await self._directory.look()
        except (RedisError, OSError, TimeoutError) as error:
            log.warning("redis_not_found", extra={"why": type(error).__name__})
            return
        finally:
            self._looked = asyncio.get_running_loop().time()
        for address in self._clients.keys() - used:
            # Whoever still waits for it, or listens there, is told so, and looks elsewhere.
            gone = self._clients.pop(address)
            self._end_talk(gone)
            task = asyncio.get_running_loop().create_task(gone.aclose())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)


class Taken(asyncio.Protocol, ABC):
    """A connection to a server whose answers are heard in the event loop's callback: no task, pool or wait for each.

    redis-py opens it, with whatever the URL asks for; its private `_reader` and `_writer` are where the transport is
    taken from, here and nowhere else.
    """

    def __init__(self) -> None:
        self._reader = hiredis.Reader()
        self._transport: asyncio.Transport | None = None
        self._opened: Any = None
        """redis-py's part of it."""

    async def take(self, node: "redis.Redis") -> None:
        """Connect. Raises RedisError or OSError."""
        connection = node.connection_pool.make_connection()  # type: ignore[no-untyped-call]  # untyped upstream
        try:
            await connection.connect()
            self._transport = connection._writer.transport  # noqa: SLF001  # see the class's docstring
            self._transport.set_protocol(self)
            # Kept as long as the transport: its streams close that when they are collected.
            self._opened = connection
        except BaseException:
            await connection.disconnect()
            raise

    @abstractmethod
    def hear(self, said: Any) -> None:
        """Something the server says; an error of its own as the RedisError that it is."""

    @abstractmethod
    def end(self, error: Exception) -> None:
        """It is over, for this reason; may be said more than once."""

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        try:
            while (said := self._reader.gets()) is not False:
                if isinstance(said, hiredis.ReplyError):
                    # Of the one class that knows which errors there are.
                    said = DefaultParser.parse_error(str(said))  # type: ignore[no-untyped-call]  # untyped upstream
                self.hear(said)
        except hiredis.ProtocolError as error:
            self.end(redis.ConnectionError(str(error)))

    def connection_lost(self, exc: BaseException | None) -> None:
        self._transport = None
        opened, self._opened = self._opened, None
        opened._reader = opened._writer = None  # noqa: SLF001  # there is nothing left to close
        self.end(redis.ConnectionError("the connection was lost"))


def packed(*words: Word) -> bytes:
    """A command as Redis reads it (RESP)."""
    command: bytes = hiredis.pack_command(words)  # type: ignore[arg-type]  # its types know commands of one word
    return command


class _Talk(Taken):
    """A connection on which everybody asks a server at once, for a quarter of what the way through redis-py costs."""

    def __init__(self) -> None:
        super().__init__()
        self._unwritten: list[bytes] = []
        """Asked in this turn of the loop."""
        self._asked: deque[tuple[asyncio.Future[Any], float]] = deque()
        """Answers to come, in order, and when they were asked for."""
        self._watched = False

    @classmethod
    async def open(cls, node: "redis.Redis") -> "_Talk":
        """Connect. Raises ConnectionError or TimeoutError of redis-py."""
        talk = cls()
        try:
            await talk.take(node)
        except OSError as error:
            raise redis.ConnectionError(str(error)) from error
        return talk

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self._transport is None

    def ask(self, words: Sequence[Word]) -> asyncio.Future[Any]:
        """The answer to a command; an error of the server's is an answer. Raises ConnectionError if it is over."""
        if self._transport is None:
            raise redis.ConnectionError("the connection was lost")
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Any] = loop.create_future()
        if not self._unwritten:
            loop.call_soon(self._write)
        self._unwritten.append(packed(*words))
        self._asked.append((answer, loop.time()))
        if not self._watched:
            self._watched = True
            loop.call_later(SECONDS, self._watch)
        return answer

    def _write(self) -> None:
        unwritten, self._unwritten = self._unwritten, []
        if self._transport is not None:
            self._transport.write(b"".join(unwritten))

    def _watch(self) -> None:
        """Give up on a server that has not answered in time."""
        self._watched = False
        if self._asked:
            loop = asyncio.get_running_loop()
            left = self._asked[0][1] + SECONDS - loop.time()
            if left <= 0:
                self.end(redis.TimeoutError("no answer in time"))
            else:
                self._watched = True
                loop.call_later(left, self._watch)

    def hear(self, said: Any) -> None:
        if isinstance(said, hiredis.PushNotification) or not self._asked:
            return
        answer, _ = self._asked.popleft()
        if answer.done():
            return
        if isinstance(said, redis.ConnectionError):
            # It is only just starting.
            answer.set_exception(said)
            answer.exception()
        else:
            answer.set_result(said)

    def end(self, error: Exception) -> None:
        """Break it off; nobody knows what became of what was asked."""
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.abort()
        asked, self._asked = self._asked, deque()
        for answer, _ in asked:
            if not answer.done():
                answer.set_exception(error)
                # Who asked for several looks at the first alone.
                answer.exception()


class _Asking:
    """Servers asked all at once, of which the first with a good answer is enough.

    The others are let finish, within their own time-outs: a client that is cut off while it connects forgets a socket.
    """

    def __init__(self) -> None:
        self._under_way: set[asyncio.Task[Any]] = set()

    def begin(self, *questions: Coroutine[Any, Any, Any]) -> Iterator[Awaitable[Any]]:
        """Ask; gives the answers in the order they come."""
        asked = [asyncio.get_running_loop().create_task(question) for question in questions]
        for one in asked:
            self._under_way.add(one)
            one.add_done_callback(self._under_way.discard)
        return asyncio.as_completed(asked)

    async def finish(self) -> None:
        """Wait for those that nobody waited for."""
        await asyncio.gather(*self._under_way, return_exceptions=True)


class _Sentinels:
    """A primary by the name the Sentinels have for it."""

    def __init__(self, sentinels: list[str], service: str, url_of: Callable[[Address], str]) -> None:
        self._sentinels = [client(url, retries=0, seconds=LOOK_SECONDS) for url in sentinels]
        self._service = service
        self._url_of = url_of
        self._primary: Address | None = None
        self._asking = _Asking()

    def address(self, key: str) -> Address | None:
        return self._primary

    async def look(self) -> set[Address]:
        told: Counter[Address] = Counter()
        for answer in self._asking.begin(*(self._asked(sentinel) for sentinel in self._sentinels)):
            named = await answer
            if named is not None:
                told[named] += 1
                # One that hangs is not waited for once most agree.
                if told[named] > len(self._sentinels) // 2:
                    break
        for named, _ in told.most_common():
            # What a Sentinel says may be old, and the old primary a replica by now, or not yet the new one.
            if await self._is_primary(named):
                self._primary = named
                return {named}
        raise redis.ConnectionError("no Sentinel names a primary that is one")

    async def _asked(self, sentinel: "redis.Redis") -> Address | None:
        try:
            named = await sentinel.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._service)  # type: ignore[no-untyped-call]  # untyped upstream
        except (RedisError, OSError, TimeoutError):
            return None
        return (named[0].decode(), int(named[1])) if named else None

    async def _is_primary(self, address: Address) -> bool:
        one = client(self._url_of(address), retries=0, seconds=LOOK_SECONDS)
        try:
            role = await one.execute_command("ROLE")  # type: ignore[no-untyped-call]  # untyped upstream
        except (RedisError, OSError, TimeoutError):
            return False
        finally:
            await one.aclose()
        return bool(role[0] == b"master")

    def moved(self, error: MovedError) -> None:
        pass

    async def aclose(self) -> None:
        await self._asking.finish()
        for one in self._sentinels:
            await one.aclose()


class _Cluster:
    """Owners of slots."""

    def __init__(self, seeds: list[Address], url_of: Callable[[Address], str]) -> None:
        self._seeds = seeds
        self._url_of = url_of
        self._known: set[Address] = set(seeds)
        self._starts: list[int] = []
        self._ranges: list[tuple[int, Address]] = []
        """By first slot: the last one, and the owner."""
        self._moved: dict[int, Address] = {}
        """What servers have said since the last look."""
        self._asking = _Asking()

    def address(self, key: str) -> Address | None:
        slot = key_slot(key.encode())
        if slot in self._moved:
            return self._moved[slot]
        at = bisect.bisect_right(self._starts, slot) - 1
        if at < 0 or slot > self._ranges[at][0]:
            return None
        return self._ranges[at][1]

    async def look(self) -> set[Address]:
        # Not always the same first: what one server believes may be old for a moment.
        known = list(self._known | set(self._seeds))
        random.shuffle(known)
        for answer in self._asking.begin(*map(self._asked, known)):
            found = await answer
            if found:
                self._starts = [first for first, _, _ in found]
                self._ranges = [(last, owner) for _, last, owner in found]
                self._moved = {}
                self._known = {owner for _, _, owner in found}
                return self._known
        raise redis.ConnectionError("no server of the cluster answers")

    async def _asked(self, address: Address) -> list[tuple[int, int, Address]]:
        """Ranges of slots with their owners, as one server has them; empty if it does not answer."""
        one = client(self._url_of(address), retries=0, seconds=LOOK_SECONDS)
        try:
            told = await one.execute_command("CLUSTER", "SLOTS")  # type: ignore[no-untyped-call]  # untyped upstream
        except (RedisError, OSError, TimeoutError):
            return []
        finally:
            await one.aclose()
        # A server that does not know its own address leaves it out: it is where it was asked.
        return sorted(
            (int(first), int(last), (owner[0].decode() if owner[0] not in (None, b"", b"?") else address[0], owner[1]))
            for first, last, owner, *_ in told
        )

    def moved(self, error: MovedError) -> None:
        self._moved[error.slot_id] = (error.host, error.port)

    async def aclose(self) -> None:
        await self._asking.finish()


def client(url: str, *, retries: int, seconds: float = SECONDS, connections: int = CONNECTIONS) -> "redis.Redis":
    """A client of one server: bounded pool that waits, short time-outs, no pickle anywhere. Raises ValueError."""
    pool = redis.BlockingConnectionPool.from_url(
        url,
        max_connections=connections,
        timeout=seconds,
        socket_timeout=seconds,
        socket_connect_timeout=seconds,
        retry=Retry(ExponentialBackoff(cap=0.1, base=0.02), retries),
        retry_on_error=[redis.BusyLoadingError],
    )
    # Owned by the client, which closes it with itself.
    return redis.Redis.from_pool(pool)


def servers(url: str, listeners: int) -> Servers:
    """The servers of a REDIS_URL, for so many who listen all the time.

    Raises ValueError, which says what is wrong and never a password.
    """
    connections = CONNECTIONS + listeners
    scheme, _, rest = url.partition("://")
    if scheme in ("redis", "rediss", "unix"):
        _checked(url)
        return Servers(client(url, retries=2, connections=connections), once=client(url, retries=0))
    transport, _, kind = scheme.partition("+")
    if transport not in ("redis", "rediss") or kind not in ("sentinel", "cluster"):
        raise ValueError(f"begin it with {FORMS}, then ://")
    rest, _, query = rest.partition("?")
    hosts, _, path = rest.partition("/")
    credentials, at, hosts = hosts.rpartition("@")
    addresses = [_address(host, 26379 if kind == "sentinel" else 6379) for host in hosts.split(",")]
    options = dict(parse_qsl(query, keep_blank_values=True))
    for_sentinels = {name: options.pop(f"sentinel_{name}", "") for name in ("username", "password")}
    service, _, database = path.partition("/")
    if kind == "sentinel" and not service:
        raise ValueError("say after the Sentinels which primary they watch: redis+sentinel://host:26379/name")
    if database and not database.isdigit():
        raise ValueError("the database after the primary's name is a number")
    if kind == "cluster" and path not in ("", "0"):
        raise ValueError("a cluster has no other database than 0: leave out what follows the servers")

    def url_of(address: Address) -> str:
        return _url(transport, f"{credentials}{at}", address, database, options)

    def client_of(address: Address) -> "redis.Redis":
        # Not tried again in the same place: whoever asks looks first where the place is now.
        return client(url_of(address), retries=0, connections=connections)

    _checked(url_of(addresses[0]))
    if kind == "cluster":
        return Servers(None, _Cluster(addresses, url_of), client_of)
    own = ""
    if for_sentinels["password"]:
        own = f"{quote(for_sentinels['username'], safe='')}:{quote(for_sentinels['password'], safe='')}@"
    sentinels = [_url(transport, own, address, "", options) for address in addresses]
    return Servers(None, _Sentinels(sentinels, service, url_of), client_of)


def _address(text: str, port: int) -> Address:
    host, colon, said = text.rpartition(":")
    if text.endswith("]") or not colon:
        host, said = text, str(port)
    host = host.removeprefix("[").removesuffix("]")
    if not host or not said.isdigit() or not 0 < int(said) < 65536:
        raise ValueError("name each server as host:port, with commas between them")
    return host, int(said)


def _url(scheme: str, credentials: str, address: Address, database: str, options: dict[str, str]) -> str:
    host = f"[{address[0]}]" if ":" in address[0] else address[0]
    query = f"?{urlencode(options)}" if options else ""
    return f"{scheme}://{credentials}{host}:{address[1]}/{database}{query}"


def _checked(url: str) -> None:
    """What redis-py would only find out when it first connects."""
    pool = client(url, retries=0).connection_pool
    try:
        pool.connection_class(**pool.connection_kwargs)
    except TypeError:
        known = "ssl_ca_certs, ssl_certfile, ssl_keyfile, sentinel_password and the like"
        raise ValueError(f"an option after the question mark is unknown: they are {known}") from None
