// What this node says of its cluster and of itself, asked every two seconds for all views.

import { ask, onToken } from "./calls.js";
import { Polling, tellAll } from "./ticking.js";

/** Milliseconds between an answer and the next question. */
export const NODE_EVERY_MS = 2000;

/**
 * The latest answer of /cluster/status, when it came (answered_ms, by performance.now), and why there is no newer one: an error,
 * null if there is none.
 */
export const node = { status: null, answered_ms: null, error: null };

const listeners = new Set();
const backListeners = new Set();

/** Has `listener` called after every answer and every failure. */
export function onNode(listener) {
  listeners.add(listener);
  if (node.status !== null || node.error !== null) listener();
}

/** Has `listener` called when the node answers again that did not. */
export function onBack(listener) {
  backListeners.add(listener);
}

const polling = new Polling(
  NODE_EVERY_MS,
  async (signal) => {
    const status = await ask("/cluster/status", { signal });
    const isBack = node.error !== null;
    Object.assign(node, { status, answered_ms: performance.now(), error: null });
    tell();
    if (isBack) tellAll(backListeners);
  },
  (error) => {
    node.error = error;
    // Asking again without a token that is known would only be refused again.
    if (error.status === 401) polling.stop();
    tell();
  },
);

onToken(() => {
  polling.stop();
  polling.start();
});

/** Begins to ask. */
export function follow() {
  polling.start();
}

/** Asks at once, because something was changed. */
export function askAgain() {
  polling.now();
}

/** Returns the id of the leader that this node can reach; null without one. */
export function leaderId() {
  // A node goes on naming a leader for a while that it does not reach any more.
  return node.status.checks.some(({ name, passed }) => name === "leader" && !passed) ? null : node.status.leader;
}

function tell() {
  tellAll(listeners);
}
