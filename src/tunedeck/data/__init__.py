"""Data sets: reading tables, labelled examples, splitting. Loads no torch."""
