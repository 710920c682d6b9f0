"""One HTTP exchange without I/O: events in, actions out, in an order that a table states."""
