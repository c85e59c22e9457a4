"""What computes: a deck, or an exported graph."""
