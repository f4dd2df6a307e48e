//! CPU time and memory of processes and of the machine, from `/proc`. Zero where there is none.

use std::fs::read_to_string;

/// Ticks per second in `/proc`. Linux reports 100 on every architecture that it is built for today, whatever
/// the kernel's own tick is.
const TICKS_PER_SECOND: f64 = 100.0;

/// CPU time that a process has used.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// In its own code, in seconds.
    pub user_s: f64,
    /// In the kernel, in seconds.
    pub system_s: f64,
}

impl Usage {
    /// What this process has used so far.
    pub fn of(pid: u32) -> Self {
        let stat = read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // The name in the second field may hold spaces; the last `)` ends it.
        let fields = ticks(stat.rsplit_once(')').map_or("", |(_, rest)| rest));
        Self { user_s: at(&fields, 11), system_s: at(&fields, 12) }
    }

    /// What was used after an earlier look.
    pub fn since(self, earlier: Self) -> Self {
        Self { user_s: self.user_s - earlier.user_s, system_s: self.system_s - earlier.system_s }
    }

    /// Both together, in seconds.
    pub fn total(self) -> f64 {
        self.user_s + self.system_s
    }
}

/// Seconds since boot, over all CPUs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Machine {
    /// Busy for anybody: user, nice, system, interrupts.
    pub busy_s: f64,
    /// Stolen by the hypervisor.
    pub stolen_s: f64,
}

impl Machine {
    /// Up to now.
    pub fn now() -> Self {
        let stat = read_to_string("/proc/stat").unwrap_or_default();
        let fields = ticks(stat.lines().next().and_then(|line| line.strip_prefix("cpu")).unwrap_or_default());
        let busy_s = [0, 1, 2, 5, 6].map(|index| at(&fields, index)).iter().sum();
        Self { busy_s, stolen_s: at(&fields, 7) }
    }
}

/// The most memory that a process has held, in KiB.
pub fn rss_peak_kib(pid: u32) -> u64 {
    status_kib(pid, "VmHWM:")
}

/// The memory that a process holds now, in KiB.
pub fn rss_kib(pid: u32) -> u64 {
    status_kib(pid, "VmRSS:")
}

fn status_kib(pid: u32, field: &str) -> u64 {
    let status = read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_suffix("kB"));
    line.and_then(|kib| kib.trim().parse().ok()).unwrap_or_default()
}

fn ticks(fields: &str) -> Vec<f64> {
    fields.split_whitespace().map(|field| field.parse().unwrap_or_default()).collect()
}

fn at(ticks: &[f64], index: usize) -> f64 {
    ticks.get(index).copied().unwrap_or_default() / TICKS_PER_SECOND
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    /// This process is seen: it has used memory, and using CPU is counted.
    #[test]
    fn this_process_is_seen() {
        let pid = std::process::id();
        let (machine, before) = (Machine::now(), Usage::of(pid));
        assert!(rss_peak_kib(pid) >= rss_kib(pid) && rss_kib(pid) > 100);
        while Usage::of(pid).since(before).total() < 0.02 {}
        assert!(Machine::now().busy_s > machine.busy_s);
    }
}
