//! The one list of cases: every operation with its attributes and shapes, and the runner that compares two devices on a case.

mod compare;
mod list;
mod run;

pub use compare::{Comparison, compare};
pub use list::{Case, Data, all};
pub use run::{Outcome, run_case};
