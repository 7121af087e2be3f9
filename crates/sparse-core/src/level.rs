//! Which instructions the kernels use.

use std::fmt;
use std::sync::OnceLock;

/// A set of instructions that this processor has: there is no other way to a value of this type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Level(Kind);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Level {
    #[cfg(target_arch = "x86_64")]
    pub(super) const AVX2: Self = Self(Kind::Avx2);
    #[cfg(target_arch = "x86_64")]
    pub(super) const AVX512: Self = Self(Kind::Avx512);

    /// Those that this processor has, the slowest first: portable code always, AVX2 (with FMA and F16C),
    /// AVX-512 (F, BW, VL, VBMI2: Ice Lake, Zen 4 and later).
    pub fn all() -> Vec<Self> {
        #[allow(unused_mut, reason = "other processors have no more")]
        let mut all = vec![Self(Kind::Portable)];
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("f16c")
                && is_x86_feature_detected!("popcnt");
            let avx512 = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512vbmi2");
            all.extend(avx2.then_some(Self::AVX2));
            all.extend((avx2 && avx512).then_some(Self::AVX512));
        }
        all
    }

    /// The fastest of them.
    pub fn best() -> Self {
        static BEST: OnceLock<Level> = OnceLock::new();
        *BEST.get_or_init(|| Self::all().pop().unwrap_or(Self(Kind::Portable)))
    }

    pub(super) fn is_avx512(self) -> bool {
        match self.0 {
            Kind::Portable => false,
            #[cfg(target_arch = "x86_64")]
            kind => kind == Kind::Avx512,
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Kind::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => "AVX2",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => "AVX-512",
        })
    }
}
