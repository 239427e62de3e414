// How old what is shown is, said in words once an answer fails or is late.

import { say } from "./dom.js";
import { ticking } from "./ticking.js";
import { duration } from "./words.js";

// Milliseconds after which the latest answer is old: more than twice what lies between two questions, and an answer's way.
const LATE_MS = 6000;

/** What is known of the age of one view, shown in `place`. */
export class Freshness {
  constructor(place) {
    this.place = place;
    this.answered_ms = null;
    this.failure = "";
    this.shown = false;
    ticking(1000, () => this.look());
  }

  /** Notes that an answer has come, of now. */
  good() {
    this.answered_ms = performance.now();
    this.failure = "";
    this.look();
  }

  /** Notes that an answer has not come, or was a refusal. */
  bad(error) {
    this.failure = error.message;
    this.look();
  }

  /** True if what is shown is of the last few seconds. */
  get isFresh() {
    return this.failure === "" && this.answered_ms !== null && performance.now() - this.answered_ms < LATE_MS;
  }

  /** Says in words how old what is shown is; nothing while it is fresh, or while the first answer is awaited. */
  look() {
    const age_ms = this.answered_ms === null ? null : performance.now() - this.answered_ms;
    const late = this.failure !== "" || (age_ms !== null && age_ms >= LATE_MS);
    this.place.hidden = !late;
    if (!late) return say(this.place, "");
    const why = this.failure || "no newer answer has come";
    say(this.place, age_ms === null ? `Nothing to show yet: ${why}.` : `As of ${duration(age_ms / 1000)} ago: ${why}.`);
  }
}
