"""What is remembered and shown about runs."""
