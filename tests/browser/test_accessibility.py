"""Every view for everybody: axe-core in both themes, the keyboard alone, narrow and wide windows."""

from __future__ import annotations

import pytest
from axe_playwright_python.sync_playwright import Axe
from browser.watched import Watched, watched
from cluster.processes import Nodes
from playwright.sync_api import Browser, Page, expect

VIEWS = {
    "cluster": "#view-cluster tbody tr",
    "plots": "#view-plots figure",
    "events": "#view-events li",
    "keys?key=user:1": "#view-keys pre",
    "keys?key=missing": "#view-keys .detail .buttons",
    "keys?new": "#view-keys textarea",
    "members": "#view-members tbody tr",
}


def violations(page: Page) -> str:
    found = Axe().run(page)
    return found.generate_report() if found.violations_count else ""


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_on_any_view(trio: Nodes, browser: Browser, theme: str) -> None:
    trio[0].put("user:1", {"name": "Ada"}, ttl=600)
    trio[0].put("\u202eturned", "x")
    with watched(browser, color_scheme=theme, bypass_csp=True) as reader:
        page = reader.open(trio[0].url)
        for view, sign in VIEWS.items():
            page.goto(f"{trio[0].url}/#{view}")
            page.locator(sign).first.wait_for()
            assert violations(page) == "", view
        # A form that was left, and the links to it.
        page.goto(f"{trio[0].url}/#keys?new")
        page.get_by_label("Value", exact=True).fill("begun")
        page.goto(f"{trio[0].url}/#keys")
        page.get_by_text("Begun and not written").wait_for()
        assert violations(page) == ""
        page.goto(f"{trio[0].url}/#members")
        page.get_by_role("button", name="Remove").first.click()
        assert violations(page) == ""
        page.keyboard.press("Escape")
        page.get_by_role("button", name="Token").click()
        assert violations(page) == ""


def test_axe_finds_nothing_while_things_are_wrong(trio: Nodes, browser: Browser) -> None:
    for other in trio.all[1:]:
        other.kill()
    for theme in ("light", "dark"):
        with watched(browser, color_scheme=theme, bypass_csp=True) as reader:
            page = reader.open(trio[0].url)
            expect(page.locator("#banner")).to_be_visible()
            page.evaluate("import('/page/outcomes.js').then((module) => module.tell(['one: not written.']))")
            assert violations(page) == "", theme
            reader.context.route("**/cluster/status", lambda route: route.abort())
            expect(page.locator("#view-cluster > .age").first).to_be_visible()
            assert violations(page) == "", theme


def test_all_can_be_done_by_the_keyboard(trio: Nodes, reader: Watched) -> None:
    trio[0].put("alpha", "one")
    page = reader.open(trio[0].url)
    expect(page.locator("#view-cluster tbody tr")).to_have_count(3)
    page.locator("body").press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "To the contents"
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent") == "Keys":
            break
    page.keyboard.press("Enter")
    expect(page.locator("#view-keys h2")).to_be_focused()
    page.get_by_role("link", name="alpha").wait_for()
    for _ in range(6):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent") == "alpha":
            break
    # What has the focus is seen to have it.
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    expect(page.get_by_role("region", name="Value")).to_have_text("one")


@pytest.mark.parametrize("width", [360, 1024, 2560])
def test_no_view_is_wider_than_its_window(trio: Nodes, browser: Browser, width: int) -> None:
    trio[0].put("k" * 1000, "v" * 5000)
    with watched(browser, viewport={"width": width, "height": 800}) as reader:
        page = reader.open(trio[0].url)
        for view, sign in {**VIEWS, f"keys?key={'k' * 1000}": "#view-keys pre"}.items():
            page.goto(f"{trio[0].url}/#{view.replace('user:1', 'none')}")
            page.locator(sign if "user:1" not in view else "#view-keys .detail .buttons").first.wait_for()
            assert page.evaluate("document.documentElement.scrollWidth") <= width, view


@pytest.mark.parametrize(("width", "height"), [(320, 256), (360, 640)])
def test_what_stays_in_sight_never_covers_what_has_the_focus(
    trio: Nodes, browser: Browser, width: int, height: int
) -> None:
    for number in range(30):
        trio[0].put(f"key:{number:02}", "x")
    covered = """() => {
      const { top, bottom, left } = document.activeElement.getBoundingClientRect();
      const found = document.elementFromPoint(left + 3, (Math.max(0, top) + Math.min(innerHeight, bottom)) / 2);
      const isSeen = found !== null && document.activeElement.contains(found);
      return isSeen || document.activeElement.closest("header") ? "" : document.activeElement.textContent;
    }"""
    with watched(browser, viewport={"width": width, "height": height}) as reader:
        page = reader.open(trio[0].url, "keys?key=key:01")
        page.get_by_role("button", name="Delete").wait_for()
        page.evaluate(
            """() => import("/page/outcomes.js").then(({ tell }) => {
              for (let n = 0; n < 12; n++) tell([`key:${n}: It is not known whether it was written: it may have been.`]);
            })"""
        )
        told = page.locator("#outcomes p")
        expect(told).to_have_count(5)
        expect(told.last).to_be_in_viewport()
        sticking = "[...document.querySelectorAll('header > *')].filter(e => getComputedStyle(e).position === 'sticky')"
        heights = f"{sticking}.reduce((sum, e) => sum + e.getBoundingClientRect().height, 0)"
        assert page.evaluate(heights) < 0.4 * height
        page.get_by_role("button", name="Delete").focus()
        for _ in range(35):
            page.keyboard.press("Shift+Tab")
            assert page.evaluate(covered) == ""


def test_the_theme_is_the_systems_until_the_reader_chooses(trio: Nodes, browser: Browser) -> None:
    colour = "getComputedStyle(document.body).backgroundColor"
    with watched(browser, color_scheme="dark") as reader:
        page = reader.open(trio[0].url)
        dark = page.evaluate(colour)
        page.get_by_label("Theme").select_option("light")
        assert page.evaluate(colour) != dark
        page.reload()
        assert page.evaluate(colour) != dark
        page.get_by_label("Theme").select_option("system")
        assert page.evaluate(colour) == dark
        assert page.evaluate("Object.keys(localStorage)") == []


def test_with_forced_colours_the_chosen_view_and_the_curves_are_told_apart(trio: Nodes, browser: Browser) -> None:
    with watched(browser, forced_colors="active") as reader:
        page = reader.open(trio[0].url, "plots")
        swatches = page.locator(".plot", has_text="Keys read and written").locator(".swatch")
        swatches.nth(1).wait_for()
        colours = "marks => marks.map((mark) => getComputedStyle(mark).backgroundColor)"
        assert len(set(swatches.evaluate_all(colours))) == 2
        borders = "links => links.map((link) => getComputedStyle(link).borderBottomColor)"
        chosen, *others = page.locator("header nav").evaluate(
            f"nav => ({borders})([nav.querySelector('[aria-current]'), ...nav.querySelectorAll('a:not([aria-current])')])"
        )
        assert len(others) == 4 and chosen not in others


def test_who_wants_no_motion_sees_none(trio: Nodes, browser: Browser) -> None:
    moving = "[...document.querySelectorAll('*')].filter(e => getComputedStyle(e).transitionDuration !== '0s').length"
    with watched(browser, reduced_motion="reduce") as reader:
        page = reader.open(trio[0].url)
        expect(page.locator("#view-cluster tbody tr")).to_have_count(3)
        assert page.evaluate(moving) == 0
