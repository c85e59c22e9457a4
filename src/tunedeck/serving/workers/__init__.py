"""Run batches or decoding steps in the engine's thread."""
