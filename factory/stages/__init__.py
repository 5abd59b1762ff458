"""Make an asset of a prompt, one file a stage, in order."""
