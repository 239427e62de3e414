// The samples of the last hour, as the node keeps them, and what comes to them while somebody looks.

import { ask, onToken } from "./calls.js";
import { onBack } from "./node.js";
import { Polling, tellAll } from "./ticking.js";

const HOUR_S = 3600;
/** How many times the usual distance of two samples lies between two of which one is missing. */
export const LATE = 2.5;
/** Milliseconds between an answer and the next question: as often as the node takes samples. */
export const HISTORY_EVERY_MS = 5000;

/**
 * The samples. `times`: Unix seconds, oldest first; `series`: numbers or null by name, one for each time;
 * `now`: the node's time in the latest answer, which came at `answered_ms` of performance.now.
 */
export const history = { times: [], series: Object.create(null), now: 0, every: 5, answered_ms: null, error: null };

const listeners = new Set();
const wanting = new Set();

const polling = new Polling(
  HISTORY_EVERY_MS,
  async (signal) => {
    const since = history.times.at(-1);
    add(await ask("/history", { query: { since }, signal }));
    Object.assign(history, { answered_ms: performance.now(), error: null });
    tell();
  },
  (error) => {
    history.error = error;
    if (error.status === 401) polling.stop();
    tell();
  },
);

onBack(() => polling.now());
onToken(() => {
  polling.stop();
  if (wanting.size) polling.start();
});

/** Has `listener` called whenever samples have come, or have failed to. */
export function onHistory(listener) {
  listeners.add(listener);
  if (history.times.length || history.error !== null) listener();
}

/** Asks for samples as long as anybody, by name, wants them. */
export function wantHistory(who, wants) {
  if (wants) wanting.add(who);
  else wanting.delete(who);
  if (wanting.size) polling.start();
  else polling.stop();
}

/** Returns the latest number of a series; null if it has none, or if the node has taken no sample for a while. */
export function latest(name) {
  if (history.now - history.times.at(-1) > LATE * history.every) return null;
  return history.series[name]?.at(-1) ?? null;
}

/** Returns the names of the series that begin with `prefix`, in order. */
export function seriesOf(prefix) {
  return Object.keys(history.series)
    .filter((name) => name.startsWith(prefix))
    .sort();
}

/** Adds an answer of /history: samples behind those known, a series that is new or gone with nulls where it was not. */
export function add(answer) {
  if (history.times.at(-1) > answer.now) {
    // The node's clock was set back: what is known would lie in the future, and the node has begun anew.
    history.times.length = 0;
    for (const name of Object.keys(history.series)) delete history.series[name];
  }
  const newest = history.times.at(-1) ?? -Infinity;
  history.now = answer.now;
  const from = answer.times.findIndex((time) => time > newest);
  history.every = answer.every;
  const before = history.times.length;
  const fresh = from < 0 ? [] : answer.times.slice(from);
  const { lag = {}, ...series } = answer.series;
  for (const [peer, values] of Object.entries(lag)) series[`lag_${peer}`] = values;
  history.times.push(...fresh);
  for (const name of new Set([...Object.keys(history.series), ...Object.keys(series)])) {
    const values = (history.series[name] ??= new Array(before).fill(null));
    values.push(...fresh.map((_, place) => series[name]?.[from + place] ?? null));
  }
  const kept = history.times.findIndex((time) => time >= answer.now - HOUR_S);
  const passed = kept < 0 ? history.times.length : kept;
  history.times.splice(0, passed);
  for (const [name, values] of Object.entries(history.series)) {
    values.splice(0, passed);
    // Of a member that is gone, for one: nothing is left of it.
    if (values.every((value) => value === null)) delete history.series[name];
  }
}

function tell() {
  tellAll(listeners);
}
