//! Numbers that look random and are the same in every run: splitmix64.
//! The seed is fixed, or given as `GODWIT_FAULT_SEED`, and printed.

use crate::case::setting;

pub struct Random(u64);

impl Random {
    pub fn seeded() -> Self {
        let seed = setting("GODWIT_FAULT_SEED").map_or(20_261_121, |text| text.parse().unwrap());
        println!("GODWIT_FAULT_SEED={seed}");
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0, less than `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}
