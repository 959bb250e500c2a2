"""Every setting, read from the environment once, with its default and what it is for."""

import difflib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, get_args

import msgspec
from msgspec import Meta, Struct

from visavis.contract import FileKind, Mode


def _about(text: str, ge: float | None = None, le: float | None = None) -> Meta:
    return Meta(description=text, ge=ge, le=le)


class SettingsError(Exception):
    """The environment does not make valid settings; says every problem, a line each."""


class Settings(Struct, frozen=True, kw_only=True):
    """The whole configuration. A field `x_y` is read from `VISAVIS_X_Y`, except for the shared names in NAMES.

    With `_FILE` behind it, a variable names a file that holds the value.
    """

    host: Annotated[str, _about("Address to listen on.")] = "127.0.0.1"
    port: Annotated[int, _about("Port to listen on; 0 takes a free one.", ge=0, le=65535)] = 3000
    origins: Annotated[
        str, _about("Origins that may connect, separated by spaces. Empty: the listening address on this machine.")
    ] = ""
    redis_url: Annotated[
        str,
        _about(
            "Redis or Valkey (7 or newer): `redis://`, `rediss://` or `unix://`; with Sentinels "
            "`redis+sentinel://host:26379,host:26379/name`; a Cluster `redis+cluster://host:6379,host:6379`. See "
            "operations.md. Empty: a private Valkey is started."
        ),
    ] = ""
    cells: Annotated[
        int,
        _about(
            "Parts that guests are divided into, so that a Redis Cluster can share them out; only guests of one part "
            "meet. The same for all workers and recorders; changing it ends every conversation. See operations.md.",
            ge=1,
            le=256,
        ),
    ] = 1
    mongo_url: Annotated[str, _about("MongoDB. Empty: an SQLite file in the data folder.")] = ""
    mongo_database: Annotated[str, _about("The database's name in MongoDB.")] = "visavis"
    migration_seconds: Annotated[
        float, _about("For which a worker that starts waits while another brings the document store up to date.", ge=1)
    ] = 600.0
    backup_passphrase: Annotated[
        str, _about("For `visavis backup` without a recipient, and `visavis restore`; workers do not need it.")
    ] = ""
    data_dir: Annotated[str, _about("Folder for what must last and for private sockets.")] = "data"
    web_dir: Annotated[str, _about("Folder of the built client. Empty: `web/dist` of the checkout.")] = ""
    secrets: Annotated[
        str,
        _about(
            "Signing secrets as `id:secret`, separated by spaces; the first signs, all are accepted. Secrets have at "
            "least 32 characters. Empty: one is made and kept in the data folder."
        ),
    ] = ""
    log_level: Annotated[str, _about("debug, info, warning or error.")] = "info"
    trust_forwarded: Annotated[
        bool, _about("Take the client's address from X-Forwarded-For. Only behind a proxy that overwrites it.")
    ] = False

    modes: Annotated[str, _about("What strangers may look for, separated by spaces: `text`, `voice`, `video`.")] = (
        "text voice video"
    )
    turn_urls: Annotated[
        str,
        _about(
            "TURN servers as `turn:host:port?transport=udp`, separated by spaces, the preferred first; see "
            "turn/README.md. Empty: a private coturn is started if there is one. `none`: no relay; calls are direct, "
            "and share addresses once both agree."
        ),
    ] = ""
    turn_secrets: Annotated[
        str,
        _about("Secrets shared with the TURN servers, separated by spaces; the first signs. Needed with TURN_URLS."),
    ] = ""
    turn_seconds: Annotated[int, _about("TURN credentials open relays for this long.", ge=60, le=600)] = 600
    private_recorder: Annotated[
        bool, _about("Start a recorder beside the private Valkey, where there is a relay. Others: `visavis recorder`.")
    ] = True
    ring_seconds: Annotated[float, _about("A call rings this long before it counts as missed.", ge=0.1, le=300)] = 30.0
    recordings_dir: Annotated[
        str,
        _about("Folder of recorded calls, shared by workers and recorders. Empty: `recordings` in the data folder."),
    ] = ""
    recordings_free_bytes: Annotated[
        int, _about("A recorder takes nothing on while less than this is free on the disk of the recordings.", ge=0)
    ] = 2_000_000_000
    recordings_at_once: Annotated[int, _about("Calls that one recorder records at once.", ge=1, le=1000)] = 4
    recording_seconds: Annotated[int, _about("A recording ends after this long.", ge=1, le=14_400)] = 3600
    recording_kept_seconds: Annotated[
        int, _about("A recording can be downloaded for this long, then it is gone.", ge=1)
    ] = 86_400
    files_url: Annotated[
        str,
        _about(
            "Where files are kept: a folder shared by all workers, `s3://bucket/prefix`, or `none` for no files. "
            "Empty: `files` in the data folder."
        ),
    ] = ""
    s3_endpoint: Annotated[str, _about("Address of the S3-compatible storage. Empty: Amazon's.")] = ""
    s3_region: Annotated[str, _about("Its region.")] = "us-east-1"
    s3_key: Annotated[str, _about("Its access key's id. Empty: from the surroundings, as Amazon's tools do.")] = ""
    s3_secret: Annotated[str, _about("Its secret access key.")] = ""
    file_bytes: Annotated[int, _about("Largest file a guest may send.", ge=1, le=2**31 - 1)] = 25_000_000
    files_per_minute: Annotated[int, _about("Uploads a guest may begin in a minute.", ge=1)] = 10
    files_bytes_together: Annotated[int, _about("All of a guest's files that are kept, at a time.", ge=1)] = 200_000_000
    file_seconds: Annotated[int, _about("A file is kept for this long at most, then it is gone.", ge=1)] = 86_400
    file_kinds: Annotated[
        str,
        _about(
            "Kinds of files that are taken, separated by spaces: `picture`, `video`, `audio`, `voice`, `document`. "
            "What is none of them, such as a program, never is."
        ),
    ] = "picture video audio voice document"
    file_pixels: Annotated[int, _about("Largest picture, in pixels, all its frames together.", ge=1)] = 50_000_000
    file_address_seconds: Annotated[
        int, _about("An address of a file opens it for this long; a page asks for another by itself.", ge=10)
    ] = 600
    file_checks_at_once: Annotated[int, _about("Files a worker takes apart at once, a process each.", ge=1)] = 2
    upload_seconds: Annotated[int, _about("An upload that stands still this long is given up.", ge=1)] = 3600
    file_sweep_seconds: Annotated[
        float, _about("Pause between looks for files that have to be removed.", ge=0.1, le=3600)
    ] = 60.0
    files_free_bytes: Annotated[
        int, _about("No upload begins while less than this is free on the disk they pass through.", ge=0)
    ] = 500_000_000
    scanner_url: Annotated[
        str,
        _about(
            "A virus scanner that speaks clamd's protocol: `tcp://host:port` or `unix:/path`. A file is held back "
            "until it says clean. Empty: none."
        ),
    ] = ""
    evidence_seconds: Annotated[int, _about("Files attached to a report are kept for moderators this long.", ge=1)] = (
        7_776_000
    )
    metrics_token: Annotated[
        str, _about("Bearer token for reading /metrics. Empty: only from this machine, and only without ORIGINS.")
    ] = ""

    traces_url: Annotated[
        str,
        _about(
            "OpenTelemetry's collector, as `http://host:4318`, for traces. Needs the extra `tracing`. Empty: no traces."
        ),
    ] = ""
    traces_ratio: Annotated[float, _about("Share of requests and rounds that are traced.", ge=0, le=1)] = 0.1

    minimum_age: Annotated[int, _about("Youngest age, in years, that may enter.", ge=0, le=120)] = 18
    session_seconds: Annotated[int, _about("A guest session ends after this long without being here.", ge=60)] = 7200
    grace_seconds: Annotated[float, _about("A dropped connection keeps its seat this long.", ge=0.1, le=600)] = 30.0
    recent_seconds: Annotated[int, _about("Two guests who met do not meet again for this long.", ge=0)] = 600
    widen_interests_ms: Annotated[
        int, _about("A guest who named interests insists on a shared one for this long.", ge=0)
    ] = 600
    widen_languages_ms: Annotated[int, _about("A shared language is required for this long.", ge=0)] = 10_000
    popular_min_guests: Annotated[
        int, _about("An interest is offered to others once this many guests here have picked it.", ge=1)
    ] = 2

    ping_interval: Annotated[float, _about("Seconds between pings of a connection.", ge=0.1)] = 15.0
    ping_timeout: Annotated[float, _about("Seconds without an answer after which a connection is gone.", ge=0.1)] = 10.0
    transport: Annotated[
        str,
        _about("What carries connections: `fast`, our own, or `stock`, python-engineio."),
    ] = "fast"
    max_frame_bytes: Annotated[int, _about("Largest frame or polling body accepted.", ge=4096)] = 65_536
    max_queue_bytes: Annotated[int, _about("A connection with more than this unread is cut.", ge=65_536)] = 1_000_000
    max_connections: Annotated[int, _about("Connections a worker takes before it answers `busy`.", ge=1)] = 20_000
    bucket_size: Annotated[float, _about("Requests, weighed by cost, a connection may make at once.", ge=1)] = 40.0
    bucket_per_second: Annotated[
        float, _about("Requests, weighed by cost, a connection may make per second.", ge=0.1)
    ] = 10.0
    people_per_address: Annotated[
        int,
        _about(
            "An address (IPv6: a /64) may do what so many guests at their limits may. A school behind one address is "
            "some hundreds of people, few of whom ever are.",
            ge=1,
        ),
    ] = 20
    addresses_per_network: Annotated[
        int, _about("An IPv6 /48 may do what so many of its /64 at their limits may.", ge=1)
    ] = 16
    api_per_window: Annotated[
        int, _about("Calls of the JSON API in 15 minutes, a guest. Files are counted apart.", ge=1)
    ] = 100
    requests_per_minute: Annotated[
        int, _about("Requests over Socket.IO, weighed by cost, such as messages: a minute, a guest.", ge=1)
    ] = 600
    finds_per_minute: Annotated[int, _about("Searches for a stranger a guest may begin in a minute.", ge=1)] = 30
    reports_per_hour: Annotated[int, _about("Reports and blocks in an hour, a guest.", ge=1)] = 30
    transfers_per_minute: Annotated[
        int, _about("HTTP requests that carry or watch over files, in a minute, a guest.", ge=1)
    ] = 600
    guests_per_window: Annotated[
        int,
        _about(
            "New guests an address (IPv6: its /64) may ask for in ten minutes, besides browsers that were here before.",
            ge=1,
        ),
    ] = 300
    upload_bytes_per_hour: Annotated[
        int, _about("Bytes of uploads that may be begun from one address in an hour.", ge=1)
    ] = 4_000_000_000
    connections_per_address: Annotated[int, _about("Connections an address may have at once.", ge=1)] = 250
    handshakes_per_minute: Annotated[int, _about("Times in a minute an address may connect.", ge=1)] = 500
    strangers_per_address: Annotated[
        int, _about("Connections an address may have to one worker before it says who they are.", ge=1)
    ] = 250
    max_strangers: Annotated[
        int, _about("Connections a worker has before it knows who they are; the next is told `busy`.", ge=1)
    ] = 2000
    lease_ms: Annotated[int, _about("A worker that is silent this long is taken for dead.", ge=500)] = 3000

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Settings":
        """Read the settings. Raises SettingsError naming every variable that does not fit."""
        settings, problems = cls.read(environment)
        if problems:
            raise SettingsError("\n".join(problems))
        return settings

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> tuple["Settings", list[str]]:
        """What fits of the settings, with the defaults for the rest, and a line for every variable that does not."""
        values: dict[str, str] = {}
        known = {variable(name): name for name in cls.__struct_fields__}
        problems = [
            f"{name}: no such setting{_nearest(name, known)}"
            for name in environment
            if name.startswith("VISAVIS_") and name.removesuffix(FROM_FILE) not in known
        ]
        for name, field in known.items():
            try:
                value = _value(environment, name)
                if value != "":
                    msgspec.convert({field: value}, cls, strict=False)
                    _check_words(field, value)
                    values[field] = value
            except (msgspec.ValidationError, _Unfit) as error:
                problems.append(f"{name}: {str(error).split(' - at')[0]}")
            except _Unreadable as error:
                problems.append(str(error))
        return msgspec.convert(values, cls, strict=False), problems


NAMES = {"redis_url": "REDIS_URL", "mongo_url": "MONGO_URL", "traces_url": "OTEL_EXPORTER_OTLP_ENDPOINT"}
"""Settings that go by a name other programs use as well."""


FROM_FILE = "_FILE"
LARGEST_FILE = 65_536


class _Unreadable(Exception):
    """A file that was to hold a value; says which variable named it, and why it does not."""


class _Unfit(Exception):
    """A value that is none of those there are."""


def _check_words(field: str, value: str) -> None:
    """Raise _Unfit for a setting made of certain words, if others are in it."""
    if field == "log_level" and value not in ("debug", "info", "warning", "error"):
        raise _Unfit("use debug, info, warning or error")
    if field == "transport" and value not in ("fast", "stock"):
        raise _Unfit("use fast or stock")
    if field == "modes" and (not value.split() or not set(value.split()) <= set(get_args(Mode))):
        raise _Unfit("use text, voice and video")
    if field == "file_kinds" and not set(value.split()) <= set(get_args(FileKind)):
        raise _Unfit(f"use {', '.join(get_args(FileKind))}")


def _nearest(name: str, known: Collection[str]) -> str:
    suffix = FROM_FILE if name.endswith(FROM_FILE) else ""
    asked = name.removesuffix(FROM_FILE)
    shared = asked.removeprefix("VISAVIS_")
    near = [shared] if shared in known else difflib.get_close_matches(asked, known, 1, 0.8)
    return f"; did you mean {near[0]}{suffix}?" if near else ""


def variable(field: str) -> str:
    """The environment variable of a field."""
    return NAMES.get(field, "VISAVIS_" + field.upper())


def without(environment: Mapping[str, str], *names: str) -> dict[str, str]:
    """The environment without these variables and their files, so that other values may take their places."""
    gone = {*names, *(name + FROM_FILE for name in names)}
    return {name: value for name, value in environment.items() if name not in gone}


def _value(environment: Mapping[str, str], name: str) -> str:
    """A variable's value, or that of the file which NAME_FILE names. Raises _Unreadable."""
    given, path = environment.get(name, ""), environment.get(name + FROM_FILE, "")
    if not path:
        return given
    if given:
        raise _Unreadable(f"{name}{FROM_FILE}: {name} is set as well; use one of them")
    try:
        with Path(path).open("rb") as file:
            held = file.read(LARGEST_FILE + 1)
        if len(held) > LARGEST_FILE:
            raise _Unreadable(f"{name}{FROM_FILE}: the file is too large to hold a setting")
        value = held.decode().strip()
    except UnicodeDecodeError:
        raise _Unreadable(f"{name}{FROM_FILE}: the file does not hold text") from None
    except (OSError, ValueError) as error:
        raise _Unreadable(f"{name}{FROM_FILE}: cannot read the file: {getattr(error, 'strerror', error)}") from None
    if not value:
        raise _Unreadable(f"{name}{FROM_FILE}: the file is empty")
    return value


def settings_markdown() -> str:
    """All settings as a table for people."""
    info = msgspec.inspect.type_info(Settings)
    assert isinstance(info, msgspec.inspect.StructType)
    rows = [
        "# Settings",
        "",
        "Written by `python -m visavis contract` from `backend/visavis/settings.py`. Do not edit.",
        "",
        "All are environment variables, read once at start. `NAME_FILE` names a file with the value of `NAME` instead: "
        "for secrets, which do not belong where every process of a user can see them.",
        "",
        "| variable | default | |",
        "|---|---|---|",
    ]
    for field in info.fields:
        meta = field.type.extra_json_schema if isinstance(field.type, msgspec.inspect.Metadata) else {}
        about = (meta or {}).get("description", "")
        default = "empty" if field.default == "" else f"`{field.default}`"
        rows.append(f"| `{variable(field.name)}` | {default} | {about} |")
    return "\n".join(rows) + "\n"
