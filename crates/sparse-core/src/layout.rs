//! How a network's layers hang together: which activations have one width, and what lies between
//! them. For whatever makes layers narrower.

/// Activations of one width: those that are added to each other share a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group {
    /// Channels or neurons of the full network.
    pub width: usize,
    /// Whether it must stay so: the network's input and output.
    pub fixed: bool,
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
}

/// The groups of a network and the layers between them, layers in the order of the model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// Groups of activations.
    pub groups: Vec<Group>,
    /// Layers.
    pub layers: Vec<Link>,
}

impl Layout {
    /// Adds a group of so many channels; its index.
    pub fn group(&mut self, width: usize, fixed: bool) -> usize {
        self.groups.push(Group { width, fixed });
        self.groups.len() - 1
    }

    /// Adds a layer from group `input` to group `output`.
    pub fn layer(&mut self, input: usize, output: usize, area: usize) {
        self.layers.push(Link { input, output, area });
    }

    /// A chain of layers without kernels: an MLP of these widths, input and output fixed.
    pub fn chain(widths: &[usize]) -> Self {
        let last = widths.len().saturating_sub(1);
        let mut chain = Self::default();
        for (i, width) in widths.iter().enumerate() {
            chain.group(*width, i == 0 || i == last);
            if i > 0 {
                chain.layer(i - 1, i, 1);
            }
        }
        chain
    }

    /// The width of each group of the full network.
    pub fn widths(&self) -> Vec<usize> {
        self.groups.iter().map(|group| group.width).collect()
    }

    /// The weights of each layer, without biases, where the groups have these widths.
    pub fn sizes(&self, widths: &[usize]) -> Vec<usize> {
        self.layers.iter().map(|l| widths[l.input] * widths[l.output] * l.area).collect()
    }

    /// All of them.
    pub fn weights(&self, widths: &[usize]) -> usize {
        self.sizes(widths).iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_by_hand() {
        let chain = Layout::chain(&[64, 128, 10]);
        assert_eq!(chain.sizes(&[64, 128, 10]), [64 * 128, 1280]);
        assert_eq!(chain.weights(&[64, 2, 10]), 148);
        assert!(chain.groups[0].fixed && !chain.groups[1].fixed && chain.groups[2].fixed);
        assert_eq!(chain.widths(), [64, 128, 10]);
    }
}
