"""Bare roots in which the steps of a Dockerfile run as they stand there, without an engine for containers.

The tree of a root has what an image of Python has, and nothing of this machine beside its programs and libraries: /usr is
seen, read-only, /usr/local is a copy of this Python without what was installed into it. By mount namespaces and chroot, so by
root alone.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from packages.dockerfile import Instruction, Stage

# The variable of images of Python.
PATH: Final = "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
# What a build inherits of its surroundings: the way to the package index.
INHERITED: Final = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE")
PROGRAMS: Final = ("unshare", "mount", "chroot", "env", "ldconfig", "sh", "sed", "useradd", "groupadd")
ACCOUNTS: Final = {"passwd": "root:x:0:0:root:/root:/bin/sh\n", "group": "root:x:0:\n", "shadow": "root:*:1::::::\n"}
FROM_HERE: Final = (
    "resolv.conf",
    "hosts",
    "nsswitch.conf",
    "ld.so.conf",
    "login.defs",
    "ssl/certs/ca-certificates.crt",
)
FOLDERS: Final = ("usr", "etc/ssl/certs", "proc", "dev", "opt", "root", "run", "tmp", "var/log", "var/tmp", "home")
PIP_CACHE: Final = Path("~/.cache/pip").expanduser()
TIMEOUT_S: Final = 240


class BareRoot:
    """One root, the tree in ``folder``, with the environment, the user and the working folder that its stage has given so far."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._local = folder.with_name(f"{folder.name}-local")
        self.environment = {"PATH": PATH}
        self.user = ""
        self.place = "/"

    def make(self) -> None:
        """Make the tree that an image of Python has."""
        for name in FOLDERS:
            (self.folder / name).mkdir(parents=True)
        for name in ("bin", "sbin", "lib", "lib64"):
            (self.folder / name).symlink_to(f"usr/{name}")
        for name, text in ACCOUNTS.items():
            (self.folder / "etc" / name).write_text(text)
        for name in FROM_HERE:
            if (Path("/etc") / name).exists():
                shutil.copy(Path("/etc") / name, self.folder / "etc" / name)
        shutil.copytree("/etc/ld.so.conf.d", self.folder / "etc/ld.so.conf.d")
        self._copy_python()
        # The copy's library comes before one of the machine's own Python.
        self.run(["ldconfig"])

    def _copy_python(self) -> None:
        version = f"python3.{sys.version_info.minor}"
        library = Path(sys.base_prefix) / "lib"

        def ignored(folder: str, names: list[str]) -> list[str]:
            if Path(folder).name in ("site-packages", "dist-packages"):
                return [name for name in names if name != "pip"]
            return [name for name in names if name in ("test", "idlelib", "tkinter", "__pycache__")]

        shutil.copytree(library / version, self._local / "lib" / version, ignore=ignored, symlinks=True)
        for shared in library.glob("libpython*"):
            shutil.copy(shared, self._local / "lib", follow_symlinks=False)
        (self._local / "bin").mkdir()
        shutil.copy(Path(sys.base_prefix) / "bin" / version, self._local / "bin" / version)
        for name in ("python", "python3"):
            (self._local / "bin" / name).symlink_to(version)

    def follow(self, stage: Stage, context: Path, others: Mapping[str, BareRoot]) -> None:
        """Do in this root what a stage of the Dockerfile says.

        context: the folder that is given to the build.  others: earlier stages, by name.
        """
        for each in stage.instructions:
            if each.name == "RUN":
                self.run(["sh", "-ec", each.shell], cache=each.cache)
            elif each.name == "COPY":
                source = each.options.get("from")
                self._copy(each, context if source is None else others[source].folder)
            elif each.name == "ENV":
                name, _, value = each.rest.partition("=")
                self.environment[name] = value
            elif each.name == "USER":
                self.user = each.rest
            elif each.name == "WORKDIR":
                self.place = each.rest
                (self.folder / each.rest.lstrip("/")).mkdir(parents=True, exist_ok=True)

    def _copy(self, instruction: Instruction, source: Path) -> None:
        *names, last = instruction.words
        target = self.folder / os.path.normpath(Path(self.place) / last).lstrip("/")
        for name in names:
            found = source / name.lstrip("/")
            if found.is_dir():
                ignore = shutil.ignore_patterns("__pycache__") if "from" not in instruction.options else None
                shutil.copytree(found, target, symlinks=True, dirs_exist_ok=True, ignore=ignore)
                continue
            into = target / found.name if last.endswith("/") else target
            into.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(found, into)

    def command(
        self,
        command: Sequence[str],
        *,
        network: Sequence[str] = (),
        more: Mapping[str, str] | None = None,
        writable: Sequence[str] | None = None,
        cache: str = "",
        volumes: Mapping[str, Path] | None = None,
    ) -> list[str]:
        """Return the command line that runs ``command`` in this root, as its user and with its environment.

        network: what a command line begins with to be in a network of its own.  more: further variables.
        writable: the only folders in which something can be written; None: all of the root.
        cache: the folder in which pip's cache of this machine is seen.
        volumes: files and folders of this machine, by the place where the root has them.
        """
        root, local = shlex.quote(str(self.folder)), shlex.quote(str(self._local))
        steps = [
            f"mount --bind {root} {root}",
            f"mount --bind /usr {root}/usr",
            f"mount --bind {local} {root}/usr/local",
            f"mount -o remount,bind,ro {root}/usr",
            f"mount --rbind /proc {root}/proc",
            f"mount --rbind /dev {root}/dev",
        ]
        if writable is not None:
            steps += [f"mount --bind {root}{name} {root}{name}" for name in writable]
            steps += [f"mount -o remount,bind,ro {root}", f"mount -o remount,bind,ro {root}/usr/local"]
        if cache:
            PIP_CACHE.mkdir(parents=True, exist_ok=True)
        for target, source in {**({cache: PIP_CACHE} if cache else {}), **(volumes or {})}.items():
            place = self.folder / target.lstrip("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                place.mkdir(exist_ok=True)
            else:
                place.touch()
            steps.append(f"mount --bind {shlex.quote(str(source))} {root}{target}")
        inherited = {name: value for name, value in os.environ.items() if name in INHERITED or name.startswith("PIP_")}
        # Only steps of a build see those.
        variables = {**({} if network else inherited), **self.environment, **(more or {})}
        user = [f"--userspec={self.user}", "--groups="] if self.user else []
        inside = [f"{name}={value}" for name, value in variables.items()]
        entering = ["chroot", *user, str(self.folder), "env", "-i", "-C", self.place, *inside, *command]
        return [*network, "unshare", "--mount", "sh", "-ec", "\n".join([*steps, f"exec {shlex.join(entering)}"])]

    def run(self, command: Sequence[str], **how: object) -> str:
        """Run a command in this root to its end; return what it prints. Raises CalledProcessError."""
        line = self.command(command, **how)  # type: ignore[arg-type]
        done = subprocess.run(line, capture_output=True, text=True, timeout=TIMEOUT_S)
        if done.returncode:
            raise subprocess.CalledProcessError(done.returncode, list(command), done.stdout, done.stderr)
        return done.stdout
