"use strict";
// What is looked at: the scene, the filter, the stretch of time, and the choice of an event.

const began = performance.now();
const byId = id => document.getElementById(id);
const scene = JSON.parse(byId("scene").textContent);
const lines = byId("trace").textContent.split("\n");
const SECOND = 1e6;
const GUTTER = 132; // pixels, for the names of the lanes
const RULER = 26; // pixels, for the time

const [TIME, LANE, KIND] = [0, 1, 2]; // of an event
const lineOf = event => lines[event];
const restOf = event => lines[event].slice(scene.rest_from);
const seconds = (time, digits = 6) => (time / SECOND).toFixed(digits);

/** What took so long, in the unit that a reader wants. */
function span(time) {
  if (time < 1000) return `${time} µs`;
  return time < SECOND ? `${+(time / 1000).toFixed(3)} ms` : `${+(time / SECOND).toFixed(3)} s`;
}

/** The first index whose event is at or after a time. */
function firstFrom(time) {
  let [low, high] = [0, scene.events.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (scene.events[middle][TIME] < time) low = middle + 1; else high = middle;
  }
  return low;
}

const markedEvents = new Set(scene.violations.flatMap(violation => violation.events));

const filter = {
  lanes: scene.lanes.map(() => true),
  kinds: scene.kinds.map(() => true),
  text: "",
  /** For each event: does it pass? */
  passes: [],
  /** The events that pass. */
  found: [],
  apply() {
    const text = this.text.toLowerCase();
    this.passes = scene.events.map((event, index) =>
      this.lanes[event[LANE]] && this.kinds[event[KIND]] && (!text || lineOf(index).toLowerCase().includes(text)));
    this.found = [];
    this.passes.forEach((passes, index) => { if (passes) this.found.push(index); });
  },
};

const view = {
  from: 0,
  to: scene.end,
  scroll: 0, // pixels, of the lanes
  width: 0,
  height: 0,
  chosen: null, // an event
  violation: 0,

  x(time) { return GUTTER + (time - this.from) / (this.to - this.from) * (this.width - GUTTER); },
  time(x) { return this.from + (x - GUTTER) / (this.width - GUTTER) * (this.to - this.from); },

  /** Shows a stretch of time, within the run and a little around it, and at least 20 µs of it. */
  show(from, to) {
    const longest = Math.max(scene.end * 1.06, 1000), shortest = 20;
    const length = Math.min(Math.max(to - from, shortest), longest);
    const middle = (from + to) / 2, edge = length * 0.04;
    this.from = Math.min(Math.max(middle - length / 2, -edge), Math.max(scene.end + edge - length, -edge));
    this.to = this.from + length;
  },
  zoom(factor, x = GUTTER + (this.width - GUTTER) / 2) {
    const at = this.time(x);
    this.show(at - (at - this.from) * factor, at + (this.to - at) * factor);
  },
  pan(x, y = 0) {
    const time = x / (this.width - GUTTER) * (this.to - this.from);
    this.show(this.from + time, this.to + time);
    this.scroll += y;
  },
  showAll() { this.show(-scene.end * 0.02, scene.end * 1.02); },

  /** A violation with what led to it: it stands right of the middle, so that the time before it is seen. */
  showViolation(number) {
    const violation = scene.violations[number];
    if (!violation) return this.showAll();
    this.violation = number;
    const first = Math.min(violation.at, ...violation.events.map(event => scene.events[event][TIME]));
    const before = Math.min(Math.max((violation.at - first) * 1.15, 6 * SECOND), 60 * SECOND);
    this.from = violation.at - before;
    this.to = violation.at + before * 0.5;
    this.chosen = violation.events.at(-1) ?? null;
  },
  /** Moves as little as shows an event. */
  reveal(event) {
    const time = scene.events[event][TIME], length = this.to - this.from;
    if (time < this.from + length * 0.05 || time > this.to - length * 0.05) this.show(time - length / 2, time + length / 2);
  },
};
