"""AutoencoderKL that gives latent diffusion its latents (Rombach et al. 2022, section 3.1).

- ``model.new_vae``: E and D of section 3.1, the stock ``AutoencoderKL``.
- ``objective.VaeObjective``: section 3.1's regularised reconstruction, moments and fixed noise in place of a KL term.
- ``pooling.start_as_average_pooling``: initial weights that already give a picture back, only coarser (ours).
- ``model.standardise``: latents rescaled to unit variance, appendix G.

The reconstruction loss is pixel-wise; the paper's perceptual and adversarial terms are left out, because sharp detail
is the diffusion decoder's work.
"""
