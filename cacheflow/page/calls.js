// Calls of this node's HTTP API. The token is kept here, in memory alone: it is gone with the page.

import { tellAll } from "./ticking.js";

// Milliseconds until a call has no answer: a node that is well answers in a few.
export const PATIENCE_MS = 4000;

let token = "";
const listeners = new Set();

/** Has `listener` called whenever the token has changed. */
export function onToken(listener) {
  listeners.add(listener);
}

/** Keeps the token that all calls show from now on; "" for none. Raises RangeError if no header can hold it. */
export function setToken(text) {
  const given = text.trim();
  if (!/^[\x21-\x7e]*$/.test(given)) {
    throw new RangeError("this is no token: it has a space or a character that is not of ASCII");
  }
  token = given;
  tellAll(listeners);
}

/** Returns whether calls show a token. */
export function hasToken() {
  return token !== "";
}

/** No answer came: the node is gone, hangs or cannot be reached. */
export class NoAnswer extends Error {
  constructor() {
    super("this node does not answer");
  }
}

/** The node has answered that it does not do what it was asked for. `problem`: the members of its problem document. */
export class Refused extends Error {
  constructor(status, problem) {
    super(inWords(status, problem));
    this.status = status;
    this.problem = problem;
  }
}

/** Returns why something was not `verb`, deleted for example; or that nobody knows whether it was, where no answer says so. */
export function notDone(verb, error) {
  const isUnknown = error instanceof NoAnswer || error.status === 504;
  return `${isUnknown ? "It is not known whether it was" : "Not"} ${verb}: ${error.message}.`;
}

function inWords(status, problem) {
  if (status === 401) return token ? "this node does not know this token" : "this node asks for a token";
  const detail = problem.detail || problem.title || `the node has answered ${status}`;
  if (status === 504) return `${detail}. It may have taken place: look before you try again`;
  return detail;
}

/**
 * Sends a request and returns the Response, whatever its status. `patience_ms`: until the answer begins; 0 for no end.
 * Raises NoAnswer; and AbortError if `signal` ends it.
 */
export async function send(method, path, { query, headers, body, signal, patience_ms = PATIENCE_MS } = {}) {
  const asked = new URLSearchParams(
    Object.entries(query ?? {}).filter(([, value]) => value !== null && value !== undefined),
  );
  const ending = new AbortController();
  const end = () => ending.abort();
  const timer = patience_ms ? setTimeout(end, patience_ms) : 0;
  signal?.addEventListener("abort", end, { once: true });
  if (signal?.aborted) end();
  try {
    const shown = token ? { Authorization: `Bearer ${token}` } : {};
    const url = `${path}${asked.size ? `?${asked}` : ""}`;
    return await fetch(url, {
      method,
      headers: { ...shown, ...headers },
      body,
      signal: ending.signal,
      cache: "no-store",
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new NoAnswer();
  } finally {
    clearTimeout(timer);
  }
}

/** Sends a request and returns the Response of a success. `json`: the body's members. Raises Refused and NoAnswer. */
export async function call(method, path, { json, ...options } = {}) {
  if (json !== undefined) {
    options.body = typeof json === "string" ? json : JSON.stringify(json);
    options.headers = { ...options.headers, "Content-Type": "application/json" };
  }
  const response = await send(method, path, options);
  if (!response.ok) throw await refusal(response);
  return response;
}

/** Sends a GET that answers JSON and returns what that says. Raises Refused and NoAnswer. */
export async function ask(path, options = {}) {
  const response = await call("GET", path, { ...options, headers: { Accept: "application/json", ...options.headers } });
  return read(response.json(), options.signal);
}

/** Returns the Refused that an answer of failure stands for. */
export async function refusal(response) {
  let problem = {};
  try {
    const said = JSON.parse(await response.text());
    if (said !== null && typeof said === "object") problem = said;
  } catch {
    // Something between here and the node has answered in words of its own: the status is all that counts.
  }
  return new Refused(response.status, problem);
}

/** Returns what reading a body gives, within the patience of a call. Raises NoAnswer if it breaks off or stands still. */
export async function read(reading, signal) {
  let timer;
  try {
    const late = new Promise((_, fail) => {
      timer = setTimeout(() => fail(new NoAnswer()), 4 * PATIENCE_MS);
    });
    return await Promise.race([reading, late]);
  } catch (error) {
    if (signal?.aborted) throw error;
    throw error instanceof SyntaxError ? error : new NoAnswer();
  } finally {
    clearTimeout(timer);
  }
}

/** Returns the path of a key. Raises RangeError for "." and "..", which browsers take out of paths however they are spelt. */
export function pathOf(key) {
  if (key === "." || key === "..")
    throw new RangeError("a browser cannot name this key in a URL: use cacheflow get and set");
  return `/cache/${encodeURIComponent(key)}`;
}
