use std::fmt::{self, Write as _};

use super::Picture;
use super::scene::Scene;
use crate::Trace;

const STYLE: &str = include_str!("page.css");
const PAGE: &str = include_str!("page.html");
const SCRIPTS: [&str; 3] = [include_str!("view.js"), include_str!("draw.js"), include_str!("panel.js")];

/// The page: the template, with each `{{name}}` in it replaced.
pub(super) fn write(picture: &Picture<'_>) -> String {
    let scene = serde_json::to_string(&Scene::of(picture)).expect("there are only texts and numbers in it");
    let trace = Trace::from(picture.history);
    let mut page = String::with_capacity(scene.len() + trace.as_str().len() + PAGE.len() + STYLE.len());
    let mut rest = PAGE;
    while let Some((before, after)) = rest.split_once("{{") {
        let (name, after) = after.split_once("}}").expect("the template closes what it opens");
        page.push_str(before);
        match name {
            "title" => write!(page, "{}", Text(&picture.title)),
            "style" => write!(page, "{STYLE}"),
            "summary" => write!(page, "{}", Text(&summary(picture))),
            "violations" => {
                picture.violations.iter().try_for_each(|v| write!(page, "<li>{}</li>", Text(&v.to_string())))
            }
            "trace" => write!(page, "{}", Text(trace.as_str())),
            "scene" => write!(page, "{}", Data(&scene)),
            "scripts" => write!(page, "{}", SCRIPTS.concat()),
            other => unreachable!("the template asks for {other}"),
        }
        .expect("a string takes everything");
        rest = after;
    }
    page.push_str(rest);
    page
}

fn summary(picture: &Picture<'_>) -> String {
    let moments = picture.history.moments();
    let seconds = moments.last().map_or(0.0, |moment| moment.at.as_secs_f64());
    let violations = match picture.violations.len() {
        0 => "no violation".to_owned(),
        1 => "1 violation".to_owned(),
        many => format!("{many} violations"),
    };
    format!("{violations}, {} events in {seconds:.3} virtual seconds", moments.len())
}

/// Text in a page: nothing in it is markup.
struct Text<'a>(&'a str);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        while let Some(at) = rest.find(['&', '<', '>', '"', '\'']) {
            f.write_str(&rest[..at])?;
            write!(f, "&#{};", rest.as_bytes()[at])?;
            rest = &rest[at + 1..];
        }
        f.write_str(rest)
    }
}

/// JSON in a script element: no text in it can end the element, or begin a comment.
struct Data<'a>(&'a str);

impl fmt::Display for Data<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = self.0.split('<');
        f.write_str(parts.next().unwrap_or_default())?;
        parts.try_for_each(|part| write!(f, "\\u003c{part}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No value can end the script that holds it, and it is read back as it was.
    #[test]
    fn values_do_not_break_the_page() {
        let value = "</script><script>alert(1)</script><!-- & \" ' \u{2028}";
        let data = Data(&serde_json::to_string(value).expect("it is text")).to_string();
        assert!(!data.contains('<'), "{data}");
        assert_eq!(serde_json::from_str::<String>(&data).expect("it is JSON"), value);
        assert_eq!(Text("<a b='c'>&\"").to_string(), "&#60;a b=&#39;c&#39;&#62;&#38;&#34;");
    }
}
