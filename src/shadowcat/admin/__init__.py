"""The admin listener: health, metrics, sessions and events of a running proxy, on a port of its own."""
