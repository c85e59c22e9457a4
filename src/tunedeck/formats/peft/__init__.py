"""PEFT's adapter folders (peft 0.21.2): `folder` reads and writes them, each other module one kind of adapter."""
