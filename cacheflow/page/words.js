// Numbers, times and foreign texts as people read them.

import { element } from "./dom.js";

const whole = new Intl.NumberFormat("en");
const short = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });
const two = new Intl.NumberFormat("en", { maximumSignificantDigits: 2 });
const few = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });
const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });
const UNITS = ["bytes", "KiB", "MiB", "GiB", "TiB"];
// What is not seen, or turns what stands beside it around: controls, marks of direction, joiners, fillers, lone surrogates.
const HIDDEN = String.raw`[\p{Cc}\p{Cs}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}\u2800\ufff9-\ufffb]`;
const UNSEEN_IN_LINES = new RegExp(HIDDEN, "gu");
// In a name also blanks that nobody could tell from none, from a single space, or from one space fewer.
const UNSEEN = new RegExp(String.raw`${HIDDEN}|(?! )\p{Zs}|^ | $|(?<= ) | (?= )`, "gu");

/** Returns a number with its thousands apart. */
export function number(value) {
  return whole.format(value);
}

/** Returns a number with three digits that count, for rates and times. */
export function rough(value) {
  return value >= 1000 ? whole.format(Math.round(value)) : short.format(value);
}

/** Returns milliseconds that are known roughly, with two digits that count unless `inWords` says them another way. */
export function time(ms, inWords = (value) => two.format(value)) {
  return ms >= 1000 ? `${inWords(ms / 1000)} s` : `${inWords(ms)} ms`;
}

/** Returns a number in few characters, such as 2M, for the axis of a plot. */
export function compact(value) {
  return few.format(value);
}

/** Returns a number of bytes in the unit that fits. */
export function bytes(value) {
  if (value === 1) return "1 byte";
  let unit = 0;
  while (value >= 1024 && unit < UNITS.length - 1) [value, unit] = [value / 1024, unit + 1];
  return `${short.format(value)} ${UNITS[unit]}`;
}

/** Returns a number of seconds as a text, such as "12 s" or "3 h 5 min". */
export function duration(seconds) {
  if (seconds < 1) return `${short.format(Math.max(0, seconds))} s`;
  if (seconds < 120) return `${Math.floor(seconds)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 120) return `${minutes} min ${Math.floor(seconds % 60)} s`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

/** Returns the time of day of a moment, in Unix seconds, with the day where that is not today. */
export function moment(unix) {
  const date = new Date(unix * 1000);
  const time = clock.format(date);
  return date.toDateString() === new Date().toDateString() ? time : `${day.format(date)} ${time}`;
}

/** Returns `count` with the word for so many, such as "1 key" and "2 keys". */
export function counted(count, word, words = `${word}s`) {
  return `${number(count)} ${count === 1 ? word : words}`;
}

/**
 * Returns a foreign text to be shown: isolated from what stands beside it, and what is not seen in it as U+202E. `keepsLines`:
 * it is no name, but a value, whose lines and blanks are shown as they are.
 */
export function foreign(text, keepsLines = false) {
  const shown = element("bdi", { dir: "auto" });
  let from = 0;
  for (const found of text.matchAll(keepsLines ? UNSEEN_IN_LINES : UNSEEN)) {
    const [character] = found;
    if (keepsLines && (character === "\n" || character === "\t")) continue;
    shown.append(text.slice(from, found.index), element("span", { class: "unseen" }, named(character)));
    from = found.index + character.length;
  }
  shown.append(text.slice(from));
  return shown;
}

/** Returns a foreign text as plain text, for places that hold no elements: what is not seen in it as <U+202E>. */
export function plain(text, longest = Infinity) {
  const shown = text.replace(UNSEEN, (character) => `<${named(character)}>`);
  const characters = [...shown.slice(0, 4 * longest)];
  return characters.length > longest ? `${characters.slice(0, longest - 1).join("")}…` : shown;
}

function named(character) {
  return `U+${character.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`;
}
