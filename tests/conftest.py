"""What holds for all tests: Hypothesis draws the same examples each time, and others with RANDOM_EXAMPLES=1."""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile("suite", derandomize=not os.environ.get("RANDOM_EXAMPLES"), deadline=None)
settings.load_profile("suite")
