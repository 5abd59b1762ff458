"""Train weights on turntables of real meshes."""
