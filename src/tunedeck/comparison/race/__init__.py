"""Find a good setting among many for a part of their cost: candidates in rungs, eliminated by paired differences."""
