"""Local servers that speak providers' protocols."""
