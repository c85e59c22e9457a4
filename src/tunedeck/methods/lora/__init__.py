"""LoRA: a trainable low-rank update B·A of a frozen linear layer (arXiv 2106.09685)."""
