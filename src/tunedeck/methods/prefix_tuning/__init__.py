"""Prefix tuning: trained keys and values in front of each layer's attention, the model untouched (arXiv 2101.00190)."""
