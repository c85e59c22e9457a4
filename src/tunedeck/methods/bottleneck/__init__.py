"""Bottleneck adapters: down-projection, non-linearity, up-projection, added to a sub-block's output (arXiv
1902.00751).
"""
