"""Fixtures of the REST tests: the fake store, an application over it, and a client of that."""

from __future__ import annotations

import pytest
from rest.client import Client
from rest.fake_store import FakeStore

from cacheflow.rest.app import RestApp, create_app
from cacheflow.rest.request.context import RestConfig


@pytest.fixture
def store() -> FakeStore:
    store = FakeStore()
    store.value_bytes_max = 100_000
    return store


@pytest.fixture
def app(store: FakeStore) -> RestApp:
    return create_app(store, RestConfig())


@pytest.fixture
def client(app: RestApp) -> Client:
    return Client(app)
