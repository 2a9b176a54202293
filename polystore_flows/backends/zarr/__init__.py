"""OME-Zarr plates on a file system."""
