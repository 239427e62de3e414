// What happens by the clock, and only while the page is seen: a hidden tab asks for nothing.

/** Calls `work` now and every `every_ms` while the page is seen. Returns a function that ends it. */
export function ticking(every_ms, work) {
  let timer = 0;
  const look = () => {
    clearInterval(timer);
    timer = 0;
    if (document.hidden) return;
    work();
    timer = setInterval(work, every_ms);
  };
  document.addEventListener("visibilitychange", look);
  look();
  return () => {
    document.removeEventListener("visibilitychange", look);
    clearInterval(timer);
  };
}

/**
 * Runs the coroutine `work(signal)` again and again while it is started and the page is seen, `every_ms` after it has ended,
 * never twice at once. What it raises is handed to `failed`.
 */
export class Polling {
  constructor(every_ms, work, failed) {
    this.every_ms = every_ms;
    this.work = work;
    this.failed = failed;
    this.started = false;
    this.round = null;
    this.timer = 0;
    document.addEventListener("visibilitychange", () => (document.hidden ? this.#rest() : this.now()));
  }

  start() {
    if (this.started) return;
    this.started = true;
    this.now();
  }

  stop() {
    this.started = false;
    this.#rest();
  }

  /** Runs the work at once, and what was under way not to its end. */
  now() {
    this.#rest();
    if (this.started && !document.hidden) this.#run();
  }

  #rest() {
    clearTimeout(this.timer);
    this.round?.abort();
    this.round = null;
  }

  async #run() {
    const round = (this.round = new AbortController());
    try {
      await this.work(round.signal);
    } catch (error) {
      if (!round.signal.aborted) this.failed(error);
    } finally {
      if (!round.signal.aborted) this.timer = setTimeout(() => this.#run(), this.every_ms);
    }
  }
}

/** Calls each of `listeners`; the browser's console is told of one that raises, and the others are called all the same. */
export function tellAll(listeners) {
  for (const listener of listeners) {
    try {
      listener();
    } catch (error) {
      reportError(error);
    }
  }
}
