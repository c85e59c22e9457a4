"""Methods compared: what to compare, the runs, what is measured afterwards, and the result that the report reads."""
