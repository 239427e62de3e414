"""The view for operators, and what a user without the right role is told."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from browser.conftest import TOKENS
from browser.watched import Held, Watched
from cluster.processes import NodeProcess, Nodes, wait_for
from playwright.sync_api import Page, expect


def use_token(page: Page, token: str) -> None:
    """Give the page the token that it asks for, as a reader does."""
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("A user's token").fill(token)
    dialog.get_by_role("button", name="Use it").click()


def test_leadership_is_handed_over_and_a_member_is_demoted_and_promoted(trio: Nodes, reader: Watched) -> None:
    leader = trio.leader()
    heir = trio.others(leader)[0]
    page = reader.open(leader.url, "members")
    members = page.locator("#view-members")
    top = "table => table.getBoundingClientRect().top"
    before = page.get_by_role("table").evaluate(top)
    page.get_by_role("button", name=f"Make leader: {heir.node_id}").click()
    expect(members.locator(".wide .notice")).to_have_text(f"{heir.node_id} leads now.")
    # No button has moved under the pointer.
    assert page.get_by_role("table").evaluate(top) == before
    # The button is gone: its focus goes to no other one, which would do something else.
    expect(page.get_by_role("button", name=f"Make leader: {heir.node_id}")).to_have_count(0)
    expect(page.get_by_role("region", name="Members, and what can be done with them")).to_be_focused()
    assert trio.leader() is heir
    expect(page.get_by_role("button", name=f"Make leader: {leader.node_id}")).to_be_visible()
    page.get_by_role("button", name=f"Demote: {leader.node_id}").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("button", name="Demote it")).to_be_disabled()
    dialog.get_by_role("textbox").fill("node-")
    expect(dialog.get_by_role("button", name="Demote it")).to_be_disabled()
    dialog.get_by_role("textbox").fill(leader.node_id)
    dialog.get_by_role("button", name="Demote it").click()
    expect(members.locator(".wide .notice")).to_have_text(f"{leader.node_id} is an observer now.")
    page.get_by_role("button", name=f"Promote: {leader.node_id}").click()
    expect(members.locator(".wide .notice")).to_have_text(f"{leader.node_id} votes now.")
    page.get_by_role("button", name=f"Remove: {heir.node_id}").click()
    expect(dialog).to_contain_text(f"Take {heir.node_id} out of the cluster for good?")
    expect(dialog.get_by_role("button", name="Remove it")).to_be_disabled()
    dialog.get_by_role("textbox").fill(leader.node_id)
    expect(dialog.get_by_role("button", name="Remove it")).to_be_disabled()
    page.keyboard.press("Escape")
    assert len(leader.members()) == 3


def test_a_member_is_removed_and_the_page_of_another_node_shows_it_no_more(trio: Nodes, reader: Watched) -> None:
    extra = trio.add(["--role", "observer"]).start()
    try:
        wait_for(lambda: extra.node_id in trio[0].members())
        page = reader.open(trio[0].url, "members")
        held = Held(page, "**/nodes/*", "DELETE")
        page.get_by_role("button", name=f"Remove: {extra.node_id}").click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_role("textbox").fill(extra.node_id)
        dialog.get_by_role("button", name="Remove it").click()
        # A reader who has gone on to another view is told there.
        removal = held.next()
        page.locator('header nav a[href="#events"]').click()
        removal.continue_()
        expect(page.locator("#outcomes")).to_contain_text(f"{extra.node_id} is removed.")
        rows = reader.open(trio[1].url).locator("#view-cluster tbody tr")
        expect(rows).to_have_count(3)
        expect(rows.filter(has_text=extra.node_id)).to_have_count(0)
    finally:
        extra.kill()
        trio.all.remove(extra)


def test_what_is_typed_into_the_settings_stays_whatever_comes_meanwhile(trio: Nodes, reader: Watched) -> None:
    page = reader.open(trio[0].url, "members")
    field = page.get_by_label("Bytes of one value at most")
    expect(page.get_by_label("Keys at most")).to_have_value("200000")
    before = field.input_value()
    held = Held(page, "**/cluster/settings", "GET")
    assert trio[0].ask("PATCH", "/cluster/settings", {"max_items": 190000}).status == 200
    # Asked now, the node's status says that there is another version, and the page asks for it.
    page.evaluate("import('/page/node.js').then((module) => module.askAgain())")
    found = held.next()
    field.fill("1000")
    found.continue_()
    expect(page.locator("form .notice")).to_contain_text("Somebody has changed the settings")
    expect(field).to_have_value("1000")
    page.unroute_all()
    page.get_by_role("button", name="Show the present settings").click()
    expect(page.get_by_label("Keys at most")).to_have_value("190000")
    expect(field).to_have_value(before)
    assert trio[0].ask("PATCH", "/cluster/settings", {"max_items": 200000}).status == 200


def test_settings_are_changed_unless_somebody_else_has_changed_them(trio: Nodes, reader: Watched) -> None:
    page = reader.open(trio[0].url, "members")
    field = page.get_by_label("Keys at most")
    expect(field).to_have_value("200000")
    expect(page.get_by_role("button", name="Change settings")).to_be_disabled()
    field.fill("190000")
    page.get_by_role("button", name="Change settings").click()
    expect(page.locator("form .notice")).to_have_text("Changed.")
    assert trio[1].ask("GET", "/cluster/settings").body["max_items"] in (190000, 200000)
    wait_for(lambda: trio[1].ask("GET", "/cluster/settings").body["max_items"] == 190000)
    field.fill("180000")
    assert trio[0].ask("PATCH", "/cluster/settings", {"max_items": 200000}).status == 200
    page.get_by_role("button", name="Change settings").click()
    expect(page.locator("form .notice")).to_contain_text("omebody has changed the settings")
    assert trio[0].ask("GET", "/cluster/settings").body["max_items"] == 200000
    page.get_by_role("button", name="Show the present settings").click()
    expect(field).to_have_value("200000")
    # What takes something away is asked about first, with how much.
    for number in range(3):
        trio[0].put(f"held:{number}", "x" * 1000)
    dialog = page.get_by_role("dialog")
    for label, low, question in (
        ("Keys at most", "1", r"Of \d+ keys that the cluster holds, \d+ will go for good\."),
        ("Bytes at most", "1024", r"Of [\d.]+ KiB that the cluster holds, [\d.]+ (bytes|KiB) will go for good\."),
        ("Copies beside the leader's", "1", r"With 1 copy beside the leader's, members lose their votes\."),
    ):
        before = page.get_by_label(label).input_value()
        page.get_by_label(label).fill(low)
        page.get_by_role("button", name="Change settings").click()
        expect(dialog).to_contain_text(re.compile(question))
        dialog.get_by_role("button", name="Cancel").click()
        page.get_by_label(label).fill(before)
    assert trio[0].ask("GET", "/cluster/settings").body["max_items"] == 200000
    # One that the cluster cannot have is refused in its words.
    page.get_by_label("Bytes of one value at most").fill("999999999")
    page.get_by_role("button", name="Change settings").click()
    expect(page.locator("form .notice")).to_contain_text("Not changed: ")


def test_a_backup_is_taken_and_restored(trio: Nodes, reader: Watched, tmp_path: Path) -> None:
    trio[0].put("kept", "old")
    page = reader.open(trio[0].url, "members")
    with page.expect_download() as download:
        page.get_by_role("button", name="Take a backup").click()
    file = tmp_path / "taken.backup"
    download.value.save_as(file)
    assert download.value.suggested_filename.endswith(".backup") and file.stat().st_size > 0
    trio[0].put("kept", "new")
    page.get_by_label("A backup to restore").set_input_files(file)
    page.get_by_role("button", name="Restore …").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("textbox").fill("replace everything")
    dialog.get_by_role("button", name="Restore it").click()
    expect(page.get_by_text("Restored: 1 item.")).to_be_visible()
    assert trio[0].value("kept") == "old"
    # What is no backup changes nothing.
    (tmp_path / "broken").write_bytes(b"no backup" * 100)
    page.get_by_label("A backup to restore").set_input_files(tmp_path / "broken")
    page.get_by_role("button", name="Restore …").click()
    dialog.get_by_role("textbox").fill("replace everything")
    dialog.get_by_role("button", name="Restore it").click()
    expect(page.get_by_text("Not restored: ")).to_be_visible()
    assert trio[0].value("kept") == "old"


def test_a_node_that_asks_for_a_token_gets_the_right_one_and_keeps_it_nowhere(
    guarded: NodeProcess, reader: Watched
) -> None:
    page = reader.open(guarded.url)
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("This node asks for a token")
    expect(dialog.get_by_label("A user's token")).to_be_focused()
    use_token(page, "cf_nobody_has_this_token_here")
    expect(dialog).to_contain_text("This node does not know this token")
    use_token(page, TOKENS["read"])
    expect(dialog).to_be_hidden()
    expect(page.locator("#state")).to_contain_text("ready")
    expect(page.locator("#view-cluster tbody tr")).to_have_count(1)
    everything = "[localStorage, sessionStorage, document.cookie, location.href, document.documentElement.outerHTML]"
    assert TOKENS["read"] not in page.evaluate(f"JSON.stringify({everything})")
    assert not any(TOKENS["read"] in url for url in reader.asked)
    page.reload()
    expect(dialog).to_contain_text("This node asks for a token")


def test_a_key_that_was_refused_is_shown_once_a_token_is_typed(guarded: NodeProcess, reader: Watched) -> None:
    guarded.put("asked for", "seen")
    page = reader.open(guarded.url, "keys?key=asked%20for")
    expect(page.locator(".detail .notice")).to_contain_text("this node asks for a token")
    expect(page.locator(".detail")).not_to_contain_text("Asking …")
    use_token(page, f"{TOKENS['read']}…")
    expect(page.get_by_role("dialog")).to_contain_text("This is no token")
    use_token(page, TOKENS["read"])
    expect(page.get_by_role("region", name="Value")).to_have_text("seen")
    # Who forgets the token leaves nothing that it has shown.
    page.get_by_role("button", name="Token …").click()
    use_token(page, "")
    expect(page.locator(".detail .notice")).to_contain_text("this node asks for a token")
    expect(page.get_by_role("region", name="Value")).to_have_count(0)
    expect(page.locator("#view-keys .keys li")).to_have_count(0)


def test_settings_that_were_refused_are_still_there_once_a_token_is_typed(
    guarded: NodeProcess, reader: Watched
) -> None:
    page = reader.open(guarded.url, "members")
    use_token(page, TOKENS["read"])
    field = page.get_by_label("Keys at most")
    field.fill("900")
    page.get_by_role("button", name="Change settings").click()
    expect(page.locator("form .notice")).to_contain_text("Not changed: this needs the role admin")
    page.get_by_role("button", name="Token …").click()
    with page.expect_response("**/cluster/settings"):
        use_token(page, TOKENS["admin"])
    page.get_by_role("button", name="Change settings").click()
    expect(page.locator("form .notice")).to_have_text("Changed.")
    assert guarded.ask("GET", "/cluster/settings").body["max_items"] == 900


@pytest.mark.parametrize("role", ["read", "write"])
def test_what_a_role_may_not_do_is_told_plainly(guarded: NodeProcess, reader: Watched, role: str) -> None:
    guarded.put("here", "value")
    page = reader.open(guarded.url, "members")
    use_token(page, TOKENS[role])
    page.get_by_role("button", name="Demote: node-1").click()
    page.get_by_role("dialog").get_by_role("textbox").fill("node-1")
    page.get_by_role("dialog").get_by_role("button", name="Demote it").click()
    needs = f"this needs the role admin, and the user of this token has the role {role}"
    expect(page.locator("#view-members .wide .notice")).to_have_text(f"node-1: Not done: {needs}.")
    page.get_by_role("button", name="Take a backup").click()
    expect(page.get_by_text(f"No backup: {needs}.")).to_be_visible()
    page.get_by_label("Keys at most").fill("7")
    page.get_by_role("button", name="Change settings").click()
    expect(page.locator("form .notice")).to_have_text(f"Not changed: {needs}.")
    page.locator('header nav a[href="#keys"]').click()
    page.get_by_role("link", name="here").click()
    page.get_by_role("button", name="Change").click()
    page.get_by_label("Value", exact=True).fill("other")
    page.get_by_role("button", name="Save").click()
    if role == "read":
        expect(page.get_by_role("alert")).to_have_text(
            "Not written: this needs the role write, and the user of this token has the role read."
        )
        assert guarded.value("here") == "value"
    else:
        expect(page.get_by_role("region", name="Value")).to_have_text("other")


def test_a_member_with_a_hostile_id_is_shown_and_does_nothing(trio: Nodes, reader: Watched) -> None:
    hostile = '<img src=x onerror=alert(1)>\u202e"'

    def with_hostile_ids(route: object) -> None:
        response = route.fetch()  # type: ignore[attr-defined]
        status = response.json()
        for member in status["members"]:
            member["id"] += hostile
            member["address"] = "javascript:alert(1)//:80"
        route.fulfill(response=response, json={**status, "leader": status["leader"] + hostile})  # type: ignore[attr-defined]

    reader.context.route("**/cluster/status", with_hostile_ids)
    page = reader.open(trio[0].url)
    expect(page.locator("#view-cluster tbody tr")).to_have_count(3)
    expect(page.locator("#view-cluster tbody")).to_contain_text("<img src=x onerror=alert(1)>")
    # What is no host and port is no address of a page.
    expect(page.get_by_text("its page")).to_have_count(0)
    expect(page.locator("main img[src], a[href^=javascript]")).to_have_count(0)
    page.locator('header nav a[href="#members"]').click()
    page.locator("#view-members").get_by_role("button", name="Remove").first.click()
    expect(page.get_by_role("dialog")).to_contain_text("U+202E")
