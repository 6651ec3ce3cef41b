"""The cases of the protocol, each against a scripted server behind a real proxy."""
