// A value as people read it: text, JSON, bytes; large ones are cut, and it is said so.

import { ask, call, pathOf, read, send } from "./calls.js";
import { element } from "./dom.js";
import { bytes, foreign, number } from "./words.js";

// Characters of a text, and bytes of a dump, that are shown at most.
const SHOWN_CHARACTERS = 20000;
const SHOWN_BYTES = 2048;
const ROW_BYTES = 16;
// The longest answer that is read at all: more would hold up the page while it is parsed.
const ANSWER_BYTES_MAX = 4 * 1024 * 1024;

/**
 * Reads a key and returns {key, kind, text, bytes, type, ttl, version, size, isPlain}, all without counting as a use of the key.
 * `kind`: text, json, bytes, hash, set or large. `text`: of text, the value; of json, exactly as the node keeps it.
 * `type`: of bytes, their content type; of hashes and sets, "base64" if not all in them is text. `isPlain`: whether it can be
 * changed by writing another value.
 */
export async function readKey(key, signal) {
  const head = await send("HEAD", pathOf(key), {
    query: { peek: "" },
    headers: { Accept: "application/json" },
    signal,
  });
  const length = Number(head.headers.get("Content-Length") ?? 0);
  if (head.ok && length > ANSWER_BYTES_MAX) {
    const version = Number((head.headers.get("ETag") ?? "").replaceAll('"', ""));
    return { key, kind: "large", text: "", bytes: null, type: "", ttl: undefined, version, size: length, isPlain: false };
  }
  const found = await ask(pathOf(key), { query: { peek: "" }, signal });
  const told = { key, bytes: null, type: "", text: "", ttl: found.ttl, version: found.version, isPlain: true };
  if (found.type) {
    told.text = JSON.stringify(found.value);
    return { ...told, kind: found.type, type: found.encoding ?? "", size: new Blob([told.text]).size, isPlain: false };
  }
  if (found.encoding === "base64") {
    const held = Uint8Array.from(atob(found.value), (character) => character.charCodeAt(0));
    return { ...told, kind: "bytes", bytes: held, type: found.content_type ?? "", size: held.length };
  }
  if (typeof found.value === "string") {
    return { ...told, kind: "text", text: found.value, size: new Blob([found.value]).size };
  }
  // A number of more than 53 bits would come out changed: what is shown is the text that the node keeps, of the same version.
  const headers = { "If-Match": `"${found.version}"` };
  const raw = await call("GET", pathOf(key), { query: { raw: "", peek: "" }, headers, signal });
  const text = await read(raw.text(), signal);
  return { ...told, kind: "json", text, size: new Blob([text]).size };
}

/** Returns the seconds that a value has left, or in words why there is no such number. */
export function leftOf({ ttl, read_ms }) {
  if (ttl === undefined) return "not read";
  return ttl === null ? "until it is deleted or evicted" : ttl - (performance.now() - read_ms) / 1000;
}

/** Returns what is known about a value, as a list of names and texts; `lives`: an element that says how long it lives. */
export function factsOf({ kind, type, size, version }, lives) {
  const facts = element("dl", { class: "facts" });
  const fact = (name, text) => facts.append(element("dt", {}, name), element("dd", {}, text));
  const isOfRedis = kind === "hash" || kind === "set";
  fact("Kind", type === "" ? kind : foreign(isOfRedis ? `${kind}, in ${type}` : `${kind}, ${type}`));
  fact("Size", isOfRedis || kind === "large" ? `${bytes(size)}, as JSON` : bytes(size));
  fact("Version", number(version));
  if (isOfRedis) fact("Changed by", `Redis' commands of ${kind === "hash" ? "hashes" : "sets"} alone`);
  facts.append(element("dt", {}, "Lives"), lives);
  return facts;
}

/** Returns {shown, cut}: an element that shows a value, and what is left out, in words. `form`: hex or base64, of bytes. */
export function shownValue(value, form) {
  if (value.kind === "large") return { shown: element("p", { class: "hint" }, "Too large to be shown here."), cut: "" };
  if (value.kind === "bytes") return bytesShown(value.bytes, form);
  const text = value.kind === "text" ? value.text : indented(value.text, SHOWN_CHARACTERS);
  const characters = text.length > SHOWN_CHARACTERS ? wholeCharacters(text, SHOWN_CHARACTERS) : text;
  const cut =
    characters === text ? "" : `Only the first ${characters.length.toLocaleString("en")} characters are shown.`;
  return { shown: boxed(foreign(characters, true)), cut };
}

function bytesShown(held, form) {
  const some = held.subarray(0, SHOWN_BYTES);
  const cut = some.length === held.length ? "" : `Only the first ${some.length.toLocaleString("en")} bytes are shown.`;
  return { shown: boxed(form === "base64" ? btoa(String.fromCharCode(...some)) : dump(some), form !== "base64"), cut };
}

function boxed(shown, keeps = false) {
  // It scrolls: so it can be reached by the keyboard.
  return element("pre", { tabindex: "0", role: "region", "aria-label": "Value", class: keeps ? "dump" : "" }, shown);
}

function dump(held) {
  const lines = [];
  for (let at = 0; at < held.length; at += ROW_BYTES) {
    const some = [...held.subarray(at, at + ROW_BYTES)];
    const hex = some.map((byte) => byte.toString(16).padStart(2, "0")).join(" ");
    const text = some.map((byte) => (byte >= 32 && byte < 127 ? String.fromCharCode(byte) : "·")).join("");
    lines.push(`${at.toString(16).padStart(6, "0")}  ${hex.padEnd(3 * ROW_BYTES - 1)}  ${text}`);
  }
  return lines.join("\n");
}

function wholeCharacters(text, length) {
  const unit = text.charCodeAt(length - 1);
  return text.slice(0, unit >= 0xd800 && unit < 0xdc00 ? length - 1 : length);
}

/** Returns valid JSON with line ends and indents, each number as it stands; a little more than `longest` characters at most. */
export function indented(json, longest = Infinity) {
  const made = [];
  let [last, depth, length] = ["", 0, 0];
  const put = (part) => {
    made.push(part);
    length += part.length;
  };
  const line = () => `\n${"  ".repeat(depth)}`;
  for (const [part] of json.matchAll(/"(?:[^"\\]|\\.)*"|[[\]{},:]|[^\s[\]{},:"]+/g)) {
    const isFirst = last === "[" || last === "{";
    if (part === "]" || part === "}") {
      depth--;
      put(isFirst ? part : line() + part);
    } else {
      put(isFirst ? line() + part : part);
      if (part === "[" || part === "{") depth++;
      else if (part === ",") put(line());
      else if (part === ":") put(" ");
    }
    last = part;
    if (length > longest) break;
  }
  return made.join("");
}
