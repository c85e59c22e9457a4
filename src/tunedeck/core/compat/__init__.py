"""Everything that relies on another library's private or undocumented interface, one file per library.

Each function has a test of its name in tests/core/compat, so that an upgrade that breaks one is seen there first.
"""
