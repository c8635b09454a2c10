//! What the kernel knows about this process, under the names that every exporter uses.
//! Read at each scrape through `metrics`. Must not fail a scrape: what cannot be read has no series.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;

use super::Labels;
use super::objects::gauges;

#[derive(Debug)]
pub(super) struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder) -> std::fmt::Result {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let resident = status.lines().find_map(|line| {
            let kilobytes = line.strip_prefix("VmRSS:")?.trim().strip_suffix("kB")?;
            kilobytes.trim().parse::<i64>().ok()
        });
        if let Some(kilobytes) = resident {
            let value = vec![(Labels::new(), kilobytes * 1024)];
            gauges(&mut encoder, "process_resident_memory_bytes", "Resident memory", &value)?;
        }
        if let Ok(open) = std::fs::read_dir("/proc/self/fd").map(Iterator::count) {
            let value = vec![(Labels::new(), i64::try_from(open).unwrap_or(i64::MAX))];
            gauges(&mut encoder, "process_open_fds", "Open file descriptors", &value)?;
        }
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
        // Fields 14 and 15, counted after the closing bracket of the program's name, in hundredths of a second.
        let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let ticks: f64 =
            after_name.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum();
        let help = "Processor time used";
        let metric = encoder.encode_descriptor("process_cpu_seconds", help, None, MetricType::Counter)?;
        ConstCounter::new(ticks / 100.0).encode(metric)
    }
}
