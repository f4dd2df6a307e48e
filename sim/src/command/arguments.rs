use std::fs;
use std::io;
use std::io::Write;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::mpsc::sync_channel;
use std::thread::available_parallelism;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use super::sentry::{LOOK_EVERY, Post, Sentry};
use super::{Verdict, quoted};
use crate::{Engine, Outcome, Scenario, Schedule};

/// What the process was asked to do.
pub(super) enum Order<'a> {
    List(&'a [Scenario]),
    Explore(Explore<'a>),
    Replay(Replay<'a>),
    Shrink(Shrink<'a>),
    Doctor(Doctor<'a>),
}

/// Many seeds of some scenarios.
pub(super) struct Explore<'a> {
    pub(super) scenarios: Vec<&'a Scenario>,
    pub(super) seeds: Range<u64>,
    pub(super) engine: Engine,
    pub(super) jobs: usize,
    /// Where the hash of each run goes.
    pub(super) hashes: Option<PathBuf>,
    /// How long a run may stand still.
    pub(super) patience: Duration,
}

/// One seed of one scenario.
pub(super) struct Run<'a> {
    pub(super) scenario: &'a Scenario,
    pub(super) seed: u64,
    pub(super) engine: Engine,
    /// Its own one if there is none.
    pub(super) schedule: Option<(PathBuf, Schedule)>,
    /// How long it may stand still.
    pub(super) patience: Duration,
}

/// One seed, and what is to be kept of it.
pub(super) struct Replay<'a> {
    pub(super) run: Run<'a>,
    pub(super) trace: Option<PathBuf>,
    pub(super) html: Option<PathBuf>,
}

/// One seed, and where the smaller schedule goes.
pub(super) struct Shrink<'a> {
    pub(super) run: Run<'a>,
    pub(super) out: Option<PathBuf>,
}

/// One seed, and where the code is that runs in it.
pub(super) struct Doctor<'a> {
    pub(super) run: Run<'a>,
    pub(super) sources: Vec<PathBuf>,
}

impl Run<'_> {
    /// Runs it. If it stands still for too long, that is told, and the process ends.
    pub(super) fn outcome(&self, out: &mut impl Write) -> io::Result<Outcome> {
        let schedule = self.schedule.as_ref().map(|(_, schedule)| schedule.clone());
        let schedule = schedule.unwrap_or_else(|| self.scenario.schedule(self.seed));
        let posts = [Post::default()];
        let mut sentry = Sentry::new(self.scenario, self.engine, self.patience);
        let (sender, ended) = sync_channel(1);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let pulse = posts[0].begin(self.seed);
                let outcome = self.scenario.replay_watched(self.engine, self.seed, schedule, pulse);
                let _nobody_waits = sender.send(outcome);
            });
            loop {
                match ended.recv_timeout(LOOK_EVERY) {
                    Ok(outcome) => return Ok(outcome),
                    Err(_) => sentry.look(&posts, out)?,
                }
            }
        })
    }

    /// The line that shows it again.
    pub(super) fn line(&self) -> String {
        line(self.scenario, self.engine, self.seed, self.schedule.as_ref().map(|(path, _)| path))
    }
}

/// The line to paste that shows a run.
pub(super) fn line(scenario: &Scenario, engine: Engine, seed: u64, schedule: Option<&PathBuf>) -> String {
    let program = std::env::args().next().unwrap_or_default();
    let mut line = format!("{} replay --scenario {} --seed {seed}", quoted(&program), scenario.name());
    if engine != Engine::Fast {
        line += &format!(" --engine {engine}");
    }
    if let Some(path) = schedule {
        line += &format!(" --schedule {}", quoted(&path.to_string_lossy()));
    }
    line
}

/// Reads the arguments of the process. Inside: an order; or, if there is none, what was said instead.
pub(super) fn read(scenarios: &[Scenario]) -> io::Result<Result<Order<'_>, Verdict>> {
    let matches = match grammar(scenarios).try_get_matches() {
        Ok(matches) => matches,
        Err(error) => {
            error.print()?;
            return Ok(Err(if error.use_stderr() { Verdict::Misused } else { Verdict::Kept }));
        }
    };
    order(scenarios, &matches).map(Ok)
}

fn order<'a>(scenarios: &'a [Scenario], matches: &ArgMatches) -> io::Result<Order<'a>> {
    Ok(match matches.subcommand() {
        Some(("explore", given)) => {
            let engine = engine(given);
            let scenarios = match given.get_one::<String>("scenario") {
                Some(name) => vec![named(scenarios, name)],
                None => scenarios.iter().filter(|scenario| scenario.engines().contains(&engine)).collect(),
            };
            check_engine(&scenarios, engine)?;
            let seeds = given.get_one::<Range<u64>>("seeds").expect("it is required").clone();
            let jobs = given.get_one::<u64>("jobs").and_then(|jobs| usize::try_from(*jobs).ok());
            let jobs = jobs.or_else(|| available_parallelism().ok().map(usize::from)).unwrap_or(1);
            let (hashes, patience) = (given.get_one("hashes").cloned(), patience(given));
            Order::Explore(Explore { scenarios, seeds, engine, jobs, hashes, patience })
        }
        Some(("replay", given)) => {
            let (trace, html) = (given.get_one("trace").cloned(), given.get_one("html").cloned());
            Order::Replay(Replay { run: run(scenarios, given)?, trace, html })
        }
        Some(("shrink", given)) => {
            Order::Shrink(Shrink { run: run(scenarios, given)?, out: given.get_one("out").cloned() })
        }
        Some(("doctor", given)) => {
            let sources = given.get_many("source").expect("it has a default").cloned().collect();
            Order::Doctor(Doctor { run: run(scenarios, given)?, sources })
        }
        _ => Order::List(scenarios),
    })
}

fn run<'a>(scenarios: &'a [Scenario], given: &ArgMatches) -> io::Result<Run<'a>> {
    let scenario = named(scenarios, given.get_one::<String>("scenario").expect("it is required"));
    let seed = *given.get_one("seed").expect("it is required");
    let engine = engine(given);
    check_engine(&[scenario], engine)?;
    let path = given.try_get_one::<PathBuf>("schedule").ok().flatten();
    let schedule = path.map(|path| {
        let text = fs::read_to_string(path)
            .map_err(|error| io::Error::other(format!("cannot read {}: {error}", path.display())))?;
        let schedule = Schedule::from_json(&text)
            .map_err(|error| io::Error::other(format!("{}: {error}", path.display())))?;
        Ok::<_, io::Error>((path.clone(), schedule))
    });
    Ok(Run { scenario, seed, engine, schedule: schedule.transpose()?, patience: patience(given) })
}

fn named<'a>(scenarios: &'a [Scenario], name: &str) -> &'a Scenario {
    let mut all = scenarios.iter();
    all.find(|scenario| scenario.name() == name).expect("other names were refused")
}

fn patience(given: &ArgMatches) -> Duration {
    Duration::from_secs(*given.get_one("patience").expect("it has a default"))
}

fn engine(given: &ArgMatches) -> Engine {
    let name = given.get_one::<String>("engine").expect("it has a default");
    *Engine::ALL.iter().find(|engine| engine.name() == name).expect("other names were refused")
}

fn check_engine(scenarios: &[&Scenario], engine: Engine) -> io::Result<()> {
    match scenarios.iter().find(|scenario| !scenario.engines().contains(&engine)) {
        None => Ok(()),
        Some(scenario) => {
            Err(io::Error::other(format!("{} does not run on the engine {engine}", scenario.name())))
        }
    }
}

fn grammar(scenarios: &[Scenario]) -> Command {
    let names = || PossibleValuesParser::new(scenarios.iter().map(|scenario| scenario.name().to_owned()));
    let scenario = || {
        Arg::new("scenario")
            .long("scenario")
            .value_name("NAME")
            .value_parser(names())
            .hide_possible_values(true)
            .help("The scenario; `list` names them")
    };
    let seed = Arg::new("seed").long("seed").value_name("N").value_parser(value_parser!(u64));
    let seed = seed.required(true).help("The seed");
    let engine = Arg::new("engine").long("engine").value_name("ENGINE").default_value(Engine::Fast.name());
    let engine =
        engine.value_parser(PossibleValuesParser::new(Engine::ALL.iter().map(|engine| engine.name())));
    let engine = engine.help("What the world runs on");
    let patience = Arg::new("patience").long("patience").value_name("SECONDS").default_value("60");
    let patience = patience.value_parser(value_parser!(u64).range(1..));
    let patience = patience.help("How long a run may stand still before that is taken for a violation");
    let file = |name, help| {
        Arg::new(name).long(name).value_name("FILE").value_parser(value_parser!(PathBuf)).help(help)
    };
    let schedule = file("schedule", "A schedule, instead of the seed's own");
    let one = |name| {
        let command = Command::new(name).arg(scenario().required(true)).arg(seed.clone());
        command.arg(engine.clone()).arg(patience.clone())
    };
    let source = Arg::new("source").long("source").value_name("PATH").value_parser(value_parser!(PathBuf));
    let source = source.action(ArgAction::Append).default_value(".");
    let source =
        source.help("A directory or a file of the code that runs in the world; may come more than once");
    let seeds = Arg::new("seeds").long("seeds").value_name("A..B").value_parser(seeds).required(true);
    let jobs = Arg::new("jobs").long("jobs").value_name("N").value_parser(value_parser!(u64).range(1..=1024));
    let commands = [
        Command::new("list").about("Names the scenarios, each with what it shows"),
        Command::new("explore")
            .about("Runs many seeds, and says which break a promise")
            .arg(scenario().help("The scenario; all that there are if it is left out"))
            .arg(seeds.help("The seeds, without the last"))
            .arg(engine.clone())
            .arg(patience.clone())
            .arg(file(
                "hashes",
                "Where the hash of each run goes, a line for each; equal runs have equal ones",
            ))
            .arg(jobs.help("How many seeds run at once; as many as there are processors if it is left out")),
        one("replay")
            .about("Runs one seed, and says what happened")
            .arg(schedule.clone())
            .arg(file("trace", "Where the trace goes, a line for each event"))
            .arg(file("html", "Where a picture of the run goes, for a browser")),
        one("shrink")
            .about("Looks for the smallest schedule under which a seed breaks the same promise")
            .arg(schedule)
            .arg(file("out", "Where the schedule goes; else it is shown")),
        one("doctor")
            .about("Looks for what makes runs differ: in the sources, and in two processes that run one seed")
            .arg(source),
    ];
    Command::new("scenarios")
        .about("Runs scenarios in a simulated world. Exit: 0 no violation, 1 a violation, 2 cannot do that")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands(commands)
}

/// `A..B`, where `A` comes before `B`.
fn seeds(text: &str) -> Result<Range<u64>, String> {
    let (first, end) = text.split_once("..").ok_or("expected A..B, such as 0..1000")?;
    let number = |text: &str| text.parse::<u64>().map_err(|_| format!("{text:?} is not a seed"));
    let (first, end) = (number(first)?, number(end)?);
    if first >= end {
        return Err(format!("{first}..{end} holds no seed"));
    }
    Ok(first..end)
}
