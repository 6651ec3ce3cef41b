"""Recording: writes messages to tapes without holding any of them up."""
