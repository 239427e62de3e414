"""The feature levels: which level brought each word of the log, so that two builds never read one entry differently.

1. A build knows all levels up to its own, ``BUILD_LEVEL``. The cluster has one level *in force*, part of the replicated
   state; it is raised by a command once every member has told that its build knows the higher one, and never lowered.
2. An entry carries the level that was in force where it was appended. What is above its entry's level, a command, a field
   or a range of values, is malformed on every build alike: on one that knows it as on one that does not.
3. An entry above a build's own level is not for that build: it stops before any of it is appended or applied.
4. What is new is declared here with the level that brings it, and is neither proposed, sent nor written while a lower one
   is in force. Until the raise a node may therefore go back to the build before.

The level of a command stands beside its number (``commands.py``), that of a message beside its fields
(``raft/message_types.py``), that of a kind of entry beside it (``raft/log/records.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeVar

# The highest level that this build knows.
BUILD_LEVEL: Final = 1
# The level at which every cluster begins.
FIRST_LEVEL: Final = 1

T = TypeVar("T")


def known_at(level: int, since: Mapping[int, int], words: Mapping[int, T]) -> dict[int, T]:
    """Return those of ``words`` that builds of the feature level ``level`` know.

    words: {number of a command, or other word of the log's format: meaning}.  since: {word: the level that brought it}.
    """
    return {word: meaning for word, meaning in words.items() if since[word] <= level}
