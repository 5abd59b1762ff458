"""What happens to a prompt, one file a stage, in order."""
