// One page of keys, kept as the cluster has it by the changes that a watch tells: never more than a page is held.

// The most keys that a page grows to before its last ones are left to the next page.
const GROWN_MAX = 150;

/** Returns whether `one` sorts before, with or behind `other` (-1, 0, 1) in the cluster's order, by code points. */
export function compare(one, other) {
  const length = Math.min(one.length, other.length);
  for (let place = 0; place < length; place++) {
    const [a, b] = [one.charCodeAt(place), other.charCodeAt(place)];
    // Surrogates stand for code points above all others, and are below some units of UTF-16.
    if (a !== b) return rank(a) < rank(b) ? -1 : 1;
  }
  return Math.sign(one.length - other.length);
}

function rank(unit) {
  return unit >= 0xd800 && unit < 0xe000 ? unit + 0x2000 : unit >= 0xe000 ? unit - 0x800 : unit;
}

/** The keys that begin with `prefix` behind the key `after`, up to the cursor `next`; null for the last page. */
export class KeyPage {
  constructor(prefix, after, keys, next) {
    Object.assign(this, { prefix, after, keys, next });
  }

  /** Takes a change in; returns whether the page is another now. */
  take({ what, key, prefix }) {
    if (key === undefined) return this.#dropAll(prefix);
    if (!key.startsWith(this.prefix) || compare(key, this.after) <= 0) return false;
    if (this.next !== null && compare(key, this.next) > 0) return false;
    const place = this.#placeOf(key);
    const isThere = this.keys[place] === key;
    if (what !== "set" && what !== "touch") {
      if (isThere) this.keys.splice(place, 1);
      return isThere;
    }
    if (isThere) return false;
    this.keys.splice(place, 0, key);
    if (this.keys.length > GROWN_MAX) {
      this.keys.length = 100;
      this.next = this.keys.at(-1);
    }
    return true;
  }

  #placeOf(key) {
    let [low, high] = [0, this.keys.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (compare(this.keys[middle], key) < 0) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  #dropAll(prefix) {
    const before = this.keys.length;
    this.keys = this.keys.filter((key) => !key.startsWith(prefix));
    return this.keys.length !== before;
  }
}
