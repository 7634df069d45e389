//! What general-purpose compression makes of the workload: the size of the stream of requests under
//! zstd, which is what the stored size of a span is compared with.
//!
//! `cargo run --release -p clew-loadtest --example stream_size -- 5000` (traces; level 19 takes a
//! minute per 200,000 spans).

use std::io::Write;

use clew_loadtest::workload::{DataSet, GENERATOR_VERSION, Wave};

/// A window of this size, as a power of two, holds a hundred requests.
const WINDOW_LOG: u32 = 27;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let traces = std::env::args().nth(1).map_or(Ok(5000), |text| text.parse())?;
    let data_set = DataSet {
        generator: GENERATOR_VERSION,
        seed: 42,
        base_unix_nanos: 1_750_000_000_000_000_000,
        interval_nanos: 12_000_000,
        services: 20,
        concurrent_traces: 64,
        traces,
        tenants: 1,
    };
    let world = data_set.world();
    let (mut stream, mut spans, mut requests) = (Vec::new(), 0, 0);
    for number in 0..data_set.waves() {
        let wave = Wave::new(&world, &data_set, number);
        spans += wave.span_count();
        requests += wave.requests.len();
        for request in 0..wave.requests.len() {
            stream.extend(wave.encode_request(&world, request));
        }
    }
    let per_span = |bytes: usize| bytes as f64 / spans as f64;
    let mut out = std::io::stdout();
    writeln!(
        out,
        "{spans} spans in {requests} requests, {:.1} bytes each",
        per_span(stream.len())
    )?;
    for level in [1, 3, 19] {
        let mut encoder = zstd::Encoder::new(Vec::new(), level)?;
        if level == 19 {
            encoder.window_log(WINDOW_LOG)?;
        }
        encoder.write_all(&stream)?;
        writeln!(out, "zstd level {level:>2}: {:.1} bytes", per_span(encoder.finish()?.len()))?;
    }
    Ok(())
}
