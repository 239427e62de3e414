"""The page's modules by themselves, called in the browser: what needs no node behind it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from browser.watched import watched
from cluster.processes import Nodes
from playwright.sync_api import Browser, Page

from cacheflow.rest.page_files import FOLDER, INDEX


@pytest.fixture(scope="module")
def page(_shared: Nodes, browser: Browser) -> Iterator[Page]:
    """One page for all: a module's functions keep nothing that another test would see."""
    with watched(browser) as reader:
        yield reader.open(_shared.start()[0].url)


def call(page: Page, module: str, body: str, argument: Any = None) -> Any:
    """What the JavaScript ``body`` returns, in which ``m`` is a module of the page and ``a`` the argument."""
    return page.evaluate(f"async (a) => {{ const m = await import('/page/{module}.js'); {body} }}", argument)


def test_numbers_bytes_and_times_are_said_as_people_do(page: Page) -> None:
    said = "return a.map(([name, value]) => m[name](value))"
    wanted = {
        ("number", 1234567): "1,234,567",
        ("rough", 0.12345): "0.123",
        ("rough", 98765.4): "98,765",
        ("compact", 2_000_000): "2M",
        ("bytes", 0): "0 bytes",
        ("bytes", 1): "1 byte",
        ("time", 7.94): "7.9 ms",
        ("time", 15432): "15 s",
        ("bytes", 1023): "1,020 bytes",
        ("bytes", 1536): "1.5 KiB",
        ("bytes", 3 * 1024**4): "3 TiB",
        ("duration", 0.25): "0.25 s",
        ("duration", 119.9): "119 s",
        ("duration", 125): "2 min 5 s",
        ("duration", 7320): "2 h 2 min",
        ("duration", 200_000): "2 d 7 h",
    }
    assert call(page, "words", said, [list(each) for each in wanted]) == list(wanted.values())


def test_what_is_not_seen_in_a_text_is_named(page: Page) -> None:
    said = "return a.map((text) => m.plain(text))"
    assert call(page, "words", said, ["plain é 日本 😀", "a\u202eb\u0000c\u2066"]) == [
        "plain é 日本 😀",
        "a<U+202E>b<U+0000>c<U+2066>",
    ]
    assert call(page, "words", "return m.plain('\\ud800x')") == "<U+D800>x"
    assert call(page, "words", "return m.plain('😀'.repeat(50), 10)") == "😀" * 9 + "…"
    blanks = [
        " ",
        "a ",
        " a",
        "a  b",
        "a   b",
        "a b",
        "a\u00a0b",
        "\u3000",
        "\u2800",
        "e\ufe0f",
        "\u034f",
        "\u1160",
        "\uffa0",
    ]
    assert call(page, "words", said, blanks) == [
        "<U+0020>",
        "a<U+0020>",
        "<U+0020>a",
        "a<U+0020><U+0020>b",
        "a<U+0020><U+0020><U+0020>b",
        "a b",
        "a<U+00A0>b",
        *(f"<U+{ord(blank):04X}>" for blank in "\u3000\u2800"),
        "e<U+FE0F>",
        *(f"<U+{ord(blank):04X}>" for blank in "\u034f\u1160\uffa0"),
    ]
    lines = "return [m.foreign(a), m.foreign(a, true)].map((shown) => shown.querySelectorAll('.unseen').length)"
    assert call(page, "words", lines, "a\nb\tc\u200b") == [3, 1]
    assert call(page, "words", lines, "  a\u00a0b\u2800") == [4, 1]


@pytest.mark.parametrize(
    "json",
    ["1", "12345678901234567890.10", '"a,b:[{"', "[]", "{}", '[{"a":[1,{"b":null}],"c":"\\"]"},true]', '{"é😀":{}}'],
)
def test_json_gets_lines_and_stays_what_it_is(page: Page, json: str) -> None:
    shown = call(page, "value", "return m.indented(a)", json)
    assert shown.replace("\n", "").replace("  ", "").replace(": ", ":") == json
    assert call(
        page, "value", "return JSON.stringify(JSON.parse(m.indented(a))) === JSON.stringify(JSON.parse(a))", json
    )


def test_long_json_is_not_gone_through_to_its_end(page: Page) -> None:
    assert call(page, "value", "return m.indented('[' + '1,'.repeat(1e6) + '1]', 1000).length") < 1100


def test_keys_have_the_order_of_the_cluster(page: Page) -> None:
    keys = ["", "a", "aa", "b", "é", "\ue000", "\uffee", "😀", "😀a", "\U0010ffff", "Z", "~"]
    assert call(page, "key_page", "return a.sort(m.compare)", keys[::-1]) == sorted(keys)


def test_a_page_of_keys_follows_the_changes_between_its_ends(page: Page) -> None:
    follow = """
      const page = new m.KeyPage("k:", a.after, a.keys, a.next);
      const is = a.changes.map((change) => page.take(change));
      return [page.keys, is, page.next];
    """

    def after(changes: list[dict[str, Any]], keys: list[str], after: str = "", next_: str | None = None) -> list[Any]:
        argument = {"changes": changes, "keys": keys, "after": after, "next": next_}
        return list(call(page, "key_page", follow, argument))

    def changed(what: str, key: str) -> dict[str, Any]:
        return {"what": what, "key": key, "version": 1}

    some = [changed("set", "k:2"), changed("set", "k:1"), changed("set", "other"), changed("expire", "k:1")]
    assert after(some, ["k:1", "k:3"]) == [["k:2", "k:3"], [True, False, False, True], None]
    # What lies before the page or behind it is another page's.
    outside = [changed("set", "k:1"), changed("set", "k:9"), changed("delete", "k:9"), changed("touch", "k:4")]
    assert after(outside, ["k:3"], "k:2", "k:5")[0:2] == [["k:3", "k:4"], [False, False, False, True]]
    # Many at once, by a shorter prefix and by a longer one.
    assert after([{"what": "delete", "prefix": "", "version": 9}], ["k:1", "k:2"])[0] == []
    assert after([{"what": "delete", "prefix": "k:1", "version": 9}], ["k:1", "k:12", "k:2"])[0] == ["k:2"]
    # It never grows without end: what is over is the next page's.
    many = [changed("set", f"k:{number:04}") for number in range(1000)]
    keys, _, next_ = after(many, [])
    assert len(keys) <= 150 and keys == sorted(keys) and next_ == keys[-1]


def test_events_of_a_stream_are_read_and_unknown_ones_ignored(page: Page) -> None:
    text = (
        "id: p1\n\n"
        'event: set\nid: p2\ndata: {"key":"a","version":7,"ttl":null}\n\n'
        ": alive\nid: p3\n\n"
        'event: later\nid: p4\ndata: {"key":"b"}\n\n'
        'event: gone\ndata: {"oldest":"p0"}'
    )
    told = call(page, "watching", "return m.eventsIn(a)", text)
    assert told == {
        "changes": [{"what": "set", "key": "a", "version": 7, "ttl": None}],
        "position": "p4",
        "gone": True,
    }


def test_samples_are_added_and_those_of_an_hour_ago_dropped(page: Page) -> None:
    add = """
      m.history.times.length = 0;
      for (const name of Object.keys(m.history.series)) delete m.history.series[name];
      for (const answer of a) m.add(answer);
      return [m.history.times, {...m.history.series}];
    """
    first = {"now": 5000, "every": 5, "times": [4990, 4995], "series": {"reads": [1, 2], "lag": {"n2": [0, 3]}}}
    second = {"now": 5005, "every": 5, "times": [4995, 5000], "series": {"reads": [2, None], "new": [1, 9]}}
    assert call(page, "history", add, [first, second]) == [
        [4990, 4995, 5000],
        {"reads": [1, 2, None], "lag_n2": [0, 3, None], "new": [None, None, 9]},
    ]
    later = {"now": 8596, "every": 5, "times": [8595], "series": {"reads": [4]}}
    assert call(page, "history", add, [first, second, later]) == [[5000, 8595], {"reads": [None, 4], "new": [9, None]}]
    hostile = {"now": 1, "every": 5, "times": [1], "series": {"__proto__": [1], "lag": {"constructor": [2]}}}
    assert call(page, "history", add, [hostile])[0] == [1]


def test_samples_begin_anew_where_the_clock_was_set_back_and_old_ones_are_not_the_latest(page: Page) -> None:
    follow = """
      m.history.times.length = 0;
      for (const name of Object.keys(m.history.series)) delete m.history.series[name];
      return a.map((answer) => (m.add(answer), [[...m.history.times], m.latest("reads")]));
    """

    def answer(now: int, time: int, reads: int) -> dict[str, Any]:
        return {"now": now, "every": 5, "times": [time], "series": {"reads": [reads]}}

    told = call(page, "history", follow, [answer(10000, 10000, 1), answer(8202, 8200, 2), answer(8215, 8200, 2)])
    assert told == [[[10000], 1], [[8200], 2], [[8200], None]]


def test_polling_goes_on_whatever_is_raised_and_every_listener_is_called(page: Page) -> None:
    polled = """
      let rounds = 0;
      const ended = new Promise((enough) => {
        const polling = new m.Polling(
          1,
          async () => {
            if (++rounds === 3) enough(polling.stop());
            else throw new Error("work");
          },
          () => {
            if (rounds === 1) m.tellAll([() => { throw new Error("listener"); }, () => told.push("called")]);
          },
        );
        polling.start();
      });
      const [told, reported] = [[], globalThis.reportError];
      globalThis.reportError = (error) => told.push(error.message);
      await Promise.race([ended, new Promise((late) => setTimeout(late, 5000))]);
      globalThis.reportError = reported;
      return [rounds, told];
    """
    assert call(page, "ticking", polled) == [3, ["listener", "called"]]
    # What is told of a failure may fail itself: the browser says so, and the next round comes.
    failing = """
      let rounds = 0;
      addEventListener("unhandledrejection", (event) => event.preventDefault(), { once: true });
      const fail = () => { throw new Error("again"); };
      const polling = new m.Polling(1, async () => { if (++rounds === 1) throw new Error("work"); }, fail);
      polling.start();
      for (let turn = 0; turn < 500 && rounds < 2; turn++) await new Promise((next) => setTimeout(next, 10));
      polling.stop();
      return rounds >= 2;
    """
    assert call(page, "ticking", failing) is True


def test_what_may_have_taken_place_is_never_said_not_to_have(page: Page) -> None:
    said = "return a.map((status) => m.notDone('deleted', status ? new m.Refused(status, {}) : new m.NoAnswer()))"
    refused, late, silent = call(page, "calls", said, [503, 504, None])
    assert refused == "Not deleted: the node has answered 503."
    assert late.startswith("It is not known whether it was deleted: the node has answered 504. It may have taken place")
    assert silent == "It is not known whether it was deleted: this node does not answer."


def test_a_token_that_no_header_holds_is_refused(page: Page) -> None:
    given = "try { m.setToken(a); return m.hasToken(); } catch (error) { return error.message; }"
    for token in ("abc\u2026", "two words", "caf\u00e9"):
        assert call(page, "calls", given, token).startswith("this is no token: ")
    assert call(page, "calls", given, " ") is False


def test_line_ends_are_known(page: Page) -> None:
    texts = ["", "a", "a\nb\n", "a\r\nb\r\n", "a\rb", "a\r\nb\n", "\r\n\r"]
    assert call(page, "key_form", "return a.map(m.lineEndOf)", texts) == [*["\n"] * 3, "\r\n", None, None, None]


def test_a_picture_of_many_members_has_a_box_for_each_and_their_ids_differ(page: Page) -> None:
    member = {"status": "up", "voter": True, "observer": False, "change": None, "lag": 0, "connected": True}
    drawn = """
      const picture = m.pictureOf(a, null);
      const boxes = [...picture.querySelectorAll("rect")].map((box) => ["x", "y"].map((at) => Number(box.getAttribute(at))));
      const ids = [...picture.querySelectorAll(".id")].map((id) => id.textContent);
      return [boxes, ids, Number(picture.getAttribute("viewBox").split(" ")[2])];
    """
    for count in (1, 2, 3, 5, 6, 9):
        members = [{**member, "id": f"cacheflow-production-eu-{number}"} for number in range(count)]
        boxes, ids, width = call(page, "picture", drawn, {"node_id": members[0]["id"], "members": members})
        assert len(set(ids)) == count and all(len(shown) <= 17 for shown in ids)
        apart = [abs(x - u) >= 140 or abs(y - v) >= 66 for x, y in boxes for u, v in boxes if (x, y) != (u, v)]
        # At a width of 300 pixels the smallest letters, of 13, have eleven: for narrow windows and for many.
        assert all(apart) and width <= (500 if count <= 5 else 340)


def test_the_page_of_a_member_has_the_scheme_of_its_address(page: Page) -> None:
    places = ["10.0.0.1:8080", "https://a.example:8080", "http://[::1]:1", "javascript:alert(1)", "https://x@y:1", ""]
    assert call(page, "cluster", "return a.map(m.pageOf)", places) == [
        "http://10.0.0.1:8080/",
        "https://a.example:8080/",
        "http://[::1]:1/",
        *[None] * 3,
    ]


def test_troubles_are_said_in_words(page: Page) -> None:
    member = {"status": "up", "voter": True, "observer": False, "change": None, "lag": 0}
    status = {
        "staleness": 12.4,
        "failure": None,
        "restore": {"items": 10, "done": 3, "ended": False},
        "configuration": {"replicas": 2},
        "checks": [
            {"name": "leader", "passed": False, "detail": "is not known"},
            {"name": "disk", "passed": False, "detail": "has not answered for 5 s"},
        ],
        "members": [
            {**member, "id": "a"},
            {**member, "id": "b", "status": "down"},
            {**member, "id": "c", "change": {"what": "catching up", "since": 3.2, "due": None}, "voter": False},
        ],
    }
    assert call(page, "troubles", "return m.troublesOf(a, 'a')", status) == [
        "This node is not ready: disk has not answered for 5 s.",
        "1 member of 3 is down: b.",
        "Only 2 of 3 members may vote.",
        "c: catching up for 3 s.",
        "A restore is under way: 3 of 10 items.",
    ]
    assert "may be 12 s old" in call(page, "troubles", "return m.whyNoWrites(a, null)", status)
    assert call(page, "troubles", "return m.whyNoWrites(a, 'a')", status) == ""
    alone = {**member, "change": {"what": "replacement", "since": 7.4, "due": None}}
    assert call(page, "troubles", "return m.changeOf(a)", alone) == "waits for 7 s for a spare to replace it"
    failed = {**status, "failure": "it was removed"}
    assert call(page, "troubles", "return m.troublesOf(a, null)", failed) == []
    assert call(page, "troubles", "return m.whyNoWrites(a, null)", failed).startswith(
        "This node takes no part any more: it was removed. "
    )


def test_an_address_names_a_view_and_a_key_whatever_is_in_it(page: Page) -> None:
    asked = "const [view, asked] = m.askedIn(a); return [view, ...asked]"
    assert call(page, "address", asked, "#keys?key=a?b&prefix=%3F") == ["keys", ["key", "a?b"], ["prefix", "?"]]
    assert call(page, "address", asked, "#plots") == ["plots"] and call(page, "address", asked, "") == [""]


def test_a_leader_that_the_node_names_and_does_not_reach_is_none(page: Page) -> None:
    leader = "m.node.status = a; return m.leaderId()"
    check = {"name": "leader", "passed": True, "detail": ""}
    assert call(page, "node", leader, {"leader": "a", "checks": [check]}) == "a"
    assert call(page, "node", leader, {"leader": None, "checks": [check]}) is None
    assert call(page, "node", leader, {"leader": "a", "checks": [{**check, "passed": False}]}) is None


@pytest.mark.parametrize("key", [".", ".."])
def test_a_key_that_a_path_cannot_hold_is_refused_and_not_turned_into_another(page: Page, key: str) -> None:
    refused = "try { return m.pathOf(a); } catch (error) { return error.message; }"
    assert "a browser cannot name this key" in call(page, "calls", refused, key)
    assert call(page, "calls", refused, f"{key}/x") == f"/cache/{key}%2Fx"


def test_all_modules_are_asked_for_at_once() -> None:
    text = (FOLDER / INDEX).read_text()
    named = {path.name for path in FOLDER.glob("*.js") if f'"/page/{path.name}"' in text}
    assert named == {path.name for path in FOLDER.glob("*.js")}


def test_no_module_has_a_way_to_parse_a_text_as_html() -> None:
    forbidden = ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", "srcdoc")
    for path in FOLDER.glob("*.js"):
        text = path.read_text()
        assert [word for word in forbidden if word in text] == [], path.name
        assert max(map(len, text.splitlines())) <= 130 and len(text.splitlines()) < 300, path.name
