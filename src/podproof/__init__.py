"""Compile a Hydra config into one proven pod script, and launch it exactly once."""
