"""The templates for systemd, compose and Kubernetes, checked by their own tools and schemas, and by what CacheFlow needs."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from packages.dockerfile import stages_of

from cacheflow.cli import settings
from cacheflow.config import NodeConfig
from cacheflow.machine.state.entries import ENTRY_BYTES

ROOT = Path(__file__).parents[2]
PACKAGING = ROOT / "scripts/packaging"
UNIT = PACKAGING / "cacheflow.service"
COMPOSE = PACKAGING / "compose.yaml"
KUBERNETES = PACKAGING / "kubernetes.yaml"
BIN = Path(sys.executable).parent
# What systemd-analyze calls the exposure of a unit: 0 is none, 10 all. A service on the network, in /usr, is not below 1.
EXPOSURE_MAX = 1.5
SYSTEMD = shutil.which("systemd-analyze")
# With that of --drain.
VARIABLES = {setting.variable for setting in settings.SETTINGS}


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(list(command), capture_output=True, text=True, timeout=60)


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not (BIN / program).exists(), reason=f"{program} is not installed")


# systemd


@pytest.fixture
def system(tmp_path: Path) -> Path:
    """The root of a machine on which the unit and its program are installed."""
    for program in ("opt/cacheflow/bin/cacheflow", "bin/kill"):
        (tmp_path / program).parent.mkdir(parents=True)
        (tmp_path / program).write_text("#!/bin/sh\n")
        (tmp_path / program).chmod(0o755)
    (tmp_path / "etc/systemd/system").mkdir(parents=True)
    return tmp_path


def verified(system: Path, text: str) -> str:
    unit = system / "etc/systemd/system/cacheflow.service"
    unit.write_text(text)
    done = run(SYSTEMD or "", "verify", "--man=no", "--recursive-errors=no", f"--root={system}", unit.name)
    return done.stderr if done.returncode == 0 else f"exit code {done.returncode}: {done.stderr}"


def unit_lines() -> dict[str, str]:
    lines = [line for line in UNIT.read_text().splitlines() if "=" in line and line[0] != "#"]
    return dict(line.split("=", 1) for line in lines)


@pytest.mark.skipif(SYSTEMD is None, reason="systemd-analyze is not installed")
def test_systemd_finds_nothing_in_the_unit(system: Path) -> None:
    assert verified(system, UNIT.read_text()) == ""
    assert "NoNewPriviledges" in verified(system, UNIT.read_text().replace("NoNewPrivileges", "NoNewPriviledges"))


@pytest.mark.skipif(SYSTEMD is None, reason="systemd-analyze is not installed")
def test_the_unit_is_exposed_to_little() -> None:
    done = run(SYSTEMD or "", "security", "--offline=true", f"--threshold={EXPOSURE_MAX * 10:g}", UNIT)
    assert done.returncode == 0, done.stdout.strip().splitlines()[-1]


def test_the_unit_waits_for_a_ready_node_and_gives_it_time_to_end() -> None:
    lines = unit_lines()
    assert lines["Type"] == "notify" and lines["NotifyAccess"] == "main" and lines["TimeoutStartSec"] == "infinity"
    assert int(lines["WatchdogSec"]) >= 10, "signs of life come once a second"
    assert lines["RestartPreventExitStatus"] == "2", "a wrong setting is still wrong after a restart"
    assert int(lines["TimeoutStopSec"]) >= 30
    assert lines["ExecStart"].endswith(f"--data-dir /var/lib/{lines['StateDirectory']}")


# compose and Kubernetes


def told(environment: dict[str, str]) -> NodeConfig:
    """Return what a node with these variables is told; each must be one of its settings. Files are those of the container."""
    assert set(environment) <= VARIABLES, f"unknown: {sorted(set(environment) - VARIABLES)}"
    return settings.load({}, environment)


def memory_of(node: NodeConfig) -> int:
    """Return the bytes that a node needs with its limits reached, by the rule of docs/operating.md."""
    assert node.max_items is not None and node.max_bytes is not None, "memory would end before the cache does"
    # What Python needs for an item beside what the limit counts for it.
    beside = 500 - ENTRY_BYTES
    assert f"`2 x (max-bytes + {beside} x max-items)`" in (ROOT / "docs/operating.md").read_text()
    return 2 * (node.max_bytes + beside * node.max_items) + 2**29


def check_founders(nodes: list[NodeConfig]) -> None:
    """Three nodes from one template, which found one cluster together and nothing by themselves."""
    assert len(nodes) == 3 and len({node.node_id for node in nodes}) == len({node.advertise for node in nodes}) == 3
    assert len({node.seed for node in nodes}) == 1, "the same seeds on all"
    own = {f"http://{node.advertise}:{node.port}" for node in nodes}
    assert set(nodes[0].seed) == own, "each is a seed"
    assert {node.bootstrap_expect for node in nodes} == {3} and not any(node.bootstrap for node in nodes)
    assert all(node.cluster_secret_file and node.api_token_file for node in nodes)


@needs("check-jsonschema")
def test_the_compose_file_is_one(tmp_path: Path) -> None:
    check: list[str | Path] = [BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = run(*check, COMPOSE)
    assert done.returncode == 0, done.stdout
    worse = tmp_path / "compose.yaml"
    worse.write_text(COMPOSE.read_text().replace("stop_grace_period", "stop_grace_time"))
    assert "stop_grace_time" in run(*check, worse).stdout


def test_the_compose_files_nodes_found_one_cluster_and_run_as_the_image_wants() -> None:
    compose = yaml.safe_load(COMPOSE.read_text())
    services: dict[str, dict[str, Any]] = compose["services"]
    nodes = [told(service["environment"]) for service in services.values()]
    check_founders(nodes)
    assert [node.advertise for node in nodes] == list(services), "a service's name is its host's"
    (volume,) = {mount.partition(":")[2] for service in services.values() for mount in service["volumes"]}
    assert volume == stages_of((PACKAGING / "Dockerfile").read_text())[-1].last("VOLUME").rest
    assert {mount.partition(":")[0] for service in services.values() for mount in service["volumes"]} == set(
        compose["volumes"]
    )
    for service, node in zip(services.values(), nodes, strict=True):
        assert service["mem_limit"] == "2g" and memory_of(node) <= 2 * 2**30
        assert service["read_only"] and service["cap_drop"] == ["ALL"] and service["tmpfs"] == ["/tmp"]
        assert {str(node.cluster_secret_file), str(node.api_token_file)} == {
            f"/run/secrets/{name}" for name in service["secrets"]
        }
        build = service["build"]
        assert (PACKAGING / build["context"] / build["dockerfile"]).resolve() == PACKAGING / "Dockerfile"
        # A port of this machine alone, until somebody decides otherwise.
        assert all(port.startswith("127.0.0.1:") and port.endswith(f":{node.port}") for port in service["ports"])


@pytest.fixture(scope="module")
def manifests() -> dict[str, list[dict[str, Any]]]:
    """The manifests, by kind."""
    kinds: dict[str, list[dict[str, Any]]] = {}
    for manifest in yaml.safe_load_all(KUBERNETES.read_text()):
        kinds.setdefault(manifest["kind"], []).append(manifest)
    return kinds


@needs("kubernetes-validate")
def test_the_manifests_are_what_kubernetes_knows(tmp_path: Path) -> None:
    check: list[str | Path] = [BIN / "kubernetes-validate", "--strict", "--quiet"]
    done = run(*check, KUBERNETES)
    assert done.returncode == 0, done.stdout + done.stderr
    worse = tmp_path / "worse.yaml"
    worse.write_text(KUBERNETES.read_text().replace("publishNotReadyAddresses", "publishUnreadyAddresses"))
    failed = run(*check, worse)
    assert failed.returncode != 0 and "publishUnreadyAddresses" in failed.stdout + failed.stderr


def pods(manifests: dict[str, list[dict[str, Any]]]) -> Iterator[tuple[dict[str, Any], dict[str, str]]]:
    """The container of each pod, and its variables there."""
    (stateful,) = manifests["StatefulSet"]
    (container,) = stateful["spec"]["template"]["spec"]["containers"]
    for number in range(stateful["spec"]["replicas"]):
        name = f"{stateful['metadata']['name']}-{number}"
        variables = {each["name"]: each.get("value", "").replace("$(POD_NAME)", name) for each in container["env"]}
        del variables["POD_NAME"]
        yield container, variables


def test_the_pods_found_one_cluster_and_are_found_before_they_are_ready(
    manifests: dict[str, list[dict[str, Any]]],
) -> None:
    nodes = [told(variables) for _, variables in pods(manifests)]
    check_founders(nodes)
    (stateful,) = manifests["StatefulSet"]
    (headless,) = [each for each in manifests["Service"] if each["spec"].get("clusterIP") == "None"]
    assert headless["spec"]["publishNotReadyAddresses"] is True
    assert stateful["spec"]["serviceName"] == headless["metadata"]["name"]
    assert {node.advertise for node in nodes} == {f"{node.node_id}.{headless['metadata']['name']}" for node in nodes}
    assert stateful["spec"]["podManagementPolicy"] == "Parallel", "else the first would wait for the others for ever"
    labels = stateful["spec"]["template"]["metadata"]["labels"]
    selectors = [each["spec"]["selector"] for each in manifests["Service"]]
    selectors += [each["spec"]["selector"]["matchLabels"] for each in manifests["PodDisruptionBudget"]]
    assert all(selector == labels for selector in selectors)


def test_a_prometheus_that_goes_by_annotations_finds_each_pod(manifests: dict[str, list[dict[str, Any]]]) -> None:
    (stateful,) = manifests["StatefulSet"]
    annotations = stateful["spec"]["template"]["metadata"]["annotations"]
    container, variables = next(pods(manifests))
    assert annotations == {
        "prometheus.io/scrape": "true",
        "prometheus.io/port": str(told(variables).port),
        "prometheus.io/path": "/metrics",
    }
    assert {"name": "http", "containerPort": told(variables).port} in container["ports"]


def test_the_pods_are_probed_spread_and_end_in_their_time(manifests: dict[str, list[dict[str, Any]]]) -> None:
    (stateful,) = manifests["StatefulSet"]
    pod = stateful["spec"]["template"]["spec"]
    container, variables = next(pods(manifests))
    paths = {name: container[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "liveness", "readiness")}
    # Not ready is no reason for a restart: it would end a node that waits for its majority.
    assert paths == {"startup": "/livez", "liveness": "/livez", "readiness": "/readyz"}
    readiness = container["readinessProbe"]
    unseen_s = readiness["periodSeconds"] * readiness["failureThreshold"]
    assert unseen_s < float(variables["CACHEFLOW_DRAIN"]) < pod["terminationGracePeriodSeconds"] - 20
    assert container["resources"]["limits"]["memory"] == container["resources"]["requests"]["memory"] == "2Gi"
    assert memory_of(told(variables)) <= 2 * 2**30
    assert pod["enableServiceLinks"] is False and pod["automountServiceAccountToken"] is False
    assert {each["topologyKey"] for each in pod["topologySpreadConstraints"]} >= {"kubernetes.io/hostname"}
    (budget,) = manifests["PodDisruptionBudget"]
    assert budget["spec"]["maxUnavailable"] == 1
    last = stages_of((PACKAGING / "Dockerfile").read_text())[-1]
    user, _, group = last.last("USER").rest.partition(":")
    security = pod["securityContext"]
    assert (security["runAsUser"], security["runAsGroup"], security["fsGroup"]) == (int(user), int(group), int(group))
    assert {mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")} == {
        last.last("VOLUME").rest,
        "/tmp",
    }
