// How old what is shown is, said in words once an answer fails or is late.

import { PATIENCE_MS } from "./calls.js";
import { say } from "./dom.js";
import { node } from "./node.js";
import { ticking } from "./ticking.js";
import { duration } from "./words.js";

/**
 * What is known of the age of a view, shown in `place`, or of its `part`, "figures" for example. `every_ms`: between an answer
 * and the next question.
 */
export class Freshness {
  constructor(place, every_ms, part = "") {
    this.place = place;
    [this.asOf, this.none] = part ? [`The ${part} are as of`, `No ${part} yet`] : ["As of", "Nothing to show yet"];
    this.late_ms = every_ms + PATIENCE_MS;
    this.answered_ms = null;
    this.failure = "";
    ticking(1000, () => this.look());
  }

  /** Notes when the latest answer came, by performance.now, null without one; and the error that is why there is no newer one. */
  note({ answered_ms, error }) {
    this.answered_ms = answered_ms;
    this.failure = error?.message ?? "";
    this.look();
  }

  /** Notes that an answer has not come, or was a refusal. */
  bad(error) {
    this.note({ answered_ms: this.answered_ms, error });
  }

  /** Says in words how old what is shown is; nothing while it is fresh, or while the first answer is awaited. */
  look() {
    const age_ms = this.answered_ms === null ? null : performance.now() - this.answered_ms;
    // While the node does not answer at all, nothing of it is fresh, whoever has asked last.
    const failure = this.failure || (node.error?.message ?? "");
    const late = failure !== "" || (age_ms !== null && age_ms >= this.late_ms);
    this.place.hidden = !late;
    if (!late) return say(this.place, "");
    const why = failure || "no newer answer has come";
    say(this.place, age_ms === null ? `${this.none}: ${why}.` : `${this.asOf} ${duration(age_ms / 1000)} ago: ${why}.`);
  }
}
