"""Settings: one YAML file into a frozen tree, or every problem in it with its `$.path`."""
