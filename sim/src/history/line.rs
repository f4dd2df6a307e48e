use std::fmt::{self, Write as _};

use super::{Event, Moment};

/// A line of four columns, each at the same place in every line of every run, so that traces are searched and
/// compared by line: seconds, who, the kind of event, and the rest. A name that is too long for its column is
/// cut in its middle there, and stands whole at the end of the line.
impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, micros) = (self.at.as_secs(), self.at.subsec_micros());
        let name = Name(&self.node);
        write!(f, "{seconds:>6}.{micros:06} ")?;
        name.write_column(f)?;
        write!(f, " {:<KIND_CHARS$} ", self.event.kind())?;
        write!(OneLine(f), "{}", Rest(&self.event))?;
        if name.is_cut() { write!(OneLine(f), " [{}]", self.node) } else { Ok(()) }
    }
}

/// The width of the column of names.
const NAME_CHARS: usize = 16;

/// The width of the column of kinds.
const KIND_CHARS: usize = 8;

/// Where the last column of a line begins.
pub(crate) const REST_FROM: usize = 13 + 1 + NAME_CHARS + 1 + KIND_CHARS + 1;

/// A name in its column.
struct Name<'a>(&'a str);

impl Name<'_> {
    fn is_cut(&self) -> bool {
        self.0.chars().nth(NAME_CHARS).is_some() || self.0.contains(char::is_control)
    }

    /// The number of a life stands at the end of its name, so both ends are kept.
    fn write_column(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.is_cut() {
            return write!(f, "{:<NAME_CHARS$}", self.0);
        }
        let mut chars: Vec<char> = self.0.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
        if chars.len() > NAME_CHARS {
            let half = NAME_CHARS / 2;
            chars.splice(half..chars.len() - (NAME_CHARS - half - 1), ['~']);
        }
        write!(f, "{:<NAME_CHARS$}", chars.into_iter().collect::<String>())
    }
}

/// The last column.
struct Rest<'a>(&'a Event);

impl fmt::Display for Rest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.write(f)
    }
}

/// Escapes what would break a line in two, or confuse a terminal.
struct OneLine<'a, 'b>(&'a mut fmt::Formatter<'b>);

impl fmt::Write for OneLine<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if !text.contains(char::is_control) {
            return self.0.write_str(text);
        }
        text.chars().try_for_each(|c| match c.is_control() {
            true => write!(self.0, "{}", c.escape_default()),
            false => self.0.write_char(c),
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may")]
mod tests {
    use std::time::Duration;

    use super::*;

    fn line(seconds: u64, node: &str, event: Event) -> String {
        Moment { at: Duration::from_secs(seconds), node: node.into(), event }.to_string()
    }

    /// The columns stand where they stand, however long a name is or how late it is; and a name that is cut is
    /// found by its whole text all the same.
    #[test]
    fn columns_are_fixed() {
        let long = "a-namespace-with-many-workers-in-it#12";
        for (node, seconds) in [("a", 0), ("exactly-16-chars", 1), (long, 604_800), ("drei-mäßige-Größen", 9)]
        {
            let line = line(seconds, node, Event::Link("opened"));
            let columns: Vec<char> = line.chars().collect();
            let rest: String = columns[REST_FROM..].iter().collect();
            assert!(rest.starts_with("opened"), "{line}");
            assert_eq!(
                columns[REST_FROM - KIND_CHARS - 1..REST_FROM].iter().collect::<String>(),
                "link     "
            );
            assert!(line.contains(node), "{line}");
        }
        let expected =
            "     1.000000 a-namesp~n-it#12 link     opened [a-namespace-with-many-workers-in-it#12]";
        assert_eq!(line(1, long, Event::Link("opened")), expected);
    }

    /// Whatever users put into names and values, an event is one line.
    #[test]
    fn an_event_is_one_line() {
        let task = Event::Panicked { task: "a\nb", message: "c\r\nd\u{1b}[31m".to_owned() };
        for event in [Event::Note("a\nb\u{85}".to_owned()), task] {
            let line = line(0, "new\nline", event);
            assert!(!line.contains(char::is_control), "{line:?}");
        }
    }
}
