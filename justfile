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

# Every kernel of this machine's GPU against the CPU reference.
verify *args:
    cargo run --release -- verify --device gpu {{args}}

# A command of the program: `just run train`, `just run devices`.
run *args:
    cargo run --release -- {{args}}

docs:
    cargo doc --no-deps --open
