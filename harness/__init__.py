"""What a script must pass before money is spent."""
