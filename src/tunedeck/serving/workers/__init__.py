"""What the engine's thread runs: batches, or decoding steps."""
