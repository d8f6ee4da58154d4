# Shortcuts; plain cargo commands are what README and CI use.

verify:
    .ci/run

fix:
    cargo fmt --all
    cargo clippy --workspace --all-targets --fix --allow-dirty

bench:
    cargo build --release && target/release/loglog bench append --nodes 1 --payload 100 --in-flight 1024

cluster:
    cargo run --release --bin loglog -- dev -n 3
