"""The files of the page that a node shows in a browser: read once, and found in a table by their names.

No name that a client sends ever becomes a path: what is not in the table is not there.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

FOLDER: Final = Path(__file__).parents[1] / "page"
# The file that is the page itself; all others are what it loads.
INDEX: Final = "index.html"
# Content-Type by the end of a file's name. A file with another end is not served.
_TYPES: Final[Mapping[str, str]] = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".txt": "text/plain; charset=utf-8",
}
# Compressed already; the others are texts.
_NOT_PACKED: Final = (".png",)


class PageFile(NamedTuple):
    """A file of the page, as it is served.

    packed: its bytes compressed by gzip; None where that would gain nothing.  digest: a hash of its bytes, for entity tags.
    """

    media_type: str
    data: bytes
    packed: bytes | None
    digest: str


@functools.cache
def page_files() -> Mapping[str, PageFile]:
    """Return the files of the page by their names, which are paths below the page's folder with ``/`` between their parts."""
    found = {}
    for path in sorted(FOLDER.rglob("*")):
        media_type = _TYPES.get(path.suffix)
        if media_type is not None and path.is_file():
            found[path.relative_to(FOLDER).as_posix()] = _page_file(path, media_type)
    return found


def _page_file(path: Path, media_type: str) -> PageFile:
    data = path.read_bytes()
    # Without a time stamp the bytes are the same on every node of one build, and so is their entity tag.
    packed = None if path.suffix in _NOT_PACKED else gzip.compress(data, mtime=0)
    if packed is not None and len(packed) >= len(data):
        packed = None
    return PageFile(media_type, data, packed, hashlib.sha256(data).hexdigest()[:32])
