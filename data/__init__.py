"""The shipped data set, and the scripts that made it."""
