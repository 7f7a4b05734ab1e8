"""Everything that can cost money."""
