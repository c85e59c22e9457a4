"""Scores: regression, ordinal scales, relevance."""
