// The latest events of this node, asked for while somebody looks.

import { ask, onToken } from "./calls.js";
import { onBack } from "./node.js";
import { Polling, tellAll } from "./ticking.js";

const KEPT = 200;
/** Milliseconds between an answer and the next question. */
export const EVENTS_EVERY_MS = 3000;

/** The events, oldest first, each {number, at, what, text, about}; when the latest answer came, and why there is no newer one. */
export const events = { list: [], answered_ms: null, error: null };

const listeners = new Set();
const wanting = new Set();
let next = null;

const polling = new Polling(
  EVENTS_EVERY_MS,
  async (signal) => {
    const answer = await ask("/events", { query: { since: next }, signal });
    // A node that was started again goes on with higher numbers, unless its clock was set back: then it tells all.
    if (next !== null && answer.next < next) events.list = [];
    const newest = events.list.at(-1)?.number ?? -1;
    events.list.push(...answer.events.filter((event) => event.number > newest));
    events.list.splice(0, Math.max(0, events.list.length - KEPT));
    next = answer.next;
    Object.assign(events, { answered_ms: performance.now(), error: null });
    tell();
  },
  (error) => {
    events.error = error;
    if (error.status === 401) polling.stop();
    tell();
  },
);

onBack(() => polling.now());
onToken(() => {
  polling.stop();
  if (wanting.size) polling.start();
});

/** Has `listener` called whenever events were asked for. */
export function onEvents(listener) {
  listeners.add(listener);
  if (events.list.length || events.error !== null) listener();
}

/** Asks for events as long as anybody, by name, wants them. */
export function wantEvents(who, wants) {
  if (wants) wanting.add(who);
  else wanting.delete(who);
  if (wanting.size) polling.start();
  else polling.stop();
}

function tell() {
  tellAll(listeners);
}
