//! Which backends to use, as text: what an operator changes without changing the program.

use std::env::VarError;
use std::sync::Arc;

use slipring_core::{Discovery, Error, Messaging, Result};

use crate::name::{Deployment, near_misses};
use crate::settings::Settings;

/// The variable that names the discovery backend.
const DISCOVERY: &str = "SLIPRING_DISCOVERY";
/// The variable that names the messaging backend.
const MESSAGING: &str = "SLIPRING_MESSAGING";
/// The variable that names the deployment.
const DEPLOYMENT: &str = "SLIPRING_DEPLOYMENT";
/// The backend of both, if nothing is said.
const DEFAULT: &str = "memory:";
/// Every scheme that some build knows.
const SCHEMES: [&str; 3] = ["memory", "etcd", "nats"];

/// What the variables ask for.
pub(crate) struct Backends {
    pub(crate) discovery: Arc<dyn Discovery>,
    pub(crate) messaging: Arc<dyn Messaging>,
    pub(crate) deployment: Deployment,
    pub(crate) settings: Settings,
}

pub(crate) fn from_env() -> Result<Backends> {
    from(|variable| match std::env::var(variable) {
        Ok(value) => Ok(Some(value)),
        Err(VarError::NotPresent) => Ok(None),
        Err(VarError::NotUnicode(_)) => Err(Error::invalid(variable, "", "it is not UTF-8")),
    })
}

/// The backends that these variables ask for. Both in memory share one world.
fn from(variable: impl Fn(&'static str) -> Result<Option<String>>) -> Result<Backends> {
    let discovery = variable(DISCOVERY)?.unwrap_or_else(|| DEFAULT.to_owned());
    let messaging = variable(MESSAGING)?.unwrap_or_else(|| DEFAULT.to_owned());
    let deployment = Deployment::new(variable(DEPLOYMENT)?.unwrap_or_default())?;
    check(DISCOVERY, &discovery)?;
    check(MESSAGING, &messaging)?;
    memory(deployment)
}

/// Refuses what this build cannot reach, each cause with what to do about it.
fn check(variable: &'static str, address: &str) -> Result<()> {
    let Some((scheme, rest)) = address.split_once(':') else {
        let problem = "it has no scheme; allowed: an address such as \"memory:\"";
        return Err(Error::invalid(variable, address, problem));
    };
    match scheme {
        "memory" if !cfg!(feature = "memory") => Err(Error::unsupported(
            format!("{variable}={address}"),
            "this program was built without it; enable slipring's feature \"memory\"",
        )),
        "memory" if !rest.is_empty() => {
            Err(Error::invalid(variable, address, "nothing may follow \"memory:\", which is in this process"))
        }
        "memory" => Ok(()),
        scheme if SCHEMES.contains(&scheme) => Err(Error::unsupported(
            format!("{variable}={scheme}:..."),
            "this version of slipring has no such backend yet; give the builder one of your own",
        )),
        scheme => {
            let near = near_misses(scheme, SCHEMES);
            let meant = if near.is_empty() {
                String::new()
            } else {
                format!(" (did you mean {}?)", near.join(" or "))
            };
            let problem = format!("unknown scheme{meant}; allowed: {}", SCHEMES.join(", "));
            Err(Error::invalid(variable, scheme, problem))
        }
    }
}

#[cfg(feature = "memory")]
fn memory(deployment: Deployment) -> Result<Backends> {
    let world = slipring_memory::MemoryWorld::new();
    Ok(Backends {
        discovery: Arc::new(world.discovery()),
        messaging: Arc::new(world.messaging()),
        deployment,
        settings: Settings::default(),
    })
}

#[cfg(not(feature = "memory"))]
fn memory(_deployment: Deployment) -> Result<Backends> {
    unreachable!("an address in memory is refused by a build without it")
}

#[cfg(all(test, feature = "memory"))]
mod tests {
    use super::*;

    fn given(pairs: &'static [(&'static str, &'static str)]) -> Result<Backends> {
        from(|variable| {
            Ok(pairs.iter().find(|(name, _)| *name == variable).map(|(_, value)| (*value).to_owned()))
        })
    }

    /// Without variables everything is in memory; a deployment is taken over (U1188: no server is needed).
    #[test]
    fn u1188_nothing_set_means_memory() {
        assert_eq!(given(&[]).unwrap().deployment, Deployment::default());
        let staging = given(&[(DEPLOYMENT, "staging"), (MESSAGING, "memory:")]).unwrap();
        assert_eq!(staging.deployment.as_str(), "staging");
    }

    /// Each mistake has an error of its own, which names the variable and what to do.
    #[test]
    fn mistakes_are_told_apart() {
        let code = |pairs| given(pairs).err().map(|error| (error.code(), error.to_string()));
        for (pairs, kind, words) in [
            (&[(DISCOVERY, "localhost")], "invalid", "scheme"),
            (&[(DISCOVERY, "memroy:")], "invalid", "did you mean memory"),
            (&[(MESSAGING, "memory:there")], "invalid", "nothing may follow"),
            (&[(DISCOVERY, "etcd://a:1")], "unsupported", "no such backend"),
            (&[(DEPLOYMENT, "a b")], "invalid", "deployment"),
        ] as [(&'static [_], _, _); 5]
        {
            let (found, text) = code(pairs).unwrap();
            assert_eq!(found, kind);
            assert!(text.contains(words), "{text}");
        }
    }
}
