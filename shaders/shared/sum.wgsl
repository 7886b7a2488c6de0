// The sum over a workgroup of WG invocations, a power of two that the including file declares.
var<workgroup> lanes: array<f32, WG>;

// Sum of `v` over the workgroup, in every lane, by a tree. Uniform control flow only.
fn group_sum(lane: u32, v: f32) -> f32 {
    workgroupBarrier();
    lanes[lane] = v;
    for (var width = WG / 2u; width > 0u; width /= 2u) {
        workgroupBarrier();
        if lane < width { lanes[lane] += lanes[lane + width]; }
    }
    workgroupBarrier();
    return lanes[0];
}
