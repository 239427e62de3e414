#!/usr/bin/env python3
"""The pins of requirements.txt: their hashes made anew, or looked up among known vulnerabilities.

    scripts/pins.py            after a change of a pin: give each the hashes of all its files on the package index
    scripts/pins.py --audit    ask pip-audit's service for known vulnerabilities; exit code 1 when it knows one

Both run in an environment of their own. Where the index or the service does not answer, that is told, with exit code 3.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "requirements.txt"
ENVIRONMENT = ROOT / ".venv-conformance" / "pins"
TOOLS = ("pip-tools==7.6.2", "pip-audit==2.10.1")
UNREACHABLE = 3
_PIN = re.compile(r"([A-Za-z0-9._-]+)==([^\s;\\]+)( ; [^\\]+?)?( \\)?")
_HASHES = re.compile(r"^([a-z0-9._-]+)==(\S+) \\\n((?:    --hash=\S+(?: \\)?\n?)+)", re.MULTILINE)


def main() -> int:
    """Run what the command line asks for; return the exit code."""
    parser = argparse.ArgumentParser(prog="scripts/pins.py", description=__doc__)
    parser.add_argument("--audit", action="store_true", help="look for known vulnerabilities of what is pinned")
    given = parser.parse_args()
    try:
        tools = environment()
        return audit(tools) if given.audit else hash_anew(tools)
    except subprocess.CalledProcessError as error:
        lines = (error.stderr or error.stdout or "").strip().splitlines()
        print(f"not reachable from here: {lines[-1] if lines else error}", file=sys.stderr)
        return UNREACHABLE


def environment() -> Path:
    """Return the folder of the tools, installed if they are not there. Raises CalledProcessError."""
    stamp = ENVIRONMENT / "stamp"
    if not stamp.exists() or stamp.read_text() != "\n".join(TOOLS):
        _run(sys.executable, "-m", "venv", "--clear", str(ENVIRONMENT))
        _run(str(ENVIRONMENT / "bin/python"), "-m", "pip", "install", "--quiet", *TOOLS)
        stamp.write_text("\n".join(TOOLS))
    return ENVIRONMENT / "bin"


def hash_anew(tools: Path) -> int:
    """Write requirements.txt with the hashes that the package index tells. Raises CalledProcessError."""
    lines = [line for line in REQUIREMENTS.read_text().splitlines() if not line.startswith("    --hash=")]
    pins = {found[1].lower(): found for line in lines if (found := _PIN.fullmatch(line))}
    with tempfile.TemporaryDirectory() as folder:
        # Without markers: a pin for another Python than this one gets its hashes, too.
        asked, answered = Path(folder) / "pins.in", Path(folder) / "pins.txt"
        asked.write_text("".join(f"{found[1]}=={found[2]}\n" for found in pins.values()))
        options = ["--quiet", "--generate-hashes", "--allow-unsafe", "--strip-extras", "--no-annotate", "--no-header"]
        _run(str(tools / "pip-compile"), *options, "--output-file", str(answered), str(asked))
        hashes = {name: re.findall(r"--hash=\S+", text) for name, _, text in _HASHES.findall(answered.read_text())}
    missing, unpinned = pins.keys() - hashes.keys(), hashes.keys() - pins.keys()
    if missing or unpinned:
        print(f"without hashes: {sorted(missing)}; needed, and to be pinned: {sorted(unpinned)}", file=sys.stderr)
        return 1
    written: list[str] = []
    for line in lines:
        found = _PIN.fullmatch(line)
        if found is None:
            written.append(line)
            continue
        several = hashes[found[1].lower()]
        written.append(f"{found[1]}=={found[2]}{found[3] or ''} \\")
        written += [f"    {each} \\" for each in several[:-1]] + [f"    {several[-1]}"]
    REQUIREMENTS.write_text("\n".join(written) + "\n")
    print(f"{len(pins)} pins have {sum(map(len, hashes.values()))} hashes")
    return 0


def audit(tools: Path) -> int:
    """Print the known vulnerabilities of the pins; return 1 when there is one. Raises CalledProcessError."""
    command = [str(tools / "pip-audit"), "--requirement", str(REQUIREMENTS), "--require-hashes", "--disable-pip"]
    done = subprocess.run([*command, "--format", "json"], capture_output=True, text=True, check=False)
    try:
        pins = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        raise subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr) from None
    asked = [pin for pin in pins if "skip_reason" not in pin]
    if not asked:
        raise subprocess.CalledProcessError(done.returncode, command, "the service knows none of the pins")
    for pin in pins:
        for each in pin.get("vulns", ()):
            print(
                f"{pin['name']} {pin['version']}: {each['id']}, mended in {', '.join(each['fix_versions']) or 'no version'}"
            )
        if "skip_reason" in pin:
            print(f"{pin['name']}: not looked up: {pin['skip_reason']}")
    print(f"{len(asked)} of {len(pins)} pins looked up")
    return int(any(pin.get("vulns") for pin in pins))


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)


if __name__ == "__main__":
    sys.exit(main())
