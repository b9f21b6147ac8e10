"""The student: the diffusion decoder distilled to two steps (Betker et al. 2023, DALL-E 3, appendix B).

| source | here |
|---|---|
| consistency distillation, Song et al. 2023 (arXiv:2303.01469), algorithm 2 | ``objective.ConsistencyObjective`` |
| boundary condition, Song et al. 2023, equation 5 | ``components.diffusion.scalings`` |
| pseudo-Huber distance, Song and Dhariwal 2024 (arXiv:2310.14189), section 3.3 | ``objective.pseudo_huber`` |
| number of scales that doubles, the same paper, section 3.4 | ``objective.num_scales_at`` |
| rows that learn from data, Kim et al. 2024 (arXiv:2310.02279) | ``objective.ConsistencyObjective`` |
| two-step sampling, Song et al. 2023, algorithm 1 | ``sample.decode`` |

It is saved as a stock ``ConsistencyDecoderVAE``, for ``StableDiffusionPipeline.from_pretrained(..., vae=...)``.
"""
