"""Find problems in a data file before training. Loads no torch."""
