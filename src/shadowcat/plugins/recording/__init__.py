"""Recording: what passes, written down as tapes, without holding up anything that passes."""
