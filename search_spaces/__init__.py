"""The sweeps that come with the package, one YAML file each; ``orch spaces`` lists them."""
