"""Text-to-image diffusion in the VAE's latent space: T5, stock U-Net, AutoencoderKL, as DALL-E 3 describes its own.

- ``model.new_unet``: modulated GroupNorm and cross-attention to T5 (DALL-E 3 report, appendix A; Rombach et al. 2022,
  section 3.3); residual branches start at zero (Dhariwal and Nichol 2021, appendix on architecture).
- ``objective.FlowMatchingObjective``: rectified flow (Liu et al. 2022, equation 1) with logit-normal times (Esser et
  al. 2024, section 3.1).
- ``objective.LatentDiffusion.batch``: blend of synthetic and original captions (DALL-E 3 report, section 3.4).
- ``sample.generate``: classifier-free guidance (Ho and Salimans 2022, equation 6), through the stock pipeline.

Unlike DALL-E 3's, the small T5 may be trained on together with the U-Net.
"""
