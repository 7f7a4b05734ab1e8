"""What rides in the pod; standard library only when imported."""
