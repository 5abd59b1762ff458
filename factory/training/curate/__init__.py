"""Choose the turntables to train on."""
