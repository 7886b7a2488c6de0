# What one does here; each is a command one can also type.

# All tests that a change must pass; `just test --full` for the long tier.
test *args:
    ./scripts/test.sh {{args}}

# What the CI runs.
ci:
    ./.ci/run

# Kernels, dispatches and training steps, in about three minutes.
bench *args:
    cargo bench {{args}}

# Random attributes and shapes of every family, 2,000 cases each on the CPU and on the GPU.
fuzz-ops cases="2000":
    MAPPA_REQUIRE_GPU=1 MAPPA_FUZZ={{cases}} cargo test --release --test properties -- --nocapture

# Every kernel of this machine's GPU against the CPU reference.
verify *args:
    cargo run --release -- verify --device gpu {{args}}

# A command of the program: `just run train`, `just run devices`.
run *args:
    cargo run --release -- {{args}}

docs:
    cargo doc --no-deps --open
