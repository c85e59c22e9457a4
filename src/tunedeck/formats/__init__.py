"""Adapter folders on disk: PEFT's, AdapterHub's and our own for what those lack."""
