// A value as people read it: text, JSON, bytes; large ones are cut, and it is said so.

import { ask, call, pathOf, read, send } from "./calls.js";
import { element } from "./dom.js";
import { foreign } from "./words.js";

// Characters of a text, and bytes of a dump, that are shown at most.
const SHOWN_CHARACTERS = 20000;
const SHOWN_BYTES = 2048;
const ROW_BYTES = 16;
// The longest answer that is read at all: more would hold up the page while it is parsed.
const ANSWER_BYTES_MAX = 4 * 1024 * 1024;

/**
 * Reads a key and returns {key, kind, text, bytes, type, ttl, version, size, whole}, all without counting as a use of the key.
 * `kind`: text, json, bytes, hash, set or large. `text`: of text, the value; of json, exactly as the node keeps it.
 * `whole`: false if the value is too large to be read here.
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
    return { key, kind: "large", text: "", bytes: null, type: "", ttl: undefined, version, size: length, whole: false };
  }
  const found = await ask(pathOf(key), { query: { peek: "" }, signal });
  const told = { key, bytes: null, type: "", text: "", ttl: found.ttl, version: found.version, whole: true };
  if (found.type) {
    told.text = JSON.stringify(found.value);
    return { ...told, kind: found.type, type: found.encoding ? "base64" : "", size: told.text.length };
  }
  if (found.encoding === "base64") {
    const bytes = Uint8Array.from(atob(found.value), (character) => character.charCodeAt(0));
    return { ...told, kind: "bytes", bytes, type: found.content_type ?? "", size: bytes.length };
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

function bytesShown(bytes, form) {
  const some = bytes.subarray(0, SHOWN_BYTES);
  const cut = some.length === bytes.length ? "" : `Only the first ${some.length.toLocaleString("en")} bytes are shown.`;
  return { shown: boxed(form === "base64" ? btoa(String.fromCharCode(...some)) : dump(some), form !== "base64"), cut };
}

function boxed(shown, keeps = false) {
  // It scrolls: so it can be reached by the keyboard.
  return element("pre", { tabindex: "0", role: "region", "aria-label": "Value", class: keeps ? "dump" : "" }, shown);
}

function dump(bytes) {
  const lines = [];
  for (let at = 0; at < bytes.length; at += ROW_BYTES) {
    const some = [...bytes.subarray(at, at + ROW_BYTES)];
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
