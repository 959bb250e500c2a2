"""Looks whether a deployment can work as its settings say, and says in plain words what is wrong and what to do.

Every check stands in CHECKS: it asks one part of the surroundings, all at once, each with a time of its own, so that a
Redis that hangs does not hang the rest. Nothing is changed anywhere, but for a document and files that are made to see
whether they can be, and removed again. What is said never holds a secret: the known ones are struck out last of all.
"""

import argparse
import asyncio
import contextlib
import ipaddress
import os
import re
import secrets
import shutil
import signal as signals
import socket
import ssl
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import urlsplit

import aiohttp
import msgspec
from rich.console import Console
from rich.live import Live
from rich.text import Text

from visavis import VERSION
from visavis.adapters import allocation, machine, mongo, sqlite
from visavis.adapters.allocation import NoAnswer
from visavis.adapters.redis import Recorders, Told, Watch, connect
from visavis.adapters.scanner import Clamd
from visavis.adapters.tokens import LEAST_SECRET, SecretsInvalid, read_secrets
from visavis.adapters.turn import PrivateTurn, TurnFailed, TurnServers, available, sign
from visavis.adapters.valkey import PrivateValkey, ValkeyFailed
from visavis.app import GUEST_SECONDS, ROOT, CannotServe, document_store, storage
from visavis.contract import Refused
from visavis.core.liveness import read_share
from visavis.core.ports import (
    ScannerUnavailable,
    StateUnavailable,
    StorageFull,
    StorageUnavailable,
    StoreUnavailable,
)
from visavis.core.schema import CannotUse, Schema
from visavis.doors.sources import Sources
from visavis.settings import Settings

Level = Literal["good", "note", "warning", "error"]
LEVELS: tuple[Level, ...] = ("good", "note", "warning", "error")

HERE = ("127.0.0.1", "localhost", "::1")
FREE_BYTES = 500_000_000
"""Less than this on the disk of what must last is worth a warning."""
FILES_BESIDES = 500
"""Open files of a worker besides its connections: Redis, the store, uploads, the programs it starts."""
CLOCK_SECONDS = 2.0
SLOW_SECONDS = 0.01
CERTIFICATE_DAYS = 14
DEPTH_ZERO_SELF_SIGNED = 18
"""OpenSSL's number for a certificate whose issuer is its own subject, and whom nobody else vouches for."""
LEAST_TOKEN = 16
NETWORK_FILESYSTEMS = {"nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "glusterfs", "lustre", "afs", "fuse.sshfs"}
EXAMPLE = re.compile(r"change|example|replace|secret|password|sample|insert|12345678|abcdefgh", re.IGNORECASE)
"""What stands in a placeholder, and hardly ever by chance in a secret that was made."""
EICAR = ("X5O!P%@AP[4\\PZX54(P^)7CC)7}$" + "EICAR-STANDARD-" + "ANTIVIRUS-TEST-FILE!$H+H*").encode()
"""What every scanner has agreed to find."""
FORBIDDEN_PEERS = [
    *("127.0.0.1", "127.1.2.3", "10.0.0.1", "100.64.0.1", "172.16.0.1", "192.168.0.1", "169.254.169.254"),
    *("::1", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "fd00::1"),
]
"""A relay that sends there lets strangers into the networks behind it. turn/check has the whole list."""


class Finding(msgspec.Struct, frozen=True):
    """What was found, why it matters, and what to do."""

    check: str
    level: Level
    what: str
    why: str = ""
    do: str = ""


class Findings:
    """What one check finds, as it finds it."""

    def __init__(self, check: str, hidden: Sequence[str]) -> None:
        self._check = check
        self._hidden = hidden
        self.found: list[Finding] = []

    def good(self, what: str) -> None:
        """As it should be."""
        self._say("good", what)

    def note(self, what: str, why: str = "", do: str = "") -> None:
        """Worth knowing."""
        self._say("note", what, why, do)

    def warning(self, what: str, why: str, do: str) -> None:
        """It works, and may not go on working, or not as well as it should."""
        self._say("warning", what, why, do)

    def error(self, what: str, why: str, do: str) -> None:
        """Something does not work, or is not safe."""
        self._say("error", what, why, do)

    def _say(self, level: Level, *words: str) -> None:
        clean = []
        for text in words:
            for secret in self._hidden:
                text = text.replace(secret, "***")  # noqa: PLW2901  # one after the other
            clean.append(re.sub(r"//[^/@\s]*@", "//***@", text))
        self.found.append(Finding(self._check, level, *clean))


class Site:
    """What is being checked."""

    def __init__(self, settings: Settings, problems: list[str]) -> None:
        self.settings = settings
        self.problems = problems
        self.data_dir = Path(settings.data_dir)
        self.origins = settings.origins.split()
        self.beyond = settings.host not in HERE
        """Other machines can connect."""
        s = settings
        passwords = [urlsplit(url).password for url in (s.redis_url, s.mongo_url) if _splits(url)]
        given = [*s.turn_secrets.split(), s.s3_secret, s.metrics_token, *passwords]
        given += [item.partition(":")[2] or item for item in s.secrets.split()]
        self.hidden = sorted((one for one in given if one), key=len, reverse=True)


Check = Callable[[Site, Findings], Awaitable[None]]


# --------------------------------------------------------------------------- settings


async def check_settings(site: Site, told: Findings) -> None:
    """Every variable, and those that contradict each other."""
    s = site.settings
    for problem in site.problems:
        told.error(problem, "No worker starts with a setting that it does not understand.", "See docs/settings.md.")
    if site.beyond and not site.origins:
        told.error(
            f"VISAVIS_HOST is {s.host}, and VISAVIS_ORIGINS is empty.",
            "A worker that other machines reach has to know which pages may connect to it, and does not start.",
            "Set VISAVIS_ORIGINS to the address people open, such as https://meet.example.org, or VISAVIS_HOST to "
            "127.0.0.1.",
        )
    for origin in site.origins:
        _check_origin(origin, told)
    _check_proxy(site, told)
    if site.origins and not s.metrics_token:
        told.note(
            "VISAVIS_METRICS_TOKEN is empty: nobody can read /metrics.",
            "With VISAVIS_ORIGINS it is open to nobody without a token.",
            "For Prometheus, set one: openssl rand -hex 32.",
        )
    if s.lease_ms < 2000:
        told.warning(
            f"VISAVIS_LEASE_MS is {s.lease_ms}.",
            "A worker says once a second that it lives; one that was busy for a moment would be taken for dead.",
            "Leave it at 3000.",
        )
    if s.session_seconds <= s.grace_seconds:
        told.error(
            "VISAVIS_SESSION_SECONDS is not longer than VISAVIS_GRACE_SECONDS.",
            "A guest's session would end while the seat is still being kept.",
            "Make the session longer; 7200 is the default.",
        )
    if s.files_bytes_together < s.file_bytes:
        told.warning(
            "VISAVIS_FILES_BYTES_TOGETHER is less than VISAVIS_FILE_BYTES.",
            "A file of the size that is offered is refused all the same.",
            "Make it several times as much.",
        )
    if s.redis_url and not s.mongo_url:
        told.note(
            "MONGO_URL is empty: reports and blocks are in an SQLite file.",
            "Right for workers on one machine. Those of another machine would have a file, and blocks, of their own.",
            "With workers on several machines, set MONGO_URL.",
        )
    if not told.found:
        given = sum(getattr(s, name) != field for name, field in msgspec.structs.asdict(Settings()).items())
        told.good(f"{len(Settings.__struct_fields__)} settings, {given} of them not the default")


def _check_origin(origin: str, told: Findings) -> None:
    parts = urlsplit(origin) if _splits(origin) else None
    if (
        parts is None
        or parts.scheme not in ("http", "https")
        or not parts.hostname
        or f"{parts.scheme}://{parts.netloc}" != origin
    ):
        told.error(
            f"VISAVIS_ORIGINS: {origin} is not an origin.",
            "A browser says where a page is from as scheme, name and port alone; this one never matches.",
            "Write it as https://meet.example.org, without a path or a slash at the end.",
        )
    elif parts.scheme == "http" and not _is_here(parts.hostname):
        told.error(
            f"VISAVIS_ORIGINS: {origin} is not https.",
            "Browsers give a page camera, microphone and notifications only over HTTPS, and everybody on the way "
            "could read along.",
            "Serve it over TLS (nginx.conf shows how) and write https://.",
        )


def _check_proxy(site: Site, told: Findings) -> None:
    s = site.settings
    if s.trust_forwarded and site.beyond:
        told.warning(
            f"VISAVIS_TRUST_FORWARDED is on, and VISAVIS_HOST {s.host} can be reached past the proxy.",
            "Whoever connects to this port directly says what address they have, and no limit holds them.",
            "Set VISAVIS_HOST to 127.0.0.1, or close the port to everything but the proxy.",
        )
    elif s.trust_forwarded and not site.origins:
        told.warning(
            "VISAVIS_TRUST_FORWARDED is on, and VISAVIS_ORIGINS is empty.",
            "Without VISAVIS_ORIGINS no page from behind a proxy may connect; is there one?",
            "Behind a proxy, set VISAVIS_ORIGINS. Without one, leave VISAVIS_TRUST_FORWARDED away.",
        )
    elif not s.trust_forwarded and site.origins and not site.beyond:
        told.warning(
            "VISAVIS_TRUST_FORWARDED is off, behind what must be a proxy on this machine.",
            "Everybody comes from the proxy's address, and shares its limits: a few busy guests stop all the others.",
            "Set VISAVIS_TRUST_FORWARDED=true, with a proxy that overwrites X-Forwarded-For, as nginx.conf does.",
        )


async def check_secrets(site: Site, told: Findings) -> None:
    """Long enough, nobody's example, and not for everybody's eyes."""
    s = site.settings
    if s.secrets:
        try:
            for name, secret in read_secrets(s.secrets).items():
                _check_secret(f"VISAVIS_SECRETS: {name}", secret.decode(), LEAST_SECRET, told)
        except SecretsInvalid as error:
            told.error(
                f"VISAVIS_SECRETS: {error}.",
                "Whoever can guess it can be any guest. No worker starts with it.",
                "Make one: echo k1:$(openssl rand -hex 32).",
            )
    else:
        kept = site.data_dir / "secrets"
        if site.settings.redis_url:
            told.note(
                f"VISAVIS_SECRETS is empty: the workers share the one in {kept}.",
                "Workers with another data folder make their own, and do not know each other's guests.",
                "With workers on several machines, give all of them the same VISAVIS_SECRETS.",
            )
        if kept.exists() and kept.stat().st_mode & 0o077:
            told.error(
                f"{kept} can be read by other users of this machine.",
                "Whoever has it can be any guest.",
                f"chmod 600 {kept}",
            )
    for key in s.turn_secrets.split():
        _check_secret("VISAVIS_TURN_SECRETS", key, LEAST_TOKEN, told)
    if s.metrics_token:
        _check_secret("VISAVIS_METRICS_TOKEN", s.metrics_token, LEAST_TOKEN, told)
    if bool(s.s3_key) != bool(s.s3_secret):
        told.error(
            "Of VISAVIS_S3_KEY and VISAVIS_S3_SECRET only one is set.",
            "The storage refuses one without the other.",
            "Set both, or neither to take them from the surroundings.",
        )
    if not told.found:
        told.good("long enough, and nobody's example")


def _check_secret(name: str, secret: str, least: int, told: Findings) -> None:
    make = "Make one that nobody knows: openssl rand -hex 32."
    if len(secret) < least:
        told.error(f"{name} has {len(secret)} characters.", f"Less than {least} can be guessed.", make)
    elif EXAMPLE.search(secret) or len(set(secret)) < 8:
        told.error(f"{name} looks like an example.", "What stands in a document, everybody knows.", make)


# --------------------------------------------------------------------------- Redis


async def check_redis(site: Site, told: Findings) -> None:
    """Reachable, new enough, fast, with memory that it does not forget things to save, and a clock like ours."""
    async with _redis(site, told) as client:
        if client is None:
            return
        watch = Watch(client)
        try:
            servers = await watch.told(pings=21)
        except StateUnavailable as error:
            _say_unreachable(error, told)
            return
        for server in servers:
            _judge_redis(server, told, private=not site.settings.redis_url)
        if not site.settings.redis_url:
            return
        _judge_spread(servers, site.settings.cells, told)
        workers = {name: read_share(share) for name, (left, share) in (await watch.workers()).items() if left > 0}
        if not workers:
            told.note("No worker has left a sign of life there.", "", "Right before the first start.")
            return
        versions = sorted({share.process.version or "older" for share in workers.values()})
        told.good(f"{_many(len(workers), 'live worker')}, version {' and '.join(versions)}")
        for share in workers.values():
            if share.process.unwell:
                told.error(
                    f"The worker at {share.process.address} says that {' and '.join(share.process.unwell)} "
                    "is away for it.",
                    "What needs that part does not work for its guests.",
                    "If nothing else is found here, look at that worker's log and machine.",
                )


def _say_unreachable(error: Exception, told: Findings) -> None:
    said = str(error)
    if re.search(r"Authentication|WRONGPASS|NOAUTH|NOPERM|invalid username", said):
        told.error(
            "Redis does not take the user or password in REDIS_URL.",
            "No worker can start.",
            "Compare it with requirepass or the ACL of Redis; REDIS_URL=redis://user:password@host:port/0.",
        )
    else:
        told.error(
            f"Redis does not answer: {said}",
            "Without it nobody can come in or be matched; conversations under way go on until it is back.",
            "Does it run, is REDIS_URL its address, and does a firewall let this machine through?",
        )


def _judge_redis(redis: Told, told: Findings, *, private: bool) -> None:
    it = f"Redis at {redis.address}"
    least = 7
    if redis.name == "Redis" and int(redis.version.partition(".")[0]) < least:
        told.error(
            f"{it}: Redis {redis.version} is too old.",
            "The scripts say in their first line what they may do when memory is full, which older ones do not read.",
            "Install Redis 7 or Valkey, or newer.",
        )
    if redis.most_memory and redis.policy != "noeviction":
        told.error(
            f"{it} forgets keys when its memory is full: maxmemory-policy is {redis.policy}.",
            "Seats and conversations of people who are talking would be lost without a trace.",
            "CONFIG SET maxmemory-policy noeviction, and the same in its configuration file.",
        )
    if not redis.most_memory:
        told.warning(
            f"{it} has no limit to its memory.",
            "It grows until the system ends it, and with it everything it holds.",
            "Set maxmemory to about three quarters of what the machine can spare, with maxmemory-policy noeviction.",
        )
    elif redis.memory > 0.8 * redis.most_memory:
        told.warning(
            f"{it} has used {redis.memory * 100 // redis.most_memory} % of its memory.",
            "When it is full nobody new can come in: they are told that it is busy.",
            "Give it more maxmemory; docs/operations.md says how much a guest takes.",
        )
    if redis.evicted:
        told.error(
            f"{it} has forgotten {redis.evicted} keys to save memory since its start.",
            "Some of them were people's seats and conversations.",
            "Set maxmemory-policy noeviction, and give it more memory.",
        )
    if redis.last_save_failed:
        told.error(
            f"{it} could not save to its disk.",
            "By default it then takes no more changes at all: nobody can come in.",
            'Make room on its disk. Nothing in it has to be saved: save "" and appendonly no are right for Visavis.',
        )
    if abs(redis.clock_off) > CLOCK_SECONDS:
        told.error(
            f"The clocks of {it} and of this machine differ by {abs(redis.clock_off):.1f} s.",
            "Sessions, files and relays' credentials end by clocks of several machines: they would end too early, or "
            "not be taken at all.",
            "Have chrony or systemd-timesyncd keep the time on every machine; timedatectl shows whether it does.",
        )
    if redis.took > SLOW_SECONDS:
        told.warning(
            f"{it} takes {redis.took * 1000:.0f} ms to answer.",
            "Every match, reconnect and message between workers waits for it, some several times.",
            "Put it into the same network as the workers, and see redis-cli --latency and SLOWLOG GET.",
        )
    if private:
        told.note(
            f"REDIS_URL is empty: a worker starts a private {redis.name} {redis.version}, as was tried here.",
            "Right for one worker on one machine.",
        )
    else:
        keeps = "saves to disk, which nothing of Visavis needs" if redis.saves else "in memory alone"
        role = f"{redis.role} with {redis.replicas} replicas" if redis.role == "master" else redis.role
        limit = f" of {_size(redis.most_memory)}" if redis.most_memory else ""
        away = f"{redis.took * 1000:.1f} ms away"
        told.good(
            f"{redis.name} {redis.version} at {redis.address}, {away}, {_size(redis.memory)}{limit}, {keeps}, {role}"
        )


def _judge_spread(servers: Sequence[Told], cells: int, told: Findings) -> None:
    """What is lost with one server, and whether several are used."""
    if any(server.cluster for server in servers) and cells == 1:
        told.warning(
            "REDIS_URL is a Cluster, and VISAVIS_CELLS is 1.",
            "Everything is on one of its servers, and the others idle.",
            "Set VISAVIS_CELLS to one or two for each primary, on every worker alike.",
        )
    alone = [server.address for server in servers if server.role == "master" and not server.replicas]
    if alone:
        told.note(
            f"{' and '.join(alone)} {'has' if len(alone) == 1 else 'have'} no replica.",
            "While it is away nobody can come in or be matched; conversations under way go on.",
            "With Sentinel or a Cluster a replica takes over; see docs/operations.md.",
        )


@contextlib.asynccontextmanager
async def _redis(site: Site, told: Findings) -> AsyncIterator[Any]:
    """A client for the deployment's Redis, or for a private one that lives meanwhile; None if there is none."""
    async with contextlib.AsyncExitStack() as ends:
        url = site.settings.redis_url
        if not url:
            valkey = PrivateValkey()
            try:
                await valkey.start()
            except (ValkeyFailed, OSError) as error:
                told.error(
                    f"The private Valkey does not start: {str(error)[-300:]}",
                    "Without REDIS_URL a worker needs it.",
                    "Mend what it says, or set REDIS_URL.",
                )
                yield None
                return
            ends.push_async_callback(valkey.stop)
            url = valkey.url
        try:
            client = connect(url, site.settings.cells)
        except ValueError as error:
            told.error(
                f"REDIS_URL is no address of a Redis: {error}",
                "No worker can start.",
                "Write it as redis://user:password@host:6379/0, with rediss: for TLS.",
            )
            yield None
            return
        ends.push_async_callback(client.aclose)
        yield client


# --------------------------------------------------------------------------- what must last


async def check_documents(site: Site, told: Findings) -> None:
    """Reports and blocks: MongoDB that takes writes, or a folder in which SQLite can work."""
    if site.settings.mongo_url:
        works = await _check_mongo(site, told)
    else:
        works = await asyncio.to_thread(_check_sqlite, site, told) and (site.data_dir / "visavis.sqlite").exists()
    if not works:
        return
    store = document_store(site.settings, site.data_dir, timeout=GUEST_SECONDS)
    schema = Schema()
    try:
        mark = await schema.read_mark(store)
        if mark.version < schema.version:
            told.note(f"Its schema is {mark.version}; the next worker that starts brings it to {schema.version}.")
    except CannotUse as error:
        told.error(f"The document store cannot be used: {error}", "No worker starts on it.", "Do what it says.")
    except StoreUnavailable as error:
        told.error(f"The documents cannot be read: {error}", "No worker starts.", "Look at the store's file or server.")
    finally:
        await store.close()


async def _check_mongo(site: Site, told: Findings) -> bool:
    try:
        server = await mongo.ask(site.settings.mongo_url, site.settings.mongo_database)
    except ValueError as error:
        told.error(
            f"MONGO_URL is no address of a MongoDB: {error}",
            "No worker can start.",
            "Write it as mongodb://user:password@host:27017/?replicaSet=rs0.",
        )
        return False
    except StoreUnavailable as error:
        told.error(
            f"MongoDB does not answer, or does not take a document: {error}",
            "Nobody can report or block, and no worker starts.",
            "Does it run, has its replica set a primary, and may this user read and write the database "
            f"{site.settings.mongo_database}?",
        )
        return False
    if not server.replica_set:
        told.note(
            f"MongoDB {server.version} is a single server.",
            "If its machine is lost, reports and blocks are back to the last backup.",
            "A replica set of three goes on without one of them.",
        )
    if server.took > SLOW_SECONDS * 10:
        told.warning(
            f"MongoDB takes {server.took * 1000:.0f} ms to answer.",
            "Every search for somebody reads whom one has blocked, and waits for it.",
            "Put it into the same network as the workers.",
        )
    of = f"replica set {server.replica_set} of {server.members}" if server.replica_set else "a single server"
    told.good(f"MongoDB {server.version}, {server.took * 1000:.1f} ms away, {of}, takes documents")
    return True


def _check_sqlite(site: Site, told: Findings) -> bool:
    folder = site.data_dir
    if not _check_folder("VISAVIS_DATA_DIR", folder, FREE_BYTES, told):
        return False
    kind = machine.filesystem(folder)
    if kind in NETWORK_FILESYSTEMS:
        told.error(
            f"{folder} is on a network file system ({kind}).",
            "SQLite's log is shared memory between its users, which takes one machine: the file would be damaged.",
            "Put VISAVIS_DATA_DIR on a local disk, or use MONGO_URL.",
        )
        return False
    try:
        sqlite.try_out(_existing(folder))
    except StoreUnavailable as error:
        told.error(
            f"SQLite cannot work in {folder}: {error}",
            "Nobody could report or block, and no worker would start.",
            "Look at the disk, its free space and how it is mounted.",
        )
        return False
    told.good(f"SQLite works in {folder}, {_size(shutil.disk_usage(_existing(folder)).free)} free")
    return True


# --------------------------------------------------------------------------- relays


async def check_relays(site: Site, told: Findings) -> None:
    """A real allocation at every TURN server, with the credentials a guest would get."""
    s = site.settings
    if s.turn_urls == "none":
        told.warning(
            "VISAVIS_TURN_URLS is none: there is no relay.",
            "Calls are direct: strangers learn each other's addresses, and many networks let none through.",
            "Set up coturn as turn/README.md says.",
        )
        return
    if not s.turn_urls:
        await _check_private_relay(site, told)
        return
    if not s.turn_secrets:
        told.error(
            "VISAVIS_TURN_URLS is set, and VISAVIS_TURN_SECRETS is not.",
            "Without the secret of the TURN servers nobody gets credentials for them, and no worker starts.",
            "Set VISAVIS_TURN_SECRETS to what turn/rotate-secret made.",
        )
        return
    await _check_turn(s.turn_urls.split(), s.turn_secrets.split(), s.turn_seconds, told)


async def _check_private_relay(site: Site, told: Findings) -> None:
    s = site.settings
    if s.turn_secrets:
        told.warning(
            "VISAVIS_TURN_SECRETS is set, and VISAVIS_TURN_URLS is not.",
            "The secret is used for nothing.",
            "Name the servers in VISAVIS_TURN_URLS.",
        )
    if not available():
        told.warning(
            "VISAVIS_TURN_URLS is empty, and no turnserver is installed.",
            "Calls are direct: strangers learn each other's addresses, and many networks let none through.",
            "apt install coturn, or set up a relay as turn/README.md says.",
        )
        return
    if site.origins or s.redis_url:
        told.warning(
            "VISAVIS_TURN_URLS is empty: every worker starts a coturn of its own.",
            "It listens on this machine's address in its network, without TLS, and ends with its worker and its calls.",
            "For guests from elsewhere set up a relay as turn/README.md says, and name it in VISAVIS_TURN_URLS.",
        )
    turn = PrivateTurn()
    try:
        await turn.start()
    except TurnFailed as error:
        told.error(
            f"The private coturn does not start: {str(error)[-300:]}",
            "Calls would connect guests directly, which shares their addresses.",
            "Mend what it says, or name a relay in VISAVIS_TURN_URLS.",
        )
        return
    try:
        await _check_turn(list(turn.urls), [turn.secret], s.turn_seconds, told)
    finally:
        await turn.stop()


async def _check_turn(urls: list[str], keys: list[str], seconds: int, told: Findings) -> None:
    ways: dict[str, allocation.TurnUrl] = {}
    for url in urls:
        try:
            ways[url] = allocation.parse(url)
        except ValueError as error:
            told.error(
                f"VISAVIS_TURN_URLS: {url}: {error}",
                "Browsers cannot use it, and some refuse every relay with it.",
                "See turn/README.md.",
            )
    servers = TurnServers(tuple(urls), tuple(keys), seconds)
    await asyncio.gather(*(_check_way(url, at, servers, keys, told) for url, at in ways.items()))
    if len({at.transport for at in ways.values()}) == 1 and ways:
        (only,) = {at.transport for at in ways.values()}
        told.note(
            f"The relays are offered over {only} alone.",
            "Some networks let only UDP through to media, others nothing but TLS on 443.",
            "Offer ?transport=udp, ?transport=tcp and turns: of the same server.",
        )


async def _check_way(url: str, at: allocation.TurnUrl, servers: TurnServers, keys: list[str], told: Findings) -> None:
    def guest() -> tuple[str, str]:
        # One nobody has seen before, so that what the server allows each does not add up.
        return servers.credentials(f"check-{secrets.token_hex(6)}")[:2]

    try:
        # Twice: a coturn that has just started may refuse the first credentials it is shown.
        with contextlib.suppress(allocation.Refused):
            async with allocation.allocate(at, *guest()):
                pass
        async with allocation.allocate(at, *guest()) as held:
            ends = held.certificate_ends
        lost, took = await allocation.relayed(at, guest(), guest())
        open_to = await allocation.reaches(at, guest(), FORBIDDEN_PEERS)
    except allocation.Refused as error:
        _say_refused(url, error.code, told)
        return
    except NoAnswer as error:
        told.error(
            f"{url}: {error}.",
            "Guests whose network lets only this way through have no calls.",
            "Does coturn run there, is its port open in every firewall on the way, UDP and TCP each, and does the name "
            "lead there?",
        )
        return
    if lost:
        told.error(
            f"{url}: it gives addresses, but {lost}.",
            "Two strangers are both relayed: between them no call would come about.",
            "Let the relay send to its own address (allowed-peer-ip), and open its UDP ports 49152-65535; behind NAT "
            "set external-ip.",
        )
    if open_to:
        told.error(
            f"{url}: it relays to {', '.join(open_to)}.",
            "Any guest can reach through it what is on its machine and in its private networks.",
            "Use turn/turnserver.conf, with all its denied-peer-ip, and let turn/check ask for the whole list.",
        )
    _check_ends(url, ends, told)
    await _check_expired(url, at, keys[0], told)
    if not lost:
        told.good(f"{url}: relays between two guests, {took * 1000:.1f} ms there and back")


def _say_refused(url: str, code: int, told: Findings) -> None:
    if code == 401:
        told.error(
            f"{url}: it does not take the credentials that guests get.",
            "No call can be relayed by it.",
            "Give coturn the first of VISAVIS_TURN_SECRETS (turn/rotate-secret add), with use-auth-secret; and let "
            "both machines have the same time.",
        )
        return
    why = {486: "it has given one guest as many addresses as it may", 508: "it has no address left to give"}
    told.error(
        f"{url}: it refused an allocation with error {code}{': ' + why[code] if code in why else ''}.",
        "No call can be relayed by it now.",
        "Look at coturn's log, its total-quota and its range of ports.",
    )


async def _check_expired(url: str, at: allocation.TurnUrl, key: str, told: Findings) -> None:
    username = f"{int(time.time()) - 60}:check-{secrets.token_hex(6)}"
    with contextlib.suppress(allocation.Refused, NoAnswer):
        async with allocation.allocate(at, username, sign(key.encode(), username)):
            told.error(
                f"{url}: it takes credentials that expired a minute ago.",
                "Whoever once was a guest could use the relay for ever; or its clock is wrong.",
                "Set use-auth-secret in coturn, neither no-auth nor a fixed user, and compare the clocks.",
            )


# --------------------------------------------------------------------------- files and recordings


async def check_files(site: Site, told: Findings) -> None:
    """Where shared files lie, and the scanner."""
    s = site.settings
    if s.files_url == "none":
        told.note("VISAVIS_FILES_URL is none: nobody can share files.")
        return
    if not s.files_url.startswith("s3://"):
        folder = Path(s.files_url or site.data_dir / "files")
        if await asyncio.to_thread(_check_folder, "VISAVIS_FILES_URL", folder, s.files_free_bytes, told):
            told.good(f"{folder} can be written to, {_size(shutil.disk_usage(_existing(folder)).free)} free")
        return
    with tempfile.TemporaryDirectory() as spool:
        try:
            blobs = storage(s, Path(spool))
            assert blobs is not None
            try:
                await blobs.open()
            finally:
                await blobs.close()
            told.good(f"{s.files_url} can be written to")
        except CannotServe as error:
            told.error(str(error), "No worker starts.", "Write it as s3://bucket/prefix.")
        except (StorageFull, StorageUnavailable) as error:
            told.error(
                f"{s.files_url} cannot be written to: {error}",
                "Nobody can share a file.",
                "Compare bucket, region, endpoint and key; may the key list, get, put and delete there?",
            )
    _check_folder("VISAVIS_DATA_DIR", site.data_dir, s.files_free_bytes, told)


async def check_scanner(site: Site, told: Findings) -> None:
    """It answers, and finds what every scanner finds."""
    s = site.settings
    if not s.scanner_url:
        told.note(
            "VISAVIS_SCANNER_URL is empty: files are made anew, but not looked through for viruses.",
            "Documents reach the other guest as they were sent.",
            "apt install clamav-daemon, and set VISAVIS_SCANNER_URL=unix:/run/clamav/clamd.ctl.",
        )
        return
    try:
        scanner = Clamd(s.scanner_url)
        await scanner.ping()
        with tempfile.TemporaryDirectory() as folder:
            bait = Path(folder) / "bait"
            bait.write_bytes(EICAR)
            missed = await scanner.clean(bait)
    except ValueError as error:
        told.error(f"VISAVIS_SCANNER_URL: {error}", "No worker starts.", "Write it as that.")
    except (ScannerUnavailable, Refused) as error:
        told.error(
            f"The scanner does not answer as it should: {error}",
            "Every file is held back until it does.",
            "Does clamd run, and may the workers' user open its socket?",
        )
    else:
        if missed:
            told.error(
                "The scanner calls the test file clean that every scanner should find.",
                "It has no signatures, and would let everything through.",
                "Run freshclam, and restart clamd.",
            )
        else:
            told.good("answers, and finds the test file")


async def check_recordings(site: Site, told: Findings) -> None:
    """The folder, and whether somebody records."""
    s = site.settings
    if s.turn_urls == "none" or (not s.turn_urls and not available()):
        told.note("Without a relay no call is recorded.")
        return
    folder = Path(s.recordings_dir or site.data_dir / "recordings")
    if not _check_folder("VISAVIS_RECORDINGS_DIR", folder, s.recordings_free_bytes, told):
        return
    if not s.redis_url:
        if not s.private_recorder:
            told.note("VISAVIS_PRIVATE_RECORDER is off: no call is recorded.")
            return
        told.good(f"{folder}, and the worker starts a recorder of its own")
        return
    try:
        async with _redis(site, told) as client:
            recorders = {} if client is None else await Recorders(client).loads()
    except StateUnavailable:
        # Said by the check of Redis.
        return
    if recorders:
        told.good(f"{folder}, and {_many(len(recorders), 'live recorder')}")
    else:
        told.note(
            "No recorder lives on this Redis.",
            "Guests are not offered to record.",
            "To offer it, run visavis recorder, with the workers' settings and folder.",
        )


# --------------------------------------------------------------------------- what guests come through


async def check_origins(site: Site, told: Findings) -> None:
    """The way a browser goes: the name, the certificate, the proxy, the WebSocket."""
    if not site.origins:
        told.note(
            "VISAVIS_ORIGINS is empty: only pages from this machine may connect.",
            "",
            "For others, set it to the address people open.",
        )
        return
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=8)) as http:
        await asyncio.gather(*(_check_way_in(origin, http, site, told) for origin in site.origins if _splits(origin)))


async def _check_way_in(origin: str, http: aiohttp.ClientSession, site: Site, told: Findings) -> None:
    parts = urlsplit(origin)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return
    loop = asyncio.get_running_loop()
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        await loop.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
    except OSError:
        told.error(
            f"{origin}: there is no such name.",
            "Nobody can open the page.",
            "Make an A and an AAAA record that lead to the proxy.",
        )
        return
    try:
        async with http.get(f"{origin}/health", allow_redirects=False) as answer:
            said = await answer.content.read(1000)
        if answer.status != 200 or b'"ok":true' not in said.replace(b" ", b""):
            told.error(
                f"{origin}/health does not answer as a worker does, but with {answer.status}.",
                "Something else is there, or the proxy finds no worker.",
                "Does the proxy pass everything on, and do workers run (their log, and GET /ready)?",
            )
            return
    except aiohttp.ClientConnectorCertificateError as error:
        if _is_here(parts.hostname) and _self_signed(error.certificate_error):
            told.warning(
                f"{origin}: its certificate is self-signed; fine for trying out.",
                "Browsers warn of the page until they are told to trust it.",
                "For guests, put one from an authority in its place, with the full chain.",
            )
            # The rest of the way does not leave this machine, and is looked at without asking who vouches for it.
            within = aiohttp.ClientTimeout(total=8)
            async with aiohttp.ClientSession(timeout=within, connector=aiohttp.TCPConnector(ssl=False)) as trusting:
                await _check_way_in(origin, trusting, site, told)
            return
        told.error(
            f"{origin}: its certificate is not accepted: {_reason(error.certificate_error)}.",
            "Browsers warn of the page, and do not let it use camera and microphone.",
            "Renew it, with the full chain and this very name; for a local trial trust the one that was made here.",
        )
        return
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        told.warning(
            f"{origin} cannot be reached from here: {_reason(error)}.",
            "If guests cannot either, nobody comes in. Some networks cannot reach their own address from within.",
            "Open it from elsewhere; is the proxy running, and its port open?",
        )
        return
    await _check_upgrade(origin, http, told)
    if site.settings.trust_forwarded and site.settings.redis_url:
        await _check_forwarded(origin, http, site, told)


async def _check_forwarded(origin: str, http: aiohttp.ClientSession, site: Site, told: Findings) -> None:
    """Ask for a guest, wrongly, from an address that nobody has: it must not be what the workers count."""
    kept = site.data_dir / "secrets"
    try:
        keys = read_secrets(site.settings.secrets or kept.read_text(encoding="ascii"))
    except (SecretsInvalid, OSError):
        return
    forged = f"2001:db8:{secrets.token_hex(2)}:{secrets.token_hex(2)}::1"
    name = Sources(next(iter(keys.values())), trust_forwarded=True).named(forged).address
    try:
        async with http.post(f"{origin}/api/guests", data=b"{}", headers={"X-Forwarded-For": forged}):
            pass
        async with _redis(site, Findings("", ())) as client:
            believed = client is not None and await Watch(client).counted(f"api:address:{name}")
    except (aiohttp.ClientError, TimeoutError, OSError, StateUnavailable):
        return
    if believed:
        told.error(
            f"{origin}: the workers believe the address that a client says it has.",
            "Limits are counted by address: whoever says another each time is held by none of them.",
            "Have the proxy overwrite X-Forwarded-For, as ecosystem/nginx/proxy.conf does, or set "
            "VISAVIS_TRUST_FORWARDED=false where there is none.",
        )
    else:
        told.good(f"{origin}: the address that a client says it has is not believed")


async def _check_upgrade(origin: str, http: aiohttp.ClientSession, told: Findings) -> None:
    address = f"{origin}/socket.io/?EIO=4&transport=websocket"
    try:
        async with http.ws_connect(address, headers={"Origin": origin}) as line:
            shown = line.get_extra_info("peercert")
            opened = await line.receive_str(timeout=5)
        if opened.startswith("0{"):
            ends = datetime.fromtimestamp(ssl.cert_time_to_seconds(shown["notAfter"]), UTC) if shown else None
            _check_ends(origin, ends, told)
            told.good(f"{origin} leads to a worker, WebSocket and all{_days(ends)}")
            return
        why = "something else answers"
    except aiohttp.WSServerHandshakeError as error:
        why = f"status {error.status}"
    except (aiohttp.ClientError, TimeoutError, TypeError, OSError) as error:
        why = _reason(error)
    told.error(
        f"{origin} lets no WebSocket through to a worker: {why}.",
        "Guests fall back to long polling, which costs a request for each message, or do not come in at all.",
        "Have the proxy pass Upgrade and Connection on, over HTTP/1.1; and is this very origin in the workers' "
        "VISAVIS_ORIGINS?",
    )


def _check_ends(where: str, ends: datetime | None, told: Findings) -> None:
    if ends is not None and (ends - datetime.now(UTC)).days < CERTIFICATE_DAYS:
        told.warning(
            f"{where}: its certificate ends in {(ends - datetime.now(UTC)).days} days.",
            "After that nobody gets in.",
            "Renew it, and find out why it was not renewed by itself.",
        )


def _days(ends: datetime | None) -> str:
    return "" if ends is None else f"; its certificate is good for {(ends - datetime.now(UTC)).days} days"


# --------------------------------------------------------------------------- this machine


async def check_machine(site: Site, told: Findings) -> None:
    """The port, the limit of open files, the built client."""
    s = site.settings
    soft, hard = machine.open_files()
    if soft < s.max_connections + FILES_BESIDES:
        told.warning(
            f"A process started here may open {soft} files; VISAVIS_MAX_CONNECTIONS is {s.max_connections}.",
            "Every connection is an open file. Past the limit a worker takes no more, and cannot open anything else "
            "either.",
            f"Set LimitNOFILE={s.max_connections + FILES_BESIDES} for the service (ulimit -n in a shell; here at most "
            f"{hard}), or VISAVIS_MAX_CONNECTIONS lower.",
        )
    index = (Path(s.web_dir) if s.web_dir else ROOT / "web" / "dist") / "index.html"
    if not index.is_file():
        told.error(
            f"The client is not built: there is no {index}.",
            "People who open the page see nothing.",
            "npm ci && npm run build in web/, or set VISAVIS_WEB_DIR to where it was built.",
        )
    if s.port and await _is_taken(s.host, s.port):
        if await _is_worker(s.host, s.port):
            told.note(f"A worker already answers on {s.host} port {s.port}.")
        else:
            told.error(
                f"Port {s.port} on {s.host} is taken by something else.",
                "The worker cannot start.",
                f"See what it is: ss -ltnp 'sport = :{s.port}'; or choose another VISAVIS_PORT.",
            )
    if not told.found:
        told.good(f"port {s.port} is free, {soft} open files allowed, the client is built")


async def _is_taken(host: str, port: int) -> bool:
    try:
        with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
            return False
    except OSError:
        return True


async def _is_worker(host: str, port: int) -> bool:
    name = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  # to find it, not to listen on it
    at = f"[{name}]" if ":" in name else name
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=3)) as http,
            http.get(f"http://{at}:{port}/api/info") as answer,
        ):
            return b'"contract"' in await answer.content.read(100_000)
    except (aiohttp.ClientError, TimeoutError, OSError):
        return False


def _check_folder(name: str, folder: Path, free: int, told: Findings) -> bool:
    """Whether the folder can be written to, or made; and how much is free there."""
    there = _existing(folder)
    try:
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(secrets.token_bytes(4096))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        told.error(
            f"{folder} cannot be written to ({name}): {error.strerror or error}.",
            "What belongs there cannot be kept.",
            "Make it the workers' own (chown), with room on its disk, and not read-only.",
        )
        return False
    if not folder.exists():
        told.note(f"{folder} is not there yet; a worker makes it.")
    elif (owner := there.stat().st_uid) != os.geteuid():
        told.warning(
            f"{folder} belongs to user {owner}, and this check runs as user {os.geteuid()}.",
            "What this user may says nothing of what the workers may.",
            "Run the check as the user that the workers run as: sudo -u USER visavis check.",
        )
    left = shutil.disk_usage(there).free
    if left < free:
        told.error(
            f"{_size(left)} are free on the disk of {folder}; {_size(free)} should be.",
            "Below that, uploads and recordings are refused, and what must last may not be kept.",
            "Make room, or put it on a larger disk.",
        )
        return False
    return True


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above that is there."""
    return next((one for one in (folder, *folder.absolute().parents) if one.exists()), Path("/"))


def _size(count: int) -> str:
    size = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"


def _splits(url: str) -> bool:
    try:
        _ = urlsplit(url).port
    except ValueError:
        return False
    return bool(url)


def _is_here(host: str) -> bool:
    """Whether browsers take pages of this host for safe without TLS."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _self_signed(error: Exception) -> bool:
    """Whether the only fault that was found with a certificate is that it vouches for itself."""
    return isinstance(error, ssl.SSLCertVerificationError) and error.verify_code == DEPTH_ZERO_SELF_SIGNED


def _reason(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "no answer"
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


# --------------------------------------------------------------------------- running them


CHECKS: dict[str, Check] = {
    "settings": check_settings,
    "secrets": check_secrets,
    "redis": check_redis,
    "documents": check_documents,
    "relays": check_relays,
    "files": check_files,
    "scanner": check_scanner,
    "recordings": check_recordings,
    "origins": check_origins,
    "machine": check_machine,
}


async def run(
    environment: Mapping[str, str], within: float, ended: Callable[[str, list[Finding]], None]
) -> dict[str, list[Finding]]:
    """Run every check at once; `ended` is told of each as it ends."""
    site = Site(*Settings.read(environment))

    async def one(name: str, check: Check) -> tuple[str, list[Finding]]:
        told = Findings(name, site.hidden)
        try:
            async with asyncio.timeout(within):
                await check(site, told)
        except TimeoutError:
            told.error(
                f"It was not done within {within:g} s.",
                "Whatever it asked does not answer, or not in time.",
                "Look at what it asks; --timeout gives it longer.",
            )
        except Exception as error:  # noqa: BLE001  # the others' findings are worth having all the same
            told.error(
                f"It failed itself: {type(error).__name__}: {error}",
                "Nothing is known of this part.",
                "This is a mistake in the check; please report it.",
            )
        ended(name, told.found)
        return name, told.found

    return dict(await asyncio.gather(*(one(name, check) for name, check in CHECKS.items())))


def worst(findings: Sequence[Finding]) -> Level:
    """The worst level among them."""
    return max((one.level for one in findings), key=LEVELS.index, default="good")


COLOURS = {"good": "green", "note": "cyan", "warning": "yellow", "error": "bold red"}


class Teller:
    """Says what was found; on a terminal also what is still being asked, and in colours."""

    def __init__(self) -> None:
        self._console = Console(highlight=False, emoji=False, markup=False, soft_wrap=False)
        self._left = list(CHECKS)
        self._live = Live("", console=self._console, transient=True, refresh_per_second=8)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
            self._show()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def ended(self, name: str, found: list[Finding]) -> None:
        self._left.remove(name)
        self._show()

    def _show(self) -> None:
        self._live.update(Text(f"Checking {', '.join(self._left)} ...", "dim"))

    def tell(self, found: dict[str, list[Finding]], level: Level, took: float) -> None:
        for name in CHECKS:
            shown = name
            for finding in found[name]:
                head = Text.assemble((f"{shown:11}", "bold"), (f"{finding.level:8}", COLOURS[finding.level]))
                self._print(head, finding.what)
                if self._console.is_terminal:
                    shown = ""
                for word, text in (("Why:", finding.why), ("Do:", finding.do)):
                    if text and finding.level != "good":
                        self._print(Text.assemble(" " * 19, (f"{word:5}", "dim")), text)
        counts = {one: sum(f.level == one for all_ in found.values() for f in all_) for one in LEVELS}
        said = {
            "good": "All is well.",
            "note": "All is well.",
            "warning": f"{_many(counts['warning'], 'warning')}, nothing that keeps it from working.",
            "error": f"{_many(counts['error'], 'error')} and {_many(counts['warning'], 'warning')}.",
        }
        self._console.print(Text(f"{said[level]} Visavis {VERSION}, {took:.1f} s", COLOURS[level]))

    def _print(self, head: Text, text: str) -> None:
        """The text beside its head: wrapped on a terminal, whole elsewhere."""
        if not self._console.is_terminal:
            sys.stdout.write(head.plain + text + "\n")
            return
        for line in Text(text).wrap(self._console, max(20, self._console.width - len(head))):
            self._console.print(Text.assemble(head, line), no_wrap=True, overflow="ignore")
            head = Text(" " * len(head))


def _many(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"


STATUS = {"good": 0, "note": 0, "warning": 1, "error": 2}


def main(argv: Sequence[str]) -> int:
    """Check; returns 0 if nothing is wrong, 1 with warnings alone, 2 with errors, 130 when interrupted."""
    parser = argparse.ArgumentParser(
        prog="visavis check",
        description="See whether a deployment can work as its settings say. Exit status: 0 good, 1 warnings, 2 errors.",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object, for programs")
    parser.add_argument("--timeout", type=float, default=20.0, help="seconds for each check; default: 20")
    asked = parser.parse_args(argv)
    try:
        return asyncio.run(_main(asked))
    except KeyboardInterrupt:
        return 128 + signals.SIGINT


async def _main(asked: argparse.Namespace) -> int:
    began = time.monotonic()
    if asked.json:
        found = await run(os.environ, asked.timeout, lambda *_: None)
        level = worst([one for all_ in found.values() for one in all_])
        every = [one for name in CHECKS for one in found[name]]
        report = {"level": level, "version": VERSION, "findings": every}
        sys.stdout.write(msgspec.json.encode(report).decode() + "\n")
        return STATUS[level]
    teller = Teller()
    with teller:
        found = await run(os.environ, asked.timeout, teller.ended)
    level = worst([one for all_ in found.values() for one in all_])
    teller.tell(found, level, time.monotonic() - began)
    return STATUS[level]
