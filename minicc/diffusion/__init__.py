"""The mathematics of diffusion: no parameters live here."""
