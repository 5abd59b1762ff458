"""Use a finished run, by gallery, export, viewer and run reader."""
