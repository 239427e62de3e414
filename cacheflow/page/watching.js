// A watch of keys: changes as they happen, from a stream that fetch reads, because an EventSource cannot show a token.
//
// A watch that ends goes on behind the last position that it was told. What is no longer known there (410, "gone") makes the
// reader list the keys anew. Where other pages hold all streams that the browser may have, it looks in again and again instead.

import { refusal, send } from "./calls.js";
import { takeSeat } from "./seats.js";

// Milliseconds of silence after which a stream is dead: a node gives a sign of life every ten seconds.
const SILENCE_MS = 15000;
const AGAIN_MS = 1000;
// Milliseconds for which a stream is read that others wait for.
const LOOK_MS = 300;

/** Follows the keys that begin with `prefix` from the position `since` on, until it is closed. */
export class Watching {
  /**
   * `told`: is handed the changes that came together, [{what, key, prefix, version, ttl}]. `anew`: is called when changes were
   * missed. `state`: is handed "" whenever the stream lives, and otherwise the error that has ended it.
   */
  constructor(prefix, since, { told, anew, state }) {
    this.prefix = prefix;
    this.position = since;
    Object.assign(this, { told, anew, state });
    this.ending = new AbortController();
    this.#follow();
  }

  /** Ends the watch. */
  close() {
    this.ending.abort();
  }

  async #follow() {
    const { signal } = this.ending;
    while (!signal.aborted) {
      const leave = await takeSeat();
      try {
        const query = { prefix: this.prefix || null, since: this.position };
        const response = await send("GET", "/watch", { query, signal });
        if (response.status === 410) return this.anew();
        if (!response.ok) throw await refusal(response);
        this.state("");
        if (await this.#read(response.body.getReader(), leave === null)) return this.anew();
        if (signal.aborted) return;
        if (leave !== null) this.state(new Error("the stream of changes has ended"));
      } catch (error) {
        if (signal.aborted) return;
        this.state(error);
        if (error.status === 401 || error.status === 403) return;
      } finally {
        leave?.();
      }
      await new Promise((settle) => setTimeout(settle, AGAIN_MS));
    }
  }

  /** Reads the stream to its end, or only for a moment; returns true if it has said that changes were missed. */
  async #read(reader, isBrief) {
    const { signal } = this.ending;
    const decoder = new TextDecoder();
    let rest = "";
    let timer = 0;
    const end = () => reader.cancel().catch(() => {});
    signal.addEventListener("abort", end, { once: true });
    const brief = isBrief ? setTimeout(end, LOOK_MS) : 0;
    try {
      while (!signal.aborted) {
        clearTimeout(timer);
        timer = setTimeout(end, SILENCE_MS);
        const { done, value } = await reader.read();
        if (done || signal.aborted) return false;
        rest += decoder.decode(value, { stream: true });
        const ends = rest.lastIndexOf("\n\n");
        if (ends < 0) continue;
        const { changes, position, gone } = eventsIn(rest.slice(0, ends));
        rest = rest.slice(ends + 2);
        this.position = position ?? this.position;
        this.state("");
        if (changes.length) this.told(changes);
        if (gone) return true;
      }
      return false;
    } finally {
      clearTimeout(timer);
      clearTimeout(brief);
      signal.removeEventListener("abort", end);
      end();
    }
  }
}

/** Returns {changes, position, gone} of whole server-sent events. Events of other names are ignored. */
export function eventsIn(text) {
  const changes = [];
  let position = null;
  let gone = false;
  for (const block of text.split("\n\n")) {
    let [what, data] = ["", ""];
    for (const line of block.split("\n")) {
      if (line.startsWith("id: ")) position = line.slice(4);
      else if (line.startsWith("event: ")) what = line.slice(7);
      else if (line.startsWith("data: ")) data += line.slice(6);
    }
    if (what === "gone") gone = true;
    else if (["set", "touch", "delete", "expire", "evict"].includes(what)) changes.push({ what, ...JSON.parse(data) });
  }
  return { changes, position, gone };
}
