//! STUB
pub fn digit_codes() -> Vec<f32> {
    vec![]
}
