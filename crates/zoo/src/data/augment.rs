//! Augmentation of small images: pad and crop, mirror.

use rand::{Rng, RngExt};

/// How a training image is augmented.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Augmentation {
    /// Nothing.
    #[default]
    None,
    /// `pad` zeros on every side, a crop of the original size at random, mirrored half the time
    /// (He et al., arXiv 1512.03385, sec. 4.2, with `pad` 4).
    CropFlip {
        /// Zeros on every side.
        pad: usize,
    },
}

impl Augmentation {
    /// One image of `size` (channels, height, width), augmented.
    pub fn apply(&self, image: &[u8], size: [usize; 3], rng: &mut impl Rng) -> Vec<u8> {
        match *self {
            Self::None => image.to_vec(),
            Self::CropFlip { pad } => {
                let (down, right) = (rng.random_range(0..=2 * pad), rng.random_range(0..=2 * pad));
                let image = shifted(image, size, down as isize - pad as isize, right as isize - pad as isize);
                if rng.random_bool(0.5) { mirrored(&image, size) } else { image }
            }
        }
    }
}

/// The crop that starts at row `down`, column `right` of the image; zeros outside of it.
fn shifted(image: &[u8], [_, h, w]: [usize; 3], down: isize, right: isize) -> Vec<u8> {
    let at = |i: usize| {
        let (plane, y, x) = (i / (h * w), (i / w % h) as isize + down, (i % w) as isize + right);
        let inside = (0..h as isize).contains(&y) && (0..w as isize).contains(&x);
        if inside { image[plane * h * w + y as usize * w + x as usize] } else { 0 }
    };
    (0..image.len()).map(at).collect()
}

fn mirrored(image: &[u8], [_, _, w]: [usize; 3]) -> Vec<u8> {
    image.chunks(w).flat_map(|row| row.iter().rev().copied()).collect()
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    const IMAGE: [u8; 9] = [1, 2, 3, 4, 5, 6, 7, 8, 9];

    #[test]
    fn shifts_and_mirrors_by_eye() {
        assert_eq!(shifted(&IMAGE, [1, 3, 3], 1, -1), [0, 4, 5, 0, 7, 8, 0, 0, 0]);
        assert_eq!(mirrored(&IMAGE, [1, 3, 3]), [3, 2, 1, 6, 5, 4, 9, 8, 7]);
        assert_eq!(mirrored(&mirrored(&IMAGE, [1, 3, 3]), [1, 3, 3]), IMAGE);
    }

    #[test]
    fn one_seed_one_result() {
        let draw =
            |seed| Augmentation::CropFlip { pad: 2 }.apply(&IMAGE, [1, 3, 3], &mut ChaCha8Rng::seed_from_u64(seed));
        assert_eq!(draw(3), draw(3));
        assert!((0..20).any(|seed| draw(seed) != draw(3)));
        assert_eq!(Augmentation::None.apply(&IMAGE, [1, 3, 3], &mut ChaCha8Rng::seed_from_u64(1)), IMAGE);
    }
}
