"""Training: a run file, the visible loop, and what it leaves behind."""
