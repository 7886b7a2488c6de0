// How the right matrix of a product is read: number by number. Where four neighbouring columns lie side by side, four.wgsl takes this file's place
// (src/backend/gpu/kernels/tile.rs).
//   Load   what one load gives     WIDTH  columns of it
alias Load = T;
const WIDTH: u32 = 1u;
