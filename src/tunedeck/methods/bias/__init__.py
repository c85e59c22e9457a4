"""Training the biases (BitFit, arXiv 2106.10199) and the norms (arXiv 2312.11420) of a frozen base."""
