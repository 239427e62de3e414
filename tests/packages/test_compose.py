"""The three nodes of the compose file, as an engine runs them: each with an address, volume and root of its own."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster import namespaces
from cluster.processes import wait_for
from packages.bare_root import BareRoot
from packages.dockerfile import Stage

from cacheflow.client.client import CacheClient
from cacheflow.errors import CacheFlowError

COMPOSE = Path(__file__).parents[2] / "scripts/packaging/compose.yaml"
TIMEOUT_S = 60


class Project:
    """The containers that ``docker compose`` would make of the compose file."""

    def __init__(self, folder: Path, image: BareRoot, stage: Stage, network: namespaces.NamespaceNetwork) -> None:
        compose = yaml.safe_load(COMPOSE.read_text())
        self.services: dict[str, dict[str, Any]] = compose["services"]
        self.places = {name: network.place(name) for name in self.services}
        self.urls = [f"http://{place.host}:8080" for place in self.places.values()]
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self._folder, self._image, self._stage = folder, image, stage
        self.token = ""
        for name in compose["secrets"]:
            self.token = secrets.token_hex(32)
            (folder / name).write_text(self.token)
            (folder / name).chmod(0o444)
        self.token = (folder / "api-token").read_text()
        lines = [f"{place.host} {name}\n" for name, place in self.places.items()]
        (folder / "hosts").write_text("127.0.0.1 localhost\n" + "".join(lines))
        user, _, group = stage.last("USER").rest.partition(":")
        for name in self.services:
            (folder / name).mkdir(mode=0o700)
            os.chown(folder / name, int(user), int(group))

    def up(self, name: str) -> None:
        """Start a service's container."""
        service = self.services[name]
        volumes = {"/etc/hosts": self._folder / "hosts", "/data": self._folder / name}
        volumes |= {f"/run/secrets/{secret}": self._folder / secret for secret in service["secrets"]}
        command = [*self._stage.last("ENTRYPOINT").command, *self._stage.last("CMD").command]
        line = self._image.command(
            command,
            network=self.places[name].before,
            more=service["environment"],
            writable=service["tmpfs"],
            volumes=volumes,
        )
        with (self._folder / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(line, stdout=log, stderr=log)

    def is_ready(self, name: str) -> bool:
        assert self.running[name].poll() is None, (self._folder / f"{name}.log").read_text()
        with contextlib.suppress(OSError):
            return bool(urllib.request.urlopen(f"http://{self.places[name].host}:8080/readyz", timeout=5).status == 200)
        return False

    def close(self) -> None:
        for process in self.running.values():
            if process.poll() is None:
                process.kill()
            process.wait()


@pytest.fixture
def project(tmp_path: Path, image: BareRoot, stages: list[Stage]) -> Iterator[Project]:
    if reason := namespaces.missing():
        pytest.skip(reason)
    for folder in (tmp_path, tmp_path.parent):
        folder.chmod(0o755)
    with contextlib.ExitStack() as stack:
        network = namespaces.NamespaceNetwork(tmp_path)
        stack.callback(network.close)
        project = Project(tmp_path, image, stages[-1], network)
        stack.callback(project.close)
        yield project


def test_three_containers_found_one_cluster_outlive_one_and_end_in_order(project: Project) -> None:
    first, second, third = project.services
    # In any order: whoever is there waits for the others.
    for name in (third, first, second):
        project.up(name)
    for name in project.services:
        wait_for(lambda name=name: project.is_ready(name), f"{name} is ready")  # type: ignore[misc]
    with CacheClient(project.urls, token=project.token) as client:
        client.set("greeting", "hello")
        assert {node["address"] for node in client.nodes()} == {f"{name}:8080" for name in project.services}
        with CacheClient(project.urls) as stranger, pytest.raises(CacheFlowError):
            stranger.get("greeting")
        project.running[second].kill()
        project.running[second].wait()
        client.set("greeting", "two go on")
        project.up(second)
        wait_for(lambda: project.is_ready(second))
        assert client.get("greeting", consistency="linearizable") == "two go on"
    for process in project.running.values():
        process.send_signal(signal.SIGTERM)
    assert [process.wait(TIMEOUT_S) for process in project.running.values()] == [0, 0, 0]
