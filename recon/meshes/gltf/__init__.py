"""Read what a glTF 2.0 scene draws, where, and in which colours."""
