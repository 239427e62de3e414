"""What one node is told: addresses as texts."""

from __future__ import annotations

import pytest

from cacheflow.config import join_address, split_address


@pytest.mark.parametrize(("text", "parts"), [("h:1", ("h", 1)), ("[::1]:9080", ("::1", 9080))])
def test_addresses_are_split_and_joined(text: str, parts: tuple[str, int]) -> None:
    assert split_address(text) == parts
    assert join_address(*parts) == text


@pytest.mark.parametrize("text", ["", "h", "h:", ":1", "::1:1", "h:65536", "h:1x", "h:²", "h:-1"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        split_address(text)
