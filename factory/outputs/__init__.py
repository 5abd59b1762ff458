"""What people do with a finished run: gallery, export, viewer, run reader."""
