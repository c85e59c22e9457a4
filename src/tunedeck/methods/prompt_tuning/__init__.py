"""Prompt tuning: trained virtual tokens in front of the real ones, the model untouched (arXiv 2104.08691)."""
