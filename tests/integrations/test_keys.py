"""Keys that a visitor has typed: stored as they are, or by their hash, and never two in one place."""

from __future__ import annotations

import pytest

from cacheflow.integrations.keys import HASHED, PLAIN_BYTES_MAX, storable
from cacheflow.values import check_key

ODD = ["", "a\nb", "a\x7fb", "a\x85b", "\ud800", "k" * 701, "é" * 351, HASHED, HASHED + "0" * 64]


@pytest.mark.parametrize("key", ["k", "view//shop?page=2", "ключ", "a b", "\u2028", "k" * PLAIN_BYTES_MAX])
def test_an_honest_key_stays_as_it_is(key: str) -> None:
    assert storable(key) == check_key(key)


@pytest.mark.parametrize("key", ODD)
def test_any_other_key_is_stored_by_its_hash(key: str) -> None:
    assert storable(key) == check_key(storable(key)) != key
    assert storable(storable(key)) != storable(key)


def test_no_two_keys_share_a_place() -> None:
    assert len({storable(key) for key in ODD}) == len(ODD)


@pytest.mark.parametrize("key", ODD[1:])
def test_a_hash_stands_behind_the_prefix_by_which_it_is_removed(key: str) -> None:
    stored = storable(key, "shop:")
    assert check_key(stored).startswith("shop:" + HASHED)
    assert storable(stored.removeprefix("shop:"), "shop:") != stored


def test_a_prefix_that_no_cluster_takes_is_hashed_with_its_key() -> None:
    for prefix in ("a\n", "p" * 2000, "\ud800"):
        assert storable("k", prefix) == check_key(storable(prefix + "k"))
    assert storable("", "shop:") == "shop:"
