"""From an observed spectrum to its atmospheric parameters: what `--observation` and `--apply` do."""
