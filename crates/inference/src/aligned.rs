//! Numbers that start at a cache line, so that a vector never spans two lines.

use std::ops::{Deref, DerefMut};

/// Bytes in a cache line.
const LINE: usize = 64;

/// A buffer of numbers, initially zero.
pub(super) struct Aligned {
    room: Vec<f32>,
    start: usize,
    len: usize,
}

impl Aligned {
    pub(super) fn zeros(len: usize) -> Self {
        let room = vec![0.0; len + LINE / size_of::<f32>()];
        // If the offset cannot be determined, the start works too, only slower.
        let start = room.as_ptr().align_offset(LINE).min(LINE / size_of::<f32>());
        Self { room, start, len }
    }
}

impl Deref for Aligned {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.room[self.start..][..self.len]
    }
}

impl DerefMut for Aligned {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.room[self.start..][..self.len]
    }
}
