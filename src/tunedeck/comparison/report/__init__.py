"""Build the report of a comparison (intervals, recommendation, tables, figures, pages) from plain values."""
