"""(IA)³: trained vectors that scale keys, values and the inside of each feed-forward block (arXiv 2205.05638)."""
