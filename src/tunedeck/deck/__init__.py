"""The deck: a frozen base with named adapters, and the rows of a batch routed among them."""
