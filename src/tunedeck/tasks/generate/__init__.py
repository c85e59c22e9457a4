"""Chat and text generation."""
