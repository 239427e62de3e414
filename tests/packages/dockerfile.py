"""A Dockerfile, read: its stages and their instructions. Only what scripts/packaging/Dockerfile uses is known."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass, field

# These only describe, as far as a build goes.
DESCRIBING = ("VOLUME", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK", "ENTRYPOINT", "CMD", "USER", "ENV", "WORKDIR")
BUILDING = ("COPY", "RUN")


@dataclass(frozen=True)
class Instruction:
    """One instruction of a Dockerfile. name: in capitals.  rest: what stands behind it, as one line."""

    name: str
    rest: str

    @property
    def words(self) -> list[str]:
        """The words behind an instruction's name, without its options."""
        return [word for word in shlex.split(self.rest) if not word.startswith("--")]

    @property
    def options(self) -> dict[str, str]:
        """The instruction's options, by name without dashes."""
        given = [word for word in shlex.split(self.rest) if word.startswith("--")]
        return {name[2:]: value for name, _, value in (word.partition("=") for word in given)}

    @property
    def cache(self) -> str:
        """The folder that a RUN finds as the build before has left it; "" for none."""
        kind, _, target = self.options.get("mount", "").partition(",target=")
        assert kind in ("", "type=cache")
        return target

    @property
    def shell(self) -> str:
        """The command line that a RUN hands to its shell."""
        return re.sub(r"^(--\S+ )+", "", self.rest)

    @property
    def command(self) -> list[str]:
        """The command of an instruction that gives one as a JSON list."""
        command = json.loads(self.rest[self.rest.index("[") :])
        assert isinstance(command, list)
        return command


@dataclass
class Stage:
    """One stage of an image's build. image: that it begins with.  name: under which later stages copy from it."""

    image: str
    name: str
    instructions: list[Instruction] = field(default_factory=list)

    def last(self, name: str) -> Instruction:
        """Return the last instruction of that name. Raises AssertionError when there is none."""
        found = [each for each in self.instructions if each.name == name]
        assert found, f"the stage has no {name}"
        return found[-1]


def stages_of(text: str) -> list[Stage]:
    """Return the stages of a Dockerfile. Raises ValueError for an instruction that is not known here."""
    stages: list[Stage] = []
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        name, _, rest = line.strip().partition(" ")
        if name == "FROM":
            image, _, alias = rest.partition(" AS ")
            stages.append(Stage(image, alias))
        elif name in (*DESCRIBING, *BUILDING):
            stages[-1].instructions.append(Instruction(name, " ".join(rest.split())))
        else:
            raise ValueError(f"{name} is an instruction that is not known here")
    return stages
