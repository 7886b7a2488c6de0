// How tensors are stored; arithmetic is in f32. Where an operand is f16, f16.wgsl takes this file's place (src/backend/gpu/shader.rs).
//   T     an element          T4    four of them
//   R     an element of the result, where a file says so: T, or f32 for a sum that goes on in f32
//   Word  an element that is moved without a look at it
alias T = f32;
alias T4 = vec4<f32>;
alias R = f32;
alias Word = u32;

fn word_of(bits: u32) -> Word { return bits; }
fn float_of(word: Word) -> f32 { return bitcast<f32>(word); }
fn int_of(word: Word) -> i32 { return bitcast<i32>(word); }
fn uint_of(word: Word) -> u32 { return word; }
