"""The teacher: a pixel-space diffusion decoder that reads the VAE's latents (Betker et al. 2023, DALL-E 3, appendix B).

| source | here |
|---|---|
| DALL-E 3, appendix B: a diffusion decoder on the VAE's latents, U-Net of Ho et al. 2020 | ``model.new_decoder`` |
| denoising loss, Karras et al. 2022, equation 8 | ``objective.DenoisingObjective`` |
| initial weights of a linear denoiser (ours) | ``linear_start.start_as_linear_denoiser`` |
| cosine schedule and scalings of openai/consistencydecoder | ``components.diffusion`` |
| deterministic sampling, Song et al. 2021 (DDIM) | ``sample.decode`` |

It is saved as the stock ``ConsistencyDecoderVAE`` that its student will be, so that two undistilled steps need no code.
"""
