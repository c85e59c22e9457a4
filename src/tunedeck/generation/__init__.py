"""Decoding: prompts to tokens, with many adapters in one batch."""
