"""The load generator in C, for the wire protocols: runs loadgen.c, which is compiled once a run."""

from __future__ import annotations

import bisect
import itertools
import json
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

SOURCE = Path(__file__).with_name("loadgen.c")
# How long answers are waited for once nothing more is asked.
DRAIN_S = 5.0
# A run ends after its seconds and the slowest answer.
SLOWEST_S = 60.0
FILLED_WITHIN_S = 60.0


@dataclass(frozen=True)
class Measured:
    """One run of the load generator. per_s: while it asked.  replies: those after it, too.  buckets: latency, how many."""

    per_s: float
    replies: int
    errors: int
    misses: int
    p50_us: float
    p99_us: float
    max_us: float
    buckets: Sequence[tuple[float, int]] = ()

    def figures(self) -> dict[str, float]:
        """What is worth writing down: all but the buckets."""
        return {name: value for name, value in asdict(self).items() if name != "buckets"}


def percentile_us(runs: Iterable[Measured], share: float) -> float:
    """Of the answers of all runs together, and not of the runs' percentiles."""
    buckets = sorted(bucket for run in runs for bucket in run.buckets)
    seen = list(itertools.accumulate(count for _, count in buckets))
    return buckets[bisect.bisect_left(seen, share * seen[-1])][0]


class Load:
    """One run of the load generator, under way. name: for its errors."""

    def __init__(self, name: str, command: Sequence[str], timeout_s: float) -> None:
        self._name = name
        self._timeout_s = timeout_s
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def begin_anew(self) -> None:
        """Forget what was measured so far, and measure for the run's seconds from now on, on the same connections."""
        self._process.send_signal(signal.SIGUSR1)

    def result(self) -> Measured:
        """Wait for the end. Raises RuntimeError with the generator's line when a connection fails or answers are missing."""
        try:
            out, err = self._process.communicate(timeout=self._timeout_s)
        except BaseException:
            self._process.kill()
            self._process.communicate()
            raise
        if self._process.returncode:
            raise RuntimeError(f"{self._name}: {err.strip()}")
        measured = Measured(**json.loads(out))
        if measured.errors:
            raise RuntimeError(f"{self._name}: {measured.errors} errors: {err[:300]}")
        return measured


class LoadGenerator:
    """Compiled on first use. Raises RuntimeError where there is no C compiler."""

    def __init__(self, drain_s: float = DRAIN_S) -> None:
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None:
            raise RuntimeError("the load generator needs a C compiler (apt-get install gcc libc6-dev)")
        self._folder = tempfile.TemporaryDirectory(prefix="cacheflow-loadgen-")
        self._program = str(Path(self._folder.name) / "loadgen")
        defined = ("-D_GNU_SOURCE", f"-DDRAIN_S={drain_s}")
        subprocess.run([compiler, "-O2", *defined, "-o", self._program, str(SOURCE)], check=True)

    def close(self) -> None:
        """Remove the program."""
        self._folder.cleanup()

    def run(
        self,
        protocol: str,
        operation: str,
        ports: Sequence[int],
        *,
        connections: int = 64,
        pipeline: int = 1,
        seconds: float = 2.0,
        keys: int = 10_000,
        value_bytes: int = 100,
        rate: float = 0.0,
    ) -> Measured:
        """Load for ``seconds``. Raises RuntimeError with the generator's line when a connection fails or answers are missing.

        rate: requests a second, whatever the server does; 0 keeps ``pipeline`` requests a connection under way.
        """
        return self.begin(
            protocol,
            operation,
            ports,
            connections=connections,
            pipeline=pipeline,
            seconds=seconds,
            keys=keys,
            value_bytes=value_bytes,
            rate=rate,
        ).result()

    def begin(
        self,
        protocol: str,
        operation: str,
        ports: Sequence[int],
        *,
        connections: int = 64,
        pipeline: int = 1,
        seconds: float = 2.0,
        keys: int = 10_000,
        value_bytes: int = 100,
        rate: float = 0.0,
    ) -> Load:
        """Begin what ``run`` does, and return it while it runs."""
        numbers = (connections, pipeline, seconds, keys, value_bytes, rate, *ports)
        command = [self._program, protocol, operation, *map(str, numbers)]
        return Load(f"{protocol} {operation} on {list(ports)}", command, seconds + SLOWEST_S)

    def fill(self, protocol: str, port: int, *, keys: int = 10_000, value_bytes: int = 100) -> None:
        """Write each key once, in order. Raises RuntimeError when that takes longer than FILLED_WITHIN_S."""
        self.run(protocol, "fill", [port], seconds=FILLED_WITHIN_S, keys=keys, value_bytes=value_bytes)


def redis_benchmark(operation: str, port: int, *, connections: int, pipeline: int, requests: int) -> Measured:
    """The same by redis-benchmark, which costs more than the servers it measures. Raises RuntimeError where it fails."""
    numbers = {"-p": port, "-c": connections, "-P": pipeline, "-n": requests, "-r": 10_000, "-d": 100}
    flags = [str(part) for pair in numbers.items() for part in pair]
    ran = subprocess.run(
        ["redis-benchmark", "--csv", "-t", operation, *flags],
        capture_output=True,
        text=True,
        timeout=SLOWEST_S,
        check=False,
    )
    lines = ran.stdout.splitlines()
    if ran.returncode or len(lines) != 2:
        raise RuntimeError(f"redis-benchmark on {port}: {ran.stdout[-300:]}{ran.stderr[-300:]}")
    # "test","rps","avg_latency_ms","min_latency_ms","p50_latency_ms","p95_latency_ms","p99_latency_ms","max_latency_ms"
    _, rate, _, _, p50, _, p99, longest = (part.strip('"') for part in lines[1].split(","))
    return Measured(float(rate), requests, 0, 0, float(p50) * 1000, float(p99) * 1000, float(longest) * 1000)
