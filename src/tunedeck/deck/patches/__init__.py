"""What alters the computation of a base while a block runs, and is undone after it."""
