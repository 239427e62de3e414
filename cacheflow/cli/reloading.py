"""Reloading: what a node's process reads again when it gets SIGHUP.

Whatever may be renewed while the node runs has one function in the list. A signal's handler only notes that the signal came; the
main thread, which has nothing else to do, calls the functions.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from cacheflow.errors import CacheFlowError

logger = logging.getLogger(__name__)

# Reads one file, or some that belong together, again. Raises CacheFlowError, and changes nothing then.
Reload = Callable[[], None]


def reload_all(functions: Sequence[Reload]) -> None:
    """Call each of ``functions`` after a SIGHUP; each reads some files (certificates, users) again.

    If a function fails, a line in the log says so, and the content that the node had read before stays in force.
    """
    if not functions:
        logger.info(
            "SIGHUP: nothing is read again, for this node has no certificate, no --users-file and no --api-token-file"
        )
    for function in functions:
        try:
            function()
        except CacheFlowError as error:
            logger.error("not reloaded, and what was in force goes on: %s", error)
        except Exception:  # the others are to be reloaded all the same
            logger.exception("not reloaded, and what was in force goes on")
