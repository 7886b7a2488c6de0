// How a product's matrices are read: what one load gives of each. These are single numbers; where four neighbours lie side by side, in whole vectors, the lines
// marked #right and #left have T4 and 4 in the place of T and 1 (src/backend/gpu/shader.rs).
//   Right  of the right matrix: WIDTH numbers, of neighbouring columns (shared/lanes.wgsl) or terms (shared/stage.wgsl)
//   Left   of the left matrix: DEPTH numbers, of neighbouring terms
alias Right = T; //#right
const WIDTH: u32 = 1u; //#right
alias Left = T; //#left
const DEPTH: u32 = 1u; //#left
