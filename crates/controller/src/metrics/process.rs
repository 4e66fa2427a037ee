//! The process itself, read from /proc at each scrape under the names Prometheus has agreed on.

use std::{fmt, fs};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
};

use super::Description;

/// Linux counts the CPU time it shows in hundredths of a second on every architecture that
/// Kubernetes runs on; `sysconf(_SC_CLK_TCK)` says the same.
const TICKS_PER_SECOND: f64 = 100.0;

const MEMORY: (&str, &str) = ("process_resident_memory_bytes", "Memory in use");
const CPU: (&str, &str) = ("process_cpu_seconds", "CPU time used");
const FILES: (&str, &str) = ("process_open_fds", "Open files and connections");

pub(super) fn describe() -> [Description; 3] {
    [
        Description::new(MEMORY.0, MetricType::Gauge, MEMORY.1),
        Description::new(CPU.0, MetricType::Counter, CPU.1),
        Description::new(FILES.0, MetricType::Gauge, FILES.1),
    ]
}

/// Reads /proc. Where there is none, nothing is told.
#[derive(Debug)]
pub(super) struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        if let Some(bytes) = resident(&status) {
            let metric = ConstGauge::new(bytes);
            let to = encoder.encode_descriptor(MEMORY.0, MEMORY.1, None, MetricType::Gauge)?;
            metric.encode(to)?;
        }
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        if let Some(seconds) = cpu(&stat) {
            let metric = ConstCounter::new(seconds);
            let to = encoder.encode_descriptor(CPU.0, CPU.1, None, MetricType::Counter)?;
            metric.encode(to)?;
        }
        if let Ok(files) = fs::read_dir("/proc/self/fd") {
            // The directory itself is open while it is read.
            let count = i64::try_from(files.count().saturating_sub(1)).unwrap_or(i64::MAX);
            let metric = ConstGauge::new(count);
            let to = encoder.encode_descriptor(FILES.0, FILES.1, None, MetricType::Gauge)?;
            metric.encode(to)?;
        }
        Ok(())
    }
}

/// Bytes, from the kilobytes of /proc/self/status.
fn resident(status: &str) -> Option<i64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: i64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

/// Seconds, user and system, from /proc/self/stat. The second field is the program's name in
/// parentheses and can hold anything, so counting begins behind it.
fn cpu(stat: &str) -> Option<f64> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ').skip(11);
    let mut ticks = || fields.next()?.parse::<u32>().ok().map(f64::from);
    Some((ticks()? + ticks()?) / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_is_read() {
        let status = "Name:\tplumb\nVmHWM:\t   9000 kB\nVmRSS:\t    7004 kB\n";
        assert_eq!(resident(status), Some(7004 * 1024));
        assert_eq!(resident("Name:\tplumb\n"), None);
        let stat = "7 (plumb ) (x) S 1 7 7 0 -1 4194560 100 0 0 0 150 50 0 0 20 0 4 0 99 1 2";
        assert_eq!(cpu(stat), Some(2.0));
        assert_eq!(cpu("7 (plumb) S 1"), None);
    }
}
