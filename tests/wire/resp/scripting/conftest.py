"""Scripts need lupa, as the tests' environment has it."""

from __future__ import annotations

import pytest

pytest.importorskip("lupa.lua51", reason="scripts need lupa, which the extra `lua` installs")
