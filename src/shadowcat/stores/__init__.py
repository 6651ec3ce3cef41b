"""Session and stream stores. Each implements the ports of `core.ports`."""
