"""What operators start Visavis with, held against the tools made for it and against what it starts.

No image is built and no cluster is reached here: schemas and checkers see to the form, and the tests below to what no
schema knows: that every setting is one, that ports, names and images are the same everywhere. Beside this,
test_systemd_run.py runs the units for real.
"""

import asyncio
import os
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from rig import PATIENCE, ROOT, free_port, missing, promtool
from test_house_rules import text_of
from visavis import VERSION
from visavis.adapters import children
from visavis.adapters.certificate import self_signed
from visavis.adapters.tokens import read_secrets
from visavis.settings import FROM_FILE, Settings, variable

ECOSYSTEM = ROOT / "ecosystem"
KUBERNETES = ECOSYSTEM / "kubernetes"
VARIABLES = {variable(field) for field in Settings.__struct_fields__}

EXPOSURE = 12
"""Tenths: the most that `systemd-analyze security` may find exposed. 100 is everything, and 1.2 what it takes to serve
the network and to start processes."""
EXPOSURE_OF = {"visavis-nginx.service": 15}
"""Ports below 1024 are 80 and 443 to begin with."""


def tool(name: str) -> str:
    """A program of the tests' environment or of the machine."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    return found or missing(f"needs {name}")


def told(*command: str | Path, **options: Any) -> str:
    """What a command says that has to succeed."""
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, cwd=ROOT, **options
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def environment_of(folder: Path, given: dict[str, str], secrets: str) -> dict[str, str]:
    """What a container is given, with its secrets where they can be read here, and what is left open filled in."""
    filled = {name: re.sub(r"\$\{(\w+):\?[^}]*\}", r"https://\1.example", str(value)) for name, value in given.items()}
    filled = {name: re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value) for name, value in filled.items()}
    return {name: value.replace(secrets, str(folder)) for name, value in filled.items()}


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    """Made as the README says."""
    told(ECOSYSTEM / "make-secrets", tmp_path / "secrets")
    return tmp_path / "secrets"


# --------------------------------------------------------------------------- settings


def test_every_setting_named_in_the_ecosystem_is_one() -> None:
    """A worker refuses a variable that it does not know, so a manifest with one would start nothing."""
    named: set[str] = set()
    for path in (*ECOSYSTEM.rglob("*"), ROOT / "nginx.conf", ROOT / "docs" / "operations.md"):
        text = text_of(path) if path.is_file() and "secrets" not in path.parts else None
        named |= set(re.findall(r"\b(?:VISAVIS_[A-Z0-9_]+|REDIS_URL\w*|MONGO_URL\w*)\b", text or ""))
    assert len(named) > 10
    assert {name.removesuffix(FROM_FILE) for name in named} - VARIABLES == set()


def test_made_secrets_are_good_ones_and_stay(secrets: Path) -> None:
    """Long enough to sign with; made again, nothing changes, or every guest would be signed out."""
    before = {path.name: path.read_text() for path in secrets.iterdir()}
    told(ECOSYSTEM / "make-secrets", secrets)
    assert {path.name: path.read_text() for path in secrets.iterdir()} == before
    assert read_secrets(before["secrets"].strip())
    random = [value for text in before.values() for value in re.findall(r"[0-9a-f]{64}", text)]
    # Two are part of an address as well.
    assert len(random) == len(before)
    assert len(set(random)) == len(before) - 2
    assert secrets.stat().st_mode & 0o077 == 0


def test_secrets_are_made_in_a_folder_that_was_there(tmp_path: Path) -> None:
    """It is closed to others, and what else lies in it is left as it was."""
    tmp_path.chmod(0o755)
    (tmp_path / "another").write_text("mine", encoding="utf-8")
    (tmp_path / "another").chmod(0o600)
    told(ECOSYSTEM / "make-secrets", tmp_path)
    assert tmp_path.stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "another").stat().st_mode & 0o777 == 0o600
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir() if path.name != "another"} == {0o644}


def test_git_takes_no_secret_from_where_the_pages_have_them_made() -> None:
    """Wherever in the checkout a README says to make them."""
    folders = {"ecosystem/secrets"}
    for path in ECOSYSTEM.rglob("*.md"):
        folders |= set(re.findall(r"ecosystem/make-secrets (\w+)", path.read_text(encoding="utf-8")))
    assert "secrets" in folders
    for folder in folders:
        told(tool("git"), "check-ignore", "--quiet", f"{folder}/secrets")


def test_the_example_for_systemd_makes_settings() -> None:
    """As systemd reads it: a variable a line."""
    lines = (ECOSYSTEM / "systemd" / "env.example").read_text(encoding="utf-8").splitlines()
    given = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    settings = Settings.from_environment(given)
    assert settings.trust_forwarded
    assert settings.redis_url
    assert "VISAVIS_PORT" not in given


# --------------------------------------------------------------------------- the client, put in place


def test_a_new_client_leaves_open_pages_the_parts_they_may_still_ask_for(tmp_path: Path) -> None:
    """For a week from when they were replaced, however old they were then; what else is no part of it goes at once."""
    week = 7 * 86400

    def put(index: str, assets: dict[str, str], more: dict[str, str]) -> dict[str, str]:
        built = tmp_path / "built"
        shutil.rmtree(built, ignore_errors=True)
        for name, text in {
            "index.html": index,
            **{f"assets/{name}": text for name, text in assets.items()},
            **more,
        }.items():
            (built / name).parent.mkdir(parents=True, exist_ok=True)
            (built / name).write_text(text, encoding="utf-8")
        told("bash", "-euo", "pipefail", "-c", f"source scripts/prepare && put_client {built} {tmp_path}/dist")
        there = [path for path in (tmp_path / "dist").rglob("*") if path.is_file() and path.name != ".assets"]
        return {str(path.relative_to(tmp_path / "dist")): path.read_text(encoding="utf-8") for path in there}

    def age(seconds: float) -> None:
        for path in (tmp_path / "dist" / "assets").iterdir():
            os.utime(path, (path.stat().st_mtime - seconds,) * 2)

    assert put("1", {"a-1.js": "a1", "same.js": "s"}, {"gone.js": "g"}) == {
        "index.html": "1",
        "assets/a-1.js": "a1",
        "assets/same.js": "s",
        "gone.js": "g",
    }
    # It served for long.
    age(10 * week)
    second = put("2", {"a-2.js": "a2", "same.js": "s"}, {})
    assert second == {"index.html": "2", "assets/a-1.js": "a1", "assets/a-2.js": "a2", "assets/same.js": "s"}
    age(week - 3600)
    third = put("3", {"a-3.js": "a3", "same.js": "s"}, {})
    assert set(third) == {*second, "assets/a-3.js"}
    age(2 * 86400)
    assert set(put("3", {"a-3.js": "a3", "same.js": "s"}, {})) == {*third} - {"assets/a-1.js"}


# --------------------------------------------------------------------------- systemd

UNITS = sorted(
    path.name for path in (ECOSYSTEM / "systemd").iterdir() if path.suffix in (".service", ".target", ".timer")
)


@pytest.mark.parametrize("unit", UNITS)
def test_systemd_understands_every_line_of_a_unit(unit: str, tmp_path: Path) -> None:
    """And misses nothing but the checkout in /opt/visavis, and coturn where there is none."""
    analyze = tool("systemd-analyze")
    shutil.copytree(ECOSYSTEM / "systemd", tmp_path / "units")
    done = subprocess.run(
        [analyze, "verify", "--man=no", "--recursive-errors=no", tmp_path / "units" / unit.replace("@.", "@3001.")],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    said = [line for line in done.stdout.splitlines() if "is not executable: No such file" not in line]
    assert said == []


@pytest.mark.parametrize("unit", [unit for unit in UNITS if unit.endswith(".service")])
def test_a_service_can_do_little_beside_its_work(unit: str) -> None:
    """As systemd itself counts it."""
    told(
        tool("systemd-analyze"),
        "security",
        "--offline=true",
        f"--threshold={EXPOSURE_OF.get(unit, EXPOSURE)}",
        "--no-pager",
        ECOSYSTEM / "systemd" / unit,
    )


def test_a_worker_is_given_the_time_it_takes_to_drain() -> None:
    """Gunicorn ends a worker that is not done; systemd, Docker and Kubernetes wait for longer than that."""
    gunicorn = (ECOSYSTEM / "gunicorn.conf.py").read_text(encoding="utf-8")
    drains = int(re.search(r"^graceful_timeout = (\d+)$", gunicorn, re.MULTILINE)[1])  # type: ignore[index]
    unit = (ECOSYSTEM / "systemd" / "visavis@.service").read_text(encoding="utf-8")
    assert int(re.search(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)[1]) >= drains + 5  # type: ignore[index]
    for name in WORKERS:
        assert int(COMPOSE["services"][name]["stop_grace_period"].removesuffix("s")) >= drains + 5
    pod = KINDS["Deployment"]["visavis-worker"]["spec"]["template"]["spec"]
    pause = int(pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["terminationGracePeriodSeconds"] >= pause + drains + 5


def test_a_worker_may_open_a_file_for_each_connection() -> None:
    """And as many again for what is behind them."""
    connections = Settings().max_connections
    unit = (ECOSYSTEM / "systemd" / "visavis@.service").read_text(encoding="utf-8")
    assert int(re.search(r"^LimitNOFILE=(\d+)$", unit, re.MULTILINE)[1]) > 2 * connections  # type: ignore[index]
    for name in WORKERS:
        assert COMPOSE["services"][name]["ulimits"]["nofile"] > 2 * connections


# --------------------------------------------------------------------------- what waits until a worker is ready


def test_whoever_waits_for_a_worker_is_told_what_it_lacks() -> None:
    """Nothing listens here."""
    asked = subprocess.run(
        [sys.executable, "-I", ECOSYSTEM / "ready", "0.3"],
        env={"VISAVIS_PORT": str(free_port()), "VISAVIS_HOST": "0.0.0.0"},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert asked.returncode == 1
    assert asked.stdout.startswith("not ready: ")
    assert "refused" in asked.stdout


# --------------------------------------------------------------------------- images

DOCKERFILE = (ECOSYSTEM / "Dockerfile").read_text(encoding="utf-8")


def test_hadolint_has_nothing_to_say_of_the_dockerfile() -> None:
    """Nor of the shell in it."""
    told(tool("hadolint"), "--failure-threshold", "style", ECOSYSTEM / "Dockerfile")


def test_what_the_images_are_made_of_is_there_and_sent() -> None:
    """Everything that is copied exists, and .dockerignore lets it through; nothing that may hold a secret is sent."""
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    sent = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    assert ignored[1] == "*"
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE)
    assert len(copied) > 5
    for source in " ".join(copied).split():
        assert (ROOT / source).exists(), source
        assert {source, source.split("/")[0]} & sent, source
    assert {"ecosystem/secrets", "web/dist", "**/node_modules"} <= set(ignored)
    assert not sent & {"data", ".", ".git"}


def test_images_run_as_nobody_in_particular() -> None:
    """Each stage that is kept ends with a user that is not root, by number, so that Kubernetes can see it."""
    for target in ("service", "edge"):
        stage = DOCKERFILE.split(f" AS {target}\n")[1].split("\nFROM ")[0]
        assert re.findall(r"^USER (.+)$", stage, re.MULTILINE) == ["10001:10001"]
        assert re.search(r"^HEALTHCHECK ", stage, re.MULTILINE)
        assert re.search(r"^CMD \[", stage, re.MULTILINE)


def images() -> list[str]:
    """Every image that is named anywhere."""
    named = re.findall(r"^ARG \w+_IMAGE=(\S+)$", DOCKERFILE, re.MULTILINE)
    named += [service["image"] for service in COMPOSE["services"].values()]
    for template in (*PODS.values(), *JOBS.values()):
        named += [container["image"] for container in template["spec"]["containers"]]
    return named


def test_every_image_is_one_version_and_no_registry_is_named() -> None:
    """`latest` is something else tomorrow; our own carry the version of the package, everywhere the same."""
    assert len(images()) > 10
    for image in images():
        name, _, tag = image.partition(":")
        assert re.match(r"v?\d+(\.\d+)*", tag), image
        assert "." not in name.split("/")[0], image
        if name.startswith("visavis-"):
            assert tag == VERSION, image
    for line in yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())["images"]:
        assert str(line["newTag"]) == VERSION
    assert set(re.findall(r"visavis-\w+:([\d.]+)", DOCKERFILE)) == {VERSION}


# --------------------------------------------------------------------------- Docker Compose

COMPOSE: dict[str, Any] = yaml.safe_load((ECOSYSTEM / "compose.yaml").read_text(encoding="utf-8"))
WORKERS = [name for name in COMPOSE["services"] if name.startswith("worker")]
ONCE = {"mongo-begun", "turn-secret"}
"""Which run to their end and are not started again."""


def test_the_compose_file_fits_the_specification() -> None:
    """By its own schema, which the checker brings along."""
    told(tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", ECOSYSTEM / "compose.yaml")


def test_standard_ports_are_another_compose_file() -> None:
    """It fits the specification, says what nginx takes, and nginx is then asked at the port that it has."""
    path = ECOSYSTEM / "compose.standard-ports.yaml"
    told(tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", path)
    nginx = yaml.safe_load(path.read_text(encoding="utf-8"))["services"]["nginx"]
    assert nginx["healthcheck"]["test"][-1] == "https://127.0.0.1/"
    delivered = ECOSYSTEM / "nginx"
    for volume in nginx["volumes"]:
        source, at, mode = volume.split(":")
        assert mode == "ro"
        assert Path(at).name == Path(source).name
        assert (delivered / Path(at).name).exists()
        ours, theirs = (delivered / Path(at).name).read_text(), (ECOSYSTEM / source).read_text()
        lines = re.findall(r"^(?:listen|set) .*;$", ours, re.MULTILINE)
        wanted = [re.sub(r":8443;$", '"";', line).replace("8443", "443").replace("8080", "80") for line in lines]
        assert re.findall(r"^(?:listen|set) .*;$", theirs, re.MULTILINE) == wanted


def test_mongodb_is_asked_again_while_it_is_being_made(tmp_path: Path) -> None:
    """At its first start it comes and goes; what begins the replica set is only refused then, and tries again."""
    # There is no mongosh here: this one is refused twice.
    client = tmp_path / "mongosh"
    client.write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/asked; [ "$(grep -c -- --eval {tmp_path}/asked)" -gt 2 ]\n')
    client.chmod(0o755)
    (tmp_path / "mongo-password").write_text("secret")
    [*command, script] = COMPOSE["services"]["mongo-begun"]["command"]
    script = script.replace("$$", "$").replace("/run/secrets", str(tmp_path))
    told(*command, script, env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"})
    asked = (tmp_path / "asked").read_text(encoding="utf-8")
    assert asked.count("rs.initiate") == asked.count("--password secret") == 3


def test_every_container_is_confined() -> None:
    """It writes nowhere but where it has to, gains nothing, takes no more than its share, and ends up in a log."""
    for name, service in COMPOSE["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service.get("cap_add", []) == (["NET_BIND_SERVICE"] if name == "coturn" else []), name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert not service.get("privileged"), name
        assert service["restart"] == ("no" if name in ONCE else "unless-stopped"), name
        assert {"cpus", "memory", "pids"} == set(service["deploy"]["resources"]["limits"]), name
        assert service["logging"]["options"]["max-size"], name


def test_nothing_of_it_listens_to_others_but_nginx_and_coturn() -> None:
    """Ports are published for this machine alone, and who shares its network listens there only."""
    for name, service in COMPOSE["services"].items():
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), name
        if service.get("network_mode") == "host" and name not in ("nginx", "coturn"):
            assert "127.0.0.1" in str(service.get("command")) + str(service.get("environment")), name
        if name in ("valkey", "mongo", "mongo-begun"):
            assert service["networks"] == ["inside"], name
    assert COMPOSE["networks"]["inside"] == {"internal": True}


def test_nginx_finds_the_workers_where_compose_puts_them() -> None:
    """And so does the runner for development: 127.0.0.1, ports 3001 to 3003."""
    servers = set(re.findall(r"server (\S+:\d+)", (ECOSYSTEM / "nginx" / "workers.conf").read_text(encoding="utf-8")))
    assert len(WORKERS) == len(servers) == 3
    for name in WORKERS:
        port = COMPOSE["services"][name]["environment"]["VISAVIS_PORT"]
        assert COMPOSE["services"][name]["ports"] == [f"127.0.0.1:{port}:{port}"]
        assert f"127.0.0.1:{port}" in servers
    procfile = (ECOSYSTEM / "Procfile").read_text(encoding="utf-8")
    assert {f"127.0.0.1:{port}" for port in re.findall(r"VISAVIS_PORT=(\d+)", procfile)} == servers


def test_what_waits_for_health_waits_for_something() -> None:
    """Every condition is one that its service can meet."""
    for name, service in COMPOSE["services"].items():
        for other, how in service.get("depends_on", {}).items():
            awaited = COMPOSE["services"][other]
            if how["condition"] == "service_healthy":
                own = awaited.get("healthcheck")
                assert own != {"disable": True}, (name, other)
                assert own or awaited["image"].startswith("visavis-"), (name, other)
            else:
                assert how["condition"] == "service_completed_successfully"
                assert other in ONCE, (name, other)


def given_secrets(service: dict[str, Any]) -> dict[str, str]:
    """The secrets of a service, and where it finds them."""
    return {
        **{one: f"/run/secrets/{one}" for one in service.get("secrets", []) if isinstance(one, str)},
        **{one["source"]: one["target"] for one in service.get("secrets", []) if isinstance(one, dict)},
    }


def test_prometheus_finds_what_its_configuration_names() -> None:
    """Rules, workers and the token lie where it looks, and it asks for the workers where compose has them."""
    service = COMPOSE["services"]["prometheus"]
    at = {volume.split(":")[1] for volume in service["volumes"]} | set(given_secrets(service).values())
    configuration = yaml.safe_load((ECOSYSTEM / "metrics" / "prometheus.yml").read_text(encoding="utf-8"))
    [job] = configuration["scrape_configs"]
    wanted = [job["authorization"]["credentials_file"], *job["file_sd_configs"][0]["files"]]
    wanted += [str(Path(rule).parent) for rule in configuration["rule_files"]]
    assert {f"/etc/prometheus/{name}" for name in (*wanted, "prometheus.yml")} <= at
    asked = yaml.safe_load((ECOSYSTEM / "metrics" / "workers.yml").read_text(encoding="utf-8"))
    assert {target for group in asked for target in group["targets"]} == {
        COMPOSE["services"][name]["ports"][0].rpartition(":")[0] for name in WORKERS
    }


def test_grafana_is_told_what_its_provisioning_asks_for() -> None:
    """By names that are no worker's settings, or a worker started beside it would refuse them."""
    service = COMPOSE["services"]["grafana"]
    [mounted] = [volume for volume in service["volumes"] if volume.startswith("./metrics")]
    source, at, _ = mounted.split(":")
    asked: set[str] = set()
    for path in (ECOSYSTEM / source / "provisioning").rglob("*.yml"):
        asked |= set(re.findall(r"\$\{(\w+)\}", path.read_text(encoding="utf-8")))
    assert asked
    assert asked <= set(service["environment"])
    for folder in (service["environment"]["GF_PATHS_PROVISIONING"], service["environment"]["GRAFANA_DASHBOARDS"]):
        assert any((ECOSYSTEM / source / Path(folder).relative_to(at)).iterdir())


def test_secrets_and_volumes_and_files_of_compose_exist(secrets: Path) -> None:
    """Each secret is declared, made by make-secrets, and used; each file that is mounted is in the checkout."""
    declared = {name: entry["file"] for name, entry in COMPOSE["secrets"].items()}
    used = {secret for service in COMPOSE["services"].values() for secret in given_secrets(service)}
    assert used == set(declared)
    assert {Path(file).name for file in declared.values()} == {path.name for path in secrets.iterdir()}
    mounted: set[str] = set()
    for name, service in COMPOSE["services"].items():
        named = set(re.findall(r"/run/secrets/([\w-]+)", str(service)))
        assert named == {secret for secret, at in given_secrets(service).items() if at.startswith("/run/secrets/")}, (
            name
        )
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            mounted.add(source)
            # The certificate is the operator's, and how it was come by.
            if source.startswith(".") and source not in ("../data/tls", "../data/acme"):
                assert (ECOSYSTEM / source).exists(), source
    assert {source for source in mounted if not source.startswith(".")} == set(COMPOSE["volumes"])


def test_a_container_starts_with_valid_settings(secrets: Path) -> None:
    """With secrets as made, for services as they are called."""
    for name in (*WORKERS, "recorder"):
        given = environment_of(secrets, COMPOSE["services"][name]["environment"], "/run/secrets")
        settings = Settings.from_environment(given)
        assert re.search(r"@(\w+):6379", settings.redis_url)[1] in COMPOSE["services"]  # type: ignore[index]
        assert re.search(r"@(\w+):27017", settings.mongo_url)[1] in COMPOSE["services"]  # type: ignore[index]
        assert settings.turn_secrets
        assert settings.trust_forwarded
        assert read_secrets(settings.secrets)


# --------------------------------------------------------------------------- Kubernetes

NOT_KUBERNETES_OWN = {
    *("kustomization.yaml", "prometheus-adapter.example.yaml"),
    *("prometheus.example.yaml", "pod-monitor.example.yaml"),
}
"""Of which it has no schema."""
RESOURCES: list[dict[str, Any]] = [
    one
    for path in sorted(KUBERNETES.glob("*.yaml"))
    if path.name not in NOT_KUBERNETES_OWN
    for one in yaml.safe_load_all(path.read_text(encoding="utf-8"))
]
KINDS: dict[str, dict[str, Any]] = {}
for _one in RESOURCES:
    KINDS.setdefault(_one["kind"], {})[_one["metadata"]["name"]] = _one
PODS = {name: one["spec"]["template"] for name, one in KINDS["Deployment"].items()}
JOBS = {name: one["spec"]["jobTemplate"]["spec"]["template"] for name, one in KINDS["CronJob"].items()}
SCHEMAS = sorted(
    {
        ".".join(path.name.removeprefix("v").split(".")[:2])
        for path in (Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema").iterdir()
        if path.name.endswith("-local-strict")
    },
    key=lambda version: int(version.split(".")[1]),
)


@pytest.mark.parametrize("version", [version for version in SCHEMAS if int(version.split(".")[1]) >= 27])
def test_the_manifests_fit_every_kubernetes_from_1_27_on(version: str) -> None:
    """By its own schemas, and without a field that it does not know."""
    for one in RESOURCES:
        kubernetes_validate.validate(one, version, strict=True)


def test_the_kustomization_holds_every_manifest() -> None:
    """Except for examples, which somebody has to fill in."""
    held = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())["resources"]
    there = {path.name for path in KUBERNETES.glob("*.yaml")}
    assert set(held) == {name for name in there if not name.endswith(".example.yaml")} - {"kustomization.yaml"}
    assert {one["metadata"].get("namespace", "visavis") for one in RESOURCES} == {"visavis"}


def test_every_pod_keeps_to_the_restricted_standard() -> None:
    """Which its namespace enforces; and writes nowhere but to its volumes."""
    assert KINDS["Namespace"]["visavis"]["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    for name, template in {**PODS, **JOBS}.items():
        pod = template["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["securityContext"]["runAsUser"] == 10001, name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert pod["automountServiceAccountToken"] is False, name
        # VISAVIS_PORT is a setting, and what a Service called visavis would put into an environment.
        assert pod["enableServiceLinks"] is False, name
        assert pod["serviceAccountName"] in KINDS["ServiceAccount"], name
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, name
            assert container["resources"]["limits"]["memory"], name
            assert container["resources"]["requests"]["cpu"], name


def test_what_manifests_refer_to_by_name_is_there() -> None:
    """Volumes, settings, secrets, ports, and whom a selector selects."""
    for name, template in {**PODS, **JOBS}.items():
        labels = template["metadata"]["labels"]
        if name in PODS:
            assert KINDS["Deployment"][name]["spec"]["selector"]["matchLabels"] == labels, name
        pod = template["spec"]
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        for container in pod["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} == set(volumes), name
            ports = {port["name"] for port in container.get("ports", [])}
            for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
                asked = next(iter({"httpGet", "tcpSocket"} & set(container.get(probe, {}))), None)
                assert asked is None or container[probe][asked]["port"] in ports, (name, probe)
            for source in container.get("envFrom", []):
                assert source["configMapRef"]["name"] in KINDS["ConfigMap"], name
        for volume in volumes.values():
            if "persistentVolumeClaim" in volume:
                assert volume["persistentVolumeClaim"]["claimName"] in KINDS["PersistentVolumeClaim"], name
            if "configMap" in volume:
                assert volume["configMap"]["name"] in KINDS["ConfigMap"], name
            if "secret" in volume:
                # The certificate is made by others.
                assert volume["secret"]["secretName"] in {*KINDS["Secret"], "visavis-tls"}, name
        for constraint in pod.get("topologySpreadConstraints", []):
            assert constraint["labelSelector"]["matchLabels"] == labels, name
    every = [template["metadata"]["labels"] for template in PODS.values()]
    for kind, at in (("Service", ()), ("PodDisruptionBudget", ("matchLabels",))):
        for name, one in KINDS[kind].items():
            selected = one["spec"]["selector"]
            for key in at:
                selected = selected[key]
            assert selected in every, name
    for policy in KINDS["NetworkPolicy"].values():
        selected = policy["spec"]["podSelector"].get("matchLabels")
        assert selected is None or selected in [*every, *(template["metadata"]["labels"] for template in JOBS.values())]
    for budget in PODS:
        assert budget in KINDS["PodDisruptionBudget"]


def test_a_rollout_takes_no_worker_away_before_another_is_ready() -> None:
    """Neither does a drained node take two at once."""
    for name, one in KINDS["Deployment"].items():
        assert one["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0, name
        assert KINDS["PodDisruptionBudget"][name]["spec"]["maxUnavailable"] == 1, name
    worker = PODS["visavis-worker"]["spec"]["containers"][0]
    assert worker["readinessProbe"]["httpGet"]["path"] == "/ready"
    # Restarted for a Redis that is away, workers would drop the guests that they could have kept.
    assert worker["livenessProbe"]["httpGet"]["path"] == "/health"
    start = worker["startupProbe"]
    assert start["httpGet"]["path"] == "/health"
    # A worker that waits for another's migration does not answer yet.
    assert start["periodSeconds"] * start["failureThreshold"] > Settings().migration_seconds


def test_the_autoscaler_asks_for_a_metric_that_somebody_makes() -> None:
    """By the name under which workers say how many connections they have."""
    scaler = KINDS["HorizontalPodAutoscaler"]["visavis-worker"]["spec"]
    assert scaler["scaleTargetRef"]["name"] in KINDS["Deployment"]
    [metric] = [one["pods"] for one in scaler["metrics"] if one["type"] == "Pods"]
    assert int(metric["target"]["averageValue"]) <= Settings().max_connections / 2
    adapter = yaml.safe_load((KUBERNETES / "prometheus-adapter.example.yaml").read_text())
    [rule] = adapter["rules"]["custom"]
    assert rule["name"]["as"] == metric["metric"]["name"]
    assert rule["seriesQuery"].startswith(metric["metric"]["name"])
    rules = (ECOSYSTEM / "metrics" / "rules" / "alerts.yml").read_text(encoding="utf-8")
    assert re.search(rf"\b{metric['metric']['name']}\b", rules)


def test_prometheus_asks_the_workers_under_the_name_that_rules_go_by(tmp_path: Path) -> None:
    """By either example: this very pod, port and secret.

    promtool understands the one, but for how pods are found, which Debian's is built without; nobody here the other.
    """
    [job] = yaml.safe_load((ECOSYSTEM / "metrics" / "prometheus.yml").read_text())["scrape_configs"]
    [scrape] = yaml.safe_load((KUBERNETES / "prometheus.example.yaml").read_text())["scrape_configs"]
    [pods] = scrape.pop("kubernetes_sd_configs")
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump({"scrape_configs": [scrape]}))
    told(promtool(), "check", "config", "--syntax-only", tmp_path / "prometheus.yml")
    monitor = yaml.safe_load((KUBERNETES / "pod-monitor.example.yaml").read_text())
    [endpoint] = monitor["spec"]["podMetricsEndpoints"]
    named = [one["replacement"] for one in endpoint["relabelings"] if one["targetLabel"] == "job"]
    assert [scrape["job_name"]] == named == [job["job_name"]]
    worker = PODS["visavis-worker"]
    assert (pods["role"], pods["namespaces"]["names"]) == ("pod", [monitor["metadata"]["namespace"]])
    assert monitor["metadata"]["namespace"] == KINDS["Deployment"]["visavis-worker"]["metadata"]["namespace"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= worker["metadata"]["labels"].items()
    assert endpoint["port"] in {port["name"] for port in worker["spec"]["containers"][0]["ports"]}
    credentials = endpoint["authorization"]["credentials"]
    assert credentials["key"] in KINDS["Secret"][credentials["name"]]["stringData"]


def test_a_pod_starts_with_valid_settings(tmp_path: Path) -> None:
    """With a secret as the example has it."""
    for key, value in KINDS["Secret"]["visavis"]["stringData"].items():
        (tmp_path / key).write_text(value, encoding="utf-8")
    given = KINDS["ConfigMap"]["visavis-settings"]["data"]
    settings = Settings.from_environment(environment_of(tmp_path, given, "/run/secrets/visavis"))
    assert read_secrets(settings.secrets)
    assert settings.s3_secret
    for name, template in JOBS.items():
        # Nothing begins by itself, and nobody is sent to a job's pod.
        assert KINDS["CronJob"][name]["spec"]["suspend"] is True, name
        assert template["metadata"]["labels"]["app.kubernetes.io/component"] == "upkeep", name
        mounts = {mount["mountPath"] for mount in template["spec"]["containers"][0]["volumeMounts"]}
        assert "/run/secrets/visavis" in mounts, name
    for name in ("visavis-worker", "visavis-recorder"):
        mounts = {mount["mountPath"] for mount in PODS[name]["spec"]["containers"][0]["volumeMounts"]}
        assert {settings.recordings_dir, "/run/secrets/visavis"} <= mounts


def test_the_edge_looks_for_the_workers_by_their_service() -> None:
    """One with an address for each pod, those included that drain and still have guests who poll."""
    [_, script, name, port] = PODS["visavis-edge"]["spec"]["containers"][0]["command"]
    assert (ROOT / script).exists()
    service = KINDS["Service"][name]["spec"]
    assert service["clusterIP"] == "None"
    assert service["publishNotReadyAddresses"] is True
    assert [str(one["port"]) for one in service["ports"]] == [port]
    worker = PODS["visavis-worker"]["spec"]["containers"][0]
    assert [str(one["containerPort"]) for one in worker["ports"]] == [port]


# --------------------------------------------------------------------------- run for real, in a network of its own


def place(folder: Path) -> Path:
    """A checkout, as far as nginx and workers go, that may be written to."""
    folder.mkdir()
    for name in ("nginx.conf", "ecosystem", "backend", "web", "requirements.txt"):
        (folder / name).symlink_to(ROOT / name)
    (folder / ".venv").symlink_to(sys.prefix)
    (folder / ".cache" / "nginx").mkdir(parents=True)
    self_signed(folder / "data" / "tls")
    return folder


class Apart:
    """A shell script in namespaces of its own: its ports and its /etc/hosts are nobody else's."""

    def __init__(self, folder: Path) -> None:
        if sys.platform != "linux" or os.geteuid() != 0:
            missing("a network of one's own is for root")
        for name in ("unshare", "nginx", "curl", "ip"):
            tool(name)
        self._log = folder / "said"
        self._process: asyncio.subprocess.Process | None = None

    async def start(self, script: str) -> None:
        namespaces = ("--net", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child")
        with self._log.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                *("unshare", *namespaces, "sh", "-c", f"set -e; mount -t proc proc /proc; ip link set lo up; {script}"),
                env={name: value for name, value in os.environ.items() if not name.startswith("VISAVIS_")},
                stdout=log,
                stderr=log,
                preexec_fn=children.before_exec,
            )

    def said(self) -> str:
        return self._log.read_text(encoding="utf-8")

    async def ended(self) -> int:
        assert self._process is not None
        return await asyncio.wait_for(self._process.wait(), 60)

    async def stop(self) -> None:
        if self._process is not None and self._process.returncode is None:
            # With it goes process 1 of its namespace, and so all the others.
            self._process.kill()
            await self._process.wait()


@pytest.fixture
async def apart(tmp_path: Path) -> AsyncIterator[Apart]:
    """Ended with all it started."""
    apart = Apart(tmp_path)
    try:
        yield apart
    finally:
        await apart.stop()


async def test_the_edge_follows_the_addresses_behind_a_name(apart: Apart, tmp_path: Path) -> None:
    """Two pods, then one of them and another: nginx is told, in a form it takes, and both rings are the same."""
    hosts = tmp_path / "hosts"
    hosts.write_text("127.0.0.21 workers\n127.0.0.22 workers\n", encoding="utf-8")
    folder = place(tmp_path / "place")
    made = tmp_path / "made"
    made.mkdir()
    await apart.start(
        f"mount --bind {hosts} /etc/hosts; cd {folder}; TMPDIR={made} exec sh ecosystem/edge workers 3000"
    )

    async def become(*addresses: str) -> None:
        async with asyncio.timeout(30):
            while True:
                for path in made.glob("edge.*/ecosystem/nginx/workers.conf"):
                    text = path.read_text(encoding="utf-8")
                    rings = [re.findall(r"server (\S+) ", ring) for ring in text.split("upstream ")[1:]]
                    if rings == [list(addresses)] * 2:
                        return
                await asyncio.sleep(0.1)

    await become("127.0.0.21:3000", "127.0.0.22:3000")
    # In place: the file that was bound is this one.
    hosts.write_text("127.0.0.21 workers\n::1 workers\n", encoding="utf-8")
    await become("127.0.0.21:3000", "[::1]:3000")
    async with asyncio.timeout(PATIENCE):
        while "the workers are now" not in apart.said():
            await asyncio.sleep(0.1)
    assert "[emerg]" not in apart.said()


async def test_the_edge_takes_up_a_renewed_certificate(apart: Apart, tmp_path: Path) -> None:
    """Also without a name to follow, and with two processes, however many processors there are."""
    folder = place(tmp_path / "place")
    renewed = tmp_path / "renewed"
    self_signed(renewed)
    # Compared as text: both are one certificate in PEM.
    shows = "import ssl, sys; shown = ssl.get_server_certificate(('127.0.0.1', 8443)); "
    shows += "sys.exit(shown.split() != open(sys.argv[1]).read().split())"
    await apart.start(
        f"""cd {folder}; sh ecosystem/edge & edge=$!
        until .venv/bin/python -c "{shows}" data/tls/certificate.pem 2>/dev/null; do sleep 0.2; done
        echo processes: $(grep -l '^nginx: worker process' /proc/[0-9]*/cmdline | wc -l)
        cp {renewed}/certificate.pem {renewed}/key.pem data/tls
        until .venv/bin/python -c "{shows}" {renewed}/certificate.pem 2>/dev/null; do sleep 0.2; done
        kill -QUIT $edge; wait $edge"""
    )
    assert await apart.ended() == 0, apart.said()
    assert "processes: 2\n" in apart.said()
    assert "the certificate is another" in apart.said()


async def test_the_procfile_runs_everything(apart: Apart, tmp_path: Path) -> None:
    """Three workers with a Valkey, behind nginx; Ctrl-C ends it all."""
    folder = place(tmp_path / "place")
    honcho = f"{tool('honcho')} -d . -f ecosystem/Procfile -e ecosystem/procfile.env start --no-colour"
    await apart.start(
        f"""cd {folder}; {honcho} & runner=$!
        for port in 3001 3002 3003; do VISAVIS_PORT=$port ecosystem/ready 30; done
        curl --silent --fail --insecure --retry 20 --retry-all-errors https://localhost:8443/health
        curl --silent --fail --insecure --output /dev/null https://localhost:8443/
        kill -INT $runner; wait $runner || echo ended"""
    )
    assert await apart.ended() == 0, apart.said()
    said = apart.said()
    assert '"ok":true' in said
    assert said.count('"serving"') == 3
    assert said.count("stopped (rc=") == 6
