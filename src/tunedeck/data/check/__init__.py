"""What is wrong with a data file, before it costs anything. Loads no torch."""
