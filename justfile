# What one does here; each is a command one can also type.

test:
    ./scripts/test.sh

ci:
    ./.ci/run

train *args:
    cargo run --release -- train {{args}}

verify *args:
    cargo run --release -- verify --device gpu {{args}}

docs:
    cargo doc --no-deps --open
