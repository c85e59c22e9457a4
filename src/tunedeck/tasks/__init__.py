"""Tasks: what a base is adapted for, how its data becomes tensors and its output becomes answers."""
