"""From a data set to trained, judged and mapped networks."""
