"""The plots of the last hour and the events: what the node has kept, and what comes while somebody looks."""

from __future__ import annotations

import re
import time
from typing import Any

from browser.watched import Watched
from cluster.processes import Nodes
from playwright.sync_api import Page, Route, expect

EVERY_S = 5
# Which columns of a plot's canvas, as parts of its width, have a curve's colour in them.
COLUMNS = """
(figure) => {
  const canvas = figure.querySelector("canvas");
  const wanted = getComputedStyle(figure.querySelector(".swatch")).backgroundColor.match(/\\d+/g).map(Number);
  const { data, width, height } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  const found = [];
  for (let x = 0; x < width; x++) {
    for (let y = 0; y < height; y++) {
      const at = 4 * (y * width + x);
      if (data[at + 3] > 200 && wanted.every((value, i) => Math.abs(value - data[at + i]) < 40)) {
        found.push(x / width);
        break;
      }
    }
  }
  return found;
}
"""


def figure(page: Page, title: str) -> Any:
    return page.locator("#view-plots figure", has=page.get_by_text(title, exact=True))


def ask_again(page: Page) -> None:
    """Have the view of plots ask for samples now, as it does every five seconds."""
    want = "['plots', false], ['plots', true]"
    page.evaluate(f"import('/page/history.js').then((m) => [{want}].forEach((each) => m.wantHistory(...each)))")


def cells(page: Page, title: str, curve: str) -> list[str]:
    """What the table below a plot says of a curve: now, and at its highest."""
    row = figure(page, title).locator("tbody tr", has=page.get_by_role("rowheader", name=curve, exact=True))
    return [text.strip() for text in row.locator("td").all_inner_texts()]


def test_an_hour_is_plotted_with_its_limits_and_a_gap_where_the_node_was_away(trio: Nodes, reader: Watched) -> None:
    now = time.time()
    # An hour of samples, of which ten minutes in the middle are missing, and one is not known.
    times = [now - 3600 + EVERY_S * place for place in range(720) if not 300 <= place < 420]
    values: list[float | None] = [1500.0] * len(times)
    values[7] = None
    peaks = [*values[:-1], 2500.0]
    series = {"reads": peaks, "writes": values, "items": values, "max_items": [2000] * len(times)}
    series |= {"hits": values, "misses": [500.0] * len(times), "requests_http": values, "requests_resp": peaks}
    asked: list[str] = []

    def answer(route: Route) -> None:
        asked.append(route.request.url)
        first = len(asked) == 1
        later = {name: [1000.0] for name in series}
        body = {"times": times, "series": series} if first else {"times": [now + 5], "series": later}
        route.fulfill(json={"now": now, "every": EVERY_S, **body})

    reader.context.route("**/history?*", answer)
    reader.context.route("**/history", answer)
    page = reader.open(trio[0].url, "plots")
    figure(page, "Keys read and written").locator("canvas").wait_for()
    assert cells(page, "Keys read and written", "read") == ["2,500/s", "2,500/s"]
    assert cells(page, "Keys read and written", "written") == ["1,500/s", "1,500/s"]
    assert cells(page, "Requests by front", "resp") == ["2,500/s", "2,500/s"]
    assert cells(page, "Hit ratio", "hits") == ["75 %", "75 %"]
    assert cells(page, "Items", "limit") == ["2,000", "2,000"]
    expect(figure(page, "Bytes")).to_contain_text("This node tells no such figures")
    expect(figure(page, "Items").get_by_role("img")).to_have_attribute(
        "aria-label", "Items, the last hour. Now: items 1,500, limit 2,000"
    )
    columns = figure(page, "Items").evaluate(COLUMNS)
    before = [at for at in columns if at < 0.5]
    behind = [at for at in columns if at >= 0.5]
    # Ten minutes of sixty are 15 per cent of the canvas: no line leads over them.
    assert min(behind) - max(before) > 0.1 and len(before) > 50 and len(behind) > 50
    # What comes is added, and asked for behind what is known.
    ask_again(page)
    expect(figure(page, "Keys read and written").locator("tbody td").first).to_have_text("1,000/s")
    assert f"since={times[-1]}" in asked[1]


# Notes the texts of a plot that begin left of it.
CUT = """
globalThis.cut = [];
const { fillText } = CanvasRenderingContext2D.prototype;
CanvasRenderingContext2D.prototype.fillText = function (text, x, ...others) {
  if (this.textAlign === "right" && x < this.measureText(text).width) globalThis.cut.push(text);
  return fillText.call(this, text, x, ...others);
};
"""


def test_long_times_are_said_in_seconds_and_a_sample_that_stands_alone_is_seen(trio: Nodes, reader: Watched) -> None:
    now = time.time()
    times = [now - 3600 + EVERY_S * place for place in range(720)]
    alone: list[float | None] = [15_432.0 if place % 60 == 30 else None for place in range(720)]
    lags = {f"member-{number}": [float(number)] * 720 for number in range(8)}
    body = {"now": now, "every": EVERY_S, "times": times, "series": {"p99_ms_http": alone, "lag": lags}}
    reader.context.route(re.compile(r"/history(\?|$)"), lambda route: route.fulfill(json=body))
    reader.context.add_init_script(CUT)
    page = reader.open(trio[0].url, "plots")
    slow = figure(page, "Latency, 99 of 100 faster")
    slow.locator("canvas").wait_for()
    # What is known is between which powers of two it lies.
    assert cells(page, "Latency, 99 of 100 faster", "http") == ["–", "about 15 s"]
    columns = slow.evaluate(COLUMNS)
    assert columns and max(columns) - min(columns) > 0.5
    assert page.evaluate("cut") == []
    # Of more curves than there are colours no two look alike.
    swatches = figure(page, "Lag of members, as the leader knows it").locator(".swatch")
    expect(swatches).to_have_count(8)
    assert len(set(swatches.evaluate_all("marks => marks.map((mark) => mark.style.background)"))) == 8


def test_what_clients_do_is_plotted_while_somebody_looks(trio: Nodes, reader: Watched) -> None:
    page = reader.open(trio[0].url, "plots")
    trio[0].put("looked at", 1)
    deadline = time.monotonic() + 30
    with trio[0].connect() as connection:
        while time.monotonic() < deadline:
            for _ in range(20):
                connection.request("GET", "/cache/looked%20at")
            page.wait_for_timeout(100)
            told = cells(page, "Keys read and written", "read")
            if told and told[0] not in ("–", "0/s"):
                break
    assert told[0].endswith("/s") and float(told[0].removesuffix("/s").replace(",", "")) > 0


def test_a_pointer_over_a_plot_whose_samples_get_fewer_ends_nothing(trio: Nodes, reader: Watched) -> None:
    now = time.time()
    asked: list[str] = []

    def answer(route: Route) -> None:
        asked.append(route.request.url)
        # The node's clock is set back after the first answer, so its samples begin anew.
        times = [now - 3000 + EVERY_S * place for place in range(600)] if len(asked) == 1 else [now - 5000 + len(asked)]
        series = {name: [100.0 + len(asked)] * len(times) for name in ("reads", "writes")}
        route.fulfill(json={"now": times[-1], "every": EVERY_S, "times": times, "series": series})

    reader.context.route(re.compile(r"/history(\?|$)"), answer)
    page = reader.open(trio[0].url, "plots")
    plot = figure(page, "Keys read and written")
    plot.locator("canvas").wait_for()
    box = plot.locator(".u-over").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.9, box["y"] + box["height"] / 2)
    expect(plot.locator("thead")).not_to_contain_text("now")
    ask_again(page)
    expect(plot.locator("tbody td").first).to_have_text("102/s")
    ask_again(page)
    expect(plot.locator("tbody td").first).to_have_text("103/s")


def test_the_curves_have_the_colours_of_the_theme(trio: Nodes, reader: Watched) -> None:
    page = reader.open(trio[0].url, "plots")
    swatch = figure(page, "Items").locator(".swatch").first
    swatch.wait_for()
    colour = "swatch => getComputedStyle(swatch).backgroundColor"
    light = swatch.evaluate(colour)
    page.get_by_label("Theme").select_option("dark")
    expect(figure(page, "Items").locator(".swatch").first).not_to_have_css("background-color", light)
    assert figure(page, "Items").evaluate(COLUMNS)


def test_an_event_is_seen_when_it_happens(trio: Nodes, reader: Watched) -> None:
    leader = trio.leader()
    heir = trio.others(leader)[0]
    page = reader.open(leader.url, "events")
    page.locator("#view-events li").first.wait_for()
    assert leader.ask("POST", "/cluster/leader", {"id": heir.node_id}).status == 200
    expect(page.locator("#view-events")).to_contain_text(f"{heir.node_id} leads")
    page.get_by_label("Show").select_option("leader")
    expect(page.locator("#view-events li .chip", has_text="member")).to_have_count(0)
    page.locator('header nav a[href="#cluster"]').click()
    expect(page.locator("#view-cluster .events")).to_contain_text(f"{heir.node_id} leads")
