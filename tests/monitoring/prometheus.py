"""A real Prometheus that scrapes real nodes and evaluates docs/alerts.yml, as a process of its own that is always ended."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from cluster.processes import HOST, NodeProcess, wait_for
from monitoring.recording import JOB
from monitoring.rules import hurried

from cacheflow.cli.launcher import free_ports

# Seconds between two scrapes where a minute lasts a minute; a hundredth of a minute would do, but for the processor.
SCRAPE_EVERY_S = 15


class Prometheus:
    """A Prometheus. Use as a context manager. hurry: by which all times of the rules and of the scrapes are divided."""

    def __init__(self, program: str, folder: Path, nodes: Sequence[NodeProcess], hurry: int) -> None:
        self._program = program
        self._folder = folder
        self._nodes = nodes
        self._hurry = hurry
        (self._port,) = free_ports(1)
        self._process: subprocess.Popen[bytes] | None = None
        self._told: list[dict[str, Any]] = []

    def __enter__(self) -> Prometheus:
        (self._folder / "rules.yml").write_text(hurried(self._hurry))
        self.find_nodes()
        every = f"{SCRAPE_EVERY_S * 1000 // self._hurry}ms"
        first = self._nodes[0]
        scrape: dict[str, Any] = {"job_name": JOB, "file_sd_configs": [{"files": [str(self._folder / "nodes.json")]}]}
        if first.ca is not None:
            scrape |= {"scheme": "https", "tls_config": {"ca_file": str(first.ca)}}
        if first.token is not None:
            scrape |= {"authorization": {"credentials": first.token}}
        config = {
            "global": {"scrape_interval": every, "scrape_timeout": every, "evaluation_interval": every},
            "rule_files": [str(self._folder / "rules.yml")],
            "scrape_configs": [scrape],
        }
        # Prometheus reads YAML, of which JSON is a part.
        (self._folder / "prometheus.yml").write_text(json.dumps(config))
        with (self._folder / "prometheus.log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    self._program,
                    f"--config.file={self._folder / 'prometheus.yml'}",
                    f"--storage.tsdb.path={self._folder / 'data'}",
                    f"--web.listen-address={HOST}:{self._port}",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            wait_for(self._has_scraped, "Prometheus has scraped every node")
        except BaseException:
            print((self._folder / "prometheus.log").read_text()[-3000:])
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def find_nodes(self) -> None:
        """Tell Prometheus which nodes there are, if these are others than before."""
        told = [
            {"targets": [f"{HOST}:{node.port}"], "labels": {"instance": node.node_id}} for node in list(self._nodes)
        ]
        if told != self._told:
            (self._folder / "nodes.json.new").write_text(json.dumps(told))
            (self._folder / "nodes.json.new").rename(self._folder / "nodes.json")
            self._told = told

    def alerts(self, state: str = "firing") -> set[tuple[str, str]]:
        """Return (alert, node id or "") of all alerts in a state, which is "firing" or "pending"."""
        return {
            (alert["labels"]["alertname"], alert["labels"].get("instance", ""))
            for alert in self.ask("/api/v1/alerts")["alerts"]
            if alert["state"] == state
        }

    def query(self, expr: str) -> list[dict[str, Any]]:
        """Return the samples of an expression now. Raises AssertionError with what Prometheus says of a wrong one."""
        result: list[dict[str, Any]] = self.ask(f"/api/v1/query?query={quote(expr)}")["result"]
        return result

    def ask(self, path: str) -> Any:
        """Return what Prometheus answers to one question of its API."""
        try:
            with urllib.request.urlopen(f"http://{HOST}:{self._port}{path}", timeout=30) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{path}: {error.read().decode()}") from None

    def _has_scraped(self) -> bool:
        assert self._process is not None and self._process.poll() is None, "Prometheus has ended"
        try:
            return len(self.query("up == 1")) == len(self._nodes)
        except (OSError, AssertionError):
            time.sleep(0.1)
            return False
