//! Generates messages and tonic stubs from `/proto`, without an external protobuf compiler.

#[allow(clippy::disallowed_methods, reason = "cargo tells a build script where it is by variables")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Asked for at run time: a build folder may outlive the checkout that it was first used from.
    #[allow(clippy::disallowed_methods, reason = "cargo tells a build script by it where it is")]
    let root = std::path::PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    let files = [
        "clew/metastore/v1/metastore.proto",
        "clew/query/v1/query.proto",
        "clew/raft/v1/raft.proto",
        "clew/shard/v1/shard.proto",
        "tempopb/tempo.proto",
    ];
    println!("cargo:rerun-if-changed={}", root.display());
    let descriptors = protox::compile(files, [&root])?;
    tonic_prost_build::configure().bytes(".").btree_map(".").compile_fds(descriptors)?;
    Ok(())
}
