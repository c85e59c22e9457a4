"""Run inference with a deck or with an exported graph."""
