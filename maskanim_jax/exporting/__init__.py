"""How does animation leave the project? As files that other programs run."""
