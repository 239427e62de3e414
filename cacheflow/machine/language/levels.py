"""The feature level: a number for what a build can write into the log and carry out.

A node tells its own when it opens a session, so that the machine knows what each member's build can do.
"""

from __future__ import annotations

from typing import Final

# The highest level that this build knows.
BUILD_LEVEL: Final = 1
