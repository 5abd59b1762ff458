"""The Ray Train job."""
