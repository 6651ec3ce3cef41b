"""Where the parts are put together: the only ones that know them all."""
