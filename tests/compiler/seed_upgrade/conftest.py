"""Two scripts to compare. They need packages that are not here, and are never imported."""

collect_ignore = ["before.py", "after.py"]
