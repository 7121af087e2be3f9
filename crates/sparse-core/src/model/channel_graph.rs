//! The channel graph of a network: which activations share a width, and which layers connect them. Used by everything
//! that makes layers narrower.

/// Activations that share a width: those that are added to each other are in one group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group {
    /// Channels or neurons of the full network.
    pub width: usize,
    /// The smallest width it may have: `width` for the network's input and output, 0 if a shortcut bypasses it, so that
    /// it can be removed entirely, else 1.
    pub least: usize,
}

impl Group {
    /// Whether its width must not change.
    pub fn is_fixed(&self) -> bool {
        self.least == self.width
    }
}

/// A linear or convolution layer between two groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// The group it reads, by index.
    pub input: usize,
    /// The group it writes, by index.
    pub output: usize,
    /// Weights for each pair of channels: the kernel's area; for a linear layer 1, or the pixels of
    /// the maps it reads.
    pub area: usize,
    /// The number of positions of one example it is applied to: the size of the output map for a convolution, 1 for a
    /// linear layer.
    pub positions: usize,
}

/// The groups of a network and the layers between them, layers in the order of the model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChannelGraph {
    /// Groups of activations.
    pub groups: Vec<Group>,
    /// Layers.
    pub layers: Vec<Link>,
}

impl ChannelGraph {
    /// Adds a group of `width` channels, which may have as few as `least`; returns its index.
    pub fn group(&mut self, width: usize, least: usize) -> usize {
        self.groups.push(Group { width, least });
        self.groups.len() - 1
    }

    /// Adds a linear layer from group `input` to group `output`.
    pub fn linear(&mut self, input: usize, output: usize) {
        self.layers.push(Link { input, output, area: 1, positions: 1 });
    }

    /// Adds a convolution from group `input` to group `output`: a kernel of `area` pixels, applied at `positions`
    /// positions.
    pub fn convolution(&mut self, input: usize, output: usize, area: usize, positions: usize) {
        self.layers.push(Link { input, output, area, positions });
    }

    /// A chain of linear layers: an MLP of these widths, input and output fixed.
    pub fn chain(widths: &[usize]) -> Self {
        let last = widths.len().saturating_sub(1);
        let mut chain = Self::default();
        for (i, width) in widths.iter().enumerate() {
            chain.group(*width, if i == 0 || i == last { *width } else { 1 });
            if i > 0 {
                chain.linear(i - 1, i);
            }
        }
        chain
    }

    /// The groups that can be removed entirely, in order: the insides of residual blocks.
    pub fn removable(&self) -> Vec<usize> {
        (0..self.groups.len()).filter(|i| self.groups[*i].least == 0).collect()
    }

    /// The width of each group of the full network.
    pub fn widths(&self) -> Vec<usize> {
        self.groups.iter().map(|group| group.width).collect()
    }

    /// The weights of each layer, without biases, if the groups have these widths.
    pub fn sizes(&self, widths: &[usize]) -> Vec<usize> {
        self.layers.iter().map(|l| widths[l.input] * widths[l.output] * l.area).collect()
    }

    /// Multiplications and additions for one example, without biases.
    pub fn flops(&self, widths: &[usize]) -> usize {
        self.sizes(widths).iter().zip(&self.layers).map(|(size, layer)| 2 * size * layer.positions).sum()
    }

    /// The distribution of the full network's FLOPs: what remains without any removable group, and what each of those
    /// adds, as fractions that sum to 1.
    pub fn shares(&self) -> (f64, Vec<f64>) {
        let full = self.flops(&self.widths()).max(1) as f64;
        let removable = self.removable();
        let share = |group: &usize| {
            let mut without = self.widths();
            without[*group] = 0;
            1.0 - self.flops(&without) as f64 / full
        };
        let shares: Vec<f64> = removable.iter().map(share).collect();
        (1.0 - shares.iter().sum::<f64>(), shares)
    }

    /// All weights.
    pub fn weights(&self, widths: &[usize]) -> usize {
        self.sizes(widths).iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_by_hand() {
        let chain = ChannelGraph::chain(&[64, 128, 10]);
        assert_eq!(chain.sizes(&[64, 128, 10]), [64 * 128, 1280]);
        assert_eq!(chain.weights(&[64, 2, 10]), 148);
        assert_eq!(chain.groups.iter().map(Group::is_fixed).collect::<Vec<_>>(), [true, false, true]);
        assert_eq!(chain.widths(), [64, 128, 10]);
        assert!(chain.removable().is_empty());
    }

    #[test]
    fn a_residual_block_may_go() {
        let mut layout = ChannelGraph::default();
        let (input, stream) = (layout.group(3, 3), layout.group(4, 1));
        let inside = layout.group(5, 0);
        layout.convolution(input, stream, 9, 100);
        layout.convolution(stream, inside, 9, 25);
        layout.linear(inside, stream);
        assert_eq!(layout.removable(), [inside]);
        assert_eq!(layout.flops(&[3, 4, 5]), 2 * (3 * 4 * 900 + 4 * 5 * 225 + 20));
        assert_eq!(layout.flops(&[3, 4, 0]), 2 * 3 * 4 * 900);
        let (rest, shares) = layout.shares();
        assert!((rest - 10_800.0 / 15_320.0).abs() < 1e-12 && (shares[0] - 4_520.0 / 15_320.0).abs() < 1e-12);
    }
}
