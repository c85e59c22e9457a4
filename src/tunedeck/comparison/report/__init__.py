"""What a comparison says: intervals, a recommendation, tables, figures, pages. Takes plain values, runs nothing."""
