"""A small T5 that turns short prompts into descriptive ones; its encoder is the text encoder of latent diffusion.

- ``objective.UpsamplingObjective``, ``sample.PromptUpsampler``: prompts are rewritten to look like the captions that
  the U-Net learned from (DALL-E 3 report, section 3.5 and appendix C, with GPT-4).
- ``model.new_t5``: encoder-decoder with relative position buckets (Raffel et al. 2020, section 2.1).
- ``sample.extract_text_encoder``: the T5 encoder that the U-Net reads (DALL-E 3 report, appendix A).
"""
