"""Why is there no DAX here: what was seen of a place, the ten links that DAX hangs on, and what mends the one that is broken. Pure."""
