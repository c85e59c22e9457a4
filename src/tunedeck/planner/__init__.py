"""Memory, time and money before a run, and the truth after it. Nothing here loads torch."""
