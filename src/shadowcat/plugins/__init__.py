"""Interceptors, taps and wrappers to add to a proxy, each in a file or package of its own."""
