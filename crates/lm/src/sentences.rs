//! Sentence embeddings of an encoder: the mean of its last hidden states, normalized to length one.

use regrow_sparse_core::{Error, Result};

use crate::perplexity::{HELD, TOGETHER};
use crate::text::batch;
use crate::transformer::Transformer;

/// The embedding of each of `sentences` (token numbers, special ones included): the mean over its tokens
/// of the hidden states after the last block, divided by its norm, as sentence-transformers pools.
///
/// `watch` is called with the finished sentences and the total.
///
/// # Errors
/// Weights that are missing or not finite, a sentence without tokens or longer than the model's context.
pub fn embeddings(
    model: &Transformer,
    sentences: &[Vec<u32>],
    watch: &mut dyn FnMut(usize, usize),
) -> Result<Vec<Vec<f32>>> {
    if let Some(bad) = sentences.iter().find(|s| s.is_empty() || s.len() > model.config.context) {
        let context = model.config.context;
        return Err(Error::Argument(format!("a sentence of {} tokens: this model takes 1 to {context}", bad.len())));
    }
    // Sentences of one length go together: no padding, no masks.
    let mut order: Vec<usize> = (0..sentences.len()).collect();
    order.sort_by_key(|i| sentences[*i].len());
    let (embedding, mut found, mut done) = (model.embedding()?, vec![Vec::new(); sentences.len()], 0);
    for held in chunks(&order, |i| sentences[*i].len(), HELD) {
        let parts: Vec<&[usize]> = held
            .chunk_by(|a, b| sentences[*a].len() == sentences[*b].len())
            .flat_map(|run| run.chunks((TOGETHER / sentences[run[0]].len()).max(1)))
            .collect();
        let ids = |part: &&[usize]| part.iter().map(|i| sentences[*i].as_slice()).collect::<Vec<_>>();
        let mut hidden: Vec<_> =
            parts.iter().map(|part| embedding.forward(batch(&ids(part), model.device()))).collect();
        model.run(&mut hidden)?;
        for (part, x) in parts.iter().zip(hidden) {
            let width = x.dims()[2];
            let means: Vec<f32> = x.mean_dim(1).into_data().convert::<f32>().iter().collect();
            for (i, mean) in part.iter().zip(means.chunks(width)) {
                let norm = mean.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt().max(1e-12);
                found[*i] = mean.iter().map(|v| (f64::from(*v) / norm) as f32).collect();
            }
        }
        done += held.len();
        watch(done, sentences.len());
    }
    Ok(found)
}

/// Consecutive runs of `items` whose sizes sum to at most `most`, or of one item.
fn chunks<T>(items: &[T], size: impl Fn(&T) -> usize, most: usize) -> Vec<&[T]> {
    let (mut found, mut start, mut sum) = (Vec::new(), 0, 0);
    for (i, item) in items.iter().enumerate() {
        if sum + size(item) > most && i > start {
            found.push(&items[start..i]);
            (start, sum) = (i, 0);
        }
        sum += size(item);
    }
    if start < items.len() {
        found.push(&items[start..]);
    }
    found
}

/// The cosine of two embeddings of length one.
pub fn cosine(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_fill_up_and_a_large_item_stands_alone() {
        assert_eq!(chunks(&[1, 2, 3, 9, 1], |n| *n, 6), [&[1, 2, 3][..], &[9], &[1]]);
        assert!(chunks(&[] as &[usize], |n| *n, 6).is_empty());
    }
}
