"""From a data set to trained, evaluated and mapped networks."""
