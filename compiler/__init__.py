"""Config to script: read, check, lower, bundle."""
