"""The command line: what there is to do, and who does it; no logic."""

import argparse
import asyncio
import importlib
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

WITH_OPTIONS = {
    "backup": "visavis.archives:backup",
    "check": "visavis.check",
    "cluster": "visavis.cluster",
    "drain": "visavis.drain",
    "migrate": "visavis.archives:migrate",
    "probe": "visavis.probe",
    "restore": "visavis.archives:restore",
    "simulate-matching": "visavis.simulate",
    "top": "visavis.top",
}
"""Commands that have options of their own, and where they are: a module, and its function if not `main`."""


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="visavis", description="Meet a stranger worth meeting.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("serve", help="serve guests until interrupted")
    commands.add_parser("recorder", help="record calls that both sides agreed to record, until interrupted")
    certificate = commands.add_parser("certificate", help="have a self-signed certificate for this machine")
    certificate.add_argument("names", nargs="*", help="names and addresses it is for, besides localhost")
    certificate.add_argument("--folder", type=Path, default=Path("data", "tls"), help="default: data/tls")
    contract = commands.add_parser("contract", help="write the files generated from the contract and settings")
    contract.add_argument("--root", type=Path, default=Path(), help="the checkout; default: the current folder")
    evidence = commands.add_parser("evidence", help="look after the files that were attached to reports")
    deeds = evidence.add_subparsers(dest="deed", required=True)
    listing = deeds.add_parser("list", help="the open reports that have files, a JSON line each")
    listing.add_argument("--report", default="", help="this one only, open or not")
    save = deeds.add_parser("save", help="write a file that was kept with a report to a path")
    save.add_argument("report")
    save.add_argument("file")
    save.add_argument("path", type=Path)
    withdraw = deeds.add_parser("withdraw", help="take a shared file away from everybody; what a report kept stays")
    withdraw.add_argument("file")
    for deed in (save, withdraw):
        deed.add_argument("--by", required=True, help="who does it; this is written down")
    cluster = commands.add_parser("cluster", help="run workers behind nginx on this machine; scripts/cluster")
    cluster.add_argument("rest", nargs=argparse.REMAINDER)
    for name, about in (
        ("backup", "write an encrypted backup of what must last, while workers serve; see --help"),
        ("restore", "put a backup into the document store; see --help"),
        ("migrate", "bring the document store up to this release"),
    ):
        commands.add_parser(name, help=about, add_help=False).add_argument("rest", nargs=argparse.REMAINDER)
    simulate = commands.add_parser("simulate-matching", help="compare matching policies on a published workload")
    simulate.add_argument("rest", nargs=argparse.REMAINDER)
    probe = commands.add_parser("probe", help="go the whole way of two guests against a running server")
    probe.add_argument("rest", nargs=argparse.REMAINDER)
    check = commands.add_parser("check", help="see whether the settings and everything around can work; see --help")
    check.add_argument("rest", nargs=argparse.REMAINDER)
    drain = commands.add_parser("drain", help="have workers hand their guests over and go, one after another")
    drain.add_argument("rest", nargs=argparse.REMAINDER)
    top = commands.add_parser("top", help="watch the workers and Redis, live")
    top.add_argument("rest", nargs=argparse.REMAINDER)
    given = sys.argv[1:] if argv is None else argv
    if given and given[0] in WITH_OPTIONS:
        # Argparse would look for their options here.
        try:
            module, _, function = WITH_OPTIONS[given[0]].partition(":")
            run: Callable[[Sequence[str]], int] = getattr(importlib.import_module(module), function or "main")
            return run(given[1:])
        except KeyboardInterrupt:
            # Also while it is being loaded, which takes a moment.
            return 128 + signal.SIGINT
    command = parser.parse_args(given)
    if command.command == "contract":
        return _contract(command.root)
    if command.command == "recorder":
        return _record()
    if command.command == "certificate":
        return _certify(command.folder, command.names)
    if command.command == "evidence":
        return _evidence(command)
    return _serve()


def _contract(root: Path) -> int:
    from visavis import describe
    from visavis.settings import settings_markdown

    for name in describe.write(root, describe.texts(settings_markdown())):
        print(f"wrote {name}")
    return 0


def _certify(folder: Path, names: list[str]) -> int:
    from visavis.adapters.certificate import CERTIFICATE, self_signed

    made = self_signed(folder, names)
    print(f"{'made' if made else 'kept'} {folder / CERTIFICATE}")
    return 0


def _serve() -> int:
    from visavis import logs
    from visavis.app import WILL_NOT_START, Visavis
    from visavis.settings import Settings

    async def serve(settings: Settings) -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        app = Visavis(settings, os.getpid())
        await app.serve()
        try:
            if not app.relay:
                print(
                    "No relay: no coturn was found, and VISAVIS_TURN_URLS names none. Calls connect guests directly, "
                    "which shares their IP addresses; both are asked first. See turn/README.md.",
                    flush=True,
                )
            print(f"Visavis is ready at {app.address}", flush=True)
            await stop.wait()
        finally:
            await app.stop()

    try:
        settings = Settings.from_environment(os.environ)
        logs.configure(settings.log_level)
        if sys.platform == "win32":
            asyncio.run(serve(settings))
        else:
            import uvloop

            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(serve(settings))
    except WILL_NOT_START as error:
        print(f"visavis: {error}", file=sys.stderr)
        return 2
    return 0


def _record() -> int:
    from visavis import logs
    from visavis.core.ports import StateUnavailable, StoreUnavailable
    from visavis.core.schema import CannotUse
    from visavis.recorder import CannotRecord, RecorderProcess
    from visavis.settings import Settings, SettingsError

    async def record(settings: Settings) -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        recorder = RecorderProcess(settings)
        await recorder.start()
        try:
            print("The recorder is ready", flush=True)
            await stop.wait()
        finally:
            await recorder.stop()

    try:
        settings = Settings.from_environment(os.environ)
        logs.configure(settings.log_level)
        asyncio.run(record(settings))
    except (SettingsError, CannotRecord, CannotUse, StateUnavailable, StoreUnavailable) as error:
        print(f"visavis: {error}", file=sys.stderr)
        return 2
    return 0


def _evidence(command: argparse.Namespace) -> int:
    import json

    from visavis.app import WILL_NOT_START, evidence
    from visavis.core.ports import StorageFull, StorageUnavailable
    from visavis.settings import Settings

    async def look() -> int:
        async with evidence(Settings.from_environment(os.environ)) as kept:
            if command.deed == "list":
                for report in await kept.reports(command.report):
                    print(json.dumps(report))
                return 0
            if command.deed == "withdraw":
                return 0 if await kept.withdraw(command.file, command.by) else 1
            pieces = await kept.read(command.report, command.file, command.by)
            if pieces is None:
                print("visavis: no such file was kept with this report", file=sys.stderr)
                return 1
            with command.path.open("xb") as out:
                async for piece in pieces:
                    out.write(piece)
            return 0

    try:
        return asyncio.run(look())
    except (*WILL_NOT_START, StorageFull, StorageUnavailable, OSError, ValueError) as error:
        print(f"visavis: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
