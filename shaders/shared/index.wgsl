// Index arithmetic that every family shares.

// Dispatches fold a long list of workgroups into two dimensions of at most 65,535; this is a workgroup's place in the list.
fn flat_group(group: vec3<u32>, groups: vec3<u32>) -> u32 {
    return group.y * groups.x + group.x;
}

// The offset of element `i` of an index space of up to eight dimensions, outermost first; unused ones have size 1 in front.
fn offset8(i: u32, sizes: array<vec4<u32>, 2>, strides: array<vec4<u32>, 2>) -> u32 {
    var rest = i;
    var at = 0u;
    for (var d = 8u; d > 0u; d--) {
        let size = sizes[(d - 1u) / 4u][(d - 1u) % 4u];
        let stride = strides[(d - 1u) / 4u][(d - 1u) % 4u];
        // A division takes long: none for the outermost dimension, one for each other.
        if rest < size { return at + rest * stride; }
        let quotient = rest / size;
        at += (rest - quotient * size) * stride;
        rest = quotient;
    }
    return at;
}

// The same for up to four dimensions.
fn offset4(i: u32, sizes: vec4<u32>, strides: vec4<u32>) -> u32 {
    var rest = i;
    var at = 0u;
    for (var d = 4u; d > 0u; d--) {
        let size = sizes[d - 1u];
        if rest < size { return at + rest * strides[d - 1u]; }
        let quotient = rest / size;
        at += (rest - quotient * size) * strides[d - 1u];
        rest = quotient;
    }
    return at;
}

// floor(a / b) by b's reciprocal, for rows and columns of images: exact for a below 2^21, where the half outweighs both roundings.
fn divided(a: u32, reciprocal: f32) -> u32 {
    return u32((f32(a) + 0.5) * reciprocal);
}
