"""What a comparison of methods says: intervals, the front, a recommendation, figures, a page. Takes plain values, runs nothing."""
