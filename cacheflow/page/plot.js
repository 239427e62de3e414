// One plot: curves over time drawn by uPlot, and below them a table of the same: now, or where the pointer is, and the highest.

import { element, say } from "./dom.js";
import { moment, plain } from "./words.js";

const HEIGHT = 170;
const SYNC = "last-hour";
// The style sheet has so many for curves. Those of more are drawn with them again, and dotted.
const COLOURS = 6;

/** A plot at the end of `parent`. `inWords`: a function that says a number with its unit; `axis`: its own way, and steps. */
export class Plot {
  constructor(parent, title, inWords, axis = { inWords }) {
    this.inWords = inWords;
    this.axis = axis;
    this.names = "";
    this.chart = null;
    this.canvas = element("div", { class: "canvas", role: "img", "aria-label": title });
    this.head = element("th", { scope: "col" }, "now");
    this.body = element("tbody");
    this.title = title;
    this.none = element("p", { class: "hint" }, "This node tells no such figures.");
    this.table = element(
      "table",
      {},
      element("caption", { class: "unheard" }, title),
      element("thead", {}, element("tr", {}, element("td"), this.head, element("th", { scope: "col" }, "highest"))),
      this.body,
    );
    parent.append(
      element("figure", { class: "panel plot" }, element("figcaption", {}, title), this.canvas, this.table, this.none),
    );
    new ResizeObserver(() => this.chart?.setSize({ width: this.#width(), height: HEIGHT })).observe(this.canvas);
  }

  /** Shows `curves`, [name, numbers, kind] each, over `times`; they are broken in front of the places `gaps`. */
  show(times, gaps, curves) {
    const data = broken(times, gaps, curves);
    const colours = this.#colours(curves);
    const names = `${curves.map(([name]) => name)} ${colours}`;
    const some = curves.length > 0;
    this.canvas.hidden = this.table.hidden = !some;
    this.none.hidden = some;
    if (!some) return;
    if (names !== this.names) {
      this.names = names;
      this.#begin(curves, colours, data);
    } else {
      this.chart.setData(data);
    }
    this.data = data;
    // Until uPlot has drawn, its cursor is where it was: there may be no such place any more.
    const at = this.chart.cursor.idx ?? null;
    this.#tell(at !== null && at < data[0].length ? at : null);
    const said = curves.map(([name, values]) => `${plain(name)} ${this.#said(last(values))}`).join(", ");
    this.canvas.setAttribute("aria-label", `${this.title}, the last hour. Now: ${said}`);
  }

  #width() {
    return Math.max(200, this.canvas.clientWidth);
  }

  #said(value) {
    return value === null || value === undefined ? "–" : this.inWords(value);
  }

  /** Returns the colours of the curves, as the theme has them now. */
  #colours(curves) {
    const style = getComputedStyle(this.canvas);
    let number = 0;
    return curves.map(([, , kind]) => {
      const name = kind === "limit" ? "--limit" : `--curve-${(number++ % COLOURS) + 1}`;
      return resolved(this.canvas, style.getPropertyValue(name));
    });
  }

  #begin(curves, colours, data) {
    this.chart?.destroy();
    const [ink, grid] = ["--muted", "--line"].map((name) =>
      resolved(this.canvas, getComputedStyle(this.canvas).getPropertyValue(name)),
    );
    const axis = {
      stroke: ink,
      grid: { stroke: grid, width: 1 },
      ticks: { stroke: grid, width: 1 },
      font: "12px system-ui, sans-serif",
    };
    const options = {
      width: this.#width(),
      height: HEIGHT,
      // Room for half a time of day behind the last one.
      padding: [null, 20, null, null],
      legend: { show: false },
      cursor: { sync: { key: SYNC }, drag: { x: false, y: false }, points: { show: curves.length < 8 } },
      scales: { y: { range: (_, low, high) => [Math.min(0, low ?? 0), high > 0 ? high * 1.08 : 1] } },
      axes: [
        { ...axis, size: 30, space: 70, values: (_, splits) => clockTimes(splits) },
        {
          ...axis,
          size: 66,
          incrs: this.axis.steps,
          values: (_, splits) => splits.map((value) => this.axis.inWords(value)),
        },
      ],
      series: [
        {},
        ...curves.map(([name, , kind], number) => ({
          label: plain(name),
          stroke: colours[number],
          width: 1.5,
          dash: kind === "limit" ? [6, 4] : number < COLOURS ? undefined : [2, 3],
          // What stands alone between gaps makes no line.
          points: { show: false, filter: (chart, at) => alone(chart.data[at]), fill: colours[number], size: 4 },
        })),
      ],
      hooks: { setCursor: [(chart) => this.#tell(chart.cursor.idx ?? null)] },
    };
    this.chart = new globalThis.uPlot(options, data, this.canvas);
    this.rows = curves.map(([name], number) => {
      const swatch = element("span", { class: "swatch" });
      const [colour, isAgain] = [colours[number], number >= COLOURS];
      swatch.style.background = isAgain ? `repeating-linear-gradient(90deg, ${colour} 0 2px, transparent 2px 5px)` : colour;
      const [now, most] = [element("td"), element("td")];
      return { now, most, row: element("tr", {}, element("th", { scope: "row" }, swatch, plain(name)), now, most) };
    });
    this.body.replaceChildren(...this.rows.map(({ row }) => row));
  }

  /** Says the numbers at the place `at` of the curves; the latest ones where `at` is null. */
  #tell(at) {
    if (!this.data) return;
    const [times, ...curves] = this.data;
    say(this.head, at === null ? "now" : moment(times[at]).slice(-8));
    curves.forEach((values, number) => {
      say(this.rows[number].now, this.#said(at === null ? last(values) : values[at]));
      let most = null;
      for (const value of values) if (value !== null && (most === null || value > most)) most = value;
      say(this.rows[number].most, this.#said(most));
    });
  }
}

/** Returns the times of day of an axis, with seconds where some lie in one minute. */
function clockTimes(times) {
  const end = times.length > 1 && times[1] - times[0] < 60 ? undefined : -3;
  return times.map((time) => moment(time).slice(-8, end));
}

/** Returns the places of the numbers that have none beside them. */
function alone(values) {
  const isNone = (value) => value === null || value === undefined;
  return [...values.keys()].filter((at) => !isNone(values[at]) && isNone(values[at - 1]) && isNone(values[at + 1]));
}

function last(values) {
  return values.at(-1);
}

/** Returns uPlot's data: times and curves, with a moment of nothing put in front of each place in `gaps`. */
function broken(times, gaps, curves) {
  const data = [[...times], ...curves.map(([, values]) => [...values])];
  for (const place of [...gaps].reverse()) {
    data[0].splice(place, 0, (times[place - 1] + times[place]) / 2);
    for (const values of data.slice(1)) values.splice(place, 0, null);
  }
  return data;
}

/** Returns a colour of the style sheet as the canvas takes it: light-dark() and variables are resolved by an element. */
function resolved(place, colour) {
  const probe = element("span", { hidden: true });
  probe.style.color = colour;
  // Where the reader's system forces colours, curves would all have the same.
  probe.style.forcedColorAdjust = "none";
  place.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}
