//! The device's own clock: timestamps in a ring of queries.

use super::stream::Stream;
use crate::backend::Mark;
use crate::error::{Error, Result};

/// Marks that can be asked for; older ones are overwritten.
const MARKS: u64 = wgpu::QUERY_SET_MAX_QUERIES as u64;

pub(super) struct Timer {
    queries: wgpu::QuerySet,
    /// Two timestamps, each at an aligned offset.
    resolved: wgpu::Buffer,
    seconds_per_tick: f64,
    next: u64,
}

impl Timer {
    /// `None` where the device writes no timestamps between passes.
    pub fn new(device: &wgpu::Device, queue: &wgpu::Queue) -> Option<Timer> {
        if !device.features().contains(wgpu::Features::TIMESTAMP_QUERY | wgpu::Features::TIMESTAMP_QUERY_INSIDE_ENCODERS) {
            return None;
        }
        let queries = device.create_query_set(&wgpu::QuerySetDescriptor {
            label: Some("marks"),
            ty: wgpu::QueryType::Timestamp,
            count: wgpu::QUERY_SET_MAX_QUERIES,
        });
        let resolved = device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("resolved marks"),
            size: 2 * wgpu::QUERY_RESOLVE_BUFFER_ALIGNMENT,
            usage: wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC,
            mapped_at_creation: false,
        });
        Some(Timer { queries, resolved, seconds_per_tick: queue.get_timestamp_period() as f64 * 1e-9, next: 0 })
    }

    /// Records a timestamp behind all work recorded so far.
    pub fn mark(&mut self, stream: &mut Stream) -> Mark {
        let mark = Mark(self.next);
        stream.encoder().write_timestamp(&self.queries, (mark.0 % MARKS) as u32);
        self.next += 1;
        mark
    }

    /// Records the copy of two marks to `staging`, 8 bytes each.
    pub fn resolve(&self, stream: &mut Stream, marks: [Mark; 2], staging: &wgpu::Buffer) -> Result<()> {
        for (i, mark) in (0_u64..).zip(marks) {
            if mark.0 >= self.next || self.next - mark.0 > MARKS {
                return Err(Error::Gpu(format!("{mark:?} is not among the last {MARKS} marks of this device")));
            }
            let (query, offset) = ((mark.0 % MARKS) as u32, i * wgpu::QUERY_RESOLVE_BUFFER_ALIGNMENT);
            let encoder = stream.encoder();
            encoder.resolve_query_set(&self.queries, query..query + 1, &self.resolved, offset);
            encoder.copy_buffer_to_buffer(&self.resolved, offset, staging, i * 8, 8);
        }
        Ok(())
    }

    /// Seconds between the two timestamps in `bytes`.
    pub fn seconds(&self, bytes: &[u8]) -> f64 {
        let ticks: Vec<u64> = bytemuck::allocation::pod_collect_to_vec(bytes);
        match ticks[..] {
            // A clock may be reset between two submits; negative time is no time.
            [from, to] => to.saturating_sub(from) as f64 * self.seconds_per_tick,
            _ => 0.0,
        }
    }
}
