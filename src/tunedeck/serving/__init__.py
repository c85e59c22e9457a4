"""Serving: one base, thousands of adapters, mixed in one batch; no HTTP here."""
