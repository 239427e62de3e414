"""The page while the cluster changes: what a reader sees of other nodes, of leaders that die, and of a node that is away."""

from __future__ import annotations

import re
import signal
import time

from browser.watched import Watched, hide
from cluster.processes import Nodes
from playwright.sync_api import Page, Route, expect

FIRST_DATA_S = 1.0
# What each view shows when it has something to show.
SIGNS = {"cluster": "tbody tr", "plots": "canvas", "events": "li", "keys": "li", "members": "tbody tr"}


def show(page: Page, view: str) -> None:
    page.locator(f'header nav a[href="#{view}"]').click()


def row_of(page: Page, node_id: str) -> str:
    """The row of a member in the table of the view."""
    return page.locator("#view-cluster tbody tr", has=page.get_by_role("rowheader", name=node_id)).inner_text()


def test_the_members_are_seen_in_a_picture_and_as_a_table(trio: Nodes, reader: Watched) -> None:
    page = reader.open(trio[1].url)
    leader = trio.leader().node_id
    expect(page.get_by_role("img", name=f"3 members, {leader} leads, all are up")).to_be_visible()
    expect(page).to_have_title("Cluster · node-2 · CacheFlow")
    expect(page.locator("#view-cluster tbody tr")).to_have_count(3)
    assert "leader" in row_of(page, leader)
    assert "this node" in row_of(page, "node-2") and "its page" in row_of(page, "node-1")
    expect(page.get_by_text("Nothing is wrong")).to_be_visible()
    page.get_by_role("row", name="node-3").get_by_role("link", name="its page").click()
    expect(page.locator("#this-node")).to_have_text("node-3")
    # The page of another node is another origin, which the reader has gone to.
    reader._hosts.add(trio[2].address)


def test_a_leader_is_killed_and_the_next_one_appears(trio: Nodes, reader: Watched) -> None:
    leader = trio.leader()
    survivor = trio.others(leader)[0]
    page = reader.open(survivor.url)
    expect(page.get_by_role("img", name=f"{leader.node_id} leads")).to_be_visible()
    leader.kill()
    expect(page.locator("#view-cluster .troubles")).to_contain_text(f"1 member of 3 is down: {leader.node_id}")
    after = trio.leader().node_id
    expect(page.get_by_role("img", name=f"3 members, {after} leads, {leader.node_id} down")).to_be_visible()
    assert "down" in row_of(page, leader.node_id)
    trio.start()
    expect(page.get_by_text("Nothing is wrong")).to_be_visible()


def test_without_a_leader_the_page_says_so_on_every_view(trio: Nodes, reader: Watched) -> None:
    survivor, *others = trio.all
    page = reader.open(survivor.url)
    expect(page.locator("#state")).to_contain_text("ready")
    for other in others:
        other.kill()
    for view in SIGNS:
        show(page, view)
        expect(page.locator("#banner")).to_contain_text("No leader is known to this node: nothing can be written")
        expect(page.locator("#state")).to_have_text("no leader")
    trio.start()
    expect(page.locator("#banner")).to_be_hidden()


def test_a_node_that_was_removed_says_that_first_and_offers_no_changes(trio: Nodes, reader: Watched) -> None:
    def removed(route: Route) -> None:
        status = trio[0].status()
        checks = [{"name": "member", "passed": False, "detail": "it was removed"}]
        for member in status["members"][1:]:
            member["status"] = "down"
        route.fulfill(json={**status, "leader": None, "failure": "it was removed at index 7", "checks": checks})

    reader.context.route("**/cluster/status", removed)
    page = reader.open(trio[0].url)
    expect(page.locator("#state")).to_have_text("takes no part")
    expect(page.locator("#banner")).to_contain_text("This node takes no part any more: it was removed at index 7.")
    expect(page.locator("#view-cluster .troubles")).to_be_hidden()
    show(page, "members")
    expect(page.locator("#view-members tbody tr")).to_have_count(3)
    expect(page.locator("#view-members tbody button")).to_have_count(0)


def test_a_node_that_is_back_is_asked_for_all_at_once(trio: Nodes, reader: Watched) -> None:
    page = reader.open(trio[0].url)
    page.locator("#view-cluster .events li").first.wait_for()
    ask = "import('/page/node.js').then((module) => module.askAgain())"
    page.route("**/cluster/status", lambda route: route.abort())
    page.reload()
    expect(page.locator("#state")).to_have_text("no answer")
    # Nothing is known yet to be wrong.
    expect(page.locator("#view-cluster .troubles")).to_be_hidden()
    page.unroute_all()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    with page.expect_request("**/history?*"), page.expect_request("**/events?*"):
        page.evaluate(ask)
    # Sooner than the status is asked for again, which is asked for most often.
    assert len([url for url in asked if url.endswith("/cluster/status")]) == 1


def test_while_a_node_stands_still_every_view_says_how_old_it_is_and_comes_back_by_itself(
    trio: Nodes, reader: Watched
) -> None:
    node = trio[0]
    node.put("seen", "before")
    page = reader.open(node.url)
    for view, sign in SIGNS.items():
        show(page, view)
        page.locator(f"#view-{view} {sign}").first.wait_for()
    node.signal(signal.SIGSTOP)
    try:
        expect(page.locator("#state")).to_have_text("no answer")
        # The last thing that was seen on the first view is not true any more.
        show(page, "cluster")
        expect(page.get_by_text("Nothing is wrong")).to_be_hidden()
        for view, sign in SIGNS.items():
            show(page, view)
            age = page.locator(f"#view-{view} .age").first
            expect(age).to_be_visible()
            expect(age).to_contain_text(re.compile(r"^As of \d+ s ago: this node does not answer\.$"))
            expect(page.locator(f"#view-{view} {sign}").first).to_be_visible()
        before = age.inner_text()
        expect(age).not_to_have_text(before)
    finally:
        node.signal(signal.SIGCONT)
    expect(page.locator("#state")).to_contain_text("ready")
    for view in SIGNS:
        show(page, view)
        expect(page.locator(f"#view-{view} .age:visible")).to_have_count(0)


def test_figures_and_events_that_stay_away_alone_are_said_to_be_old(trio: Nodes, reader: Watched) -> None:
    page = reader.open(trio[0].url)
    expect(page.locator("#view-cluster .figures dd").first).to_be_visible()
    page.locator("#view-cluster .events li").first.wait_for()
    # Seen again, the view asks at once.
    show(page, "members")
    page.route(re.compile(r"/(history|events)(\?|$)"), lambda route: route.fulfill(status=503, json={"detail": "busy"}))
    show(page, "cluster")
    ages = page.locator("#view-cluster .age:visible")
    expect(ages).to_have_count(2)
    expect(ages.first).to_have_text(re.compile(r"^The figures are as of [\d.]+ s ago: busy\.$"))
    expect(ages.last).to_have_text(re.compile(r"^The events are as of [\d.]+ s ago: busy\.$"))
    # A view that begins now is as old as what it begins with.
    show(page, "plots")
    expect(page.locator("#view-plots .age")).to_have_text(re.compile(r"^As of [\d.]+ s ago: busy\.$"))
    page.unroute_all()
    for view in ("cluster", "plots"):
        show(page, view)
        expect(page.locator(f"#view-{view} .age:visible")).to_have_count(0)


def test_a_hidden_page_asks_for_nothing(trio: Nodes, reader: Watched) -> None:
    page = reader.open(trio[0].url)
    expect(page.get_by_text("Nothing is wrong")).to_be_visible()
    hide(page, True)
    page.wait_for_load_state("networkidle")
    count = len(reader.asked)
    # More than a round of what it asks for while it is seen.
    page.wait_for_timeout(2500)
    assert len(reader.asked) == count
    with page.expect_request("**/cluster/status"):
        hide(page, False)


def test_the_first_data_are_seen_within_a_second(trio: Nodes, reader: Watched) -> None:
    page = reader.open(trio[0].url)
    expect(page.locator("#view-cluster tbody tr")).to_have_count(3)
    # One of some: the machine may have other work.
    for _ in range(10):
        began = time.perf_counter()
        page.goto(f"{trio[0].url}/?again#cluster")
        page.locator("#view-cluster tbody tr").first.wait_for()
        if time.perf_counter() - began < FIRST_DATA_S:
            return
    raise AssertionError(f"never within {FIRST_DATA_S} s")
