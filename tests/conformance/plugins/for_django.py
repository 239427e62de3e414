"""Django's tests of a cache back end, with ours: its own back ends' tests derive from the same class.

Culling is left out, as for Django's Redis back end: the cluster evicts by its own limits.
"""

from __future__ import annotations

from cache.tests import BaseCacheTests, caches_setting_for_tests  # type: ignore[import-not-found]
from django.conf import settings
from django.test import TestCase, override_settings


@override_settings(CACHES=caches_setting_for_tests(base=settings.CACHES["default"], exclude={"cull", "zero_cull"}))
class CacheFlowCacheTests(BaseCacheTests, TestCase):  # type: ignore[misc]
    """All of ``BaseCacheTests``, against three nodes."""
