"""Full fine-tuning: the method with no site; it trains its own copies of the base's tensors."""
