"""glTF 2.0 read for pictures: what is drawn in its scene, where, and in which colours."""
