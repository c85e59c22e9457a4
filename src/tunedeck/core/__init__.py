"""Shared foundation of all packages: errors, messages, units, measurements. Loads no torch."""
