// What stands around the picture, and what mouse and keys do.

const side = byId("side"), list = byId("list"), tip = byId("tip");
const ROW = 18; // pixels, of a line of the list

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

let asked = false;
/** Draws soon, once for all that changes until then. */
function redraw() {
  if (asked) return;
  asked = true;
  requestAnimationFrame(() => { asked = false; draw(); });
}

function choose(event, reveal = true) {
  view.chosen = event;
  if (event !== null && reveal) view.reveal(event);
  fillSide();
  scrollList();
  redraw();
}

function stepTo(event) {
  const step = element("button", { className: "step", type: "button", textContent: lineOf(event).trimStart() });
  step.addEventListener("click", () => choose(event));
  return step;
}

function fillSide() {
  const chosen = view.chosen === null ? [] : [describe(view.chosen)];
  side.replaceChildren(verdict(), ...chosen, ...otherViolations());
}

/** The violation that is looked at, in words, with the events that matter for it. */
function verdict() {
  const violation = scene.violations[view.violation];
  if (!violation) return element("section", {}, element("h2", { textContent: "No violation" }), ...reproduction());
  const count = scene.violations.length > 1 ? ` (${view.violation + 1} of ${scene.violations.length})` : "";
  const shown = element("div", { className: "violated", id: "violated" },
    element("h2", { textContent: `${violation.invariant}: ${violation.promise}${count}` }),
    element("p", { textContent: violation.what }),
    toViolation(view.violation, `at ${seconds(violation.at)} s`),
    element("ol", {}, ...violation.events.map(event => element("li", {}, stepTo(event)))));
  return element("section", {}, shown, ...reproduction());
}

function otherViolations() {
  const others = scene.violations.map((violation, number) =>
    toViolation(number, `${seconds(violation.at)}  ${violation.invariant}  ${violation.what}`));
  others.splice(view.violation, 1);
  return others.length ? [element("section", {}, element("h2", { textContent: "Other violations" }), ...others)] : [];
}

function toViolation(number, textContent) {
  const button = element("button", { className: "step soft", type: "button", textContent });
  button.addEventListener("click", () => goToViolation(number));
  return button;
}

function reproduction() {
  if (!scene.reproduction) return [];
  return [element("p", { className: "soft", textContent: "To run it again:" }), element("pre", { textContent: scene.reproduction })];
}

/** All that is known of an event. */
function describe(event) {
  const [time, lane, kind] = scene.events[event];
  const facts = [["Time", `${seconds(time)} s`], ["Where", scene.lanes[lane].name], ["Event", `${scene.kinds[kind]}, number ${event}`]];
  const flow = scene.flows.find(flow => flow.event === event);
  if (flow) facts.push([flow.kind === "call" ? "Answered after" : "Under way for", span(flow.points.at(-1)[0] - flow.points[0][0])]);
  const lease = scene.leases.find(lease => lease.steps.some(step => step.event === event));
  if (lease) facts.push(["Lease", leaseText(lease, lease.steps.find(step => step.event === event))]);
  const list = element("dl", {}, ...facts.flatMap(([name, value]) => [element("dt", { textContent: name }), element("dd", { textContent: value })]));
  const related = [flow?.cause, ...scene.flows.filter(flow => flow.cause === event).map(flow => flow.event)];
  const others = related.filter(event => event !== null && event !== undefined).slice(0, 12);
  return element("section", { id: "chosen" },
    element("h2", { textContent: "Event" }), list,
    element("pre", { textContent: lineOf(event) }),
    ...(others.length ? [element("p", { className: "soft", textContent: "Belongs to:" }), element("ol", {}, ...others.map(event => element("li", {}, stepTo(event))))] : []),
    element("pre", { textContent: scene.details[event] }));
}

/** The lines of the list that are in its window; the others are not in the document. */
function fillList() {
  const found = filter.found, first = Math.max(0, Math.floor(list.scrollTop / ROW) - 4);
  byId("rows").style.height = `${found.length * ROW}px`;
  byId("rows").replaceChildren(...found.slice(first, first + Math.ceil(list.clientHeight / ROW) + 8).map((event, index) => {
    const row = element("div", { className: "row", textContent: lineOf(event) });
    row.classList.toggle("chosen", event === view.chosen);
    row.classList.toggle("marked", markedEvents.has(event));
    row.style.top = `${(first + index) * ROW}px`;
    row.dataset.event = event;
    return row;
  }));
}

function scrollList() {
  const place = filter.found.indexOf(view.chosen);
  const shown = place * ROW >= list.scrollTop && (place + 1) * ROW <= list.scrollTop + list.clientHeight;
  if (place >= 0 && !shown) list.scrollTop = place * ROW - list.clientHeight / 2;
  fillList();
}

function applyFilter() {
  filter.apply();
  byId("matches").textContent = `${filter.found.length} events`;
  layRows();
  scrollList();
  redraw();
}

function fillMenu(menu, names, allowed, index) {
  const counts = names.map(() => 0);
  scene.events.forEach(event => { counts[event[index]]++; });
  const boxes = names.map((name, number) => {
    const box = element("input", { type: "checkbox", checked: true });
    box.addEventListener("change", () => { allowed[number] = box.checked; applyFilter(); });
    return [box, element("label", {}, box, name, element("span", { textContent: counts[number] }))];
  });
  const every = element("input", { type: "checkbox", checked: true });
  every.addEventListener("change", () => {
    boxes.forEach(([box], number) => { box.checked = allowed[number] = every.checked; });
    applyFilter();
  });
  menu.append(element("label", {}, every, "all"), ...boxes.map(([, line]) => line));
}

/** The next event that passes the filter, or the one before. */
function stepThrough(direction) {
  const found = filter.found;
  let place = found.findIndex(event => event >= (view.chosen ?? firstFrom(view.from)));
  if (place < 0) place = found.length;
  if (found[place] === view.chosen || direction < 0) place += direction;
  if (found[place] !== undefined) choose(found[place]);
}

function goToViolation(number) {
  view.showViolation(number);
  const lanes = scene.violations[number]?.events.map(event => rows[scene.events[event][LANE]]).filter(Boolean) ?? [];
  const top = Math.min(...lanes.map(row => row.top)), bottom = Math.max(...lanes.map(row => row.bottom));
  if (lanes.length && (top < view.scroll || bottom > view.scroll + picture.clientHeight - RULER)) view.scroll = top;
  choose(view.chosen, false);
}

function at(event) {
  const box = picture.getBoundingClientRect(), [left, top] = [event.clientX - box.left, event.clientY - box.top];
  const near = what => left >= what[0] && left <= what[2] && top >= what[1] && top <= what[3];
  const what = left > GUTTER && top > RULER ? hits.findLast(near)?.[4] : undefined;
  return { left, top, what };
}

function showTip(event) {
  const { left, top, what } = at(event);
  tip.hidden = !what;
  picture.style.cursor = what ? "pointer" : "";
  if (!what) return;
  const violation = scene.violations[what.violation];
  const head = violation ? `${violation.invariant}: ${violation.promise}` : what.text ?? scene.kinds[scene.events[what.event][KIND]];
  const text = violation ? violation.what : lineOf(what.event).trimStart();
  tip.replaceChildren(element("b", { textContent: head }), element("div", { className: "mono", textContent: text }));
  tip.style.left = `${Math.max(0, Math.min(left + 14, view.width - tip.offsetWidth - 8))}px`;
  tip.style.top = `${top + 18 + tip.offsetHeight > view.height ? top - tip.offsetHeight - 10 : top + 18}px`;
}

function listenToMouse() {
  let drag = null;
  picture.addEventListener("pointerdown", event => {
    if (event.button) return;
    drag = { x: event.clientX, y: event.clientY, far: 0 };
    picture.setPointerCapture(event.pointerId);
  });
  picture.addEventListener("pointermove", event => {
    if (!drag) return showTip(event);
    const [dx, dy] = [event.clientX - drag.x, event.clientY - drag.y];
    drag = { x: event.clientX, y: event.clientY, far: drag.far + Math.abs(dx) + Math.abs(dy) };
    tip.hidden = true;
    picture.classList.add("dragged");
    view.pan(-dx, -dy);
    redraw();
  });
  picture.addEventListener("pointerup", event => {
    picture.classList.remove("dragged");
    const click = drag && drag.far < 4;
    drag = null;
    if (!click) return;
    const { what } = at(event);
    if (what?.violation !== undefined) goToViolation(what.violation); else choose(what?.event ?? null, false);
  });
  picture.addEventListener("pointercancel", () => { drag = null; });
  picture.addEventListener("pointerleave", () => { tip.hidden = true; });
  picture.addEventListener("wheel", event => {
    event.preventDefault();
    const pixels = event.deltaMode ? 20 : 1;
    if (event.shiftKey) view.pan((event.deltaX + event.deltaY) * pixels);
    else if (Math.abs(event.deltaX) > Math.abs(event.deltaY)) view.pan(event.deltaX * pixels);
    else view.zoom(1.0015 ** (event.deltaY * pixels), Math.max(event.offsetX, GUTTER));
    redraw();
  }, { passive: false });
  const jump = event => {
    if (!(event.buttons & 1)) return;
    const time = (event.offsetX - 4) / (overview.clientWidth - 8) * scene.end, half = (view.to - view.from) / 2;
    view.show(time - half, time + half);
    redraw();
  };
  overview.addEventListener("pointerdown", jump);
  overview.addEventListener("pointermove", jump);
  list.addEventListener("scroll", fillList);
  list.addEventListener("click", event => {
    const row = event.target.closest(".row");
    if (row) choose(Number(row.dataset.event));
  });
}

const ACTIONS = {
  "+": () => view.zoom(1 / 1.5), "=": () => view.zoom(1 / 1.5), "-": () => view.zoom(1.5), "0": () => view.showAll(),
  ArrowLeft: () => view.pan(-80), ArrowRight: () => view.pan(80), ArrowUp: () => view.pan(0, -60), ArrowDown: () => view.pan(0, 60),
  n: () => stepThrough(1), p: () => stepThrough(-1), Escape: () => choose(null),
  v: () => goToViolation(view.chosen === null ? view.violation : (view.violation + 1) % Math.max(scene.violations.length, 1)),
  "/": () => byId("text").focus(),
};

function listenToKeys() {
  document.addEventListener("keydown", event => {
    const elsewhere = event.target.closest("input, #side, #list, #fallback, .menu") && event.key !== "Escape";
    if (elsewhere || event.ctrlKey || event.metaKey || event.altKey || !ACTIONS[event.key]) return;
    event.preventDefault();
    if (event.key === "Escape") document.activeElement.blur();
    ACTIONS[event.key]();
    redraw();
  });
  const buttons = { in: "+", out: "-", all: "0", violation: "v" };
  for (const [id, key] of Object.entries(buttons)) byId(id).addEventListener("click", () => { ACTIONS[key](); redraw(); });
  byId("violation").hidden = !scene.violations.length;
  byId("text").addEventListener("input", event => { filter.text = event.target.value; applyFilter(); });
  byId("filters").addEventListener("submit", event => event.preventDefault());
  document.addEventListener("click", event => document.querySelectorAll(".menu[open]").forEach(menu => { menu.open = menu.contains(event.target); }));
}

/** Light or dark: as the reader's system, until the button says otherwise. */
function followTheme() {
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const set = theme => {
    document.documentElement.dataset.theme = theme;
    readColours();
    fillLegend();
    redraw();
  };
  dark.addEventListener("change", () => set(dark.matches ? "dark" : "light"));
  byId("theme").addEventListener("click", () => set(document.documentElement.dataset.theme === "dark" ? "light" : "dark"));
  set(dark.matches ? "dark" : "light");
}

function fillLegend() {
  const entries = [
    ["call", "call, answer"], ["batch", "watch"], ["message", "message"], ["lease", "time left of a lease"],
    ["late", "deadline; watch is behind"], ["fault", "fault"], ["violation", "violation, error"],
  ];
  const keys = [["wheel", "zoom"], ["drag", "move"], ["n p", "next, previous"], ["v", "violation"], ["0", "all"]];
  byId("legend").replaceChildren(
    ...entries.map(([colour, text]) => {
      const swatch = element("i");
      swatch.style.background = colours[colour];
      return element("span", {}, swatch, text);
    }),
    ...keys.map(([key, text]) => element("span", {}, element("kbd", { textContent: key }), ` ${text}`)));
}

/** `#all` opens the whole run, `#event-7` an event; else it is the first violation. */
function openAt(place) {
  const event = Number(place.match(/^#event-(\d+)$/)?.[1] ?? NaN);
  goToViolation(0);
  if (place === "#all") view.showAll();
  if (scene.events[event]) {
    view.show(scene.events[event][TIME] - 5 * SECOND, scene.events[event][TIME] + 5 * SECOND);
    choose(event);
  }
}

fillMenu(byId("nodes"), scene.lanes.map(lane => lane.name), filter.lanes, LANE);
fillMenu(byId("kinds"), scene.kinds, filter.kinds, KIND);
followTheme();
listenToMouse();
listenToKeys();
filter.apply();
layRows();
applyFilter();
view.width = picture.clientWidth;
view.height = picture.clientHeight;
openAt(location.hash);
window.addEventListener("hashchange", () => openAt(location.hash));
new ResizeObserver(redraw).observe(picture);
const loaded = performance.now();
draw();
document.body.dataset.loadMs = (loaded - began).toFixed(1);
document.body.dataset.drawMs = (performance.now() - loaded).toFixed(1);
document.body.dataset.ready = "true";
