"""Measurements: what Shadowcat costs beside programs that do the same job, in the same run on the same machine."""
