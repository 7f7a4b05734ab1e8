"""The Hydra groups and experiments; see `podproof compile --help`."""
