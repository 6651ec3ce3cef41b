"""Bytes to values and back: pure functions and decoders, no I/O."""
