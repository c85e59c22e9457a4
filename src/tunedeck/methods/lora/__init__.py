"""LoRA: a trainable low-rank patch B·A beside a frozen linear layer (arXiv 2106.09685)."""
