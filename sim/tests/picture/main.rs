//! The picture of a run, as a browser shows it.
#![allow(clippy::unwrap_used, reason = "a test may")]

mod browser;
mod story;

use browser::{Page, SIZE, attribute};
use slipring_sim::Trace;
use slipring_sim::picture::Picture;

use crate::story::{Story, large, small};

/// It would end the title, an attribute and a script, if one of them let it.
const TITLE: &str = "seed 7 </title></script><b id=\"broken\">&amp;";
const REPRODUCTION: &str = "replay --scenario picture --seed 7 </script>";

fn picture(story: &Story) -> String {
    let picture = Picture::new(&story.report.history).with_title(TITLE).with_violations(&story.violations);
    picture.with_reproduction(REPRODUCTION).to_html()
}

/// Beyond this a page is not readable any more, even if others keep the machine busy.
const MILLIS_MAX: f64 = 3_000.0;

/// More than 10,000 events are loaded and drawn in no time, without an error in a script. The page opens
/// at the first violation: it says in words what is wrong, marks the event, and draws the moment from top to
/// bottom, right of the middle, so that what led to it is seen.
#[test]
fn a_failing_run_opens_at_its_violation() {
    let story = large();
    assert!(story.report.history.moments().len() > 10_000, "{}", story.report.history.moments().len());
    let page = Page::new(&picture(&story));
    let dom = page.dom("");
    assert_eq!((attribute(&dom, "data-error"), attribute(&dom, "data-ready")), (None, Some("true")));
    let millis = |name| attribute(&dom, name).unwrap().parse::<f64>().unwrap();
    let (load, draw) = (millis("data-load-ms"), millis("data-draw-ms"));
    println!("{} events: loaded in {load} ms, drawn in {draw} ms", story.report.history.moments().len());
    assert!(load + draw < MILLIS_MAX, "loaded in {load} ms, drawn in {draw} ms");

    let violation = &story.violations[0];
    let told = between(&dom, "id=\"violated\"", "</section>");
    for text in [violation.invariant, violation.promise(), &violation.what] {
        assert!(told.contains(text), "{text}: {told}");
    }
    assert!(between(&dom, "id=\"rows\"", "</section>").contains("marked"));

    let x: usize = attribute(&dom, "data-violation-x").unwrap().parse().unwrap();
    assert!((SIZE.0 / 4..SIZE.0 * 3 / 4).contains(&x), "{x}");
    let shot = page.screenshot("", &[]);
    assert!(shot.count(x, VIOLATION) > SIZE.1 / 2, "{} pixels", shot.count(x, VIOLATION));
    // The line is two pixels wide, and red is rare beside it.
    assert!(shot.count(x - 4, VIOLATION) < 20, "{} pixels", shot.count(x - 4, VIOLATION));
}

/// The whole of a large run at once is drawn as fast, and so is it in the dark.
#[test]
fn the_whole_run_can_be_seen_in_the_dark() {
    let story = large();
    let page = Page::new(&picture(&story));
    let dom = page.dom("#all");
    assert_eq!(attribute(&dom, "data-error"), None);
    let draw: f64 = attribute(&dom, "data-draw-ms").unwrap().parse().unwrap();
    println!("all of {} events: drawn in {draw} ms", story.report.history.moments().len());
    assert!(draw < MILLIS_MAX, "drawn in {draw} ms");
    let x: usize = attribute(&dom, "data-violation-x").unwrap().parse().unwrap();
    let shot = page.screenshot("#all", &["--blink-settings=preferredColorScheme=0"]);
    assert!(shot.count(x, VIOLATION_IN_THE_DARK) > SIZE.1 / 3, "{}", shot.count(x, VIOLATION_IN_THE_DARK));
    assert_eq!(shot.pixel(SIZE.0 - 2, SIZE.1 - 2), PANEL_IN_THE_DARK);
}

/// Each event is a line of text in the page, which needs no script; titles and values that look like markup are
/// text.
#[test]
fn the_page_holds_the_trace_as_text() {
    let story = small();
    let html = picture(&story);
    let shown = between(&html, "<pre id=\"trace\">", "</pre>");
    let trace = Trace::from(&story.report.history);
    assert_eq!(unescape(shown), trace.as_str());
    assert_eq!(trace.as_str().lines().count(), story.report.history.moments().len());
    assert!(trace.as_str().contains("</script>"), "the test wants such a value");
    assert_eq!(html.matches("</script>").count(), 3, "a value ends a script");

    let dom = Page::new(&html).dom("");
    assert_eq!((attribute(&dom, "data-error"), attribute(&dom, "data-ready")), (None, Some("true")));
    assert!(!dom.contains("id=\"broken\">&amp;"), "the title is markup");
    assert!(between(&dom, "<aside", "</aside>").contains("No violation"));
}

/// The same run gives the same bytes.
#[test]
fn a_picture_is_repeatable() {
    assert_eq!(picture(&small()), picture(&small()));
}

/// A reader filters by node, kind and text, zooms with buttons, wheel and keys, and has the details of what was
/// clicked.
#[test]
fn the_picture_answers_its_reader() {
    let story = small();
    let dom = Page::new(&format!("{}<script>{READER}</script>", picture(&story))).dom("");
    assert_eq!(attribute(&dom, "data-error"), None);
    let done = |name: &str| attribute(&dom, &format!("data-{name}")).unwrap_or("nothing").to_owned();
    let trace = Trace::from(&story.report.history);
    let count = |holds: &dyn Fn(&str) -> bool| trace.as_str().lines().filter(|line| holds(line)).count();
    assert_eq!(done("text"), format!("{} events", count(&|line| line.contains("worker-2"))));
    assert_eq!(done("kind"), format!("{} events", count(&|line| &line[31..39] != "deliver ")));
    assert_eq!(done("node"), format!("{} events", count(&|line| &line[14..30] != "worker-1        ")));
    assert_eq!(done("button-zooms"), "true");
    assert_eq!(done("wheel-zooms"), "true");
    assert_eq!(done("key-moves"), "true");
    assert_eq!(done("fault-is-told"), "true");
    let fault = trace.as_str().lines().find(|line| line.contains("partition worker-1")).unwrap();
    assert!(between(&dom, "id=\"chosen\"", "</section>").contains(fault.trim()), "{dom}");
}

/// What a reader does: each outcome becomes an attribute.
const READER: &str = r#"
const done = document.body.dataset, matches = () => byId("matches").textContent;
const type = text => { byId("text").value = text; byId("text").dispatchEvent(new Event("input")); };
const box = (menu, name) => [...byId(menu).querySelectorAll("label")].find(label => label.childNodes[1].textContent === name).firstChild;
type("WORKER-2"); done.text = matches(); type("");
box("kinds", "deliver").click(); done.kind = matches(); box("kinds", "deliver").click();
box("nodes", "worker-1").click(); done.node = matches(); box("nodes", "worker-1").click();
const length = () => view.to - view.from;
let before = length(); byId("in").click(); done.buttonZooms = length() < before;
before = length(); picture.dispatchEvent(new WheelEvent("wheel", { deltaY: -200, offsetX: 600, cancelable: true })); done.wheelZooms = length() < before;
before = view.from; document.body.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight", bubbles: true })); done.keyMoves = view.from > before;
view.showAll(); draw();
const fault = scene.faults[0];
const corner = picture.getBoundingClientRect(), place = {
    clientX: corner.left + view.x(fault.from) + 5, clientY: corner.top + y(rows[fault.lane].faults) + 5, bubbles: true };
picture.dispatchEvent(new PointerEvent("pointermove", place)); done.faultIsTold = !tip.hidden && tip.textContent.includes("partition worker-1");
picture.setPointerCapture = () => {};
picture.dispatchEvent(new PointerEvent("pointerdown", place)); picture.dispatchEvent(new PointerEvent("pointerup", place));
"#;

const VIOLATION: [u8; 3] = [0xd1, 0x24, 0x2f];
const VIOLATION_IN_THE_DARK: [u8; 3] = [0xff, 0x5c, 0x61];
const PANEL_IN_THE_DARK: [u8; 3] = [0x1c, 0x20, 0x26];

fn between<'a>(text: &'a str, from: &str, to: &str) -> &'a str {
    let (_, after) = text.split_once(from).unwrap_or_else(|| panic!("there is no {from}"));
    after.split_once(to).unwrap().0
}

fn unescape(text: &str) -> String {
    let known = [("&#60;", "<"), ("&#62;", ">"), ("&#34;", "\""), ("&#39;", "'"), ("&#38;", "&")];
    known.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}
