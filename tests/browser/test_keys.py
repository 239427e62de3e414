"""The view of keys: found, read, written, counted down and followed live, whatever stands in them."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

from browser.watched import Held, Watched, hide, traced
from cluster.processes import NodeProcess, Nodes, wait_for
from playwright.sync_api import Browser, Page, expect

MANY = 100_000
# Longer ones make a page stutter.
SCRIPT_MS_MAX = 50


def fill(node: NodeProcess, count: int) -> None:
    """Write ``count`` keys many:000000 to many:…, a thousand with each request."""
    with node.connect() as connection:
        for start in range(0, count, 1000):
            ops = [{"op": "set", "key": f"many:{n:06}", "value": f"v{n}"} for n in range(start, start + 1000)]
            assert connection.request("POST", "/cache/_batch", {"ops": ops}).status == 200


def shown_keys(page: Page) -> list[str]:
    keys: list[str] = page.locator("#view-keys .keys li").evaluate_all("rows => rows.map(row => row.dataset.key)")
    return keys


def value_of(page: Page) -> Any:
    return page.get_by_role("region", name="Value")


def test_a_key_set_on_one_node_appears_on_the_page_of_another(trio: Nodes, reader: Watched) -> None:
    page = reader.open(trio[1].url, "keys?prefix=user:")
    expect(page.get_by_text("No key begins so")).to_be_visible()
    trio[0].put("user:2", "Grace")
    trio[0].put("user:1", "Ada", ttl=600)
    trio[0].put("other", "not seen")
    expect(page.locator("#view-keys .keys li")).to_have_count(2)
    assert shown_keys(page) == ["user:1", "user:2"]
    page.get_by_role("link", name="user:1").click()
    expect(value_of(page)).to_have_text("Ada")
    expect(page.locator(".detail")).to_contain_text(re.compile(r"(9 min \d+ s|10 min 0 s) more"))
    before = page.locator(".detail .facts").inner_text()
    expect(page.locator(".detail .facts")).not_to_have_text(before)
    # Changed elsewhere: seen here without a click, and told.
    trio[2].put("user:1", "Ada Lovelace")
    expect(value_of(page)).to_have_text("Ada Lovelace")
    expect(page.locator(".detail .notice")).to_contain_text("Changed: now version")
    trio[2].ask("DELETE", "/cache?prefix=user:")
    expect(page.locator("#view-keys .keys li")).to_have_count(0)
    expect(page.locator(".detail")).to_contain_text("This node knows no such key")


def test_a_shown_key_is_followed_whatever_is_listed_and_read_again_when_the_page_is_seen_again(
    trio: Nodes, reader: Watched
) -> None:
    trio[0].put("user:1", "one")
    page = reader.open(trio[0].url, "keys?key=user:1&prefix=other:")
    expect(value_of(page)).to_have_text("one")
    expect(page.get_by_text("No key begins so")).to_be_visible()
    trio[1].put("user:1", "two")
    expect(value_of(page)).to_have_text("two")
    hide(page, True)
    trio[0].put("user:1", "three")
    hide(page, False)
    expect(value_of(page)).to_have_text("three")
    hide(page, True)
    trio[0].ask("DELETE", "/cache/user:1")
    hide(page, False)
    expect(page.locator(".detail")).to_contain_text("This node knows no such key")
    # Of those that are listed, too.
    trio[0].put("other:1", "one")
    page.get_by_role("link", name="other:1").click()
    expect(value_of(page)).to_have_text("one")
    hide(page, True)
    trio[0].put("other:1", "two")
    hide(page, False)
    expect(value_of(page)).to_have_text("two")


def test_the_form_of_a_large_json_opens_at_once(trio: Nodes, reader: Watched) -> None:
    numbers = list(range(80_000))
    trio[0].put("numbers", numbers)
    page = reader.open(trio[0].url, "keys?key=numbers")
    page.get_by_role("button", name="Change").click()
    # Far more than it takes, and far less than where each number costs what all before it do.
    value = page.get_by_label("Value", exact=True).input_value(timeout=10_000)
    assert json.loads(value) == numbers


def test_a_key_that_expires_goes_by_itself(trio: Nodes, reader: Watched) -> None:
    trio[0].put("short", "x", ttl=2)
    page = reader.open(trio[1].url, "keys?key=short")
    expect(page.locator(".detail")).to_contain_text(re.compile(r"[\d.]+ s more|expired"))
    expect(page.locator(".detail")).to_contain_text("This node knows no such key")
    expect(page.locator("#view-keys .keys li")).to_have_count(0)


def test_a_new_key_is_written_as_text_or_json_and_not_over_another(trio: Nodes, reader: Watched) -> None:
    page = reader.open(trio[0].url, "keys")
    page.get_by_role("button", name="New key").click()
    expect(page.get_by_label("Key", exact=True)).to_be_focused()
    page.get_by_label("Key", exact=True).fill("made")
    page.get_by_label("Value", exact=True).fill('{"a": 12345678901234567890')
    page.get_by_label("Kind").select_option("json")
    page.get_by_label("Expiry").select_option("seconds")
    page.get_by_label("Seconds").fill("120")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("alert")).to_contain_text("Nothing was written: this is no JSON")
    page.get_by_label("Value", exact=True).fill('{"a": 12345678901234567890}')
    page.get_by_role("button", name="Save").click()
    # A number that JavaScript cannot hold comes through unchanged, in both directions.
    expect(value_of(page)).to_contain_text('"a": 12345678901234567890')
    answer = trio[0].ask("GET", "/cache/made")
    assert answer.body["value"] == {"a": 12345678901234567890} and 100 < answer.body["ttl"] <= 120
    page.get_by_role("button", name="New key").click()
    page.get_by_label("Key", exact=True).fill("made")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("alert")).to_contain_text("Nothing was written: there is such a key already")
    assert trio[0].value("made") == {"a": 12345678901234567890}
    # An expiry that is not wanted any more holds up nothing, however wrong it is.
    page.get_by_label("Key", exact=True).fill("made for good")
    page.get_by_label("Expiry").select_option("seconds")
    page.get_by_label("Seconds").fill("0")
    page.get_by_label("Expiry").select_option("none")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("heading", name="made for good")).to_be_visible()
    assert trio[0].ask("GET", "/cache/made%20for%20good").body["ttl"] is None
    # Who gives up the form is rid of it.
    page.goto(f"{trio[0].url}/#keys")
    page.get_by_role("button", name="New key").click()
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_text("Choose a key")).to_be_visible()
    expect(page.get_by_role("button", name="Save")).to_have_count(0)


def test_nobodys_change_is_overwritten_unseen(trio: Nodes, reader: Watched) -> None:
    trio[0].put("shared", "first", ttl=500)
    page = reader.open(trio[0].url, "keys?key=shared")
    page.get_by_role("button", name="Change").click()
    page.get_by_label("Value", exact=True).fill("mine")
    # The answer to the page's question is kept back, so that it does not know yet what it will be told.
    page.route("**/cache/shared*", lambda route: route.abort() if route.request.method != "PUT" else route.continue_())
    trio[1].put("shared", "theirs", ttl=500)
    wait_for(lambda: trio[0].value("shared") == "theirs")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("alert")).to_contain_text("Nothing was written: somebody has changed this key")
    assert trio[0].value("shared") == "theirs"
    page.unroute_all()
    page.get_by_role("button", name="Show the present value").click()
    page.get_by_role("button", name="Give it up").click()
    expect(value_of(page)).to_have_text("theirs")
    page.get_by_role("button", name="Change").click()
    page.get_by_label("Value", exact=True).fill("mine, knowing")
    trio[1].put("shared", "theirs again", ttl=500)
    expect(page.get_by_role("alert")).to_contain_text("Somebody has changed this key: it is at version")
    expect(page.get_by_label("Value", exact=True)).to_have_value("mine, knowing")
    page.get_by_role("button", name="Show the present value").click()
    page.get_by_role("button", name="Give it up").click()
    page.get_by_role("button", name="Change").click()
    page.get_by_label("Value", exact=True).fill("mine at last")
    page.get_by_role("button", name="Save").click()
    expect(value_of(page)).to_have_text("mine at last")
    # The expiry stays as it was.
    assert trio[0].ask("GET", "/cache/shared").body["ttl"] > 100


def test_a_key_is_deleted_only_when_the_reader_says_so(trio: Nodes, reader: Watched) -> None:
    trio[0].put("going", 1)
    page = reader.open(trio[0].url, "keys?key=going")
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Delete").click()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    assert trio[0].value("going") == 1
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.get_by_text("Choose a key")).to_be_visible()
    assert trio[0].value("going") is None
    expect(page.locator("#view-keys .keys li")).to_have_count(0)


def test_a_write_without_an_answer_is_not_said_not_to_have_taken_place(trio: Nodes, reader: Watched) -> None:
    trio[0].put("unsure", 1)
    page = reader.open(trio[0].url, "keys?key=unsure")
    late = {"status": 504, "json": {"detail": "the outcome is unknown"}}
    page.route(
        "**/cache/unsure*",
        lambda route: route.fulfill(**late) if route.request.method == "DELETE" else route.continue_(),
    )
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.locator(".detail .notice")).to_contain_text("It is not known whether it was deleted: the outcome")


def test_an_outcome_is_said_where_the_reader_is_and_takes_no_other_form_away(trio: Nodes, reader: Watched) -> None:
    trio[0].put("left", "old")
    trio[0].put("next", "other")
    page = reader.open(trio[0].url, "keys?key=left")
    field = page.get_by_label("Value", exact=True)
    outcomes = page.locator("#outcomes")
    held = Held(page, "**/cache/left*", "PUT", "DELETE")

    def go_on() -> None:
        page.locator(".keys").get_by_role("link", name="next").click()
        expect(page.locator(".detail h3")).to_have_text("next")
        if page.get_by_role("button", name="Save").count() == 0:
            page.get_by_role("button", name="Change").click()
        field.fill("typed")

    page.get_by_role("button", name="Change").click()
    field.fill("mine")
    page.get_by_role("button", name="Save").click()
    saving = held.next()
    go_on()
    saving.fulfill(status=504, json={"detail": "the outcome is unknown"})
    expect(outcomes).to_contain_text("left: It is not known whether it was written: the outcome is unknown")
    expect(field).to_have_value("typed")
    # What was typed is still there, with what became of it.
    outcomes.get_by_role("link", name="left").click()
    expect(field).to_have_value("mine")
    trio[1].put("left", "theirs")
    expect(page.get_by_role("alert")).to_have_text(
        re.compile("^It is not known whether it was written: .* Somebody has changed this key: it is at version")
    )
    outcomes.get_by_role("button", name="Close").click()
    page.get_by_role("button", name="Show the present value").click()
    page.get_by_role("button", name="Give it up").click()
    page.get_by_role("button", name="Change").click()
    field.fill("mine")
    page.get_by_role("button", name="Save").click()
    saving = held.next()
    go_on()
    saving.continue_()
    expect(outcomes).to_contain_text("left: written.")
    expect(field).to_have_value("typed")
    assert trio[0].value("left") == "mine" and "key=next" in page.url
    for answer, told in ((503, "left: Not deleted: busy."), (204, "left: deleted.")):
        page.locator(".keys").get_by_role("link", name="left").click()
        page.get_by_role("button", name="Delete").click()
        page.get_by_role("dialog").get_by_role("button", name="Delete").click()
        deleting = held.next()
        go_on()
        deleting.fulfill(status=answer, body='{"detail": "busy"}' if answer == 503 else None)
        expect(outcomes).to_contain_text(told)
        expect(page.locator(".detail")).not_to_contain_text("busy")
        expect(field).to_have_value("typed")


def test_what_was_typed_is_kept_until_it_is_written_or_given_up(trio: Nodes, reader: Watched) -> None:
    trio[0].put("one", "old", ttl=900)
    trio[0].put("two", "other")
    page = reader.open(trio[0].url, "keys?key=one")
    key, field = page.get_by_label("Key", exact=True), page.get_by_label("Value", exact=True)
    page.get_by_role("button", name="Change").click()
    field.fill("typed")
    # To another view and back by its name, where no key is chosen any more.
    page.locator('header nav a[href="#events"]').click()
    page.locator('header nav a[href="#keys"]').click()
    begun = page.locator(".detail p", has_text="Begun and not written")
    begun.get_by_role("link", name="one").click()
    expect(field).to_have_value("typed")
    page.locator(".keys").get_by_role("link", name="two").click()
    expect(value_of(page)).to_have_text("other")
    page.go_back()
    expect(field).to_have_value("typed")
    page.get_by_role("button", name="New key").click()
    key.fill("half")
    page.locator(".keys").get_by_role("link", name="two").click()
    page.get_by_role("button", name="New key").click()
    expect(key).to_have_value("half")
    page.get_by_role("button", name="Cancel").click()
    expect(begun.get_by_role("link")).to_have_text(["one"])
    # Somebody deletes the key meanwhile: it is written anew, and over nobody's.
    begun.get_by_role("link", name="one").click()
    trio[1].ask("DELETE", "/cache/one")
    expect(page.get_by_role("alert")).to_have_text(re.compile("^This key is gone meanwhile"))
    page.get_by_role("button", name="Save as a new key").click()
    expect(value_of(page)).to_have_text("typed")
    assert trio[0].value("one") == "typed"
    # A form in which nothing was typed is not kept.
    page.get_by_role("button", name="Change").click()
    page.locator(".keys").get_by_role("link", name="two").click()
    page.locator('header nav a[href="#keys"]').click()
    expect(page.get_by_text("Choose a key")).to_be_visible()
    expect(begun).to_have_count(0)


def test_the_focus_goes_where_the_reader_goes_on(trio: Nodes, reader: Watched) -> None:
    for number in range(40):
        trio[0].put(f"key:{number:02}", "x")
    page = reader.open(trio[0].url, "keys")
    page.set_viewport_size({"width": 360, "height": 740})
    heading, notice = page.locator(".detail h3"), page.locator(".detail .notice")
    page.get_by_role("link", name="key:01").press("Enter")
    expect(heading).to_have_text("key:01")
    expect(heading).to_be_focused()
    expect(heading).to_be_in_viewport()
    page.get_by_role("button", name="Change").press("Enter")
    page.get_by_label("Value", exact=True).fill("mine")
    page.get_by_role("button", name="Save").press("Enter")
    expect(value_of(page)).to_have_text("mine")
    expect(heading).to_be_focused()
    expect(notice).to_have_text("Written.")
    # Who goes on elsewhere while it is saved is left there.
    held = Held(page, "**/cache/key%3A01*", "PUT")
    page.get_by_role("button", name="Change").press("Enter")
    page.get_by_role("button", name="Save").press("Enter")
    saving = held.next()
    page.get_by_label("Keys that begin with").focus()
    saving.continue_()
    expect(value_of(page)).to_have_text("mine")
    expect(page.get_by_label("Keys that begin with")).to_be_focused()
    page.get_by_role("button", name="New key").press("Enter")
    page.get_by_label("Key", exact=True).fill("new")
    page.get_by_label("Key", exact=True).press("Enter")
    expect(heading).to_have_text("new")
    expect(heading).to_be_focused()
    expect(notice).to_have_text("Written.")
    page.get_by_role("button", name="Delete").press("Enter")
    page.get_by_role("dialog").get_by_role("button", name="Delete").press("Enter")
    expect(notice).to_have_text("new: deleted.")
    expect(heading).to_be_focused()
    page.wait_for_url("**/#keys")
    expect(notice).to_have_text("new: deleted.")


def test_a_hash_that_is_no_text_is_said_to_be_in_base64(trio: Nodes, reader: Watched) -> None:
    found = {"value": {"field": "w6k="}, "type": "hash", "encoding": "base64", "version": 7, "ttl": None}
    reader.context.route("**/cache/binary?*", lambda route: route.fulfill(json=found))
    page = reader.open(trio[0].url, "keys?key=binary")
    expect(page.locator(".detail .facts dd").first).to_have_text("hash, in base64")
    expect(page.locator(".detail .facts")).to_contain_text("16 bytes, as JSON")


def test_a_download_is_named_like_the_key_that_was_asked_for(trio: Nodes, reader: Watched) -> None:
    trio[0].put("first", "1")
    trio[0].put("second", "2")
    page = reader.open(trio[0].url, "keys?key=first")
    held = Held(page, "**/cache/first?raw*", "GET")
    page.get_by_role("button", name="Download").click()
    asked = held.next()
    page.get_by_role("link", name="second").click()
    expect(value_of(page)).to_have_text("2")
    with page.expect_download() as download:
        asked.fulfill(body="1")
    assert download.value.suggested_filename == "first"


def test_keys_of_another_prefix_are_said_to_be_so_and_go_when_it_is_refused(trio: Nodes, reader: Watched) -> None:
    trio[0].put("a:1", 1)
    page = reader.open(trio[0].url, "keys?prefix=a:")
    keys = page.locator("#view-keys .keys")
    field = page.get_by_label("Keys that begin with")
    expect(keys.locator("li")).to_have_count(1)
    held = Held(page, re.compile(r"/cache\?prefix=b"), "GET")
    field.fill("b:")
    listing = held.next()
    expect(page.locator("#view-keys")).to_contain_text("Asking … Here are still keys that begin with a:.")
    expect(keys).to_have_attribute("aria-busy", "true")
    listing.fulfill(status=400, json={"detail": "no such prefix"})
    expect(page.locator("#view-keys .age")).to_have_text("Nothing to show yet: no such prefix.")
    expect(keys.locator("li")).to_have_count(0)
    # Who goes to another view while a prefix is not asked for yet is left there.
    field.fill("a:")
    page.locator('header nav a[href="#members"]').click()
    page.wait_for_timeout(400)
    assert page.url.endswith("#members")


def test_a_change_leaves_the_line_ends_as_they_are(trio: Nodes, reader: Watched) -> None:
    trio[0].put("ends", "one\r\ntwo\r\n")
    page = reader.open(trio[0].url, "keys?key=ends")

    def save(text: str | None = None) -> None:
        page.get_by_role("button", name="Change").click()
        if text is not None:
            page.get_by_label("Value", exact=True).fill(text)
        page.get_by_role("button", name="Save").click()
        expect(page.get_by_role("button", name="Change")).to_be_visible()

    save("one\ntwo\nthree")
    assert trio[0].value("ends") == "one\r\ntwo\r\nthree"
    trio[0].put("ends", "mixed\r\nthree\nfour\rfive")
    expect(value_of(page)).to_contain_text("mixed")
    page.get_by_role("button", name="Change").click()
    expect(page.locator(".detail")).to_contain_text("Its lines do not all end alike")
    page.get_by_role("button", name="Cancel").click()
    save()
    assert trio[0].value("ends") == "mixed\r\nthree\nfour\rfive"
    save("mixed\nfour")
    assert trio[0].value("ends") == "mixed\nfour"


def test_bytes_are_shown_in_hex_and_base64_and_large_values_are_cut(
    trio: Nodes, reader: Watched, tmp_path: Path
) -> None:
    bytes_ = bytes(range(256)) * 40
    with trio[0].connect() as connection:
        connection._http.request("PUT", "/cache/picture", bytes_, {"Content-Type": "image/png"})
        assert connection._http.getresponse().read()
    long = "lorem ipsum " * 50_000
    trio[0].put("long", long)
    page = reader.open(trio[0].url, "keys?key=picture")
    expect(value_of(page)).to_contain_text("000010  10 11 12 13")
    expect(page.locator(".detail")).to_contain_text("bytes, image/png")
    expect(page.locator(".detail")).to_contain_text("Only the first 2,048 bytes are shown")
    page.get_by_role("button", name="As base64").click()
    expect(value_of(page)).to_contain_text("AAECAwQF")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download").click()
    download.value.save_as(tmp_path / "picture")
    assert (tmp_path / "picture").read_bytes() == bytes_
    # Nobody empties them by saving a form in which nothing was typed.
    page.get_by_role("button", name="Change").click()
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("dialog")).to_contain_text("Put an empty text in the place of the bytes?")
    # Who leads the browser elsewhere is asked no more.
    page.evaluate("location.hash = '#keys?key=long'")
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert trio[0].ask("GET", "/cache/picture").body["content_type"] == "image/png"
    expect(page.locator(".detail")).to_contain_text("Only the first 20,000 characters are shown")
    expect(value_of(page)).to_have_text(re.compile("^lorem ipsum"))
    assert len(value_of(page).inner_text()) <= 20_000


HOSTILE = [
    "<img src=x onerror=alert(1)>",
    "\u202eevil\u2066\u200b\ufeff",
    "a/../b",
    "%2e%2e/x?y#z&key=other",
    "__proto__",
    "😀\U000e0041",
    '"><script>alert(1)</script>',
    "x" * 1000,
]


def test_hostile_keys_and_values_are_shown_and_do_nothing(trio: Nodes, reader: Watched) -> None:
    for key in HOSTILE:
        trio[0].put(key, f"{key}\u0007\u009b <script>alert(1)</script>")
    page = reader.open(trio[0].url, "keys")
    expect(page.locator("#view-keys .keys li")).to_have_count(len(HOSTILE))
    assert shown_keys(page) == sorted(HOSTILE)
    for at, key in enumerate(sorted(HOSTILE)):
        page.locator("#view-keys .keys a").nth(at).click()
        expect(page.locator("#view-keys .keys a").nth(at)).to_have_attribute("aria-current", "true")
        expect(value_of(page)).to_contain_text("<script>alert(1)</script>")
        shown = page.locator(".detail").inner_text()
        # What would turn around or hide what stands beside it is named instead.
        assert not re.search("[\u0007\u009b\u200b\u202a-\u202e\u2066-\u2069\ufeff]", shown) and "U+0007" in shown
        assert ("\u202e" in key) <= ("U+202E" in shown)
        # It can be changed as any other, and no other is.
        page.get_by_role("button", name="Change").click()
        page.get_by_label("Value", exact=True).fill(f"harmless {at}")
        page.get_by_role("button", name="Save").click()
        expect(value_of(page)).to_have_text(f"harmless {at}")
    expect(page.locator("main script, main img[src], main svg script")).to_have_count(0)
    assert [trio[0].ask("GET", f"/cache/{quote(key, safe='')}").body["value"] for key in sorted(HOSTILE)] == [
        f"harmless {at}" for at in range(len(HOSTILE))
    ]
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.locator("#view-keys .keys li")).to_have_count(len(HOSTILE) - 1)


def test_keys_of_blanks_are_told_apart_and_can_be_chosen(trio: Nodes, reader: Watched) -> None:
    keys = [" ", "  ", "ws  a", "ws a", "ws a ", "ws\u00a0a", "\u3000"]
    for key in keys:
        trio[0].put(key, "x")
    page = reader.open(trio[0].url, "keys")
    rows = page.locator("#view-keys .keys a")
    expect(rows).to_have_count(len(keys))
    assert len(set(rows.all_inner_texts())) == len(keys)
    rows.first.click()
    expect(page.locator(".detail h3")).to_have_text("U+0020")


def test_a_key_that_no_browser_can_name_says_so(trio: Nodes, reader: Watched) -> None:
    assert trio[0].ask("PUT", "/cache/%2E%2E", {"value": "up"}).status == 201
    page = reader.open(trio[0].url, "keys?key=..")
    expect(page.locator(".detail .notice")).to_contain_text("a browser cannot name this key")


def test_a_hundred_thousand_keys_are_paged_quickly_and_followed(trio: Nodes, reader: Watched, browser: Browser) -> None:
    fill(trio[0], MANY)
    scripts: list[tuple[float, str]] = []
    page = reader.open(trio[0].url, "cluster")
    with traced(browser, page, scripts):
        page.goto(f"{trio[0].url}/#keys?prefix=many:")
        page.locator("#view-keys .keys li").first.wait_for()
        assert page.locator("#view-keys .keys li").count() == 100
        began = time.perf_counter()
        page.locator(".keys").evaluate("list => (list.scrollTop = 500)")
        page.get_by_role("link", name="Next page").click()
        page.get_by_role("link", name="many:000100").wait_for()
        took_s = time.perf_counter() - began
    assert scripts and max(scripts)[0] < SCRIPT_MS_MAX, max(scripts)
    assert shown_keys(page)[0] == "many:000100" and len(shown_keys(page)) == 100
    assert took_s < 5
    # It is read from its beginning.
    expect(page.locator(".keys")).to_have_js_property("scrollTop", 0)
    # Live on this page: one that comes into it, one that goes, and one of another page.
    trio[1].put("many:000150.5", "between")
    expect(page.locator("#view-keys .keys li")).to_have_count(101)
    assert shown_keys(page)[51] == "many:000150.5"
    trio[1].put("many:000000.5", "before")
    trio[1].ask("DELETE", "/cache/many:000100")
    expect(page.locator("#view-keys .keys li")).to_have_count(100)
    assert "many:000000.5" not in shown_keys(page)
    page.get_by_role("link", name="Previous").click()
    page.get_by_role("link", name="many:000000", exact=True).wait_for()
    page.get_by_label("Keys that begin with").fill("many:0999")
    page.get_by_role("link", name="many:099900").wait_for()
    assert "prefix=many%3A0999" in page.url


def test_many_pages_of_a_node_do_not_keep_each_other_from_it(trio: Nodes, reader: Watched) -> None:
    # One more than the browser has connections to a host.
    pages = [reader.open(trio[0].url, "keys") for _ in range(7)]
    for page in pages:
        expect(page.get_by_text("There are no keys")).to_be_visible()
    trio[1].put("seen", "by all")
    for page in pages:
        expect(page.get_by_role("link", name="seen")).to_be_visible()
        expect(page.locator("#state")).to_contain_text("ready")


def test_a_watch_goes_on_behind_what_it_was_told_and_lists_anew_when_that_is_gone(trio: Nodes, reader: Watched) -> None:
    watches: list[str] = []
    page = reader.open(trio[0].url, "cluster")
    page.on("request", lambda request: watches.append(request.url) if "/watch?" in request.url else None)
    with page.expect_request("**/watch?*"):
        page.locator('header nav a[href="#keys"]').click()
    # The node is killed and comes back: the page asks for what came behind the position that it knows, is told that this is
    # gone, and lists the keys anew.
    gone = {"detail": "the position is not known any more", "oldest": "x"}
    # Not once: a request that the page gives up while the node takes long to start is answered, too.
    page.route("**/watch?*", lambda route: route.fulfill(status=410, json=gone))
    trio[0].kill()
    with page.expect_request(re.compile(r"/cache\?")):
        trio[0].start()
        trio.wait_whole()
    page.unroute_all()
    # The first may be in that list; the other comes by the watch that begins behind it.
    for key in ("after", "later"):
        trio[1].put(key, "it")
        expect(page.get_by_role("link", name=key)).to_be_visible()
    assert len(watches) >= 3 and all("since=" in url for url in watches)
