"""The methods: each a small module at a site of a frozen model."""
