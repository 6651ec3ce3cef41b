"""Decisions: pure functions and state, no I/O; time and randomness are arguments."""
