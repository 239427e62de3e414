"""The page's files: what is served, to whom, under which headers, and nothing beside them."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

import pytest
from fakes.users import access_of
from rest.client import Client
from rest.fake_store import FakeStore

import cacheflow
from cacheflow.rest.app import create_app
from cacheflow.rest.page_files import FOLDER, INDEX, page_files
from cacheflow.rest.request.context import RestConfig
from cacheflow.rest.request.headers import takes_gzip

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"
SCRIPT = "/page/vendor/uPlot.iife.min.js"
VENDORED = FOLDER / "vendor"


def test_a_browser_is_shown_the_page_and_a_program_where_the_specification_is(client: Client) -> None:
    page = client.get("/", headers={"Accept": BROWSER})
    assert page.content_type == "text/html; charset=utf-8" and page.data == (FOLDER / INDEX).read_bytes()
    for accept in ("*/*", "application/json", "", "text/html;q=0.2,application/json"):
        told = client.get("/", headers={"Accept": accept})
        assert told.json == {"service": "CacheFlow", "specification": "/openapi.json"}
        assert client.get(told.json["specification"]).status_code == 200
    # A cache on the way must not give one of them the other's.
    assert "Accept" in page.headers.getlist("Vary") and "Accept" in told.headers.getlist("Vary")


def test_nobody_needs_a_token_for_the_files_and_the_data_need_one() -> None:
    client = Client(create_app(FakeStore(), RestConfig(access=access_of(b"s" * 16))))
    assert client.get("/", headers={"Accept": BROWSER}).status_code == 200
    assert client.get(SCRIPT).status_code == 200
    assert client.get("/cluster/status").status_code == 401


@pytest.mark.parametrize("path", ["/", SCRIPT, "/page/vendor/uPlot.min.css"])
def test_only_this_nodes_own_scripts_run_and_no_other_page_holds_it(client: Client, path: str) -> None:
    headers = client.get(path, headers={"Accept": BROWSER}).headers
    policy = dict(part.strip().partition(" ")[::2] for part in headers["Content-Security-Policy"].split(";"))
    assert policy == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self' data:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    assert headers["X-Content-Type-Options"] == "nosniff" and headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cross-Origin-Opener-Policy"] == headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert headers["Cache-Control"] == "no-cache" and headers["X-Served-By"]


def test_a_file_is_not_sent_again_to_who_has_it(client: Client) -> None:
    for encoding in ({}, {"Accept-Encoding": "gzip"}):
        first = client.get(SCRIPT, headers=encoding)
        tag = first.headers["ETag"]
        for known in (tag, f'"other", W/{tag}', "*"):
            again = client.get(SCRIPT, headers={**encoding, "If-None-Match": known})
            assert (again.status_code, again.data, again.headers["ETag"]) == (304, b"", tag)
            assert again.headers["Content-Security-Policy"]
        assert client.get(SCRIPT, headers={**encoding, "If-None-Match": '"other"'}).data == first.data
    assert client.get(SCRIPT, headers={"If-None-Match": "no tag"}).status_code == 400
    # Of one encoding a cache must not say that the client has the other.
    assert client.get(SCRIPT, headers={"If-None-Match": tag}).status_code == 200


def test_a_file_is_compressed_for_who_takes_it(client: Client) -> None:
    plain, packed = client.get(SCRIPT), client.get(SCRIPT, headers={"Accept-Encoding": "gzip, br"})
    assert packed.headers["Content-Encoding"] == "gzip" and "Content-Encoding" not in plain.headers
    assert gzip.decompress(packed.data) == plain.data and len(packed.data) < len(plain.data) / 2
    for answer in (plain, packed):
        assert "Accept-Encoding" in answer.headers.getlist("Vary")


@pytest.mark.parametrize(
    ("header", "takes"),
    [
        ("gzip", True),
        ("br, GZIP;q=0.5", True),
        ("*", True),
        ("", False),
        ("br", False),
        ("gzip;q=0", False),
        ("*, gzip;q=0", False),
        ("gzip;q=nonsense", True),
    ],
)
def test_who_takes_gzip_says_so(header: str, takes: bool) -> None:
    assert takes_gzip(header) == takes


def test_head_has_the_headers_alone(client: Client) -> None:
    got, head = client.get(SCRIPT), client.head(SCRIPT)
    assert (head.status_code, head.data) == (200, b"")
    assert head.headers["Content-Length"] == str(len(got.data)) and head.headers["ETag"] == got.headers["ETag"]


@pytest.mark.parametrize(
    "name",
    [
        *("../contract.py", "..%2fcontract.py", "%2e%2e/contract.py", "vendor/../../contract.py"),
        *("", "vendor", "vendor/", "/vendor/uPlot.min.css", "vendor//uPlot.min.css", "nothing.js", INDEX),
        *("%00", "vendor/uPlot.min.css%00", "VENDOR/UPLOT.MIN.CSS", "..\\contract.py", "~/x", "%ff"),
    ],
)
def test_no_name_leads_anywhere_but_to_a_file_of_the_page(client: Client, name: str) -> None:
    answer = client.get(f"/page/{name}")
    assert answer.status_code == 404 and answer.content_type == "application/problem+json"


def test_every_file_of_the_folder_is_served(client: Client) -> None:
    there = {path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*") if path.is_file()}
    assert there == page_files().keys()
    for name in there - {INDEX}:
        answer = client.get(f"/page/{name}")
        assert answer.data == (FOLDER / name).read_bytes() and "octet-stream" not in answer.content_type
    assert Path(cacheflow.__file__).parent / "page" == FOLDER


def test_what_comes_from_others_is_what_it_is_said_to_be() -> None:
    about, *lines = (VENDORED / "SOURCES.txt").read_text().splitlines()
    lines = [line for line in lines if not line.startswith("#")]
    noted = {name: digest for digest, name in (line.split() for line in lines)}
    found = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in VENDORED.iterdir()
        if path.name != "SOURCES.txt"
    }
    assert found == noted
    version = about.split()[2]
    assert f"uPlot (v{version})" in (VENDORED / "uPlot.iife.min.js").read_text()[:100]


def test_the_page_has_no_script_and_no_style_in_its_text_which_its_policy_would_forbid() -> None:
    text = (FOLDER / INDEX).read_text()
    assert "<style" not in text and " style=" not in text and "javascript:" not in text
    for script in text.split("<script")[1:]:
        assert script.partition(">")[2].startswith("</script>")
