"""Free ozone: pools, campaigns and claims."""
