// Storage in f16: what shared/f32.wgsl declares, for files that include it. A value is widened as it is read and rounded once as it is written.
enable f16;
alias T = f16;
alias T4 = vec4<f16>;
alias R = f16; //#result
alias Word = f16;

// `bits` holds an f16 in its lower half.
fn word_of(bits: u32) -> Word { return f16(unpack2x16float(bits).x); }
fn float_of(word: Word) -> f32 { return f32(word); }
// Integers are never stored in f16.
fn int_of(word: Word) -> i32 { return i32(word); }
fn uint_of(word: Word) -> u32 { return u32(word); }
