use std::ops::{Deref, DerefMut};

use crate::Port;
use crate::process::{Directory, Process, Version};

/// How often other ports are tried when somebody else was faster.
const STARTS_MAX: usize = 5;

/// How to start a nats-server.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct NatsOptions {
    /// Further arguments.
    pub arguments: Vec<String>,
    /// The content of its configuration file; none if empty.
    pub configuration: String,
}

/// One nats-server. Dereferences to its [`Process`].
#[derive(Debug)]
pub struct Nats {
    process: Process,
}

impl Nats {
    /// A nats-server.
    ///
    /// # Panics
    /// If it does not start, or is not installed.
    pub async fn start(version: Version) -> Self {
        Self::start_with(version, NatsOptions::default()).await
    }

    /// A nats-server with options.
    ///
    /// # Panics
    /// If it does not start, or is not installed.
    pub async fn start_with(version: Version, options: NatsOptions) -> Self {
        let mut problem = String::new();
        for _ in 0..STARTS_MAX {
            let [port] = Port::claim();
            let directory = Directory::new("nats", &port);
            let mut arguments: Vec<_> = ["-a", "127.0.0.1", "-p"].into_iter().map(str::to_owned).collect();
            arguments.push(port.number().to_string());
            if !options.configuration.is_empty() {
                let file = directory.path().join("nats.conf");
                std::fs::write(&file, &options.configuration).expect("a file for the server");
                arguments.extend(["-c".to_owned(), file.display().to_string()]);
            }
            arguments.extend(options.arguments.iter().cloned());
            match Process::start(version.program("nats-server"), arguments, directory, port).await {
                Ok(process) => return Self { process },
                Err(error) => problem = error,
            }
        }
        panic!("{problem}");
    }
}

impl Deref for Nats {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

impl DerefMut for Nats {
    fn deref_mut(&mut self) -> &mut Process {
        &mut self.process
    }
}
