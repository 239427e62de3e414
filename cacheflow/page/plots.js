// The view of the last hour: what is plotted, and where.

import { element } from "./dom.js";
import { Freshness } from "./freshness.js";
import { HISTORY_EVERY_MS, LATE, history, onHistory, seriesOf, wantHistory } from "./history.js";
import { Plot } from "./plot.js";
import { bytes, compact, counted, number, rough, time } from "./words.js";

// Steps of an axis of bytes: its numbers are to be round ones.
const POWERS = Array.from({ length: 46 }, (_, power) => 2 ** power);

const perSecond = (value) => `${rough(value)}/s`;
// A histogram counts between powers of two: what is made of it is a guess between two of them.
const milliseconds = (value) => `about ${time(value)}`;
const entries = (value) => counted(value, "entry", "entries");
const percent = (value) => `${rough(value)} %`;

// Each plot: its title, how its numbers are said, and its curves, [name, numbers] each, made of the series there are.
const PLOTS = [
  ["Requests by front", perSecond, () => byFront("requests")],
  [
    "Keys read and written",
    perSecond,
    () => [
      ["read", series("reads")],
      ["written", series("writes")],
    ],
  ],
  ["Hit ratio", percent, () => [["hits", hitRatio()]]],
  ["Latency, half of all faster", milliseconds, () => byFront("p50_ms")],
  ["Latency, 99 of 100 faster", milliseconds, () => byFront("p99_ms")],
  ["Items", number, () => [["items", series("items")], limit("max_items")]],
  ["Bytes", bytes, () => [["bytes", series("bytes")], limit("max_bytes")]],
  [
    "Evicted and expired",
    perSecond,
    () => [
      ["evicted", series("evictions")],
      ["expired", series("expiries")],
    ],
  ],
  [
    "Disk and majority, 99 of 100 faster",
    milliseconds,
    () => [
      ["flush", series("flush_p99_ms")],
      ["commit", series("commit_p99_ms")],
    ],
  ],
  ["Event loop held, 99 of 100 shorter", milliseconds, () => [["held", series("hold_p99_ms")]]],
  ["Lag of members, as the leader knows it", entries, () => by("lag_")],
];

// How an axis says numbers where that is another way than in the table, and in which steps.
const AXES = new Map([
  [number, { inWords: compact }],
  [entries, { inWords: compact }],
  [perSecond, { inWords: (value) => `${compact(value)}/s` }],
  [bytes, { inWords: bytes, steps: POWERS }],
  [milliseconds, { inWords: (value) => time(value, rough) }],
]);

/** Fills `section` with the view and returns {show, hide}. */
export function plotsView(section) {
  const age = element("p", { class: "age", hidden: true });
  const grid = element("div", { class: "plots" });
  const freshness = new Freshness(age, HISTORY_EVERY_MS);
  section.append(
    element("h2", { id: "plots-title", tabindex: "-1" }, "The last hour of this node"),
    age,
    element(
      "p",
      { class: "hint" },
      "Where a curve has a gap, the node was away, or there was nothing to measure. Times are this browser's.",
    ),
    grid,
  );
  let seen = false;
  let plots = null;
  let frame = 0;

  /** Draws one plot a frame, so that no script holds the page for long. */
  function draw(at = 0) {
    cancelAnimationFrame(frame);
    if (!seen || at >= PLOTS.length || !history.times.length) return;
    plots ??= PLOTS.map(([title, inWords]) => new Plot(grid, title, inWords, AXES.get(inWords)));
    const curves = PLOTS[at][2]().filter((curve) => curve !== null && curve[1] !== null);
    plots[at].show(history.times, withGaps(history.every), curves);
    frame = requestAnimationFrame(() => draw(at + 1));
  }

  onHistory(() => {
    freshness.note(history);
    draw();
  });
  document.addEventListener("theme", () => draw());
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => draw());
  return {
    show() {
      seen = true;
      wantHistory("plots", true);
      draw();
    },
    hide() {
      seen = false;
      wantHistory("plots", false);
    },
  };
}

function series(name) {
  return history.series[name] ?? null;
}

/** Returns the curves of a figure, one for each front that has it; the one for all fronts together where no front has. */
function byFront(figure) {
  const fronts = by(`${figure}_`);
  return fronts.length ? fronts : [["all fronts", series(figure)]];
}

/** Returns the curves of all series whose names begin with `prefix`, named by what follows it. */
function by(prefix) {
  return seriesOf(prefix).map((name) => [name.slice(prefix.length), series(name)]);
}

function hitRatio() {
  const [hits, misses] = [series("hits"), series("misses")];
  if (hits === null || misses === null) return null;
  return hits.map((hit, place) => {
    const looked = hit + misses[place];
    return hit === null || misses[place] === null || looked === 0 ? null : (100 * hit) / looked;
  });
}

/** Returns the curve of a limit; null where there was none all the time. */
function limit(name) {
  const values = (series(name) ?? []).map((value) => value || null);
  return values.some((value) => value !== null) ? ["limit", values, "limit"] : null;
}

/** Returns the places in front of which samples are missing: there a curve is broken. */
function withGaps(every_s) {
  const gaps = [];
  for (let place = 1; place < history.times.length; place++) {
    if (history.times[place] - history.times[place - 1] > LATE * every_s) gaps.push(place);
  }
  return gaps;
}
