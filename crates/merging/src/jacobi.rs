//! Eigenvalues and eigenvectors of many small symmetric matrices by Jacobi rotations, several matrices in parallel:
//! each step does the same for all of them, a few instructions for as many numbers as fit in a register.

/// Matrices that are processed in parallel.
pub(crate) const LANES: usize = 8;

/// One number of each of them.
pub(crate) type Lane = [f64; LANES];

/// Sweeps over all pairs after which all have converged; seven are many.
const SWEEPS: usize = 40;
/// The share of the squared norm off the diagonal that counts as zero.
const NEGLIGIBLE: f64 = 1e-28;

/// Eigenvalues on the diagonal of `gram [n, n]`, of which the upper half is read, and their eigenvectors as the columns
/// of `vectors [n, n]`, in no particular order.
pub(crate) fn eigen(gram: &mut [Lane], vectors: &mut [Lane], n: usize) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has the instructions that the function was compiled for.
        return unsafe { wide(gram, vectors, n) };
    }
    sweeps(gram, vectors, n);
}

/// The same for processors with wider registers.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn wide(gram: &mut [Lane], vectors: &mut [Lane], n: usize) {
    sweeps(gram, vectors, n);
}

#[inline(always)]
fn sweeps(gram: &mut [Lane], vectors: &mut [Lane], n: usize) {
    let (gram, vectors) = (&mut gram[..n * n], &mut vectors[..n * n]);
    vectors.iter_mut().enumerate().for_each(|(i, v)| *v = [f64::from(u8::from(i / n == i % n)); LANES]);
    for _ in 0..SWEEPS {
        if converged(gram, n) {
            return;
        }
        for p in 0..n {
            for q in p + 1..n {
                rotate(gram, vectors, n, p, q);
            }
        }
    }
}

#[inline(always)]
fn converged(gram: &[Lane], n: usize) -> bool {
    let (mut off, mut all) = ([0.0; LANES], [0.0; LANES]);
    for p in 0..n {
        for q in p..n {
            for t in 0..LANES {
                let square = gram[p * n + q][t] * gram[p * n + q][t];
                all[t] += square;
                off[t] += if p == q { 0.0 } else { square };
            }
        }
    }
    // NaN counts as converged: the caller sees it in the eigenvalues.
    (0..LANES).all(|t| off[t] <= NEGLIGIBLE * all[t] || off[t].is_nan())
}

/// Rotates rows and columns `p` and `q` so that their common entry becomes zero.
#[inline(always)]
fn rotate(gram: &mut [Lane], vectors: &mut [Lane], n: usize, p: usize, q: usize) {
    let (cross, first, second) = (gram[p * n + q], gram[p * n + p], gram[q * n + q]);
    let (mut cosine, mut sine) = ([0.0; LANES], [0.0; LANES]);
    for t in 0..LANES {
        let (apart, twice) = (second[t] - first[t], 2.0 * cross[t]);
        let length = apart.abs() + (apart * apart + twice * twice).sqrt();
        let tangent = if length > 0.0 { twice / length } else { 0.0 };
        let tangent = if apart < 0.0 { -tangent } else { tangent };
        cosine[t] = 1.0 / (1.0 + tangent * tangent).sqrt();
        sine[t] = tangent * cosine[t];
        gram[p * n + p][t] = first[t] - tangent * cross[t];
        gram[q * n + q][t] = second[t] + tangent * cross[t];
    }
    gram[p * n + q] = [0.0; LANES];
    for k in 0..p {
        pair(gram, k * n + p, k * n + q, &cosine, &sine);
    }
    for k in p + 1..q {
        pair(gram, p * n + k, k * n + q, &cosine, &sine);
    }
    for k in q + 1..n {
        pair(gram, p * n + k, q * n + k, &cosine, &sine);
    }
    for k in 0..n {
        pair(vectors, k * n + p, k * n + q, &cosine, &sine);
    }
}

#[inline(always)]
fn pair(values: &mut [Lane], a: usize, b: usize, cosine: &Lane, sine: &Lane) {
    let (x, y) = (values[a], values[b]);
    for t in 0..LANES {
        values[a][t] = cosine[t] * x[t] - sine[t] * y[t];
        values[b][t] = sine[t] * x[t] + cosine[t] * y[t];
    }
}

#[cfg(test)]
mod tests {
    use faer::Mat;

    use super::*;
    use crate::low_rank::eigen as reference;
    use crate::low_rank::tests::noise;

    #[test]
    fn eigenvalues_are_faer_s_and_vectors_span_the_matrix() {
        for n in 1..=17 {
            // Some of full rank, some of less, one of zeros, one of equal eigenvalues.
            let rows = |t: usize| if t == 6 { 0 } else { 1 + (t * n) / 5 };
            let of = |t: usize| -> Vec<f64> {
                let x = noise(rows(t) * n, (100 * n + t) as u64);
                let entry = |i: usize, j: usize| match t {
                    7 => f64::from(u8::from(i == j)),
                    _ => (0..rows(t)).map(|r| f64::from(x[r * n + i]) * f64::from(x[r * n + j])).sum(),
                };
                (0..n * n).map(|k| entry(k / n, k % n)).collect()
            };
            let all: Vec<Vec<f64>> = (0..LANES).map(of).collect();
            let mut gram: Vec<Lane> = (0..n * n).map(|k| std::array::from_fn(|t| all[t][k])).collect();
            let mut vectors = vec![[0.0; LANES]; n * n];
            eigen(&mut gram, &mut vectors, n);
            for (t, matrix) in all.iter().enumerate() {
                let mut found: Vec<f64> = (0..n).map(|i| gram[i * n + i][t]).collect();
                let largest = found.iter().copied().fold(1e-30, f64::max);
                for i in 0..n {
                    for j in 0..n {
                        let back: f64 = (0..n).map(|k| found[k] * vectors[i * n + k][t] * vectors[j * n + k][t]).sum();
                        assert!((back - matrix[i * n + j]).abs() < 1e-12 * largest, "{n} {t}: {i} {j}");
                        let unit: f64 = (0..n).map(|k| vectors[k * n + i][t] * vectors[k * n + j][t]).sum();
                        assert!((unit - f64::from(u8::from(i == j))).abs() < 1e-12);
                    }
                }
                found.sort_by(|a, b| b.total_cmp(a));
                let (wanted, _) = reference(&Mat::from_fn(n, n, |i, j| matrix[i * n + j])).unwrap();
                assert!(found.iter().zip(wanted).all(|(f, w)| (f - w).abs() < 1e-12 * largest), "{n} {t}");
            }
        }
    }
}
