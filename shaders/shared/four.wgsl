// The right matrix of a product read four neighbouring columns at a time: what shared/single.wgsl declares, for files that include it.
alias Load = T4;
const WIDTH: u32 = 4u;
