"""Looking after a running proxy: health, numbers, sessions and what happens, on a listener of its own."""
