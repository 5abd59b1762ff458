"""Which turntables are trained on."""
