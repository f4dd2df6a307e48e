// The picture: what is in view, drawn anew each time.

const picture = byId("picture"), overview = byId("overview");
const pen = picture.getContext("2d"), small = overview.getContext("2d");
const [AXIS, FAULT, LEASE, WATCH, GAP] = [26, 15, 19, 13, 6]; // heights of the tracks of a lane
const FLOWS_CLEAR = 300; // lines that can be told apart
const LETTER = 6.3; // the width of a letter in a label
let colours = {}, rows = [], hits = [];

function readColours() {
  const style = getComputedStyle(document.documentElement);
  for (const name of ["paper", "panel", "stripe", "rule", "ink", "soft", "call", "batch", "message", "lease", "late", "fault", "violation", "focus", "dead"]) {
    colours[name] = style.getPropertyValue(`--${name}`).trim();
  }
}

/** Where each lane stands, from the top of the first; lanes that are filtered out have no row. */
function layRows() {
  const tracks = (things, lane) => things.reduce((most, thing) => thing.lane === lane ? Math.max(most, thing.track + 1) : most, 0);
  let top = 0;
  rows = scene.lanes.map((lane, index) => {
    if (!filter.lanes[index]) return null;
    const counts = [scene.faults, scene.leases, scene.watches].map(things => tracks(things, index));
    const faults = top + GAP, axis = faults + counts[0] * FAULT + AXIS / 2, leases = axis + AXIS / 2;
    const watches = leases + counts[1] * LEASE;
    const row = { top, faults, axis, leases, watches, bottom: watches + counts[2] * WATCH + GAP };
    top = row.bottom;
    return row;
  });
}

/** For each thing in a track, where its label has to end: where the next thing of the track begins. */
function measureRoom(things, from) {
  const next = new Map();
  for (const thing of things.toReversed()) {
    const track = `${thing.lane},${thing.track}`;
    thing.roomTo = next.get(track) ?? Infinity;
    next.set(track, from(thing));
  }
}
measureRoom(scene.faults, fault => fault.from);
measureRoom(scene.leases, lease => lease.steps[0].at);

const rowsHeight = () => rows.reduce((most, row) => row ? Math.max(most, row.bottom) : most, 0);
const inView = (from, to) => to >= view.from && from <= view.to;
const y = offset => RULER + offset - view.scroll;
/** A place in the picture, not so far outside that it troubles the canvas. */
const x = time => Math.min(Math.max(view.x(time), -50), view.width + 50);
/** What is drawn here can be pointed at; what is drawn later lies above. */
const hit = (left, top, width, height, what) => hits.push([left, top, left + width, top + height, what]);

function size(canvas, context) {
  const scale = window.devicePixelRatio || 1, { clientWidth: width, clientHeight: height } = canvas;
  if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
  }
  context.setTransform(scale, 0, 0, scale, 0, 0);
  return [width, height];
}

function draw() {
  [view.width, view.height] = size(picture, pen);
  view.scroll = Math.max(0, Math.min(view.scroll, rowsHeight() + RULER - view.height));
  hits = [];
  pen.fillStyle = colours.paper;
  pen.fillRect(0, 0, view.width, view.height);
  pen.font = "11px ui-monospace, Menlo, 'DejaVu Sans Mono', monospace";
  pen.textBaseline = "middle";
  const step = tickStep();
  drawRows(step);
  drawFlows();
  scene.leases.forEach(drawLease);
  scene.watches.forEach(drawWatch);
  drawEvents();
  drawViolations();
  drawRuler(step);
  drawNames();
  drawOverview();
}

function drawRows(step) {
  rows.forEach((row, lane) => {
    if (!row) return;
    pen.fillStyle = lane % 2 ? colours.stripe : colours.paper;
    pen.fillRect(GUTTER, y(row.top), view.width, row.bottom - row.top);
  });
  pen.fillStyle = colours.rule;
  for (let time = Math.ceil(view.from / step) * step; time <= view.to; time += step) {
    pen.fillRect(Math.round(view.x(time)), RULER, 1, Math.min(rowsHeight() - view.scroll, view.height));
  }
  scene.faults.forEach(drawFault);
  rows.forEach((row, lane) => {
    if (!row) return;
    pen.fillStyle = colours.rule;
    pen.fillRect(GUTTER, Math.round(y(row.bottom)) - 1, view.width, 1);
    if (scene.lanes[lane].role !== "node") drawLife({ lane, from: 0, to: scene.end });
  });
  scene.lives.forEach(drawLife);
}

function drawFault(fault) {
  const row = rows[fault.lane];
  if (!row || !inView(fault.from, fault.to)) return;
  const left = x(fault.from), width = Math.max(x(fault.to) - left, 2), top = y(row.faults + fault.track * FAULT);
  pen.fillStyle = colours.fault;
  pen.globalAlpha = 0.09;
  if (fault.to > fault.from) pen.fillRect(left, y(row.top), width, row.bottom - row.top - 1);
  pen.globalAlpha = 0.3;
  pen.fillRect(left, top, width, FAULT - 2);
  pen.globalAlpha = 1;
  pen.fillRect(left, top, 2, FAULT - 2);
  // A name begins where it can be read, also if its band began before.
  const begin = Math.max(left, GUTTER) + 6, room = fault.to > fault.from ? left + width - begin : Math.min(x(fault.roomTo) - begin, 200);
  label(fault.text, begin, top + FAULT / 2 - 1, room, colours.ink);
  hit(left, top, Math.max(width, 8), FAULT, { event: fault.event, text: `${fault.text}${fault.to > fault.from ? `, ${span(fault.to - fault.from)} in all` : ""}` });
}

function drawLife(life) {
  const row = rows[life.lane];
  if (!row || !inView(life.from, life.to)) return;
  const left = x(life.from), right = x(life.to), top = Math.round(y(row.axis));
  pen.fillStyle = colours.soft;
  pen.fillRect(left, top, right - left, 1);
}

/** A text that is cut to its room; on a ground of its own if it is given one. */
function label(text, left, middle, room, colour, ground = null) {
  const letters = Math.floor(room / LETTER);
  if (letters < 3) return;
  const cut = text.length > letters ? `${text.slice(0, letters - 1)}…` : text;
  if (ground) {
    pen.fillStyle = ground;
    pen.fillRect(left - 2, middle - 7, pen.measureText(cut).width + 4, 14);
  }
  pen.fillStyle = colour;
  pen.fillText(cut, left, middle);
}

/** Lines between lanes. Of those that would lie on each other one is drawn; the more there are, the paler. */
function drawFlows() {
  const drawn = new Map();
  for (const flow of scene.flows) {
    const points = flow.points, last = points.at(-1);
    if (!inView(points[0][0], last[0]) || !filter.passes[flow.event] || points.some(([, lane]) => !rows[lane])) continue;
    const chosen = view.chosen !== null && (flow.event === view.chosen || flow.cause === view.chosen);
    const ends = [points[0], last].map(([time, lane]) => Math.round(x(time)) + 100 + 16384 * lane);
    const place = ends[0] * 2 ** 26 + ends[1];
    if (chosen || !drawn.has(place)) drawn.set(chosen ? flow : place, { flow, chosen });
  }
  const pale = Math.min(1, Math.sqrt(FLOWS_CLEAR / drawn.size));
  for (const { flow, chosen } of drawn.values()) {
    pen.strokeStyle = flow.failed ? colours.violation : colours[flow.kind];
    pen.globalAlpha = chosen ? 1 : pale * (flow.failed ? 0.6 : flow.kind === "message" ? 0.22 : 0.4);
    pen.lineWidth = chosen ? 2 : 1;
    pen.setLineDash(flow.failed ? [4, 3] : []);
    pen.beginPath();
    flow.points.forEach(([time, lane]) => pen.lineTo(x(time), y(rows[lane].axis)));
    pen.stroke();
  }
  pen.setLineDash([]);
  pen.globalAlpha = 1;
}

/** The time that a lease has left, which runs down to nothing and is filled up by each heartbeat. */
function drawLease(lease) {
  const row = rows[lease.lane], from = lease.steps[0].at;
  if (!row || !inView(from, lease.to)) return;
  const top = y(row.leases + lease.track * LEASE) + 1, height = LEASE - 4, bottom = top + height;
  const left = x(from), right = Math.max(x(lease.to), left + 2);
  pen.fillStyle = colours.lease;
  pen.globalAlpha = 0.16;
  pen.fillRect(left, top, right - left, height);
  pen.globalAlpha = 0.75;
  const steps = lease.steps;
  const longest = Math.max(lease.ttl, ...steps.map(step => step.deadline - step.at));
  const level = left => bottom - Math.max(0, Math.min(1, left / longest)) * height;
  for (let index = 0; index < steps.length; index++) {
    const step = steps[index], next = steps[index + 1]?.at ?? lease.to;
    if (!inView(step.at, next)) continue;
    const empty = Math.min(step.deadline, next), [begin, end] = [x(step.at), x(empty)];
    const atBegin = step.deadline - Math.max(step.at, view.time(begin)), atEnd = step.deadline - Math.min(empty, view.time(end));
    pen.fillStyle = step.how === "revived" ? colours.call : colours.lease;
    pen.beginPath();
    pen.moveTo(begin, bottom);
    pen.lineTo(begin, level(atBegin));
    pen.lineTo(end, level(atEnd));
    pen.lineTo(end, bottom);
    pen.fill();
    // Beyond its deadline a lease is there on borrowed time.
    if (next > step.deadline) {
      pen.fillStyle = colours.late;
      pen.fillRect(end, bottom - 3, Math.max(x(next) - end, 1), 3);
    }
    hit(begin, top, Math.max(x(next) - begin, 4), height, { event: step.event, text: leaseText(lease, step) });
  }
  pen.globalAlpha = 1;
  const last = steps.at(-1);
  pen.fillStyle = colours.late;
  if (inView(last.deadline, last.deadline)) pen.fillRect(Math.round(x(last.deadline)), top - 1, 2, height + 2);
  if (lease.end && inView(lease.to, lease.to)) {
    pen.fillStyle = lease.end[0] === "expired" ? colours.violation : colours.soft;
    pen.fillRect(Math.round(right) - 1, top - 1, 2, height + 2);
    label(lease.end[0], right + 5, top + height / 2, Math.min(60, x(lease.roomTo) - right - 6), pen.fillStyle);
    hit(right - 4, top - 1, 9, height + 2, { event: lease.end[1], text: `lease ${lease.id} ${lease.end[0]}` });
  }
  const begin = Math.max(left, GUTTER) + 5;
  label(`lease ${lease.id}`, begin, top + height / 2 + 0.5, right - begin, colours.ink);
}

function leaseText(lease, step) {
  return `lease ${lease.id}, ${span(lease.ttl)}; ${step.how} at ${seconds(step.at)}, deadline ${seconds(step.deadline)}`;
}

/** How far a watch is: calm while it has shown all that there is, warm while the store has more for it. */
function drawWatch(watch) {
  const row = rows[watch.lane], steps = watch.steps;
  if (!row || !steps.length || !inView(steps[0][0], watch.to)) return;
  const top = y(row.watches + watch.track * WATCH) + 2, height = WATCH - 5;
  let free = GUTTER;
  for (let index = 0; index < steps.length; index++) {
    const [time, revision, behind] = steps[index], next = steps[index + 1]?.[0] ?? watch.to;
    if (!inView(time, next) || (next === time && index + 1 < steps.length)) continue;
    const left = Math.max(x(time), GUTTER), right = Math.max(x(next), left + 1);
    pen.fillStyle = behind ? colours.late : colours.batch;
    pen.globalAlpha = behind ? 0.6 : 0.26;
    pen.fillRect(left, top, right - left, height);
    pen.globalAlpha = 1;
    pen.fillStyle = colours.batch;
    pen.fillRect(Math.round(left), top - 1, 1, height + 2);
    const text = index ? `r${revision}` : `watch ${watch.id} ${watch.range} r${revision}`;
    if (left >= free && right - left > LETTER * (text.length + 1)) {
      label(text, left + 4, top + height / 2 + 0.5, right - left, colours.ink);
      free = left + LETTER * (text.length + 2);
    }
    hit(left, top, right - left, height, { event: watch.event, text: `watch ${watch.id} of ${watch.range}: at revision ${revision}${behind ? ", the store has more" : ""}` });
  }
  if (watch.end && inView(watch.to, watch.to)) {
    pen.fillStyle = watch.end === "dropped" ? colours.soft : colours.violation;
    pen.fillRect(Math.round(x(watch.to)) - 1, top - 1, 2, height + 2);
    label(watch.end, x(watch.to) + 4, top + height / 2, 80, pen.fillStyle);
  }
}

const SHAPES = { begin: "start", die: "cross", panic: "cross", fault: "diamond", heal: "diamond", expire: "cross", commit: "square", note: "square", fact: "square" };
const FAMILY = {
  answer: "call", watch: "batch", batch: "batch", unwatch: "violation", publish: "message", deliver: "message",
  grant: "lease", renew: "lease", revive: "call", expire: "violation", revoke: "soft", commit: "call", compact: "fault", replace: "fault",
  giveup: "violation", leased: "lease", txn: "call", read: "call", drop: "soft", sub: "message", unsub: "message", lag: "violation",
  request: "message", met: "soft", pause: "fault", resume: "fault", rest: "soft",
  begin: "lease", die: "violation", panic: "violation", fault: "fault", heal: "fault", link: "fault", note: "ink", fact: "soft",
};

function drawEvents() {
  const marks = scene.lanes.map(() => []);
  for (let event = firstFrom(view.from); event < scene.events.length && scene.events[event][TIME] <= view.to; event++) {
    const lane = scene.events[event][LANE];
    if (rows[lane] && filter.passes[event]) marks[lane].push(event);
  }
  marks.forEach((events, lane) => {
    let before = -Infinity;
    events.forEach((event, index) => {
      const at = Math.round(x(scene.events[event][TIME])), middle = y(rows[lane].axis);
      const kind = scene.kinds[scene.events[event][KIND]], colour = colours[FAMILY[kind] ?? "ink"];
      const next = index + 1 < events.length ? x(scene.events[events[index + 1]][TIME]) : view.width;
      hit(at - 4, middle - 6, 9, 12, { event });
      if (at - before < 1 && !markedEvents.has(event) && event !== view.chosen) return;
      before = at;
      pen.fillStyle = pen.strokeStyle = colour;
      shape(SHAPES[kind] ?? "dot", at, middle);
      if (event === view.chosen || markedEvents.has(event)) ring(at, middle, event === view.chosen ? colours.focus : colours.violation);
      if (next - at > 50) label(`${kind} ${restOf(event)}`, at + 9, middle, next - at - 18, colours.soft, lane % 2 ? colours.stripe : colours.paper);
    });
  });
}

function shape(name, at, middle) {
  pen.beginPath();
  pen.lineWidth = 2;
  if (name === "dot") pen.arc(at, middle, 2.6, 0, 7);
  if (name === "square") pen.rect(at - 2.5, middle - 2.5, 5, 5);
  if (name === "start") [[-3, -4], [4, 0], [-3, 4]].forEach(([dx, dy]) => pen.lineTo(at + dx, middle + dy));
  if (name === "diamond") [[0, -5], [4, 0], [0, 5], [-4, 0]].forEach(([dx, dy]) => pen.lineTo(at + dx, middle + dy));
  if (name !== "cross") return pen.fill();
  [[-4, -4, 4, 4], [-4, 4, 4, -4]].forEach(([fromX, fromY, toX, toY]) => {
    pen.moveTo(at + fromX, middle + fromY);
    pen.lineTo(at + toX, middle + toY);
  });
  pen.stroke();
}

function ring(at, middle, colour) {
  pen.strokeStyle = colour;
  pen.lineWidth = 2;
  pen.beginPath();
  pen.arc(at, middle, 7.5, 0, 7);
  pen.stroke();
}

function drawViolations() {
  scene.violations.forEach((violation, number) => {
    const at = Math.round(view.x(violation.at)), current = number === view.violation;
    if (current) picture.dataset.violationX = at;
    if (!inView(violation.at, violation.at)) return;
    pen.fillStyle = colours.violation;
    pen.globalAlpha = current ? 1 : 0.5;
    pen.fillRect(at - 1, RULER, current ? 2 : 1, view.height);
    pen.globalAlpha = 1;
    hit(at - 3, RULER, 7, view.height, { violation: number });
  });
  const current = scene.violations[view.violation];
  if (!current || !inView(current.at, current.at)) return;
  const at = Math.round(view.x(current.at)), text = `${current.invariant} violated`;
  pen.fillStyle = colours.violation;
  pen.fillRect(at - 1, RULER, text.length * LETTER + 18, 18);
  pen.fillStyle = colours.panel;
  pen.fillText(text, at + 7, RULER + 9.5);
}

/** The time between two lines, in µs: round, and wide enough for its text. */
function tickStep() {
  const least = (view.to - view.from) / Math.max((view.width - GUTTER) / 110, 1);
  const power = 10 ** Math.floor(Math.log10(Math.max(least, 1)));
  return [1, 2, 5, 10].map(factor => factor * power).find(step => step >= least);
}

function drawRuler(step) {
  pen.fillStyle = colours.panel;
  pen.fillRect(0, 0, view.width, RULER);
  pen.fillStyle = colours.rule;
  pen.fillRect(0, RULER - 1, view.width, 1);
  const digits = Math.max(0, 6 - Math.floor(Math.log10(step) + 1e-9));
  pen.fillStyle = colours.soft;
  pen.textAlign = "center";
  for (let time = Math.ceil(view.from / step) * step; time <= view.to; time += step) {
    if (time >= 0) pen.fillText(`${seconds(time, digits)} s`, Math.round(view.x(time)), RULER / 2);
  }
  pen.textAlign = "left";
}

function drawNames() {
  pen.fillStyle = colours.panel;
  pen.fillRect(0, 0, GUTTER, view.height);
  pen.fillStyle = colours.soft;
  pen.fillText("virtual time", 14, RULER / 2);
  pen.save();
  pen.beginPath();
  pen.rect(0, RULER, GUTTER, view.height);
  pen.clip();
  rows.forEach((row, lane) => {
    if (!row) return;
    pen.font = "600 12px system-ui, 'Segoe UI', 'Helvetica Neue', sans-serif";
    label(scene.lanes[lane].name, 14, y(row.axis), GUTTER - 22, colours.ink);
    pen.font = "10px system-ui, 'Segoe UI', 'Helvetica Neue', sans-serif";
    if (row.watches > row.leases) label("leases", 26, y(row.leases) + LEASE / 2, 90, colours.soft);
    if (row.bottom - GAP > row.watches) label("watches", 26, y(row.watches) + WATCH / 2, 90, colours.soft);
    if (row.axis - AXIS / 2 > row.faults) label("faults", 26, y(row.faults) + FAULT / 2 - 1, 90, colours.soft);
    pen.fillStyle = colours.rule;
    pen.fillRect(0, Math.round(y(row.bottom)) - 1, GUTTER, 1);
  });
  pen.restore();
  pen.fillStyle = colours.rule;
  pen.fillRect(GUTTER - 1, 0, 1, view.height);
}

/** The whole run: how much happens when, its faults and violations, and what is in view. */
function drawOverview() {
  const [width, height] = size(overview, small);
  const place = time => time / Math.max(scene.end, 1) * (width - 8) + 4;
  small.fillStyle = colours.panel;
  small.fillRect(0, 0, width, height);
  const counts = new Array(Math.ceil(width / 3)).fill(0);
  filter.found.forEach(event => { counts[Math.floor(place(scene.events[event][TIME]) / 3)]++; });
  const most = Math.max(1, ...counts);
  small.fillStyle = colours.soft;
  small.globalAlpha = 0.5;
  counts.forEach((count, index) => small.fillRect(index * 3, height - 2, 2, -Math.sqrt(count / most) * (height - 12)));
  small.fillStyle = colours.fault;
  scene.faults.forEach(fault => small.fillRect(place(fault.from), 2, Math.max(place(fault.to) - place(fault.from), 2), 4));
  small.globalAlpha = 1;
  small.fillStyle = colours.violation;
  scene.violations.forEach(violation => small.fillRect(place(violation.at) - 1, 0, 2, height));
  const [left, right] = [place(Math.max(view.from, 0)), place(Math.min(view.to, scene.end))];
  small.fillStyle = small.strokeStyle = colours.focus;
  small.globalAlpha = 0.14;
  small.fillRect(left, 0, Math.max(right - left, 2), height);
  small.globalAlpha = 1;
  small.strokeRect(left + 0.5, 0.5, Math.max(right - left, 3) - 1, height - 2);
}
