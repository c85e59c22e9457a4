"""Patches: changes to what a base computes, in force while a block runs and undone after it."""
