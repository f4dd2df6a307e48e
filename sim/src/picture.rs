//! A history as a picture: one HTML file to look at in a browser.
//!
//! ```
//! use slipring_sim::picture::Picture;
//!
//! let report = slipring_sim::simulate(7, slipring_sim::Setup::new(), async |world| {
//!     world.node("worker");
//! });
//! let page = Picture::new(&report.history).with_title("begin, seed 7").to_html();
//! assert!(page.starts_with("<!DOCTYPE html>"));
//! ```

mod faults;
mod flows;
mod lanes;
mod leases;
mod page;
mod scene;
mod watches;

use crate::check::Violation;
use crate::history::History;

/// A history, and what is to be seen in it.
///
/// The page has a lane for each node and one for the broker: messages go between them, leases are bars that
/// run down and are filled up again, watches are strips with the revision that they have reached, faults are
/// bands. Violations are marked, and the first one is what the page opens at. It can be zoomed, filtered and
/// searched; a click shows all that is known of an event.
///
/// The file is complete: no network, nothing beside it. The same input gives the same bytes. The whole trace
/// is in it as text, for those without scripts or without eyes for it.
#[derive(Debug, Clone)]
pub struct Picture<'a> {
    history: &'a History,
    violations: &'a [Violation],
    title: String,
    reproduction: Option<String>,
}

impl<'a> Picture<'a> {
    /// A picture of this history.
    pub fn new(history: &'a History) -> Self {
        Self { history, violations: &[], title: "A simulated run".to_owned(), reproduction: None }
    }

    /// With these violations marked; the page opens at the first.
    #[must_use]
    pub fn with_violations(mut self, violations: &'a [Violation]) -> Self {
        self.violations = violations;
        self
    }

    /// With this title: which scenario, which seed.
    #[must_use]
    pub fn with_title(mut self, title: impl Into<String>) -> Self {
        self.title = title.into();
        self
    }

    /// With the command line that runs this again.
    #[must_use]
    pub fn with_reproduction(mut self, command: impl Into<String>) -> Self {
        self.reproduction = Some(command.into());
        self
    }

    /// The page, as UTF-8.
    pub fn to_html(&self) -> String {
        page::write(self)
    }
}
