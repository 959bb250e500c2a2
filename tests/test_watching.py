"""What watches a deployment: Prometheus's configuration, rules and alerts, Grafana's dashboards, by Prometheus itself.

Grafana is not there to be asked; its dashboards are held to what Prometheus says of their queries.
"""

import asyncio
import contextlib
import json
import re
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from rig import ROOT, Service, arrive, free_port, meet, missing, promtool

WATCHING = ROOT / "ecosystem" / "metrics"
HANDBOOK = ROOT / "docs" / "operations.md"
TOKEN = "m" * 30

_NAME = re.compile(r"\b(?:visavis|process)[a-z0-9_]*(?::[a-z0-9_:]+)?(?=[\s{(\[)/*]|$)")


def rules() -> list[dict[str, Any]]:
    return [
        rule
        for path in sorted((WATCHING / "rules").glob("*.yml"))
        for group in yaml.safe_load(path.read_text())["groups"]
        for rule in group["rules"]
    ]


def alerts() -> list[dict[str, Any]]:
    return [rule for rule in rules() if "alert" in rule]


def panels() -> list[dict[str, Any]]:
    """Of all dashboards, those that show something."""
    return [
        panel
        for path in (WATCHING / "grafana" / "dashboards").glob("*.json")
        for panel in json.loads(path.read_text())["panels"]
        if panel["type"] != "row"
    ]


def queries() -> list[str]:
    """Everything that anybody asks Prometheus."""
    return [rule["expr"] for rule in rules()] + [target["expr"] for panel in panels() for target in panel["targets"]]


def copied(folder: Path) -> Path:
    """The configuration with a token beside it."""
    there = folder / "metrics"
    shutil.copytree(WATCHING, there)
    (there / "metrics-token").write_text(TOKEN)
    return there


def test_prometheus_takes_the_configuration_and_the_rules(tmp_path: Path) -> None:
    """As its own tool says."""
    done = subprocess.run(
        [promtool(), "check", "config", copied(tmp_path) / "prometheus.yml"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_fires_when_it_should_and_is_quiet_when_it_should_not() -> None:
    """With numbers made for each; the words it comes with are in the expectations, too."""
    done = subprocess.run(
        [promtool(), "test", "rules", "alerts_test.yml"], cwd=WATCHING, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    held = yaml.safe_load((WATCHING / "alerts_test.yml").read_text())["tests"]
    fires = {case["alertname"] for test in held for case in test["alert_rule_test"] if case["exp_alerts"]}
    quiet = {case["alertname"] for test in held for case in test["alert_rule_test"] if not case["exp_alerts"]}
    assert fires == quiet == {alert["alert"] for alert in alerts()}


def test_every_alert_says_how_bad_it_is_what_is_wrong_and_where_to_read_on() -> None:
    """Its runbook is a heading of the handbook, and no runbook is left without its alert."""
    section = HANDBOOK.read_text().partition("\n## Alerts and what to do\n")[2].partition("\n## ")[0]
    headings = re.findall(r"^### (\w+)$", section, re.MULTILINE)
    for alert in alerts():
        name = alert["alert"]
        assert alert["labels"]["severity"] in ("warning", "critical"), name
        assert set(alert["annotations"]) == {"summary", "description", "runbook_url"}, name
        assert alert["annotations"]["runbook_url"] == f"docs/operations.md#{name.lower()}"
    assert headings == [alert["alert"] for alert in alerts()]


def test_dashboards_can_be_laid_out() -> None:
    """Panels do not overlap, and all ask the data source that is provisioned."""
    source = yaml.safe_load((WATCHING / "grafana/provisioning/datasources/prometheus.yml").read_text())
    uids = set()
    for path in (WATCHING / "grafana" / "dashboards").glob("*.json"):
        dashboard = json.loads(path.read_text())
        uids.add(dashboard["uid"])
        assert path.stem == dashboard["uid"]
        assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
        cells: set[tuple[int, int]] = set()
        for panel in dashboard["panels"]:
            at = panel["gridPos"]
            covers = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
            assert not cells & covers, panel["title"]
            assert at["x"] + at["w"] <= 24
            cells |= covers
    assert len(uids) == 2
    assert {panel["datasource"]["uid"] for panel in panels()} == {source["datasources"][0]["uid"]}


@contextlib.asynccontextmanager
async def prometheus(folder: Path, ports: list[int]) -> AsyncIterator[str]:
    """A real Prometheus that asks these workers every second; gives its address."""
    binary = shutil.which("prometheus") or missing("no prometheus")
    there, port = copied(folder), free_port()
    config = (there / "prometheus.yml").read_text()
    (there / "prometheus.yml").write_text(
        re.sub(r"(scrape_interval|scrape_timeout|evaluation_interval): \d+s", r"\1: 1s", config)
    )
    (there / "workers.yml").write_text(json.dumps([{"targets": [f"127.0.0.1:{port}" for port in ports]}]))
    with (folder / "prometheus.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            binary,
            f"--config.file={there / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{port}",
            stdout=log,
            stderr=log,
        )
    try:
        async with asyncio.timeout(60), aiohttp.ClientSession() as session:
            while True:
                assert process.returncode is None, (folder / "prometheus.log").read_text()
                with contextlib.suppress(aiohttp.ClientError):
                    async with session.get(f"http://127.0.0.1:{port}/-/ready") as response:
                        if response.status == 200:
                            break
                await asyncio.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        await process.wait()


async def test_a_real_prometheus_reads_real_workers_and_every_query_is_about_something_they_tell(
    tmp_path: Path,
) -> None:
    """Targets are up by the token, no rule fails, and every metric that a rule or a dashboard names is there."""
    service = await Service(tmp_path, VISAVIS_METRICS_TOKEN=TOKEN, VISAVIS_SCANNER_URL="tcp://127.0.0.1:1").start(2)
    try:
        one, two = service.workers
        a, b = await arrive(one.url), await arrive(two.url)
        await meet(a, b)
        async with aiohttp.ClientSession() as session, prometheus(tmp_path, [one.port, two.port]) as address:

            async def ask(path: str, **params: str) -> Any:
                async with session.get(f"{address}/api/v1/{path}", params=params) as response:
                    answer = await response.json()
                    assert answer["status"] == "success", (params, answer)
                    return answer["data"]

            async with asyncio.timeout(60):
                while True:
                    targets = (await ask("targets"))["activeTargets"]
                    groups = (await ask("rules"))["groups"]
                    health = {rule["health"] for group in groups for rule in group["rules"]}
                    if {target["health"] for target in targets} == {"up"} and health == {"ok"}:
                        break
                    assert "err" not in health, [r for g in groups for r in g["rules"] if r["health"] == "err"]
                    await asyncio.sleep(0.2)
            assert len(targets) == 2
            for query in queries():
                await ask("query", query=query)
            # Also what has a name and no number yet.
            headers = {"Authorization": f"Bearer {TOKEN}"}
            async with session.get(f"{one.url}/metrics", headers=headers) as response:
                announced = re.findall(r"^# TYPE (\S+) (\w+)$", await response.text(), re.MULTILINE)
            there = {f"{name}{end}" for name, kind in announced for end in _ENDS[kind]}
            there |= {rule["record"] for rule in rules() if "record" in rule}
            for query in queries():
                named = set(_NAME.findall(query))
                assert named <= there, (query, named - there)
                assert named or "up{" in query, query
            # The scanner is away, and nothing else.
            found = (await ask("query", query="visavis_part_up == 0"))["result"]
            assert {one["metric"]["part"] for one in found} == {"scanner"}
        await a.hang_up()
        await b.hang_up()
    finally:
        await service.stop()


_ENDS = {"counter": ("",), "gauge": ("",), "histogram": ("_bucket", "_count", "_sum")}
