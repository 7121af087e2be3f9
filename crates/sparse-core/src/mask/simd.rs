//! Which instructions the inner loops use, detected at run time.

use std::fmt;
use std::sync::OnceLock;

/// A set of instructions that this processor has; a value of this type can be obtained in no other way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SimdLevel(Kind);

/// The name of a [`SimdLevel`]; it does not prove that the processor has the instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// What every processor of the architecture has.
    Portable,
    /// AVX2, with FMA, F16C and POPCNT.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX-512 F, BW, VL and VBMI2, and what AVX2 has.
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl SimdLevel {
    #[cfg(target_arch = "x86_64")]
    pub(crate) const AVX2: Self = Self(Kind::Avx2);
    #[cfg(target_arch = "x86_64")]
    pub(crate) const AVX512: Self = Self(Kind::Avx512);

    /// The levels that this processor has, the slowest first: portable code always, AVX2 (with FMA and F16C), AVX-512
    /// (F, BW, VL, VBMI2: Ice Lake, Zen 4 and later).
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
        static BEST: OnceLock<SimdLevel> = OnceLock::new();
        *BEST.get_or_init(|| Self::all().pop().unwrap_or(Self(Kind::Portable)))
    }

    /// Its name.
    pub fn kind(self) -> Kind {
        self.0
    }

    /// Whether AVX-512 is used.
    pub fn is_avx512(self) -> bool {
        match self.0 {
            Kind::Portable => false,
            #[cfg(target_arch = "x86_64")]
            kind => kind == Kind::Avx512,
        }
    }
}

/// An inner loop that is compiled for each level; the compiler vectorizes it.
pub trait SimdKernel {
    /// Its result.
    type Output;

    /// Runs the loop on `level`. Mark it and the functions it calls `#[inline(always)]`: a function that is not inlined
    /// is compiled without these instructions.
    fn done(self, level: SimdLevel) -> Self::Output;
}

impl SimdLevel {
    /// Runs `work` with these instructions.
    pub fn run<W: SimdKernel>(self, work: W) -> W::Output {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: such a level exists only if the processor has the instructions.
        match self.0 {
            Kind::Avx512 => return unsafe { with_avx512(work) },
            Kind::Avx2 => return unsafe { with_avx2(work) },
            Kind::Portable => {}
        }
        work.done(self)
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c,popcnt,avx512f,avx512bw,avx512vl,avx512vbmi2")]
fn with_avx512<W: SimdKernel>(work: W) -> W::Output {
    work.done(SimdLevel::AVX512)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c,popcnt")]
fn with_avx2<W: SimdKernel>(work: W) -> W::Output {
    work.done(SimdLevel::AVX2)
}

impl fmt::Display for SimdLevel {
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
