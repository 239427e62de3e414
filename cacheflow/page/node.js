// What this node says of its cluster and of itself, asked every two seconds for all views.

import { ask, onToken, send, read } from "./calls.js";
import { Polling } from "./ticking.js";

const EVERY_MS = 2000;

/** The latest answers. `status`: of /cluster/status; `checks`: of /readyz, each {name, ok, text}; `error`: why there is no newer one. */
export const node = { status: null, checks: [], error: null };

const listeners = new Set();

/** Has `listener` called after every answer and every failure. */
export function onNode(listener) {
  listeners.add(listener);
  if (node.status !== null || node.error !== null) listener();
}

const polling = new Polling(
  EVERY_MS,
  async (signal) => {
    const [status, checks] = await Promise.all([ask("/cluster/status", { signal }), health(signal)]);
    Object.assign(node, { status, checks, error: null });
    tell();
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
  const check = node.checks.find(({ name }) => name === "leader");
  return check !== undefined && !check.ok ? null : node.status.leader;
}

async function health(signal) {
  const response = await send("GET", "/readyz", { query: { verbose: "" }, signal });
  return checksIn(await read(response.text(), signal));
}

/** Returns the health checks that a text of /readyz lists. */
export function checksIn(text) {
  const checks = [];
  for (const line of text.split("\n")) {
    const found = /^\[([+-])\](\S+) (?:ok|failed)(?:: (.*))?$/.exec(line);
    if (found) checks.push({ name: found[2], ok: found[1] === "+", text: found[3] ?? "" });
  }
  return checks;
}

function tell() {
  for (const listener of listeners) listener();
}
