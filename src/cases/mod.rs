//! The one list of cases: every operation with its attributes and shapes, and the runner that compares two devices on a case.

mod case;
mod compare;
mod list;
mod run;

pub use case::{Case, Data};
pub use compare::{Comparison, compare};
pub use list::{all, half};
pub use run::{Outcome, run_case};

use std::collections::BTreeSet;

/// The elementwise functions of a self-test: those that training leans on, and one of each kind. Every function is a pipeline of its own, and on a
/// slow compiler (50 ms each on lavapipe) all of them would take longer than a program's start may.
const ELEMENTWISE: [&str; 12] =
    ["relu", "relu_backward", "sigmoid", "tanh", "gelu", "exp", "log", "sqrt", "add", "mul", "where", "classify"];

/// The cases of a self-test: one of each operation, of the elementwise functions a dozen.
pub fn quick() -> Vec<Case> {
    let all = all().into_iter().filter(|case| case.op.family() != "elementwise" || ELEMENTWISE.contains(&case.op.name().as_str()));
    first_of_each(all.collect())
}

/// The first case of each operation; where one has cases of small shapes and smooth inputs, the first of those.
pub fn first_of_each(mut cases: Vec<Case>) -> Vec<Case> {
    cases.sort_by_key(|case| !case.differentiable);
    let mut seen = BTreeSet::new();
    cases.retain(|case| seen.insert(case.op.name()));
    cases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_self_test_takes_every_operation_but_elementwise_ones_and_those_named() {
        let names: BTreeSet<String> = quick().iter().map(|case| case.op.name()).collect();
        assert_eq!(names.len(), quick().len(), "one case each");
        for case in all() {
            let name = case.op.name();
            let wanted = case.op.family() != "elementwise" || ELEMENTWISE.contains(&name.as_str());
            assert_eq!(names.contains(&name), wanted, "{name}");
        }
        assert!(ELEMENTWISE.iter().all(|name| names.contains(*name)), "{names:?}");
    }
}
